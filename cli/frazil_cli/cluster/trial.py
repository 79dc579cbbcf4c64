"""Whether the API server would take an object: a dry run, with every check of the server and nothing stored."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from frazil_cli.cluster.client import Cluster, Forbidden, NotFound, Object, Refused, path_of


@dataclass(frozen=True)
class Trial:
    """What the server says of one object."""

    kind: str
    name: str
    accepted: bool | None
    """None: it can't be tried."""
    message: str = ""

    def document(self) -> dict[str, Any]:
        """As JSON."""
        return {"kind": self.kind, "name": self.name, "accepted": self.accepted, "message": self.message}


def attempt(cluster: Cluster, thing: Object) -> Trial:
    """Try an object. Raises FrazilError only when the server is away."""
    meta = thing["metadata"]
    kind, name = str(thing["kind"]), str(meta.get("name") or meta.get("generateName"))
    try:
        plural = _plural(cluster, str(thing["apiVersion"]), kind)
        path = path_of(thing["apiVersion"], plural, namespace=meta["namespace"])
        if meta.get("name"):
            cluster.dry_run(f"{path}/{name}", thing, apply=True)
        else:
            cluster.dry_run(path, thing)
    except Refused as error:
        return Trial(kind, name, accepted=False, message=error.message)
    except NotFound as error:
        return Trial(kind, name, accepted=False, message=error.message)
    except Forbidden as error:
        return Trial(kind, name, accepted=None, message=error.message)
    return Trial(kind, name, accepted=True)


def _plural(cluster: Cluster, api_version: str, kind: str) -> str:
    found = cluster.find(f"/apis/{api_version}" if "/" in api_version else f"/api/{api_version}")
    for resource in (found or {}).get("resources", ()):
        if resource["kind"] == kind and "/" not in resource["name"]:
            return str(resource["name"])
    raise NotFound(f"the server serves no {kind} of {api_version}")
