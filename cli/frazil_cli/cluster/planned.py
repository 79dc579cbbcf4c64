"""`frazil plan --cluster`: the objects that a job becomes on a cluster, and what that cluster's API server says of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from rich.console import Console
from rich.syntax import Syntax
from rich.text import Text

from frazil_cli.cluster.access import Access, is_there
from frazil_cli.cluster.client import Cluster, Forbidden, Object, Unreachable
from frazil_cli.cluster.installation import find_installation
from frazil_cli.cluster.manifests import Manifests, manifests, pod_of, settings_as_default
from frazil_cli.cluster.trial import Trial, attempt
from frazil_jobs.api.base import API_VERSION
from frazil_jobs.api.load import Job
from frazil_jobs.api.yamltext import documents
from frazil_jobs.base.exits import BadConfiguration, FrazilError
from frazil_operator.gang.placement import API_VERSIONS, Provider, choose


class _Plain(yaml.SafeDumper):
    """Writes everything out: no anchors."""

    def ignore_aliases(self, data: Any) -> bool:
        """Always."""
        return True


@dataclass(frozen=True)
class OnCluster:
    """What is known."""

    namespace: str
    manifests: Manifests
    context: str | None = None
    """None: no cluster was asked."""
    trials: tuple[Trial, ...] = ()
    notes: tuple[str, ...] = ()
    problems: tuple[FrazilError, ...] = field(default=())

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {
            "namespace": self.namespace,
            "manifests": list(self.manifests.children),
            "server": None
            if self.context is None
            else {"context": self.context, "trials": [trial.document() for trial in self.trials]},
            "notes": [*self.manifests.notes, *self.notes],
        }


def on_cluster(file: Path, job: Job, pin: Mapping[str, Any] | None, access: Access) -> OnCluster:
    """Find out. Without a cluster the objects are those of the chart's defaults. Raises FrazilError when one is named
    and can't be reached."""
    if not access.named and not is_there():
        return _without(job, pin, access, "no cluster is known here: nothing was tried")
    try:
        cluster = Cluster.connect(access)
        provider = gang_provider(cluster)
    except Unreachable as error:
        if access.named:
            raise
        return _without(job, pin, access, f"{error.message}: nothing was tried")
    raw = _raw(file)
    stated = (raw.get("metadata") or {}).get("namespace")
    if stated and access.namespace and stated != access.namespace:
        raise BadConfiguration(
            f"the file says {stated!r}, and -n says {access.namespace!r}",
            field="metadata.namespace",
            remedy="leave one of them out",
        )
    placed = _placed(job, str(stated or cluster.namespace))
    notes: list[str] = []
    settings = _settings(cluster, notes)
    made = manifests(placed, pin=pin, settings=settings or settings_as_default(placed), provider=provider)
    problems: list[FrazilError] = []
    if made.refusal:
        problems.append(BadConfiguration(made.refusal, field="the operator", remedy="change the job, or the values"))
    trials = _trials(cluster, _object(raw, placed), made)
    problems += [
        BadConfiguration(trial.message, field=f"{trial.kind} {trial.name}", remedy="`frazil doctor` looks further")
        for trial in trials
        if trial.accepted is False
    ]
    notes += [f"{trial.kind} {trial.name} was not tried: {trial.message}" for trial in trials if trial.accepted is None]
    return OnCluster(placed.metadata.namespace, made, cluster.context, trials, tuple(notes), tuple(problems))


def _without(job: Job, pin: Mapping[str, Any] | None, access: Access, why: str) -> OnCluster:
    """With the chart's defaults alone."""
    placed = _placed(job, access.namespace or job.metadata.namespace)
    made = manifests(placed, pin=pin, settings=settings_as_default(placed))
    return OnCluster(placed.metadata.namespace, made, notes=(why, "images and sizes are the chart's defaults"))


def gang_provider(cluster: Cluster) -> Provider:
    """Who would place a gang's pods together there."""
    return choose(frozenset(version for version in API_VERSIONS.values() if "PodGroup" in cluster.served(version)))


def draw(found: OnCluster, console: Console) -> None:
    """Print it: YAML that kubectl would read, and what the server says."""
    text = yaml.dump_all(found.manifests.children, Dumper=_Plain, sort_keys=False, explicit_start=True, width=1000)
    if console.is_terminal:
        console.print(Syntax(text, "yaml", background_color="default", word_wrap=True))
    else:
        console.file.write(text)
    for note in (*found.manifests.notes, *found.notes):
        console.print(Text(f"# {note}", style="yellow"), soft_wrap=True)
    for trial in found.trials:
        mark, style = {True: ("✓", "green"), False: ("✗", "red"), None: ("–", "yellow")}[trial.accepted]
        said = {True: "accepted by the server", False: "refused", None: "not tried"}[trial.accepted]
        line = Text.assemble((f"# {mark} ", style), f"{trial.kind} {trial.name}: {said}")
        console.print(line.append(f" ({found.context}, dry run)", style="dim"), soft_wrap=True)


def _trials(cluster: Cluster, job: Object, made: Manifests) -> tuple[Trial, ...]:
    pods = [pod for child in made.children if (pod := pod_of(child)) is not None]
    return tuple(attempt(cluster, thing) for thing in (job, *made.children, *pods))


def _settings(cluster: Cluster, notes: list[str]) -> Any:
    try:
        found = find_installation(cluster)
    except Forbidden:
        notes.append("you may not see the operator's settings: images and sizes are the chart's defaults")
        return None
    if found is None:
        notes.append("Frazil is not installed there: images and sizes are the chart's defaults")
        return None
    if found.settings is None:
        notes.append(f"the operator's settings can't be read: {found.problem}")
    return found.settings


def _raw(file: Path) -> dict[str, Any]:
    (found,) = documents(file.read_text(encoding="utf-8"), name=str(file))
    return dict(found)


def _placed(job: Job, namespace: str) -> Job:
    return job.model_copy(update={"metadata": job.metadata.model_copy(update={"namespace": namespace})})


def _object(raw: Mapping[str, Any], job: Job) -> Object:
    """The file as kubectl would apply it."""
    return {**raw, "apiVersion": API_VERSION, "metadata": {**raw["metadata"], "namespace": job.metadata.namespace}}
