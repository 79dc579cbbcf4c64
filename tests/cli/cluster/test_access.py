"""Which cluster is meant, as kubectl has it; and every way in which it can't be reached, with the way out."""

import json
import os

import pytest
import yaml
from servers import free_port

from frazil_cli.cluster.access import Access, is_there, reach
from frazil_cli.cluster.client import Cluster, Forbidden, NotFound, Refused, Unreachable, path_of
from frazil_jobs.base.exits import BadConfiguration


def kubeconfig(path, *contexts, server="https://127.0.0.1:1", current=None):
    document = {
        "apiVersion": "v1",
        "kind": "Config",
        "clusters": [{"name": "c", "cluster": {"server": server, "insecure-skip-tls-verify": True}}],
        "users": [{"name": "u", "user": {"token": "t"}}],
        "contexts": [
            {"name": name, "context": {"cluster": "c", "user": "u", **({"namespace": space} if space else {})}}
            for name, space in contexts
        ],
    }
    if current:
        document["current-context"] = current
    path.write_text(yaml.safe_dump(document))
    return path


@pytest.mark.parametrize(
    ("said", "context", "namespace"),
    [
        ({}, "one", "team-a"),
        ({"context": "two"}, "two", "default"),
        ({"namespace": "other"}, "one", "other"),
        ({"context": "two", "namespace": "other"}, "two", "other"),
    ],
)
def test_context_and_namespace_are_those_that_kubectl_would_use(tmp_path, said, context, namespace):
    path = kubeconfig(tmp_path / "config", ("one", "team-a"), ("two", None), current="one")
    found = reach(Access(kubeconfig=path, **said))
    assert (found.context, found.namespace) == (context, namespace)


def test_kubeconfig_names_several_files_and_the_first_word_on_the_context_holds(tmp_path):
    first = kubeconfig(tmp_path / "first", ("one", "a"), current="one")
    second = kubeconfig(tmp_path / "second", ("two", "b"), current="two")
    there = {"KUBECONFIG": os.pathsep.join([str(tmp_path / "none"), str(first), str(second)])}
    assert reach(Access(), there).context == "one"
    assert reach(Access(context="two"), there).namespace == "b"


def test_the_file_at_home_is_used_without_kubeconfig(tmp_path):
    (tmp_path / ".kube").mkdir()
    kubeconfig(tmp_path / ".kube" / "config", ("one", None), current="one")
    home = {"HOME": str(tmp_path)}
    assert is_there(home)
    assert reach(Access(), home).context == "one"


def nothing(tmp_path):
    return Access(), {"HOME": str(tmp_path)}, "no cluster is known here", "frazil run"


def missing(tmp_path):
    return Access(kubeconfig=tmp_path / "none"), {}, "there is no kubeconfig at", "name the file"


def missing_by_variable(tmp_path):
    return Access(), {"KUBECONFIG": str(tmp_path / "none")}, "there is no kubeconfig at", "name the file"


def no_context(tmp_path):
    path = kubeconfig(tmp_path / "config", ("one", None), ("two", None), current="one")
    return Access(kubeconfig=path, context="tow"), {}, "there is no context 'tow'", "one, two"


def none_current(tmp_path):
    path = kubeconfig(tmp_path / "config", ("one", None))
    return Access(kubeconfig=path), {}, "can't be used", "kubectl config view"


def no_yaml(tmp_path):
    (tmp_path / "config").write_text("[")
    return Access(kubeconfig=tmp_path / "config"), {}, "can't be used", "kubectl config view"


def a_list(tmp_path):
    (tmp_path / "config").write_text("- 1\n")
    return Access(kubeconfig=tmp_path / "config"), {}, "can't be used", "kubectl config view"


def empty(tmp_path):
    (tmp_path / "config").write_text("")
    return Access(kubeconfig=tmp_path / "config"), {}, "can't be used", "kubectl config view"


@pytest.mark.parametrize(
    "case", [nothing, missing, missing_by_variable, no_context, none_current, no_yaml, a_list, empty]
)
def test_a_kubeconfig_that_can_not_be_used_is_one_message_with_the_way_out(tmp_path, case):
    access, environment, message, remedy = case(tmp_path)
    with pytest.raises(BadConfiguration) as caught:
        reach(access, environment)
    assert message in caught.value.message
    assert remedy in caught.value.remedy


def test_a_server_that_is_away_is_named_with_the_context(tmp_path):
    path = kubeconfig(tmp_path / "c", ("one", None), server=f"https://127.0.0.1:{free_port()}", current="one")
    with pytest.raises(Unreachable, match="Connection refused") as caught:
        Cluster.connect(Access(kubeconfig=path)).get("/version")
    assert "'one'" in caught.value.remedy
    assert "0x" not in caught.value.message


