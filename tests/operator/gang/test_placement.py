"""Gang scheduling: which provider is chosen, and what each needs so that a gang is bound together or not at all."""

import itertools
from typing import get_args, get_type_hints

import pytest
from operator_world import generation_job, training_job
from pod_cases import FULL, full_training_job, gang, pod_of

from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_operator.build.children import GangPlacement
from frazil_operator.build.labels import Owner
from frazil_operator.gang.placement import API_VERSIONS, choose, place_gang
from frazil_operator.reconcile.plan import GangSupport

PROVIDERS = ["native-v1beta1", "volcano", "coscheduling"]
EACH_PROVIDER = pytest.mark.parametrize("provider", PROVIDERS)


def placed(provider, body=None, *, name="dit-a1", attempt=1):
    body = body or training_job()
    kind = TrainingJob if body["kind"] == "TrainingJob" else GenerationJob
    return place_gang(provider, kind.model_validate(body), Owner.of(body), name=name, attempt=attempt)


def test_what_kubernetes_itself_serves_comes_first_then_volcano_then_coscheduling():
    versions = {provider: API_VERSIONS[provider] for provider in PROVIDERS}
    for count in range(len(PROVIDERS) + 1):
        for served in itertools.combinations(PROVIDERS, count):
            first = next((provider for provider in PROVIDERS if provider in served), "none")
            assert choose(frozenset(versions[provider] for provider in served)) == first


def test_other_versions_of_a_group_are_not_taken_for_it():
    assert choose(frozenset({"scheduling.k8s.io/v1", "scheduling.k8s.io/v1alpha1", "batch/v1"})) == "none"


def test_reconcile_knows_every_provider_and_no_other():
    known = get_args(get_type_hints(GangSupport)["provider"])
    assert set(known) == {*PROVIDERS, "none"}
    assert set(API_VERSIONS) == set(PROVIDERS)


@EACH_PROVIDER
def test_one_group_a_gang_of_the_gangs_name_that_ends_with_the_job(provider):
    (group,) = placed(provider).objects
    assert (group["apiVersion"], group["kind"]) == (API_VERSIONS[provider], "PodGroup")
    assert group["metadata"]["name"] == "dit-a1"
    assert group["metadata"]["labels"]["frazil.dev/job-uid"] == group["metadata"]["ownerReferences"][0]["uid"]
    assert group["metadata"]["labels"]["frazil.dev/attempt"] == "1"


@EACH_PROVIDER
def test_all_pods_of_the_gang_are_wanted(provider):
    body = training_job(workers={"nodesPerReplica": 4, "gpusPerNode": 2}, parallelism={"pipeline": 8})
    spec = placed(provider, body).objects[0]["spec"]
    least = spec["schedulingPolicy"]["gang"]["minCount"] if provider == "native-v1beta1" else spec["minMember"]
    assert least == 4
    if provider != "native-v1beta1":
        assert spec["minResources"] == {"nvidia.com/gpu": "8"}


def test_the_resource_that_counts_gpus_is_the_jobs_own():
    body = training_job(workers={"nodesPerReplica": 2, "gpusPerNode": 1, "accelerator": "amd.com/gpu"})
    assert placed("volcano", body).objects[0]["spec"]["minResources"] == {"amd.com/gpu": "2"}


@pytest.mark.parametrize(
    ("provider", "where"),
    [
        ("native-v1beta1", lambda template: template["spec"]["schedulingGroup"]["podGroupName"]),
        ("volcano", lambda template: template["metadata"]["annotations"]["scheduling.k8s.io/group-name"]),
        ("coscheduling", lambda template: template["metadata"]["labels"]["scheduling.x-k8s.io/pod-group"]),
    ],
)
@pytest.mark.parametrize("attempt", [0, 7])
def test_each_pod_names_the_group_that_is_made_before_it(provider, where, attempt):
    *_, group, job = gang(training_job(), provider=provider, attempt=attempt)
    assert where(job["spec"]["template"]) == group["metadata"]["name"] == job["metadata"]["name"]


@EACH_PROVIDER
def test_gangs_of_several_shards_have_groups_of_their_own(provider):
    body = generation_job(workers={"nodesPerReplica": 2, "gpusPerNode": 1}, parallelism={"conditioning": 2})
    owner = Owner.of(body)
    names = {
        placed(provider, body, name=owner.child_name(attempt, shard)).objects[0]["metadata"]["name"]
        for attempt in range(2)
        for shard in range(3)
    }
    assert len(names) == 6


@pytest.mark.parametrize("provider", [*PROVIDERS, "none"])
def test_one_pod_needs_no_placement(provider):
    assert placed(provider, training_job(workers={"gpusPerNode": 2})) == GangPlacement()


def test_without_a_provider_the_pods_are_as_they_would_be():
    assert placed("none") == GangPlacement()
    names = [thing["kind"] for thing in gang(training_job())]
    assert names == ["ConfigMap", "Service", "Job"]


def test_volcano_schedules_its_gangs_unless_the_job_names_a_scheduler():
    assert pod_of(gang(training_job(), provider="volcano"))["schedulerName"] == "volcano"
    workers = {"nodesPerReplica": 2, "gpusPerNode": 1, "template": {"schedulerName": "own"}}
    assert pod_of(gang(training_job(workers=workers), provider="volcano"))["schedulerName"] == "own"


@pytest.mark.parametrize("provider", ["native-v1beta1", "coscheduling"])
def test_the_others_leave_the_scheduler_to_the_cluster(provider):
    assert "schedulerName" not in pod_of(gang(training_job(), provider=provider))


@pytest.mark.parametrize(("provider", "told"), [("native-v1beta1", True), ("volcano", True), ("coscheduling", False)])
def test_the_priority_is_the_groups_where_a_group_has_one(provider, told):
    spec = placed(provider, training_job(scheduling={"priorityClassName": "low"})).objects[0]["spec"]
    assert (spec.get("priorityClassName") == "low") is told
    assert "priorityClassName" not in placed(provider).objects[0]["spec"]


def test_kubernetes_own_groups_keep_to_a_topology():
    spec = placed("native-v1beta1", training_job(scheduling={"topologyKey": "example.com/rack"})).objects[0]["spec"]
    assert spec["schedulingConstraints"] == {"topology": [{"key": "example.com/rack"}]}
    assert "schedulingConstraints" not in placed("native-v1beta1").objects[0]["spec"]


@EACH_PROVIDER
def test_the_jobs_own_annotations_and_labels_stay(provider):
    template = gang(full_training_job(), FULL, provider=provider)[-1]["spec"]["template"]
    assert template["metadata"]["annotations"]["example.com/cost"] == "42"
    assert template["metadata"]["labels"]["team"] == "snow"
