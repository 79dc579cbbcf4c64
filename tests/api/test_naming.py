"""Seeds, keys and prefixes: the same wherever they are derived."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from frazil_jobs.api.load import load_job
from frazil_jobs.api.naming import image_key, job_prefix, local_uid, seed_of, thumbnail_key
from frazil_jobs.base.keys import check_key

JOB = """
apiVersion: frazil.dev/v1alpha1
kind: GenerationJob
metadata: {name: pictures, namespace: team}
spec:
  model: {uri: hf://org/model}
  prompts: {inline: [a red ring]}
"""


def test_the_first_image_has_the_seed_of_the_job_or_of_its_row() -> None:
    assert seed_of(42, 0, 0) == 42
    assert seed_of(42, 7, 0) == 49
    assert seed_of(42, 7, 0, row_seed=5) == 5


@given(
    st.integers(0, 2**32 - 1),
    st.tuples(st.integers(0, 999_999), st.integers(0, 1023)),
    st.tuples(st.integers(0, 999_999), st.integers(0, 1023)),
)
def test_no_two_images_of_a_job_share_a_seed(job: int, one: tuple[int, int], other: tuple[int, int]) -> None:
    assert 0 <= seed_of(job, *one) < 2**32
    assert (seed_of(job, *one) == seed_of(job, *other)) == (one == other)


def test_keys_sort_as_prompts_do_and_name_their_kind() -> None:
    assert image_key(12, 3, "png") == "images/000012-03.png"
    assert image_key(12, 3, "jpeg") == "images/000012-03.jpg"
    assert image_key(12, 0, "mp4") == "videos/000012-00.mp4"
    assert image_key(12, 0, "wav") == "sounds/000012-00.wav"
    assert check_key(thumbnail_key(999_999, 1023)) == "thumbnails/999999-1023.webp"


def test_a_local_uid_changes_with_what_changes_the_pictures_and_with_nothing_else() -> None:
    uid = local_uid(load_job(JOB), "aa")
    assert uid == local_uid(load_job(JOB), "aa")
    assert uid == local_uid(load_job(JOB + "  suspend: true\n  ttlSecondsAfterFinished: 3\n"), "aa")
    assert uid == local_uid(load_job(JOB + "  workers: {replicas: 4}\n"), "aa")
    assert uid != local_uid(load_job(JOB), "bb")
    assert uid != local_uid(load_job(JOB), "aa", model_fingerprint="trained again")
    assert uid != local_uid(load_job(JOB + "  sampling: {seed: 1}\n"), "aa")
    assert uid != local_uid(load_job(JOB.replace("a red ring", "x") + "  output: {format: webp}\n"), "aa")


def test_results_lie_below_the_namespace_and_the_folder_that_the_job_names() -> None:
    job = load_job(JOB)
    where = f"{job.metadata.namespace}/{job.metadata.name}-12345678"
    assert job_prefix(job, "12345678-90ab-cdef") == where
    inner = load_job(JOB + "  output: {prefix: ads/may}\n")
    assert job_prefix(inner, "12345678-90ab-cdef") == where.replace("/", "/ads/may/", 1)
