"""A Lease (coordination.k8s.io): one replica of the operator acts at a time.

Who holds it renews it each sixth of its length, in one request that may take as long as the Lease is surely held: an API
server that is slow for all is slow for this, too. A holder that can't renew it, be it refused or left without an answer,
stops acting before another may take it: `hold` ends, and with it the process.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from typing import Any

from frazil_jobs.base.log import get_logger
from frazil_operator.kube.client import Conflict, Kube, KubeError, NotFound
from frazil_operator.kube.paths import path_of

log = get_logger(__name__)
_VERSION = "coordination.k8s.io/v1"
_SAFE = 0.8
"""Of its length, for how much it's held without being renewed."""
_RENEWALS = 6
"""In one length."""


def _text(moment: datetime) -> str:
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")


class Lease:
    """One Lease, from the view of one contender."""

    def __init__(
        self,
        kube: Kube,
        *,
        namespace: str,
        name: str,
        identity: str,
        seconds: float,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._kube = kube
        self._collection = path_of(_VERSION, "Lease", namespace)
        self._path = path_of(_VERSION, "Lease", namespace, name)
        self._name = name
        self._identity = identity
        self._seconds = seconds
        self._clock = clock
        self._seen: tuple[str, float] | None = None
        self._ours: dict[str, Any] | None = None
        """As the API server last answered our own write."""
        self.renewed_at: float | None = None
        """Monotonic; when it was last ours for certain."""

    async def try_acquire(self) -> bool:
        """Take or renew it, if it's ours or nobody's. False when another holds it. Raises KubeError."""
        ours, self._ours = self._ours, None
        if ours is not None:
            with suppress(NotFound):  # somebody has deleted it
                if await self._take(ours, time.monotonic()):
                    return True
        asked_at = time.monotonic()
        try:
            lease = await self._kube.get(self._path)
        except NotFound:
            body = {"apiVersion": _VERSION, "kind": "Lease", "metadata": {"name": self._name}, "spec": self._spec(0)}
            return await self._write(self._kube.create("Lease", self._collection, body), asked_at)
        spec = lease.get("spec") or {}
        holder = spec.get("holderIdentity") or ""
        if holder not in ("", self._identity) and not self._expired(spec):
            return False
        return await self._take(lease, asked_at)

    async def _take(self, lease: dict[str, Any], asked_at: float) -> bool:
        """Write our name and the time into it; False when somebody else has written it since. Raises KubeError."""
        spec = lease.get("spec") or {}
        again = spec.get("holderIdentity") == self._identity
        transitions = int(spec.get("leaseTransitions") or 0) + (not again)
        taken = {**lease, "spec": self._spec(transitions, acquired=spec.get("acquireTime") if again else None)}
        return await self._write(self._kube.replace("Lease", self._path, taken), asked_at)

    async def acquire(self) -> None:
        """Wait until it's ours."""
        said = False
        while True:
            try:
                if await self.try_acquire():
                    return
                if not said:
                    log.info("another replica holds the lease; standing by", lease=self._name)
                    said = True
            except KubeError as error:
                log.warning("the lease can't be read", error=str(error))
            await asyncio.sleep(self._seconds / 3)

    async def hold(self) -> None:
        """Renew it until it's lost; then return. A request that hangs is not waited for beyond the time that is left."""
        while True:
            since = time.monotonic() - (self.renewed_at or 0.0)
            pause = self._seconds / _RENEWALS
            await asyncio.sleep(max(0.1 * pause, pause - since))
            try:
                async with asyncio.timeout(max(0.0, self._left())):
                    if not await self.try_acquire():
                        log.error("another replica took the lease", lease=self._name)
                        return
            except TimeoutError:
                log.warning("the API server does not answer; the lease can't be renewed", lease=self._name)
            except KubeError as error:
                log.warning("the lease can't be renewed", error=str(error))
            if self._left() <= 0:
                log.error("the lease could not be renewed in time", lease=self._name)
                return

    def _left(self) -> float:
        """Seconds for which it's ours for certain, whatever other clocks say."""
        return -1.0 if self.renewed_at is None else self.renewed_at + self._seconds * _SAFE - time.monotonic()

    async def release(self) -> None:
        """Give it back, so that another replica need not wait."""
        try:
            lease = await self._kube.get(self._path)
            if (lease.get("spec") or {}).get("holderIdentity") == self._identity:
                lease["spec"] = {**lease["spec"], "holderIdentity": "", "leaseDurationSeconds": 1}
                await self._kube.replace("Lease", self._path, lease)
        except KubeError as error:
            log.warning("the lease can't be released", error=str(error))

    def _spec(self, transitions: int, *, acquired: str | None = None) -> dict[str, Any]:
        now = _text(self._clock())
        return {
            "holderIdentity": self._identity,
            "leaseDurationSeconds": round(self._seconds),
            "acquireTime": acquired or now,
            "renewTime": now,
            "leaseTransitions": transitions,
        }

    def _expired(self, spec: dict[str, Any]) -> bool:
        """Whether a holder is dead: its Lease has not changed for a whole length of our own clock, and by its own time
        it's over (clocks may differ)."""
        mark = f"{spec.get('holderIdentity')} {spec.get('renewTime')}"
        if self._seen is None or self._seen[0] != mark:
            self._seen = (mark, time.monotonic())
        seconds = float(spec.get("leaseDurationSeconds") or self._seconds)
        try:
            renewed = datetime.fromisoformat(str(spec.get("renewTime")))
        except ValueError:
            return True
        by_its_own = self._clock() > renewed + timedelta(seconds=seconds)
        return by_its_own and time.monotonic() - self._seen[1] >= seconds

    async def _write(self, call: Any, asked_at: float) -> bool:
        try:
            self._ours = await call
        except Conflict:
            return False
        self.renewed_at = asked_at
        return True
