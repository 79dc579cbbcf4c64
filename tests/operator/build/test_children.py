"""The children of a job, beside golden files: a ConfigMap, a Service for gangs, and Indexed Jobs.

FRAZIL_WRITE_GOLDEN=1 writes the golden files anew; the difference is then read before it's committed.
"""

import json
import os
from pathlib import Path

import pytest
import yaml
from operator_world import generation_job, pin, training_job
from pod_cases import ALL, FULL, every_case, full_generation_job, gang, gang_of_a_shard, shards

from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.load import load_job
from frazil_jobs.inputs.rows import PromptsPin
from frazil_operator.build.children import MANY_INDICES, MOST_BEYOND, most_failed
from frazil_operator.build.labels import Owner
from frazil_operator.reconcile.children import pin_of

GOLDEN = Path(__file__).parent / "golden"
EACH_CASE = pytest.mark.parametrize("case", ALL)
FRAZILS_OWN = [
    {"action": "Ignore", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
    {"action": "FailJob", "onExitCodes": {"operator": "In", "values": [78]}},
    {"action": "FailIndex", "onExitCodes": {"operator": "In", "values": [65]}},
]


class Plainly(yaml.SafeDumper):
    """Without anchors, and several lines as several lines: for people who read the difference."""

    def ignore_aliases(self, data):
        return True


Plainly.add_representer(
    str,
    lambda dumper, text: dumper.represent_scalar("tag:yaml.org,2002:str", text, style="|" if "\n" in text else None),
)


@EACH_CASE
def test_what_is_built_is_what_the_golden_file_says(case):
    path = GOLDEN / f"{case}.yaml"
    text = yaml.dump_all(ALL[case], Dumper=Plainly, sort_keys=False, allow_unicode=True, width=120)
    if os.environ.get("FRAZIL_WRITE_GOLDEN"):
        path.write_text(text, encoding="utf-8")
    assert ALL[case] == list(yaml.safe_load_all(path.read_text(encoding="utf-8")))


def test_there_is_no_golden_file_without_a_case():
    assert {path.stem for path in GOLDEN.glob("*.yaml")} == set(ALL)


@EACH_CASE
def test_every_child_is_found_by_the_jobs_uid_and_ends_with_it(case):
    for thing in ALL[case]:
        labels, (owner,) = thing["metadata"]["labels"], thing["metadata"]["ownerReferences"]
        assert labels["frazil.dev/job-uid"] == owner["uid"] == "0a1b2c3d-0000-4000-8000-000000000000"
        assert labels["app.kubernetes.io/managed-by"] == "frazil-operator"
        assert labels["frazil.dev/managed"] == "true"
        assert owner["controller"] is True
        assert owner["blockOwnerDeletion"] is False
        assert (owner["kind"], owner["name"]) == (labels["frazil.dev/kind"], labels["frazil.dev/job-name"])
        component = {"GenerationJob": "generation", "TrainingJob": "training"}[owner["kind"]]
        assert labels["app.kubernetes.io/component"] == component


@EACH_CASE
def test_children_come_before_the_job_that_needs_them(case):
    kinds = [thing["kind"] for thing in ALL[case]]
    assert kinds[0] == "ConfigMap"
    assert kinds[-1] == "Job"
    volumes = ALL[case][-1]["spec"]["template"]["spec"]["volumes"]
    (job_file,) = (volume for volume in volumes if volume["name"] == "frazil-job")
    assert job_file["configMap"]["name"] == ALL[case][0]["metadata"]["name"]


@EACH_CASE
def test_the_config_map_is_a_job_file_that_fetch_can_load(case, tmp_path):
    (found,) = ALL[case][0]["data"].items()
    assert found[0] == "job.yaml"
    path = tmp_path / "job.yaml"
    path.write_text(found[1], encoding="utf-8")
    job = load_job(path)
    assert job.metadata.uid == "0a1b2c3d-0000-4000-8000-000000000000"
    assert job.kind == ALL[case][-1]["metadata"]["labels"]["frazil.dev/kind"]


def test_prompts_of_any_language_come_through_the_config_map(tmp_path):
    prompts = ["Schnee auf dem Fluss", "川の上の雪", "«лёд»: a\nb", "'quoted' \"twice\"", "- no list", "🧊"]
    body = generation_job(prompts={"inline": prompts})
    path = tmp_path / "job.yaml"
    path.write_text(shards(body)[0]["data"]["job.yaml"], encoding="utf-8")
    job = load_job(path)
    assert isinstance(job, GenerationJob)
    assert job.spec.prompts.inline == GenerationJob.model_validate(body).spec.prompts.inline


@pytest.mark.parametrize("attempt", [0, 3])
def test_shards_are_the_indices_of_one_job(attempt):
    job = shards(generation_job(), attempt=attempt, parallelism=2)[-1]
    assert job["metadata"]["name"] == f"ice-a{attempt}"
    assert job["metadata"]["labels"]["frazil.dev/attempt"] == str(attempt)
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 3, 2)
    assert "suspend" not in spec
    assert job["metadata"]["annotations"]["frazil.dev/parallelism"] == "2"


