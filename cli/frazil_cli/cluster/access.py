"""Which cluster is meant: kubeconfig, context and namespace, found as kubectl finds them."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Final

import typer

from frazil_jobs.base.exits import BadConfiguration

PANEL: Final = "The cluster"
KUBECONFIG: Final = "KUBECONFIG"
SERVICE_ACCOUNT: Final = Path("/var/run/secrets/kubernetes.io/serviceaccount")
DEFAULT_NAMESPACE: Final = "default"
_INSTALL: Final = "install it: pip install 'frazil[cluster]'"

Kubeconfig = Annotated[
    Path | None,
    typer.Option(
        "--kubeconfig",
        metavar="FILE",
        rich_help_panel=PANEL,
        help="The kubeconfig file.",
        show_default="KUBECONFIG, or ~/.kube/config",
    ),
]
Context = Annotated[
    str | None,
    typer.Option("--context", rich_help_panel=PANEL, help="The context of it.", show_default="the current one"),
]
Namespace = Annotated[
    str | None,
    typer.Option("--namespace", "-n", rich_help_panel=PANEL, help="The namespace.", show_default="the context's"),
]


@dataclass(frozen=True)
class Access:
    """What a person said about the cluster; None: what kubectl would use."""

    kubeconfig: Path | None = None
    context: str | None = None
    namespace: str | None = None

    @property
    def named(self) -> bool:
        """Whether a cluster is named on the command line."""
        return self.kubeconfig is not None or self.context is not None


@dataclass(frozen=True)
class Reached:
    """What it leads to."""

    configuration: Any
    """Of the official client."""
    context: str
    namespace: str


def is_there(environment: Mapping[str, str] = os.environ) -> bool:
    """Whether kubectl would find a cluster to talk to: a kubeconfig, or the service account of a pod."""
    return bool(_files(environment)) or (SERVICE_ACCOUNT / "token").is_file()


def reach(access: Access, environment: Mapping[str, str] = os.environ) -> Reached:
    """Read the kubeconfig. Raises BadConfiguration with the way out."""
    import yaml

    config = _official()
    configuration = _configuration()
    files = [access.kubeconfig] if access.kubeconfig else _files(environment)
    if not files:
        if access.context is None and (SERVICE_ACCOUNT / "token").is_file():
            return _in_pod(config, configuration, access)
        raise _no_kubeconfig(environment)
    joined = os.pathsep.join(str(path) for path in files)
    missing = [path for path in files if not path.is_file()]
    if missing:
        raise BadConfiguration(
            f"there is no kubeconfig at {missing[0]}",
            field="--kubeconfig" if access.kubeconfig else KUBECONFIG,
            remedy="name the file of your cluster",
        )
    try:
        contexts, active = config.list_kube_config_contexts(config_file=joined)
        wanted = access.context or _current(files)
        chosen = _chosen(contexts, active, wanted, joined)
        config.load_kube_config(
            config_file=joined,
            context=chosen["name"],
            client_configuration=configuration,
            persist_config=False,
        )
    except (config.ConfigException, yaml.YAMLError, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadConfiguration(
            f"{joined} can't be used: {str(error).splitlines()[0] if str(error) else type(error).__name__}",
            field="--kubeconfig" if access.kubeconfig else KUBECONFIG,
            remedy="`kubectl config view` shows what is in it",
        ) from None
    namespace = access.namespace or chosen.get("context", {}).get("namespace") or DEFAULT_NAMESPACE
    return Reached(configuration, str(chosen["name"]), str(namespace))


def _chosen(contexts: list[dict[str, Any]], active: dict[str, Any] | None, wanted: str | None, files: str) -> Any:
    names = [str(context["name"]) for context in contexts]
    if wanted is None:
        if active is not None:
            return active
        raise BadConfiguration(
            f"{files} has no current context", field="--context", remedy=f"name one of: {', '.join(names)}"
        )
    found = next((context for context in contexts if context["name"] == wanted), None)
    if found is None:
        raise BadConfiguration(
            f"there is no context {wanted!r} in {files}", field="--context", remedy=f"name one of: {', '.join(names)}"
        )
    return found


def _current(files: list[Path]) -> str | None:
    """The first file that says one decides, as with kubectl; the official client lets the last one do."""
    import yaml

    for path in files:
        found = yaml.safe_load(path.read_text(encoding="utf-8"))
        if isinstance(found, dict) and found.get("current-context"):
            return str(found["current-context"])
    return None


def _in_pod(config: Any, configuration: Any, access: Access) -> Reached:
    config.load_incluster_config(client_configuration=configuration)
    file = SERVICE_ACCOUNT / "namespace"
    own = file.read_text().strip() if file.is_file() else ""
    return Reached(configuration, "this pod's service account", access.namespace or own or DEFAULT_NAMESPACE)


def _files(environment: Mapping[str, str]) -> list[Path]:
    """As kubectl: all files of KUBECONFIG that are there (all that it names when none is), or the one at home."""
    if said := environment.get(KUBECONFIG):
        named = [Path(part).expanduser() for part in said.split(os.pathsep) if part]
        return [path for path in named if path.is_file()] or named[:1]
    home = Path(environment.get("HOME", "~")).expanduser() / ".kube" / "config"
    return [home] if home.is_file() else []


def _no_kubeconfig(environment: Mapping[str, str]) -> BadConfiguration:
    home = Path(environment.get("HOME", "~")).expanduser() / ".kube" / "config"
    return BadConfiguration(
        f"no cluster is known here: there is no {home}, and KUBECONFIG is not set",
        field="--kubeconfig",
        remedy="name the kubeconfig of your cluster; without a cluster, `frazil run job.yaml` runs a job here",
    )


def _official() -> Any:
    try:
        from kubernetes import config
    except ImportError:
        raise BadConfiguration("the Kubernetes client is not installed", remedy=_INSTALL) from None
    return config


def _configuration() -> Any:
    from kubernetes.client import Configuration

    configuration = Configuration()
    configuration.retries = False  # `Cluster` decides what is tried again
    return configuration
