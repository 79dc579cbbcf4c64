"""Every check of `frazil doctor`, by tables: what was observed, what is said of it, and the remedy."""

import copy
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest

from frazil_cli.cluster.checks import (
    accelerators,
    admission,
    credentials,
    definitions,
    gangs,
    images,
    operator,
    quota,
    services,
)
from frazil_cli.cluster.doctor import examine
from frazil_cli.cluster.observed import Observed, Probe, Unknown
from frazil_cli.cluster.trial import Trial
from frazil_jobs.api import crd
from frazil_jobs.api.generationjob import GenerationJob
from frazil_jobs.api.trainingjob import TrainingJob
from frazil_operator.settings import Destination, Images, Settings

NOW = datetime(2026, 11, 24, 12, 0, tzinfo=UTC)
LABEL = "app.kubernetes.io/component"
STORE_KEYS = frozenset({"endpoint", "bucket", "accessKey", "secretKey", "region"})
SECRETS = {
    "frazil-redis": frozenset({"url"}),
    "frazil-default-read": STORE_KEYS,
    "frazil-default-write": STORE_KEYS,
}
DENIED = Unknown("you may not see this")


def ago(seconds):
    return (NOW - timedelta(seconds=seconds)).isoformat()


def deployment(name, *, available=1, replicas=1, conditions=()):
    return {
        "metadata": {"name": f"frazil-{name}", "labels": {LABEL: name}},
        "spec": {"replicas": replicas, "selector": {"matchLabels": {LABEL: name}}},
        "status": {"availableReplicas": available, "conditions": list(conditions)},
    }


def pod(name="ice-a0-0", *, labels=None, waiting=None, conditions=(), image="ghcr.io/frazil/jobs:1", last=None):
    state = {"waiting": waiting} if waiting else {"running": {}}
    status = {"name": "compute", "image": image, "state": state}
    if last:
        status["lastState"] = {"terminated": {"message": last}}
    return {
        "metadata": {"name": name, "labels": labels or {}},
        "status": {"containerStatuses": [status], "conditions": list(conditions)},
    }


def node(name="n", *, ready="True", unschedulable=False, **allocatable):
    return {
        "metadata": {"name": name},
        "spec": {"unschedulable": unschedulable},
        "status": {
            "allocatable": {"cpu": "8", **allocatable},
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }


def gpus(count, resource="nvidia.com/gpu", **more):
    return node(**{resource: str(count)}, **more)


def job(name="ice", *, phase="Running", conditions=(), scheduling=None, output=None, **workers):
    return {
        "kind": "GenerationJob",
        "metadata": {"name": name},
        "spec": {
            "workers": {"gpusPerNode": 2, **workers},
            "scheduling": scheduling or {},
            "output": {"destination": "default"} | (output or {}),
        },
        "status": {"phase": phase, "conditions": list(conditions)},
    }


def event(reason, message, *, seconds=60, about=("Job", "ice-a0")):
    return {
        "involvedObject": dict(zip(("kind", "name"), about, strict=True)),
        "metadata": {"creationTimestamp": ago(seconds)},
        "type": "Warning",
        "reason": reason,
        "message": message,
        "lastTimestamp": ago(seconds),
    }


def condition(kind, status, reason="", message=""):
    return {"type": kind, "status": status, "reason": reason, "message": message}


def holder(seconds, *, name="operator-1", duration=15):
    return {"spec": {"holderIdentity": name, "renewTime": ago(seconds), "leaseDurationSeconds": duration}}


WELL = Observed(
    now=NOW,
    namespace="team-a",
    served=frozenset({"GenerationJob", "TrainingJob"}),
    definitions=tuple(crd.crd(kind) for kind in (GenerationJob, TrainingJob)),
    system="frazil-system",
    settings=Settings(destinations=[Destination(uri="s3://some/where")]),
    deployments=tuple(deployment(name) for name in ("operator", "worker", "redis", "minio")),
    lease=holder(3),
    system_pods=(pod("frazil-operator-1", labels={LABEL: "operator"}),),
    nodes=(gpus(4),),
    namespace_object={"metadata": {"labels": {admission.ENFORCE: "restricted"}}},
    jobs=(job(),),
    pods=(pod(),),
    secrets=SECRETS,
    gang_provider="native-v1beta1",
    trial=Trial("Pod", "x", accepted=True),
    stores={"default": Probe(ok=True)},
    broker=Probe(ok=True),
)
BLIND = replace(
    WELL,
    definitions=DENIED,
    system=DENIED,
    settings=None,
    deployments=DENIED,
    lease=DENIED,
    system_pods=DENIED,
    nodes=DENIED,
    namespace_object=DENIED,
    quotas=DENIED,
    pods=DENIED,
    events=DENIED,
    secrets=DENIED,
    trial=DENIED,
    stores={},
    broker=DENIED,
)


def older(change):
    """The definitions with a change."""
    found = copy.deepcopy(WELL.definitions)
    spec = found[0]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]["properties"]["spec"]
    change(spec)
    return found