def test_the_pin_comes_back_from_the_child_as_it_went_in():
    job = shards(generation_job())[-1]
    assert pin_of(job) == pin()
    assert PromptsPin.model_validate(pin_of(job)).shards == 3
    assert json.loads(job["metadata"]["annotations"]["frazil.dev/prompts"]) == pin()


@pytest.mark.parametrize(
    ("policy", "retries", "most"),
    [
        ({}, 3, 0),
        ({"retriesPerShard": 0}, 0, 0),
        ({"retriesPerShard": 5, "maxFailedShards": 2}, 5, 2),
        ({"retriesPerShard": 5, "maxFailedShards": 1_000_000}, 5, 3),
    ],
)
def test_retries_and_the_budget_of_failed_shards_are_the_job_controllers(policy, retries, most):
    spec = shards(generation_job(failurePolicy=policy))[-1]["spec"]
    assert (spec["backoffLimitPerIndex"], spec["maxFailedIndexes"]) == (retries, most)
    assert "backoffLimit" not in spec
    assert spec["podReplacementPolicy"] == "Failed"


@pytest.mark.parametrize(
    ("allowed", "count", "most"),
    [
        (None, 10, 0),
        (3, 10, 3),
        (30, 10, 10),
        (100_000, MANY_INDICES, MANY_INDICES),
        (100_000, MANY_INDICES + 1, MOST_BEYOND),
        (5, MANY_INDICES + 1, 5),
    ],
)
def test_the_budget_is_one_that_the_api_server_takes(allowed, count, most):
    assert most_failed(allowed, count) == most


def test_the_jobs_own_failure_rules_come_first_and_are_about_the_gpu_container():
    rules = shards(full_generation_job(), FULL)[-1]["spec"]["podFailurePolicy"]["rules"]
    assert rules == [
        {"action": "FailIndex", "onExitCodes": {"containerName": "compute", "operator": "In", "values": [7, 9]}},
        {"action": "Count", "onPodConditions": [{"type": "DisruptionTarget", "status": "True"}]},
        *FRAZILS_OWN,
    ]


def test_without_rules_frazils_own_codes_count_from_any_container():
    assert shards(generation_job())[-1]["spec"]["podFailurePolicy"]["rules"] == FRAZILS_OWN


@pytest.mark.parametrize(
    ("action", "told"), [("FailJob", "FailJob"), ("FailShard", "FailIndex"), ("Count", "Count"), ("Ignore", "Ignore")]
)
def test_each_action_has_its_word_in_batch_v1(action, told):
    policy = {"rules": [{"action": action, "onExitCodes": [1]}]}
    first = shards(generation_job(failurePolicy=policy))[-1]["spec"]["podFailurePolicy"]["rules"][0]
    assert first["action"] == told


def test_no_more_rules_than_the_api_server_takes():
    policy = {"rules": [{"action": "Count", "onExitCodes": [code]} for code in range(1, 17)]}
    rules = shards(generation_job(failurePolicy=policy))[-1]["spec"]["podFailurePolicy"]["rules"]
    assert len(rules) <= 20


