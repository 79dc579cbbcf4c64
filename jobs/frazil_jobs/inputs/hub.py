"""Models and data sets of the Hugging Face hub: listed and downloaded through `huggingface_hub`, with this process's token.

Every call has a time-out and is tried a few times. What the hub says becomes an error that names the way out: a model
that is not there or that needs a licence is bad configuration, a hub that is down is "try again".
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, TypeVar

from tenacity import RetryCallState, Retrying, retry_if_exception, stop_after_attempt, wait_exponential

from frazil_jobs.base.exits import BadConfiguration, FrazilError, TryAgain
from frazil_jobs.base.log import get_logger
from frazil_jobs.inputs.access import TOKEN_VARIABLE, Access
from frazil_jobs.inputs.cache import RemoteFile, Source
from frazil_jobs.inputs.locations import Hub

ATTEMPTS = 4
TIMEOUT_SECONDS = 20.0
_LONGEST_PAUSE_SECONDS = 10.0
_PASSING = {408, 425, 429, 500, 502, 503, 504}

T = TypeVar("T")


class HubOffline(BadConfiguration):
    """HF_HUB_OFFLINE is set, and what was asked for is not in the cache."""


@dataclass(frozen=True)
class HubReader:
    """The hub as one process may read it. `field` is where the spec names the repository, for errors."""

    access: Access
    location: Hub
    field: str = "spec.model.uri"
    revision_field: str = "spec.model.revision"
    kind: Literal["model", "dataset"] = "model"

    def source(self, revision: str | None) -> Source:
        """All files of the commit that `revision` is now; its identity is the commit."""
        from huggingface_hub import HfApi

        api = HfApi(endpoint=self.access.hub_endpoint, token=self._token())
        info = self._call(
            lambda: (api.dataset_info if self.kind == "dataset" else api.model_info)(
                self.location.repository, revision=revision, files_metadata=True, timeout=TIMEOUT_SECONDS
            ),
            revision=revision,
        )
        commit = str(info.sha)
        files = tuple(
            RemoteFile(
                name=sibling.rfilename, size=sibling.size or 0, sha256=sibling.lfs.sha256 if sibling.lfs else None
            )
            for sibling in info.siblings or ()
        )
        return Source(
            label=str(self.location),
            identity=commit,
            files=files,
            download=lambda file, folder: self._download(file.name, commit=commit, folder=folder),
        )

    def _download(self, name: str, *, commit: str, folder: Path) -> Path:
        """One file of a commit, somewhere below `folder`; what an earlier attempt left there is gone on with."""
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
        from huggingface_hub import hf_hub_download

        path = self._call(
            lambda: hf_hub_download(
                self.location.repository,
                name,
                repo_type=self.kind,
                revision=commit,
                local_dir=folder,
                endpoint=self.access.hub_endpoint,
                token=self._token(),
                etag_timeout=TIMEOUT_SECONDS,
            ),
            revision=commit,
        )
        return Path(path)

    def _token(self) -> str | None:
        return self.access.hub_token.get_secret_value() if self.access.hub_token else None

    def _call(self, call: Callable[[], T], *, revision: str | None) -> T:
        def tell(state: RetryCallState) -> None:
            why = _first_line(state.outcome.exception() or Exception()) if state.outcome else ""
            get_logger().warning("the hub did not answer; trying again", what=str(self.location), why=why)

        attempts = Retrying(
            stop=stop_after_attempt(ATTEMPTS),
            wait=wait_exponential(multiplier=0.5, max=_LONGEST_PAUSE_SECONDS),
            retry=retry_if_exception(_is_passing),
            before_sleep=tell,
            reraise=True,
        )
        try:
            return attempts(call)
        except Exception as error:
            explained = self._explained(error, revision=revision)
            if explained is None:
                raise
            raise explained from error

    def _explained(self, error: Exception, *, revision: str | None) -> FrazilError | None:
        """What `error` means for the person who wrote the job; None for one that is not the hub's."""
        from huggingface_hub import errors

        where = f"{self.location}" + (f" at revision {revision!r}" if revision else "")
        if isinstance(error, errors.GatedRepoError) or _status(error) == 403:
            return BadConfiguration(
                f"{self.location} is given only to those who accepted its licence",
                field=self.field,
                remedy=f"accept it on the {self.kind}'s page and give a token: {TOKEN_VARIABLE}, or "
                f"spec.{self.kind}.secretRef",
            )
        if isinstance(error, errors.RevisionNotFoundError):
            return BadConfiguration(f"{self.location} has no revision {revision!r}", field=self.revision_field)
        if isinstance(error, errors.RepositoryNotFoundError) or _status(error) in (401, 404):
            return BadConfiguration(
                f"the hub shows no {self.kind} {self.location.repository} to this process",
                field=self.field,
                remedy=f"check its name; for a private one give a token: {TOKEN_VARIABLE}, or spec.{self.kind}.secretRef",
            )
        if isinstance(error, errors.OfflineModeIsEnabled) or isinstance(error.__cause__, errors.OfflineModeIsEnabled):
            return HubOffline(
                f"{where} is not in the cache, and HF_HUB_OFFLINE keeps this process from the hub",
                field=self.field,
                remedy="unset HF_HUB_OFFLINE once, or give a folder or an s3:// copy",
            )
        if _is_passing(error) or isinstance(error, errors.HfHubHTTPError | errors.LocalEntryNotFoundError):
            return TryAgain(
                f"the hub can't be reached for {where}: {_first_line(error)}",
                field=self.field,
                remedy="try again later, or give a folder or an s3:// copy",
            )
        return None


def _is_passing(error: BaseException) -> bool:
    """Whether the same call may well succeed later: no connection, a time-out, a busy hub."""
    from huggingface_hub import errors

    if isinstance(error, errors.OfflineModeIsEnabled) or isinstance(error.__cause__, errors.OfflineModeIsEnabled):
        return False
    if isinstance(error, errors.HfHubHTTPError):
        return _status(error) in _PASSING
    http_error = errors.HfHubHTTPError.__mro__[1]  # the base class of the HTTP client that the library is built on
    return isinstance(error, http_error | ConnectionError | TimeoutError | errors.LocalEntryNotFoundError)


def _status(error: BaseException) -> int | None:
    return getattr(getattr(error, "response", None), "status_code", None)


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0][:300]
