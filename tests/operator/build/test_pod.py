"""The pod of a job: what each container holds, sees and is asked to do."""

import pytest
import yaml
from operator_world import generation_job, training_job
from pod_cases import (
    ALL,
    FULL,
    PLAIN,
    containers,
    env_of,
    full_generation_job,
    full_training_job,
    gang,
    gang_of_a_shard,
    mounts_of,
    pod_of,
    shards,
)
from podsecurity import problems

from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.inputs.fetch import Order
from frazil_jobs.launching.settings import LauncherSettings, allowed
from frazil_operator.reconcile.admission import refusal
from frazil_operator.settings import parse_settings

EACH_CASE = pytest.mark.parametrize("case", ALL)
BESIDE = ("fetch", "upload")
"""Containers beside the GPU container; only they may hold a credential."""


def secrets_in(thing):
    """Names of the Secrets that a part of a pod refers to."""
    found = set()
    if isinstance(thing, dict):
        if "secretKeyRef" in thing:
            found.add(thing["secretKeyRef"]["name"])
        if "secretName" in thing:
            found.add(thing["secretName"])
        for value in thing.values():
            found |= secrets_in(value)
    elif isinstance(thing, list):
        for value in thing:
            found |= secrets_in(value)
    return found


def seen_by(spec, name):
    """The volumes that a container mounts."""
    wanted = {mount["name"] for mount in containers(spec)[name]["volumeMounts"]}
    return [volume for volume in spec["volumes"] if volume["name"] in wanted]


@EACH_CASE
def test_every_pod_is_restricted(case):
    assert problems(pod_of(ALL[case])) == []


def test_the_judge_of_restricted_finds_what_is_not():
    spec = yaml.safe_load(yaml.safe_dump(pod_of(ALL["shards"])))
    spec["volumes"].append({"name": "node", "hostPath": {"path": "/"}})
    del spec["containers"][0]["securityContext"]
    assert len(problems(spec)) == 3


@EACH_CASE
def test_the_gpu_container_holds_no_credential_and_sees_none(case):
    spec = pod_of(ALL[case])
    compute = containers(spec)["compute"]
    assert secrets_in(compute) == set()
    assert "envFrom" not in compute
    assert secrets_in(seen_by(spec, "compute")) == set()
    assert spec["automountServiceAccountToken"] is False
    assert "serviceAccountName" not in spec


@EACH_CASE
def test_fetch_reads_and_upload_writes_and_neither_can_do_the_others(case):
    spec = pod_of(ALL[case])
    held = {name: secrets_in(containers(spec)[name]) | secrets_in(seen_by(spec, name)) for name in BESIDE}
    where = "archive" if "full" in case else "default"
    assert held["fetch"] - {"hub"} == {f"frazil-{where}-read"}
    assert held["upload"] == {f"frazil-{where}-write", "frazil-redis"}


def test_the_hubs_token_is_in_fetch_only_and_only_when_asked_for():
    assert secrets_in(containers(pod_of(ALL["shards-full"]))["fetch"]) >= {"hub"}
    assert "HF_TOKEN" not in env_of(containers(pod_of(ALL["shards"]))["fetch"])


@EACH_CASE
def test_no_name_path_or_variable_is_there_twice(case):
    """Server-side apply refuses a list with the same key twice."""
    spec = pod_of(ALL[case])
    volumes = [volume["name"] for volume in spec["volumes"]]
    assert len(volumes) == len(set(volumes))
    for container in containers(spec).values():
        for field, key in (("env", "name"), ("volumeMounts", "mountPath")):
            names = [one[key] for one in container[field]]
            assert len(names) == len(set(names)), (container["name"], field)


@pytest.mark.parametrize("name", ["HOME", "USER", "NCCL_DEBUG"])
def test_a_variable_that_the_administrator_or_frazil_sets_too_is_there_once(name):
    """Server-side apply answers 500 to a list of variables with the same name twice (kubernetes#113482)."""
    settings = parse_settings({**PLAIN.document(), "computeEnv": {"NCCL_DEBUG": "WARN"}})
    body = generation_job(workers={"template": {"env": [{"name": name, "value": "own"}]}})
    names = [one["name"] for one in containers(pod_of(shards(body, settings)))["compute"]["env"]]
    assert names.count(name) == 1