def lacks(spec):
    del spec["properties"]["imagesPerPrompt"]


def has_more(spec):
    spec["properties"]["novel"] = {"type": "string"}


def has_other_rules(spec):
    spec["x-kubernetes-validations"] = spec["x-kubernetes-validations"][1:]


def has_other_words(spec):
    spec["properties"]["imagesPerPrompt"]["description"] = "said in another way"


def not_established():
    (one, other) = copy.deepcopy(WELL.definitions)
    one["metadata"] = {"name": "generationjobs.frazil.dev"}
    one["status"] = {"conditions": [condition("Established", "False", message="names are taken")]}
    other["metadata"] = {"name": "trainingjobs.frazil.dev"}
    other["status"] = {"conditions": [condition("Established", "True")]}
    return (one, other)


CASES = [
    ("the definitions are there", definitions.there, {}, "ok", "are served", ""),
    ("there are none", definitions.there, {"served": frozenset()}, "wrong", "does not serve", "helm install"),
    (
        "one of them is not established",
        definitions.there,
        {"served": frozenset({"TrainingJob"}), "definitions": not_established()},
        "wrong",
        "does not serve GenerationJob",
        "helm install",
    ),
    ("the definitions are current", definitions.current, {}, "ok", "those of this version", ""),
    (
        "a field is not known there",
        definitions.current,
        {"definitions": older(lacks)},
        "wrong",
        "lack GenerationJob.spec.imagesPerPrompt",
        "helm upgrade",
    ),
    (
        "a rule is another one there",
        definitions.current,
        {"definitions": older(has_other_rules)},
        "wrong",
        "differ in GenerationJob.spec",
        "helm upgrade",
    ),
    ("descriptions decide nothing", definitions.current, {"definitions": older(has_other_words)}, "ok", "this", ""),
    (
        "the cluster's are newer",
        definitions.current,
        {"definitions": older(has_more)},
        "ok",
        "newer than this command: they also have GenerationJob.spec.novel",
        "",
    ),
    ("definitions that are not there have no version", definitions.current, {"definitions": ()}, "unknown", "", ""),
    ("definitions that may not be seen", definitions.current, {"definitions": DENIED}, "unknown", DENIED.why, ""),
    ("the operator leads", operator.check, {}, "ok", "frazil-system, and operator-1 leads", ""),
    (
        "no operator",
        operator.check,
        {"system": None, "settings": None},
        "wrong",
        "there is no operator",
        "helm install",
    ),
    ("an operator that may not be seen", operator.check, {"system": DENIED}, "unknown", DENIED.why, ""),
    (
        "scaled to nothing",
        operator.check,
        {"deployments": (deployment("operator", replicas=0, available=0),)},
        "wrong",
        "scaled to 0",
        "--replicas=1",
    ),
    (
        "its pod crashes",
        operator.check,
        {
            "deployments": (deployment("operator", available=0),),
            "system_pods": (
                pod(
                    "frazil-operator-1",
                    labels={LABEL: "operator"},
                    waiting={"reason": "CrashLoopBackOff", "message": "back-off 5m"},
                    last="Traceback\nBadConfiguration: no such destination",
                ),
            ),
        },
        "wrong",
        "CrashLoopBackOff BadConfiguration: no such destination",
        "logs deployment/frazil-operator",
    ),
    (
        "it may not make pods",
        operator.check,
        {
            "deployments": (
                deployment(
                    "operator",
                    available=0,
                    conditions=[condition("ReplicaFailure", "True", message="exceeded quota: q")],
                ),
            ),
            "system_pods": (),
        },
        "wrong",
        "exceeded quota: q",
        "logs",
    ),
    ("the Lease was never taken", operator.check, {"lease": None}, "wrong", "ever taken the Lease", "logs"),
    ("nobody holds the Lease", operator.check, {"lease": holder(3, name="")}, "wrong", "nobody holds", "logs"),
    ("the Lease is late but may be renewed", operator.check, {"lease": holder(40)}, "ok", "leads", ""),
    ("the Lease is stale", operator.check, {"lease": holder(90)}, "wrong", "silent for 90 s", "logs"),
    ("the Lease may not be seen", operator.check, {"lease": DENIED}, "ok", "runs in frazil-system", ""),
    (
        "the namespace is not its own",
        operator.check,
        {"settings": Settings(namespaces=["team-b"])},
        "wrong",
        "does not act on 'team-a': only on team-b",
        "`namespaces`",
    ),
    (
        "its settings are wrong",
        operator.check,
        {"settings": None, "settings_problem": "spoolSize: no quantity"},
        "wrong",
        "spoolSize",
        "values",
    ),
    ("there are GPUs", accelerators.check, {"nodes": (gpus(4), gpus(8))}, "ok", "12 nvidia.com/gpu on 2 nodes", ""),
    ("no node has a GPU", accelerators.check, {"nodes": (node(),)}, "wrong", "no node that is ready", "device plugin"),
    ("there are no nodes", accelerators.check, {"nodes": ()}, "wrong", "has no nodes", "add nodes"),
    (
        "its nodes are not ready",
        accelerators.check,
        {"nodes": (gpus(4, ready="Unknown"), gpus(4, unschedulable=True))},
        "wrong",
        "no node that is ready offers nvidia.com/gpu",
        "device plugin",
    ),
    (
        "other GPUs than asked for",
        accelerators.check,
        {"nodes": (gpus(8, "amd.com/gpu"),)},
        "wrong",
        "ice asks for nvidia.com/gpu",
        "nodes offer amd.com/gpu: name it in spec.workers.accelerator",
    ),
    (
        "as the job names it",
        accelerators.check,
        {"nodes": (gpus(8, "amd.com/gpu"),), "jobs": (job(accelerator="amd.com/gpu"),)},
        "ok",
        "8 amd.com/gpu on 1 node",
        "",
    ),
    (
        "more than a node has",
        accelerators.check,
        {"jobs": (job(gpusPerNode=8),)},
        "wrong",
        "ice asks for 8 nvidia.com/gpu a pod, and the largest node has 4",
        "nodesPerReplica",
    ),
    (
        "a finished job asks for nothing",
        accelerators.check,
        {"jobs": (job(phase="Failed", gpusPerNode=8),)},
        "ok",
        "4",
        "",
    ),
    (
        "GPUs that are busy are waited for",
        accelerators.check,
        {"pods": (pod(conditions=[condition("PodScheduled", "False", message="1 Insufficient nvidia.com/gpu")]),)},
        "ok",
        "ice-a0-0 waits: 1 Insufficient nvidia.com/gpu",
        "",
    ),
    (
        "a taint is not waited for",
        accelerators.check,
        {"pods": (pod(conditions=[condition("PodScheduled", "False", message="1 node(s) had untolerated taint(s)")]),)},
        "wrong",
        "untolerated taint",
        "tolerations",
    ),
    ("nodes may not be seen", accelerators.check, {"nodes": DENIED}, "unknown", DENIED.why, ""),
    (
        "nodes may not be seen, and the scheduler says it",
        accelerators.check,
        {
            "nodes": DENIED,
            "pods": (pod(conditions=[condition("PodScheduled", "False", message="Insufficient nvidia.com/gpu")]),),
        },
        "wrong",
        "Insufficient nvidia.com/gpu",
        "administrator",
    ),
    ("no quota", quota.check, {}, "ok", "the namespace has none", ""),
    (
        "a quota with room",
        quota.check,
        {
            "quotas": (
                {
                    "status": {
                        "hard": {"pods": "4", "limits.memory": "1Ti"},
                        "used": {"pods": "3", "limits.memory": "1000Gi"},
                    }
                },
            )
        },
        "ok",
        "none used up",
        "",
    ),
    (
        "a quota that is used up lets jobs wait",
        quota.check,
        {"quotas": ({"status": {"hard": {"limits.memory": "1Gi"}, "used": {"limits.memory": "1024Mi"}}},)},
        "ok",
        "limits.memory 1024Mi/1Gi",
        "",
    ),
    (
        "pods were refused by a quota",
        quota.check,
        {"events": (event("FailedCreate", 'pods "ice" is forbidden: exceeded quota: gpus'),)},
        "wrong",
        "exceeded quota: gpus",
        "describe resourcequota",
    ),
    (
        "a refusal of a job that is gone is over",
        quota.check,
        {"events": (event("FailedCreate", "exceeded quota: gpus", about=("Job", "gone-a0")),)},
        "ok",
        "the namespace has none",
        "",
    ),
    (
        "so is one that the gone job itself was told of",
        quota.check,
        {"events": (event("Refused", "exceeded quota: gpus", about=("GenerationJob", "gone")),)},
        "ok",
        "the namespace has none",
        "",
    ),
    (
        "an old refusal may be over",
        quota.check,
        {"events": (event("FailedCreate", "exceeded quota: gpus", seconds=1000),)},
        "ok",
        "",
        "",
    ),
    (
        "a quota that wants limits refuses the trial",
        quota.check,
        {"trial": Trial("Pod", "x", accepted=False, message="failed quota: q: must specify limits.cpu")},
        "wrong",
        "must specify limits.cpu",
        "describe resourcequota",
    ),
    (
        "a queue without Kueue",
        quota.check,
        {"jobs": (job(scheduling={"queueName": "gpus"}),)},
        "wrong",
        "ice waits for the queue 'gpus', and the cluster has no Kueue",
        "install Kueue",
    ),
    (
        "a queue that has no room yet",
        quota.check,
        {
            "kueue": True,
            "jobs": (
                job(
                    scheduling={"queueName": "gpus"},
                    conditions=[condition("QuotaReserved", "False", "WaitingForQuota", "needs 2 more")],
                ),
            ),
        },
        "ok",
        "ice: needs 2 more",
        "",
    ),
    ("quotas may not be seen", quota.check, {"quotas": DENIED}, "unknown", DENIED.why, ""),
    ("images are pulled", images.check, {}, "ok", "none of 2 pods waits", ""),
    ("no pods", images.check, {"pods": (), "system_pods": ()}, "ok", "no pods to look at", ""),
    (
        "an image can't be pulled",
        images.check,
        {"pods": (pod(waiting={"reason": "ImagePullBackOff", "message": "401 Unauthorized"}),)},
        "wrong",
        "ghcr.io/frazil/jobs:1: ImagePullBackOff: 401 Unauthorized",
        "images.pullSecrets",
    ),
    (
        "which pull secrets are in use is said",
        images.check,
        {
            "pods": (pod(waiting={"reason": "ErrImagePull"}),),
            "settings": Settings(images=Images(pull_secrets=["registry"])),
        },
        "wrong",
        "ErrImagePull",
        "registry, in 'team-a'",
    ),
    (
        "the operator's own image",
        images.check,
        {"system_pods": (pod("frazil-operator-1", waiting={"reason": "InvalidImageName"}),)},
        "wrong",
        "frazil-operator-1",
        "`images`",
    ),
    (
        "a container that is being made is no trouble",
        images.check,
        {"pods": (pod(waiting={"reason": "ContainerCreating"}),)},
        "ok",
        "",
        "",
    ),
    ("pods may not be seen", images.check, {"pods": DENIED}, "unknown", DENIED.why, ""),
    ("broker and store answer", services.check, {}, "ok", "the broker and the store 'default' answer", ""),
    (
        "the broker's pod is not ready",
        services.check,
        {"deployments": (deployment("redis", available=0),), "system_pods": ()},
        "wrong",
        "the broker (Redis) is not running",
        "describe deployment/frazil-redis",
    ),
    (
        "the store does not answer",
        services.check,
        {"stores": {"default": Probe(ok=False, message="timed out")}},
        "wrong",
        "the store 'default' does not answer: timed out",
        "endpoint",
    ),
    (
        "the broker does not answer",
        services.check,
        {"broker": Probe(ok=False, message="refused")},
        "wrong",
        "the broker does not answer: refused",
        "url",
    ),
    (
        "the worker is down",
        services.check,
        {"deployments": (deployment("worker", available=0),), "system_pods": ()},
        "wrong",
        "the worker is not running",
        "describe deployment/frazil-worker",
    ),
    (
        "a job feels it",
        services.check,
        {"jobs": (job(conditions=[condition("OutputsStored", "False", "UploadFailed", "no route")]),)},
        "wrong",
        "ice: UploadFailed: no route",
        "tried again",
    ),
    (
        "a worker that is ready and answers no task",
        services.check,
        {"jobs": (job(conditions=[condition("PromptsInspected", "False", "WorkerSilent", "no answer")]),)},
        "wrong",
        "ice: WorkerSilent: no answer",
        "worker Deployment",
    ),
    (
        "refused credentials are no outage",
        services.check,
        {"stores": {"default": Probe(ok=False, message="no", denied=True)}},
        "ok",
        "the broker answers",
        "",
    ),
    (
        "what can't be asked is judged by its pods",
        services.check,
        {"stores": {}, "broker": DENIED},
        "ok",
        "their pods are ready",
        "",
    ),
    (
        "what can neither be asked nor seen",
        services.check,
        {"stores": {}, "broker": DENIED, "deployments": DENIED},
        "unknown",
        "weren't asked",
        "",
    ),
    ("the Secrets are there", credentials.check, {}, "ok", "3 Secrets are there", ""),
    (
        "none are there",
        credentials.check,
        {"secrets": dict.fromkeys(SECRETS)},
        "wrong",
        "lacks the Secrets frazil-redis, frazil-default-read, frazil-default-write",
        "`tenants`",
    ),
    (
        "one is half empty",
        credentials.check,
        {"secrets": SECRETS | {"frazil-default-write": frozenset({"endpoint", "bucket"})}},
        "wrong",
        "frazil-default-write lacks accessKey, secretKey",
        "upgrade",
    ),
    (
        "the store refuses them",
        credentials.check,
        {"stores": {"default": Probe(ok=False, message="the secret key is wrong", denied=True)}},
        "wrong",
        "the store 'default' refuses them: the secret key is wrong",
        "upgrade",
    ),
    (
        "a job names a destination that isn't there",
        credentials.check,
        {"jobs": (job(output={"destination": "archive"}),)},
        "wrong",
        "names the destination 'archive', and there is none (there are: default)",
        "`destinations`",
    ),
    (
        "a destination of others",
        credentials.check,
        {"settings": Settings(destinations=[Destination(uri="s3://some/where", namespaces=["team-b"])])},
        "wrong",
        "which 'team-a' may not use",
        "`namespaces`",
    ),
    (
        "a destination that no job uses needs its Secrets too",
        credentials.check,
        {
            "settings": Settings(
                destinations=[Destination(uri="s3://some/where"), Destination(name="cold", uri="s3://some/cold")]
            )
        },
        "wrong",
        "frazil-cold-read, frazil-cold-write",
        "`tenants`",
    ),
    ("Secrets may not be seen", credentials.check, {"secrets": DENIED}, "unknown", DENIED.why, ""),
    ("gangs are placed", gangs.check, {}, "ok", "by native-v1beta1", ""),
    ("no provider, no gang", gangs.check, {"gang_provider": "none"}, "ok", "no job here needs one", ""),
    (
        "no provider, and a gang that wants one",
        gangs.check,
        {"gang_provider": "none", "jobs": (job(nodesPerReplica=2, scheduling={"gang": "Required"}),)},
        "wrong",
        "ice must be placed together",
        "GenericWorkload",
    ),
    (
        "no provider, and a gang that can do without",
        gangs.check,
        {"gang_provider": "none", "jobs": (job(nodesPerReplica=2),)},
        "ok",
        "ice: pods are placed one by one",
        "",
    ),
    (
        "a gang that does not fit now",
        gangs.check,
        {
            "jobs": (
                job(nodesPerReplica=2, conditions=[condition("GangScheduled", "False", "Unschedulable", "1 of 2 fit")]),
            )
        },
        "ok",
        "ice: 1 of 2 fit",
        "",
    ),
    ("pods are let in", admission.check, {}, "ok", "is let in (the namespace enforces `restricted`)", ""),
    (
        "Pod Security refuses the trial",
        admission.check,
        {"trial": Trial("Pod", "x", accepted=False, message='violates PodSecurity "restricted:latest"')},
        "wrong",
        "Pod Security of 'team-a' refuses pods",
        "template",
    ),
    (
        "Pod Security refused a job's pod",
        admission.check,
        {"events": (event("FailedCreate", 'pods "ice" is forbidden: violates PodSecurity "restricted:latest"'),)},
        "wrong",
        "violates PodSecurity",
        "template",
    ),
    (
        "a webhook refuses the trial",
        admission.check,
        {"trial": Trial("Pod", "x", accepted=False, message="admission webhook denied the request: no label")},
        "wrong",
        "no label",
        "webhook",
    ),
    (
        "a quota is another check's",
        admission.check,
        {"trial": Trial("Pod", "x", accepted=False, message="exceeded quota: gpus")},
        "ok",
        "",
        "",
    ),
    (
        "an image that runs as root",
        admission.check,
        {
            "pods": (
                pod(
                    waiting={
                        "reason": "CreateContainerConfigError",
                        "message": "container has runAsNonRoot and image will run as root",
                    }
                ),
            )
        },
        "wrong",
        "wants to run as root",
        "USER",
    ),
    ("no trial, and the level is known", admission.check, {"trial": DENIED}, "ok", "enforces `restricted`", ""),
    (
        "no trial, and nothing known",
        admission.check,
        {"trial": DENIED, "namespace_object": DENIED},
        "unknown",
        DENIED.why,
        "",
    ),
]


