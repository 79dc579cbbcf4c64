"""Prompts of a job: inspected whole, pinned, and read again shard by shard."""

from __future__ import annotations

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from frazil_jobs.api.generationjob import Prompts
from frazil_jobs.base.exits import BadConfiguration, BadInput
from frazil_jobs.inputs import prompts as prompts_module
from frazil_jobs.inputs.access import Access
from frazil_jobs.inputs.prompts import inspect_prompts, iter_rows, open_prompts, read_rows


@pytest.fixture
def access(tmp_path: Path) -> Access:
    return Access(cache=tmp_path / "cache")


def write(path: Path, *documents: dict) -> Path:
    path.write_text("".join(json.dumps(document) + "\n" for document in documents))
    return path


def test_a_file_is_pinned_by_the_sha256_of_its_bytes_its_rows_and_its_shards(tmp_path, access):
    path = write(tmp_path / "prompts.jsonl", *({"prompt": f"picture {n}"} for n in range(10)))
    pin = inspect_prompts(Prompts(uri="prompts.jsonl", per_shard=4), base_dir=tmp_path, access=access)
    assert pin.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert (pin.count, pin.shards, pin.format, pin.size) == (10, 3, "jsonl", path.stat().st_size)
    assert [pin.span(shard) for shard in range(3)] == [(0, 4), (4, 4), (8, 2)]


def test_a_shard_reads_its_own_rows(tmp_path, access):
    write(tmp_path / "prompts.jsonl", *({"prompt": f"picture {n}", "seed": n} for n in range(10)))
    prompts = Prompts(uri="prompts.jsonl", per_shard=4)
    pin = inspect_prompts(prompts, base_dir=tmp_path, access=access)
    rows = read_rows(prompts, pin, first=4, count=4, base_dir=tmp_path, access=access)
    assert [row.seed for row in rows] == [4, 5, 6, 7]
    assert [(index, row.seed) for index, row in iter_rows(prompts, pin, base_dir=tmp_path, access=access)] == [
        (n, n) for n in range(10)
    ]


@pytest.mark.parametrize("spans", [[(0, 2), (8, 2)], [(8, 2), (0, 2)], [(3, 1)], [(0, 10)], [(5, 0)], []])
def test_any_spans_are_read_in_one_pass(tmp_path, access, spans):
    write(tmp_path / "prompts.jsonl", *({"prompt": f"picture {n}", "seed": n} for n in range(10)))
    with open_prompts(Prompts(uri="prompts.jsonl"), base_dir=tmp_path, access=access) as file:
        found = [(index, row.seed) for index, _, row in file.rows(spans)]
    assert found == [(n, n) for first, count in sorted(spans) for n in range(first, first + count)]


def test_inline_prompts_are_pinned_too(tmp_path, access):
    prompts = Prompts(inline=["a cat", "a dog"])
    pin = inspect_prompts(prompts, base_dir=tmp_path, access=access)
    assert (pin.count, pin.format) == (2, "inline")
    assert [row.prompt for _, row in iter_rows(prompts, pin, base_dir=tmp_path, access=access)] == ["a cat", "a dog"]
    other = inspect_prompts(Prompts(inline=["a cat", "a cow"]), base_dir=tmp_path, access=access)
    assert other.sha256 != pin.sha256


def test_a_bad_inline_prompt_is_named_by_its_place(tmp_path, access):
    with pytest.raises(BadInput, match=r"spec\.prompts\.inline \[1\]: `prompt` is empty"):
        inspect_prompts(Prompts(inline=["a cat", "  "]), base_dir=tmp_path, access=access)


def test_a_malformed_line_is_named_with_file_and_number_and_is_bad_input(tmp_path, access):
    lines = [json.dumps({"prompt": f"picture {n}"}) for n in range(30)]
    lines[16] = '{"prompt": "picture 16"'
    (tmp_path / "prompts.jsonl").write_text("\n".join(lines))
    with pytest.raises(BadInput, match=r"^prompts\.jsonl line 17: not JSON: ") as caught:
        inspect_prompts(Prompts(uri="prompts.jsonl"), base_dir=tmp_path, access=access)
    assert caught.value.exit_code == 65


def test_lines_are_numbered_as_an_editor_does_blank_ones_included(tmp_path, access):
    (tmp_path / "prompts.csv").write_text('prompt,seed\n\n"two\nlines",1\n\na,x\n')
    with pytest.raises(BadInput, match=r"prompts\.csv line 6: `seed`"):
        inspect_prompts(Prompts(uri="prompts.csv"), base_dir=tmp_path, access=access)


def test_up_to_ten_bad_rows_are_told_at_once(tmp_path, access):
    (tmp_path / "prompts.jsonl").write_text("nonsense\n" * 30)
    with pytest.raises(BadInput) as caught:
        inspect_prompts(Prompts(uri="prompts.jsonl"), base_dir=tmp_path, access=access)
    assert str(caught.value).count("prompts.jsonl line ") == 10
    assert "there may be more" in str(caught.value)


