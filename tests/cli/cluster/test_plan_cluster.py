"""`frazil plan --cluster`: what the operator would create, and what the API server says of it."""

import json

import pytest
import yaml

from frazil_cli.cluster.manifests import manifests, pod_of, settings_as_default
from frazil_jobs.api.load import load_job
from frazil_operator.settings import Destination, Images, Settings

JOB = """
apiVersion: frazil.dev/v1alpha1
kind: GenerationJob
metadata: {name: ice}
spec:
  model: {uri: s3://models/sdxl}
  prompts: {inline: [one, two, three], perShard: 2}
  workers: {gpusPerNode: 2}
"""
PIN = {"sha256": "0" * 64, "count": 3, "shards": 2, "per_shard": 2, "format": "inline", "size": 9}


def job(**workers):
    document = yaml.safe_load(JOB)
    document["spec"]["workers"] |= workers
    return load_job(yaml.safe_dump(document))


@pytest.fixture
def planned(plane, namespace, frazil):
    """Call the command; exit code, and the object."""
    frazil.env = {"KUBECONFIG": str(plane.kubeconfig)}

    def call(document, *options):
        path = frazil.write_job(document)
        ended = frazil("plan", path, "--quick", "--cluster", "--json", "-n", namespace, *options)
        return ended.returncode, json.loads(ended.stdout)

    return call


def trials(found):
    return {trial["kind"]: trial["accepted"] for trial in found["cluster"]["server"]["trials"]}


def test_the_objects_are_those_that_the_operator_creates_first():
    made = manifests(job(), pin=PIN, settings=settings_as_default(job()))
    assert [child["kind"] for child in made.children] == ["ConfigMap", "Job"]
    assert made.children[1]["spec"]["completions"] == 2
    assert made.refusal is None
    gang = manifests(
        job(nodesPerReplica=2, gpusPerNode=1), pin=PIN, settings=settings_as_default(job()), provider="native-v1beta1"
    )
    assert [child["kind"] for child in gang.children] == ["ConfigMap", "Service", "PodGroup", "Job"]
    assert "1 more gangs follow" in gang.notes[0]


def test_a_training_job_is_shown_as_its_gang():
    training = """
apiVersion: frazil.dev/v1alpha1
kind: TrainingJob
metadata: {name: ice}
spec:
  task: CausalLM
  model: {uri: models/llama}
  dataset: {uri: s3://datasets/text}
  steps: 10
  workers: {nodesPerReplica: 2, gpusPerNode: 1}
"""
    made = manifests(load_job(training), pin=None, settings=settings_as_default(job()), provider="native-v1beta1")
    assert [child["kind"] for child in made.children] == ["ConfigMap", "Service", "PodGroup", "Job"]
    assert made.refusal is None
    assert [note.split(":")[0] for note in made.notes] == ["spec.model.uri"]


def test_prompts_that_can_not_be_read_here_are_said():
    made = manifests(job(), pin=None, settings=settings_as_default(job()))
    assert made.children[1]["spec"]["completions"] == 1
    assert "the prompts can't be read here" in made.notes[0]


def test_a_suspended_job_shows_what_it_will_be():
    document = yaml.safe_load(JOB)
    document["spec"]["suspend"] = True
    suspended = load_job(yaml.safe_dump(document))
    made = manifests(suspended, pin=PIN, settings=settings_as_default(suspended))
    assert [child["kind"] for child in made.children] == ["ConfigMap", "Job"]
    assert "spec.suspend is true" in made.notes[0]


def test_what_the_operator_refuses_has_no_objects_and_a_reason():
    settings = Settings(destinations=[Destination(name="archive", uri="s3://some/where")])
    made = manifests(job(), pin=PIN, settings=settings)
    assert made.children == ()
    assert "there is no destination 'default' (there are: archive" in made.refusal


def test_images_and_sizes_are_those_of_the_settings():
    settings = Settings(
        destinations=[Destination(uri="s3://some/where")], images=Images(jobs="here/jobs:1", worker="here/worker:1")
    )
    pod = pod_of(manifests(job(), pin=PIN, settings=settings).children[1])
    assert [one["image"] for one in pod["spec"]["containers"]] == ["here/jobs:1"]
    assert {one["image"] for one in pod["spec"]["initContainers"]} == {"here/worker:1"}


