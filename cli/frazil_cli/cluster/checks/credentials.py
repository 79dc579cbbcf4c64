"""Whether the namespace holds the Secrets that jobs need, and whether they open what they are for."""

from __future__ import annotations

from typing import Final

from frazil_cli.cluster.client import Object
from frazil_cli.cluster.observed import Finding, Observed, Probe, Unknown, name_of
from frazil_cli.cluster.results import READ, WRITE, destination_of, secret_name
from frazil_operator.settings import Settings

NAME: Final = "credentials"
STORE_KEYS: Final = ("endpoint", "bucket", "accessKey", "secretKey")


def wanted(namespace: str, jobs: list[Object], settings: Settings | None) -> dict[str, tuple[str, ...]]:
    """The Secrets that jobs of a namespace need, and the keys that each must have."""
    used = [destination_of(job) for job in jobs]
    served = [one.name for one in settings.destinations if one.serves(namespace)] if settings else ["default"]
    found: dict[str, tuple[str, ...]] = {settings.redis_secret if settings else "frazil-redis": ("url",)}
    for destination in dict.fromkeys([*used, *served]):
        for right in (READ, WRITE):
            found[secret_name(destination, right)] = STORE_KEYS
    return found


def check(observed: Observed) -> Finding:
    """Credentials missing in this namespace, or refused."""
    settings = observed.settings
    for job in observed.at_work:
        destination = destination_of(job)
        if settings and (place := settings.destination(destination)) is None:
            known = ", ".join(one.name for one in settings.destinations) or "none"
            return Finding(
                NAME,
                "wrong",
                f"{name_of(job)} names the destination {destination!r}, and there is none (there are: {known})",
                "correct spec.output.destination, or add it to `destinations` of the chart's values",
            )
        elif settings and place and not place.serves(observed.namespace):
            return Finding(
                NAME,
                "wrong",
                f"{name_of(job)} names the destination {destination!r}, which {observed.namespace!r} may not use",
                "correct spec.output.destination, or its `namespaces` in the chart's values",
            )
    if isinstance(observed.secrets, Unknown):
        return Finding(NAME, "unknown", observed.secrets.why)
    needed = wanted(observed.namespace, observed.at_work, settings)
    missing = [name for name in needed if observed.secrets.get(name) is None]
    if missing:
        return Finding(
            NAME,
            "wrong",
            f"the namespace {observed.namespace!r} lacks the Secrets {', '.join(missing)}",
            f"add {observed.namespace!r} to `tenants` of the chart's values and upgrade the release; for a store of your "
            "own make them by hand",
        )
    for name, keys in needed.items():
        empty = [key for key in keys if key not in (observed.secrets.get(name) or ())]
        if empty:
            return Finding(
                NAME, "wrong", f"the Secret {name} lacks {', '.join(empty)}", "upgrade the release, or add them by hand"
            )
    probes = {"the broker": observed.broker} | {f"the store {name!r}": one for name, one in observed.stores.items()}
    refused = tuple(
        f"{words} refuses them: {one.message}" for words, one in probes.items() if isinstance(one, Probe) and one.denied
    )
    if refused:
        return Finding(
            NAME,
            "wrong",
            "the Secrets of the namespace open nothing",
            "upgrade the release: it makes users and Secrets anew; for a store of your own check its users and policies",
            refused,
        )
    return Finding(NAME, "ok", f"{len(needed)} Secrets are there: {', '.join(needed)}")