def test_a_mount_of_the_job_does_not_meet_the_environments():
    own = {"volumes": [{"name": "mine", "emptyDir": {}}], "volumeMounts": [{"name": "mine", "mountPath": "/opt/venv"}]}
    body = generation_job(workers={"template": own}, output={"destination": "archive"})
    if refusal(GenerationJob.model_validate(body), FULL) is None:
        paths = [one["mountPath"] for one in containers(pod_of(shards(body, FULL)))["compute"]["volumeMounts"]]
        assert len(paths) == len(set(paths))


@EACH_CASE
def test_every_mount_has_its_volume_and_every_volume_is_seen(case):
    spec = pod_of(ALL[case])
    mounted = {mount["name"] for container in containers(spec).values() for mount in container["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["volumes"]}


@EACH_CASE
def test_the_containers_are_a_fetch_a_native_sidecar_and_the_gpu_container(case):
    spec = pod_of(ALL[case])
    assert [one["name"] for one in spec["initContainers"]] == ["fetch", "upload"]
    assert [one.get("restartPolicy") for one in spec["initContainers"]] == [None, "Always"]
    assert [one["name"] for one in spec["containers"]] == ["compute"]
    assert spec["restartPolicy"] == "Never"


@EACH_CASE
def test_only_the_gpu_container_asks_for_gpus_as_limit_and_as_request(case):
    spec = pod_of(ALL[case])
    for name, container in containers(spec).items():
        for side in ("requests", "limits"):
            assert ("nvidia.com/gpu" in container["resources"].get(side, {})) is (name == "compute")


def test_what_is_asked_for_beside_gpus_is_kept():
    resources = containers(pod_of(ALL["shards-full"]))["compute"]["resources"]
    assert resources == {
        "requests": {"cpu": 4, "nvidia.com/gpu": "2"},
        "limits": {"memory": "64Gi", "nvidia.com/gpu": "2"},
    }


@EACH_CASE
def test_the_spool_is_bounded_and_all_three_share_it(case):
    spec = pod_of(ALL[case])
    (spool,) = (volume for volume in spec["volumes"] if volume["name"] == "frazil-spool")
    assert spool["emptyDir"] == {"sizeLimit": "20Gi"}
    for container in containers(spec).values():
        assert mounts_of(container)["/frazil/spool"] == ("frazil-spool", False)
        assert env_of(container)["FRAZIL_SPOOL"] == "/frazil/spool"


def test_the_gpu_container_pauses_before_the_kubelet_evicts_the_pod_for_its_spool():
    settings = parse_settings({**PLAIN.document(), "spoolSize": "4Gi"})
    env = env_of(containers(pod_of(shards(generation_job(), settings)))["compute"])
    found = LauncherSettings.from_environ({name: value for name, value in env.items() if isinstance(value, str)})
    assert found.spool_bytes is not None
    assert found.spool_bytes < 4 << 30


@EACH_CASE
def test_the_weights_are_written_by_fetch_and_only_read_by_the_gpu_container(case):
    found = containers(pod_of(ALL[case]))
    assert mounts_of(found["fetch"])["/frazil/models"] == ("frazil-models", False)
    assert mounts_of(found["compute"])["/frazil/models"] == ("frazil-models", True)
    assert "/frazil/models" not in mounts_of(found["upload"])


@pytest.mark.parametrize(
    ("cache", "source"),
    [
        ({}, {"emptyDir": {"sizeLimit": "200Gi"}}),
        ({"sizeLimit": "30Gi"}, {"emptyDir": {"sizeLimit": "30Gi"}}),
        ({"claimName": "cache"}, {"persistentVolumeClaim": {"claimName": "cache"}}),
    ],
)
def test_the_cache_is_a_claim_or_a_folder_of_a_stated_size(cache, source):
    spec = pod_of(shards(generation_job(model={"uri": "hf://org/model", "cache": cache})))
    (volume,) = (volume for volume in spec["volumes"] if volume["name"] == "frazil-models")
    assert volume == {"name": "frazil-models", **source}


def test_claims_of_model_and_lora_are_mounted_once_each_and_read_only():
    spec = pod_of(ALL["shards-full"])
    found = containers(spec)
    for name in ("fetch", "compute"):
        assert mounts_of(found[name])["/frazil/claims/weights"] == ("frazil-claim-0", True)
        assert mounts_of(found[name])["/frazil/claims/styles"] == ("frazil-claim-1", True)
    assert env_of(found["fetch"])["FRAZIL_PVC_ROOT"] == "/frazil/claims"
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    assert volumes["frazil-claim-0"]["persistentVolumeClaim"] == {"claimName": "weights", "readOnly": True}
    assert not any(path.startswith("/frazil/claims") for path in mounts_of(found["upload"]))


@pytest.mark.parametrize(
    ("body", "claim"),
    [
        (generation_job(prompts={"uri": "pvc://texts/p.jsonl"}), "texts"),
        (training_job(dataset={"uri": "pvc://corpus/train"}), "corpus"),
    ],
)
def test_claims_of_prompts_and_data_sets_are_mounted(body, claim):
    things = shards(body) if body["kind"] == "GenerationJob" else gang(body)
    assert f"/frazil/claims/{claim}" in mounts_of(containers(pod_of(things))["fetch"])


def test_without_claims_there_is_no_root_of_claims():
    assert "FRAZIL_PVC_ROOT" not in env_of(containers(pod_of(ALL["shards"]))["fetch"])


def test_prompts_of_a_config_map_are_seen_by_fetch_alone():
    found = containers(pod_of(ALL["shards-full"]))
    assert env_of(found["fetch"])["FRAZIL_PROMPTS_FILE"] == "/frazil/prompts/p.jsonl"
    assert mounts_of(found["fetch"])["/frazil/prompts"] == ("frazil-prompts", True)
    for name in ("compute", "upload"):
        assert "/frazil/prompts" not in mounts_of(found[name])
    (volume,) = (volume for volume in pod_of(ALL["shards-full"])["volumes"] if volume["name"] == "frazil-prompts")
    assert volume["configMap"] == {"name": "prompts", "items": [{"key": "p.jsonl", "path": "p.jsonl"}]}


def test_the_jobs_spec_is_seen_by_fetch_alone():
    found = containers(pod_of(ALL["shards"]))
    assert mounts_of(found["fetch"])["/frazil/job"] == ("frazil-job", True)
    assert "/frazil/job" not in mounts_of(found["compute"]) | mounts_of(found["upload"])


@EACH_CASE
def test_fetch_is_told_all_that_it_asks_for(case):
    spec = pod_of(ALL[case])
    env = env_of(containers(spec)["fetch"])
    plain = {name: value if isinstance(value, str) else "2" for name, value in env.items()}
    order = Order.from_env(plain)
    assert str(order.job_file) == "/frazil/job/job.yaml"
    assert str(order.spool) == "/frazil/spool"
    training = ALL[case][-1]["metadata"]["labels"]["frazil.dev/kind"] == "TrainingJob"
    assert order.shards == (None if training else (2,))
    assert (order.prompts_sha256 is None) is training
    assert order.prefix.endswith("0a1b2c3d")


@EACH_CASE
def test_the_launcher_is_told_its_place_among_the_nodes(case):
    env = env_of(containers(pod_of(ALL[case]))["compute"])
    plain = {name: value if isinstance(value, str) else "1" for name, value in env.items()}
    settings = LauncherSettings.from_environ(plain)
    job = ALL[case][-1]
    gang_of_several = "gang" in case or case in ("training", "training-full")
    if gang_of_several:
        assert settings.nodes == 2
        assert settings.rendezvous == f"{job['metadata']['name']}-0.{pod_of(ALL[case])['subdomain']}:29500"
        assert "job-completion-index" in env["FRAZIL_NODE_RANK"]["fieldRef"]["fieldPath"]
    else:
        assert settings.nodes == 1
        assert settings.rendezvous is None


def test_what_the_grace_period_leaves_is_shared_between_compute_and_upload():
    spec = pod_of(ALL["shards-full"])
    found = containers(spec)
    compute = float(env_of(found["compute"])["FRAZIL_GRACE_SECONDS"])
    upload = float(env_of(found["upload"])["FRAZIL_DRAIN_SECONDS"])
    assert spec["terminationGracePeriodSeconds"] == 90
    assert compute + upload < 90


@pytest.mark.parametrize(
    "seconds",
    [
        10,
        12,
        60,
        3600,
    ],
)
def test_compute_and_upload_end_within_any_grace_period_that_the_settings_take(seconds):
    settings = parse_settings({**PLAIN.document(), "gracePeriodSeconds": seconds})
    spec = pod_of(shards(generation_job(), settings))
    found = containers(spec)
    compute, upload = env_of(found["compute"])["FRAZIL_GRACE_SECONDS"], env_of(found["upload"])["FRAZIL_DRAIN_SECONDS"]
    assert min(float(compute), float(upload)) > 0
    assert float(compute) + float(upload) < spec["terminationGracePeriodSeconds"] == seconds


def test_the_queue_of_upload_is_that_of_its_pod_alone():
    env = env_of(containers(pod_of(ALL["shards"]))["upload"])
    assert env["FRAZIL_QUEUE"] == "frazil.upload.$(FRAZIL_POD)"
    assert env["FRAZIL_POD"] == {"fieldRef": {"fieldPath": "metadata.name"}}
    names = list(env)
    assert names.index("FRAZIL_POD") < names.index("FRAZIL_QUEUE"), "only variables above it are replaced"


@EACH_CASE
def test_results_go_below_the_namespace_and_the_jobs_own_prefix(case):
    spec = pod_of(ALL[case])
    name = ALL[case][-1]["metadata"]["labels"]["frazil.dev/job-name"]
    folder = "week-47/" if case == "shards-full" else ""
    for container in BESIDE:
        env = env_of(containers(spec)[container])
        assert env["FRAZIL_PREFIX"] == f"team/{folder}{name}-0a1b2c3d"
        assert env["FRAZIL_STORE"] == ("s3://archive/frazil" if "full" in case else "s3://frazil/results")


def test_the_certificate_of_a_store_is_mounted_where_its_credentials_are():
    found = containers(pod_of(ALL["shards-full"]))
    for name in BESIDE:
        assert env_of(found[name])["FRAZIL_S3_CA"] == "/frazil/trust/ca.crt"
        assert mounts_of(found[name])["/frazil/trust"][1] is True
    assert "/frazil/trust" not in mounts_of(found["compute"])
    assert "FRAZIL_S3_CA" not in env_of(containers(pod_of(ALL["shards"]))["fetch"])


def test_the_jobs_own_values_are_taken_as_they_stand():
    """`$(HOME)` would be replaced by the kubelet; `$$` is a plain dollar."""
    env = env_of(containers(pod_of(ALL["shards-full"]))["compute"])
    assert env["NCCL_DEBUG"] == "$$(HOME)$$x"


@EACH_CASE
def test_a_rank_may_see_no_variable_of_the_store_or_the_broker(case):
    env = env_of(containers(pod_of(ALL[case]))["compute"])
    assert not [name for name in env if name.startswith(("FRAZIL_S3", "FRAZIL_STORE", "FRAZIL_REDIS", "HF_"))]
    assert not [name for name in allowed(dict.fromkeys(env, "")) if name.startswith("FRAZIL_STORE")]


def test_the_jobs_own_volumes_are_seen_by_compute_and_read_by_fetch():
    found = containers(pod_of(ALL["shards-full"]))
    assert mounts_of(found["compute"])["/pictures"] == ("pictures", False)
    assert mounts_of(found["fetch"])["/pictures"] == ("pictures", True)
    assert "/pictures" not in mounts_of(found["upload"])


def test_the_environment_claim_is_mounted_read_only_and_its_python_runs():
    for container in containers(pod_of(ALL["shards-full"])).values():
        assert mounts_of(container)["/opt/venv"] == ("frazil-environment", True)
        assert container["command"][0] == "/opt/venv/bin/python"


@pytest.mark.parametrize(
    ("case", "modules"),
    [
        ("shards", ["frazil_jobs.inputs.fetch", "frazil_jobs.outputs.upload", "frazil_jobs.generation"]),
        ("training", ["frazil_jobs.inputs.fetch", "frazil_jobs.outputs.upload", "frazil_jobs.training"]),
    ],
)
def test_each_container_runs_its_module_of_its_image(case, modules):
    found = containers(pod_of(ALL[case])).values()
    assert [one["command"] for one in found] == [
        ["python", "-m", "frazil_jobs.base.entry", module] for module in modules
    ]
    assert [one["image"] for one in found] == ["frazil-worker:0.1.0", "frazil-worker:0.1.0", "frazil-jobs:0.1.0"]


def test_the_jobs_own_image_is_that_of_the_gpu_container_only():
    found = containers(pod_of(shards(generation_job(workers={"image": "own:1"}))))
    assert [one["image"] for one in found.values()] == ["frazil-worker:0.1.0", "frazil-worker:0.1.0", "own:1"]


def test_what_may_be_changed_of_a_pod_is():
    template = ALL["shards-full"][-1]["spec"]["template"]
    spec = template["spec"]
    assert template["metadata"]["labels"]["team"] == "snow"
    assert template["metadata"]["annotations"]["example.com/cost"] == "42"
    assert spec["nodeSelector"] == {"pool": "a"}
    assert spec["runtimeClassName"] == "nvidia"
    assert spec["priorityClassName"] == "low"
    assert spec["imagePullSecrets"] == [{"name": "own"}, {"name": "registry"}]
    assert {"key": "nvidia.com/gpu", "operator": "Exists"} in spec["tolerations"]


def test_an_unreachable_node_is_waited_for_as_long_as_the_settings_say():
    tolerations = pod_of(ALL["shards-full"])["tolerations"]
    assert [(one["key"], one["tolerationSeconds"]) for one in tolerations if "tolerationSeconds" in one] == [
        ("node.kubernetes.io/unreachable", 40),
        ("node.kubernetes.io/not-ready", 40),
    ]


def test_a_job_that_says_itself_how_long_a_node_is_waited_for_is_heard():
    own = {
        "key": "node.kubernetes.io/unreachable",
        "operator": "Exists",
        "effect": "NoExecute",
        "tolerationSeconds": 5,
    }
    spec = pod_of(shards(generation_job(workers={"template": {"tolerations": [own]}})))
    assert [one["tolerationSeconds"] for one in spec["tolerations"] if one["key"] == own["key"]] == [5]


def test_a_toleration_of_another_effect_does_not_replace_the_wait():
    own = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoSchedule"}
    spec = pod_of(shards(generation_job(workers={"template": {"tolerations": [own]}})))
    waits = [one for one in spec["tolerations"] if one["key"] == own["key"] and one["effect"] == "NoExecute"]
    assert [one["tolerationSeconds"] for one in waits] == [300]


@pytest.mark.parametrize("effect", [{}, {"effect": "NoExecute"}], ids=["all", "execute"])
def test_a_job_that_tolerates_every_taint_is_heard(effect):
    own = {"operator": "Exists", **effect}
    spec = pod_of(shards(generation_job(workers={"template": {"tolerations": [own]}})))
    assert [one for one in spec["tolerations"] if "tolerationSeconds" in one] == []


def test_pods_of_a_gang_wish_to_be_near_each_other_and_no_others():
    term = pod_of(gang_of_a_shard(scheduling={"topologyKey": "example.com/rack"}))["affinity"]["podAffinity"]
    (wish,) = term["preferredDuringSchedulingIgnoredDuringExecution"]
    assert wish["podAffinityTerm"]["topologyKey"] == "example.com/rack"
    selected = wish["podAffinityTerm"]["labelSelector"]["matchLabels"]
    assert (selected["frazil.dev/shard"], selected["frazil.dev/attempt"]) == ("2", "0")


def test_the_jobs_own_affinity_is_kept():
    own = {"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": []}}}
    body = full_training_job()
    body["spec"]["workers"]["template"]["affinity"] = own
    assert pod_of(gang(body, FULL))["affinity"] == own


def test_without_a_fixed_user_the_cluster_assigns_one():
    settings = parse_settings({**PLAIN.document(), "runAsUser": None})
    spec = pod_of(shards(generation_job(), settings))
    assert spec["securityContext"] == {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
    assert problems(spec) == []


@EACH_CASE
def test_frazils_labels_are_on_the_pod_and_cannot_be_changed_by_the_template(case):
    job = ALL[case][-1]
    assert job["metadata"]["labels"].items() - {"kueue.x-k8s.io/queue-name": "gpus"}.items() <= (
        job["spec"]["template"]["metadata"]["labels"].items()
    )


def test_a_template_that_claims_the_operators_labels_loses():
    body = full_generation_job()
    body["spec"]["workers"]["template"]["labels"] = {"app.kubernetes.io/managed-by": "me"}
    labels = shards(body, FULL)[-1]["spec"]["template"]["metadata"]["labels"]
    assert labels["app.kubernetes.io/managed-by"] == "frazil-operator"