def test_an_id_that_comes_twice_is_refused_with_both_places(tmp_path, access):
    write(tmp_path / "p.jsonl", {"prompt": "a", "id": "x"}, {"prompt": "b", "id": "y"}, {"prompt": "c", "id": "x"})
    with pytest.raises(BadInput, match=r"p\.jsonl line 3: the id 'x' is there twice, first at line 1"):
        inspect_prompts(Prompts(uri="p.jsonl"), base_dir=tmp_path, access=access)


@pytest.mark.parametrize("data", [b"", b"\n\n", b"\xef\xbb\xbf", b"  \r\n"])
def test_a_file_without_a_prompt_is_refused(tmp_path, access, data):
    (tmp_path / "p.jsonl").write_bytes(data)
    with pytest.raises(BadInput, match="holds no prompt"):
        inspect_prompts(Prompts(uri="p.jsonl"), base_dir=tmp_path, access=access)


def test_more_rows_than_file_names_have_digits_for_are_refused(tmp_path, access, monkeypatch):
    monkeypatch.setattr(prompts_module, "MAX_ROWS", 100)
    (tmp_path / "p.jsonl").write_text('{"prompt": "a"}\n' * 101)
    with pytest.raises(BadInput, match="has 101 prompts or more; one job takes at most"):
        inspect_prompts(Prompts(uri="p.jsonl"), base_dir=tmp_path, access=access)


def test_a_file_that_changed_since_it_was_inspected_is_bad_input(tmp_path, access):
    path = write(tmp_path / "p.jsonl", {"prompt": "a"}, {"prompt": "b"})
    prompts = Prompts(uri="p.jsonl")
    pin = inspect_prompts(prompts, base_dir=tmp_path, access=access)
    write(path, {"prompt": "a"}, {"prompt": "c"})
    with pytest.raises(BadInput, match="is not the file that was inspected"):
        read_rows(prompts, pin, first=0, count=1, base_dir=tmp_path, access=access)


def test_a_file_that_is_written_while_it_is_read_is_bad_input(tmp_path, access):
    path = write(tmp_path / "p.jsonl", {"prompt": "a"})
    with (
        pytest.raises(BadInput, match="was changed while it was read"),
        open_prompts(Prompts(uri="p.jsonl"), base_dir=tmp_path, access=access) as file,
    ):
        file.inspect()
        with path.open("a") as more:
            more.write('{"prompt": "b"}\n')


def test_no_such_file_gets_the_nearest_name_and_is_bad_configuration(tmp_path, access):
    write(tmp_path / "prompts.jsonl", {"prompt": "a"})
    with pytest.raises(BadConfiguration, match=r'there is no prompt file .*did you mean "prompts\.jsonl"') as caught:
        inspect_prompts(Prompts(uri="promts.jsonl"), base_dir=tmp_path, access=access)
    assert caught.value.field == "spec.prompts.uri"


def test_a_folder_or_a_pipe_is_refused_without_waiting_for_it(tmp_path, access):
    os.mkfifo(tmp_path / "pipe.jsonl")
    for name, words in ((".", "is a folder"), ("pipe.jsonl", "no plain file")):
        with pytest.raises(BadConfiguration, match=words):
            inspect_prompts(Prompts(uri=name), base_dir=tmp_path, access=access)


def test_a_config_map_is_read_where_the_pod_mounts_it_and_refused_without_a_cluster(tmp_path, access):
    prompts = Prompts.model_validate({"configMapRef": {"name": "prompts", "key": "p.jsonl"}})
    with pytest.raises(BadConfiguration, match="ConfigMap"):
        inspect_prompts(prompts, base_dir=tmp_path, access=access)
    mounted = write(tmp_path / "mounted", {"prompt": "a"})
    pin = inspect_prompts(prompts, base_dir=tmp_path, access=Access(cache=tmp_path, config_map_file=mounted))
    assert (pin.count, pin.format) == (1, "jsonl")


def test_a_process_that_works_for_others_reads_no_path_of_its_machine(tmp_path):
    access = Access(cache=tmp_path, local_files=False)
    for uri in ("/etc/passwd", "file:///etc/passwd", "p.jsonl"):
        with pytest.raises(BadConfiguration, match="is a path"):
            inspect_prompts(Prompts(uri=uri), base_dir=tmp_path, access=access)


def test_an_inspection_of_many_rows_needs_little_memory(tmp_path):
    path = tmp_path / "p.jsonl"
    with path.open("w") as file:
        for n in range(100_000):
            file.write(json.dumps({"prompt": f"picture {n} " + "x" * 500}) + "\n")
    code = (
        "import resource, sys; from pathlib import Path;"
        "from frazil_jobs.api.generationjob import Prompts; from frazil_jobs.inputs.access import Access;"
        "from frazil_jobs.inputs.prompts import inspect_prompts;"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss;"
        "pin = inspect_prompts(Prompts(uri=sys.argv[1]), base_dir=Path('/'), access=Access(cache=Path('/nowhere')));"
        "print(pin.count, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], check=True, capture_output=True, text=True)
    count, grown_kib = (int(part) for part in done.stdout.split())
    assert count == 100_000
    assert grown_kib < 16 * 1024, "the file alone has 50 MiB"