def test_a_name_that_can_not_be_resolved_is_said_so(tmp_path):
    path = kubeconfig(tmp_path / "c", ("one", None), server="https://nowhere.invalid", current="one")
    with pytest.raises(Unreachable, match=r"at https://nowhere\.invalid: ") as caught:
        Cluster.connect(Access(kubeconfig=path)).get("/version")
    assert "0x" not in caught.value.message


def test_another_authority_is_no_outage(plane, tmp_path):
    document = yaml.safe_load(plane.kubeconfig.read_text())
    cluster = document["clusters"][0]["cluster"]
    cluster.pop("certificate-authority", None)
    cluster.pop("certificate-authority-data", None)
    (tmp_path / "c").write_text(yaml.safe_dump(document))
    with pytest.raises(BadConfiguration, match="is not the server that the kubeconfig trusts"):
        Cluster.connect(Access(kubeconfig=tmp_path / "c")).get("/version")


def test_wrong_credentials_ask_to_log_in_again(plane, tmp_path):
    document = yaml.safe_load(plane.kubeconfig.read_text())
    document["users"][0]["user"] = {"token": "nobody's"}
    (tmp_path / "c").write_text(yaml.safe_dump(document))
    with pytest.raises(BadConfiguration, match="does not accept the credentials") as caught:
        Cluster.connect(Access(kubeconfig=tmp_path / "c")).get("/api/v1/nodes")
    assert "log in again" in caught.value.remedy


def test_a_right_that_is_missing_is_told_in_the_servers_words(plane, namespace):
    cluster = Cluster.connect(Access(kubeconfig=plane.person(namespace), namespace=namespace))
    with pytest.raises(Forbidden, match='cannot list resource "secrets"') as caught:
        cluster.items(path_of("v1", "secrets", namespace=namespace))
    assert "frazil-edit" in caught.value.remedy


def test_long_lists_come_page_by_page(plane, namespace, monkeypatch):
    monkeypatch.setattr("frazil_cli.cluster.client.PAGE", 3)
    names = [f"map-{number}" for number in range(8)]
    plane.kubectl.apply(
        *({"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": one, "namespace": namespace}} for one in names)
    )
    found = plane.cluster(namespace).items(path_of("v1", "configmaps", namespace=namespace))
    assert [name for one in found if (name := one["metadata"]["name"]) in names] == names


def test_a_dry_run_refuses_unknown_fields_and_stores_nothing(plane, namespace):
    cluster = plane.cluster(namespace)
    path = path_of("v1", "configmaps", namespace=namespace)
    thing = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "tried", "namespace": namespace}}
    cluster.dry_run(path, thing)
    cluster.dry_run(f"{path}/tried", thing, apply=True)
    assert cluster.find(f"{path}/tried") is None
    with pytest.raises(Refused, match="dta"):
        cluster.dry_run(path, {**thing, "dta": {}})


def test_a_job_that_is_not_there_is_answered_with_near_names(plane, namespace, frazil):
    plane.job(namespace, "shapes-1")
    frazil.env = {"KUBECONFIG": str(plane.kubeconfig)}
    ended = frazil("watch", "shapes-2", "-n", namespace)
    assert ended.returncode == 78
    assert f"there is no job 'shapes-2' in the namespace '{namespace}'" in ended.stderr
    assert "did you mean shapes-1?" in ended.stderr


def test_two_kinds_of_one_name_ask_which(plane, namespace):
    from frazil_cli.cluster.jobs import find_job

    plane.job(namespace, "ice")
    plane.training(namespace, "ice")
    cluster = plane.cluster(namespace)
    with pytest.raises(BadConfiguration, match="both a GenerationJob and a TrainingJob"):
        find_job(cluster, "ice")
    assert find_job(cluster, "trainingjob/ice")["kind"] == "TrainingJob"
    assert find_job(cluster, "gj/ice")["kind"] == "GenerationJob"
    with pytest.raises(NotFound, match="there is no job 'icy'"):
        find_job(cluster, "trainingjobs/icy")
    with pytest.raises(BadConfiguration, match="no kind of job"):
        find_job(cluster, "pod/ice")


def test_errors_are_objects_with_json(frazil, tmp_path):
    frazil.env = {"KUBECONFIG": str(tmp_path / "none")}
    for command in ("watch", "doctor"):
        ended = frazil(command, "--json")
        assert ended.returncode == 78
        assert "there is no kubeconfig" in json.loads(ended.stdout)["error"]["message"]