@pytest.mark.parametrize(
    ("check", "changes", "state", "words", "remedy"), [case[1:] for case in CASES], ids=[case[0] for case in CASES]
)
def test_a_check_says(check, changes, state, words, remedy):
    found = check(replace(WELL, **changes))
    said = "\n".join([found.message, *found.details])
    assert found.state == state, said
    assert words in said
    assert remedy in found.remedy
    assert bool(found.remedy) == (state == "wrong")


def test_every_check_has_a_case_of_each_state_that_it_can_have():
    covered = {(case[1], case[3]) for case in CASES}
    from frazil_cli.cluster.doctor import checks

    for check in checks():
        assert {(check, "ok"), (check, "wrong")} <= covered


def test_nothing_is_wrong_where_all_is_well():
    assert {finding.state for finding in examine(WELL)} == {"ok"}


def test_who_sees_nothing_is_told_of_nothing_wrong():
    states = {finding.check: finding.state for finding in examine(BLIND)}
    assert "wrong" not in states.values()
    assert [name for name, state in states.items() if state == "ok"] == ["definitions", "gangs"]


@pytest.mark.parametrize(
    ("text", "value"),
    [("3", 3), ("500m", "0.5"), ("1k", 1000), ("8Gi", 8 * 2**30), ("1.5Ti", 1.5 * 2**40), ("", None), ("many", None)],
)
def test_quantities(text, value):
    from decimal import Decimal

    assert quota.quantity(text) == (None if value is None else Decimal(str(value)))