def test_a_queue_gets_the_job_suspended_with_its_label_and_what_it_may_admit():
    job = shards(full_generation_job(), FULL)[-1]
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"
    assert job["metadata"]["annotations"]["kueue.x-k8s.io/job-min-parallelism"] == "2"
    annotations = job["spec"]["template"]["metadata"]["annotations"]
    assert annotations["kueue.x-k8s.io/podset-preferred-topology"] == "example.com/rack"


@pytest.mark.parametrize(
    "scheduling", [{}, {"topologyKey": "example.com/rack"}, {"priorityClassName": "low"}], ids=["none", "rack", "low"]
)
def test_without_a_queue_nothing_says_kueue(scheduling):
    things = shards(generation_job(scheduling=scheduling, workers={"replicas": 2, "minReplicas": 1}))
    assert "kueue" not in json.dumps(things)


def test_least_replicas_are_not_told_to_a_queue_unless_the_job_says_so():
    job = shards(generation_job(scheduling={"queueName": "gpus"}))[-1]
    assert "kueue.x-k8s.io/job-min-parallelism" not in job["metadata"]["annotations"]


def test_a_queue_gets_each_gang():
    job = gang_of_a_shard(scheduling={"queueName": "gpus"})[-1]
    assert job["spec"]["suspend"] is True
    assert job["metadata"]["labels"]["kueue.x-k8s.io/queue-name"] == "gpus"


def test_a_gang_is_one_job_whose_indices_are_its_nodes_and_that_fails_with_any_of_them():
    job = gang_of_a_shard()[-1]
    spec = job["spec"]
    assert (spec["completionMode"], spec["completions"], spec["parallelism"]) == ("Indexed", 2, 2)
    assert spec["backoffLimit"] == 0
    assert "backoffLimitPerIndex" not in spec
    disrupted = [{"type": "DisruptionTarget", "status": "True"}]
    assert spec["podFailurePolicy"] == {"rules": [{"action": "FailJob", "onPodConditions": disrupted}]}


def test_a_gang_says_its_shard_its_tries_and_the_restarts_that_were_charged():
    job = gang_of_a_shard()[-1]
    assert job["metadata"]["name"] == "ice-a0-2"
    told = {"frazil.dev/shard": "2", "frazil.dev/try": "1", "frazil.dev/restarts": "4"}
    assert told.items() <= job["metadata"]["labels"].items()
    assert told.items() <= job["spec"]["template"]["metadata"]["labels"].items()
    assert pin_of(job) == pin()


def test_the_gang_of_a_training_has_no_shard():
    labels = gang(training_job(), attempt=2, restarts=1)[-1]["metadata"]["labels"]
    assert "frazil.dev/shard" not in labels
    assert (labels["frazil.dev/attempt"], labels["frazil.dev/restarts"]) == ("2", "1")


def test_pods_of_a_gang_find_the_first_of_them_by_name_before_it_is_ready():
    *_, service, job = gang(training_job(), attempt=1)
    assert service["spec"]["clusterIP"] == "None"
    assert service["spec"]["publishNotReadyAddresses"] is True
    template = job["spec"]["template"]
    assert service["spec"]["selector"].items() <= template["metadata"]["labels"].items()
    assert template["spec"]["subdomain"] == service["metadata"]["name"]
    (env,) = (one for one in template["spec"]["containers"][0]["env"] if one["name"] == "FRAZIL_RENDEZVOUS")
    host, port = env["value"].rsplit(":", 1)
    assert host == f"{job['metadata']['name']}-0.{service['metadata']['name']}"
    assert int(port) == service["spec"]["ports"][0]["port"]


def test_names_made_from_the_longest_name_fit_a_host_label():
    owner = Owner(kind="GenerationJob", namespace="n", name="x" * 40, uid="u")
    for attempt, shard, index in ((999, None, 999_999), (9999, 99_999, 63)):
        assert len(f"{owner.child_name(attempt, shard)}-{index}") <= 63


def test_building_twice_gives_the_same_plain_json():
    """Server-side apply of what is there already then changes nothing."""
    assert every_case() == ALL
    assert json.loads(json.dumps(ALL)) == ALL