def test_without_a_cluster_the_manifests_are_yaml_that_stands_alone(frazil, tmp_path):
    frazil.env = {"HOME": str(tmp_path), "KUBECONFIG": ""}
    path = frazil.write_job(yaml.safe_load(JOB))
    ended = frazil("plan", path, "--quick", "--cluster")
    assert ended.returncode == 0, ended.stderr
    text = ended.stdout[ended.stdout.index("---\n") :]
    children = list(yaml.safe_load_all(text))
    assert [child["kind"] for child in children] == ["ConfigMap", "Job"]
    assert children[0]["metadata"]["namespace"] == "default"
    assert "no cluster is known here: nothing was tried" in ended.stdout
    assert "&id" not in text


def test_the_server_accepts_the_job_its_children_and_their_pods_and_nothing_is_stored(plane, namespace, planned):
    code, found = planned(yaml.safe_load(JOB))
    assert code == 0, found["problems"]
    assert trials(found) == {"GenerationJob": True, "ConfigMap": True, "Job": True, "Pod": True}
    assert found["cluster"]["namespace"] == namespace
    assert {child["metadata"]["namespace"] for child in found["cluster"]["manifests"]} == {namespace}
    for kind in ("generationjobs", "jobs", "pods"):
        assert plane.kubectl.list(kind, namespace=namespace) == []


def test_a_gang_of_the_served_provider_is_accepted(planned):
    document = yaml.safe_load(JOB)
    document["spec"]["workers"] = {"gpusPerNode": 1, "nodesPerReplica": 2}
    code, found = planned(document)
    assert code == 0, found["problems"]
    assert trials(found) == dict.fromkeys(("GenerationJob", "ConfigMap", "Service", "PodGroup", "Job", "Pod"), True)


def test_the_rule_of_the_definitions_that_a_change_breaks_is_told(plane, namespace, planned):
    document = yaml.safe_load(JOB)
    plane.kubectl.apply({**document, "metadata": {"name": "ice", "namespace": namespace}})
    document["spec"]["sampling"] = {"steps": 7}
    code, found = planned(document)
    assert code == 78
    assert trials(found)["GenerationJob"] is False
    assert any(problem["field"] == "GenerationJob ice" for problem in found["problems"])


def test_a_quota_that_would_refuse_the_pods_is_found_before_they_are_made(plane, namespace, planned):
    meta = {"name": "gpus", "namespace": namespace}
    spec = {"hard": {"requests.nvidia.com/gpu": "1"}}
    plane.kubectl.apply({"apiVersion": "v1", "kind": "ResourceQuota", "metadata": meta, "spec": spec})
    plane.kubectl.until(
        "the quota is counted",
        lambda: plane.kubectl.get("resourcequota", "gpus", namespace=namespace).get("status", {}).get("hard"),
    )
    code, found = planned(yaml.safe_load(JOB))
    assert code == 78
    assert trials(found)["Pod"] is False
    assert any("exceeded quota: gpus" in problem["message"] for problem in found["problems"])


def test_the_file_and_the_option_may_not_name_two_namespaces(planned):
    document = yaml.safe_load(JOB)
    document["metadata"]["namespace"] = "another"
    code, found = planned(document)
    assert code == 78
    assert "the file says 'another'" in found["error"]["message"]


def test_without_rights_it_says_what_was_not_tried(plane, namespace, planned):
    person = plane.person(namespace)
    code, found = planned(yaml.safe_load(JOB), "--kubeconfig", str(person))
    assert code == 0
    assert set(trials(found).values()) == {None}
    assert any("you may not see the operator's settings" in note for note in found["cluster"]["notes"])


def test_a_cluster_that_is_away_takes_nothing_from_the_plan_unless_it_was_named(plane, frazil):
    gate = plane.gate()
    gate.shut()
    frazil.env = {"KUBECONFIG": str(gate.kubeconfig)}
    path = frazil.write_job(yaml.safe_load(JOB))
    ended = frazil("plan", path, "--quick", "--cluster", "--json")
    assert ended.returncode == 0, ended.stderr
    found = json.loads(ended.stdout)["cluster"]
    assert [child["kind"] for child in found["manifests"]] == ["ConfigMap", "Job"]
    assert found["server"] is None
    assert "doesn't answer" in found["notes"][0]
    assert frazil("plan", path, "--quick", "--cluster", "--kubeconfig", gate.kubeconfig).returncode == 75
