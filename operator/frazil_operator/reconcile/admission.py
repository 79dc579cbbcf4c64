"""What a job may not ask for here: the administrator's settings outrank every spec. Nothing is started for such a job."""

from __future__ import annotations

from frazil_operator.build.volumes import Job
from frazil_operator.settings import Settings


def refusal(job: Job, settings: Settings) -> str | None:
    """Why the job can't run on this cluster, with the field and the remedy; None when it can."""
    namespace = job.metadata.namespace
    name = job.spec.output.destination
    destination = settings.destination(name)
    if destination is None:
        known = ", ".join(sorted(one.name for one in settings.destinations)) or "none"
        return (
            f"spec.output.destination: there is no destination {name!r} "
            f"(there are: {known}; `destinations` in the chart's values names them)"
        )
    if not destination.serves(namespace):
        return (
            f"spec.output.destination: {name!r} does not serve the namespace {namespace!r} "
            "(its `namespaces` in the chart's values do not list it)"
        )
    if job.spec.model.allow_pickle and not settings.allow.pickle:
        return "spec.model.allowPickle: pickled weights are not allowed on this cluster (allow.pickle in the chart's values)"
    if job.spec.model.allow_remote_code and not settings.allow.remote_code:
        return (
            "spec.model.allowRemoteCode: code that comes with a model is not allowed on this cluster "
            "(allow.remoteCode in the chart's values)"
        )
    claim = settings.environment_claim
    for index, mount in enumerate(job.spec.workers.template.volume_mounts):
        path = str(mount.document().get("mountPath", "")).rstrip("/")
        if claim is not None and path == claim.mount_path:
            return (
                f"spec.workers.template.volumeMounts[{index}].mountPath: {path} holds this cluster's Python environment: "
                "mount it elsewhere"
            )
    return None
