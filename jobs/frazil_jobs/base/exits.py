"""The exit codes of a pod (sysexits) and the exceptions that carry them.

The operator reads only the code: 65 fails one shard, 75 tries again, 78 fails the job. A person reads the message,
which names the field and the way out.
"""

from __future__ import annotations

from typing import ClassVar

OK = 0
FAILED = 1
"""An error that nobody foresaw: counted as a failure and tried again within the retries."""
DATAERR = 65
"""Bad input: trying again can't help this shard, the others go on."""
TEMPFAIL = 75
"""Stopped, or something outside was down: nothing is lost, try again."""
CONFIG = 78
"""Bad configuration: no shard of this job can work."""


class FrazilError(Exception):
    """An error that a person can act on.

    `field` is the place in the job file ("spec.model.uri") or the option ("--store") that is wrong, `remedy` what to do.
    """

    exit_code: ClassVar[int] = FAILED

    def __init__(self, message: str, *, field: str | None = None, remedy: str | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.field = field
        self.remedy = remedy

    def __str__(self) -> str:
        where = f"{self.field}: " if self.field else ""
        way_out = f" ({self.remedy})" if self.remedy else ""
        return f"{where}{self.message}{way_out}"


class BadInput(FrazilError):
    """A prompt, a picture or a data set that can't be used: this shard fails, for good."""

    exit_code = DATAERR


class TryAgain(FrazilError):
    """Something outside is down, or we were asked to stop: what is done is kept, the rest can be tried again."""

    exit_code = TEMPFAIL


class BadConfiguration(FrazilError):
    """The job as written can't run anywhere, whatever the shard."""

    exit_code = CONFIG


def exit_code_of(error: BaseException) -> int:
    """The code that a process which ends with `error` leaves behind."""
    if isinstance(error, FrazilError):
        return error.exit_code
    if isinstance(error, SystemExit):
        return error.code if isinstance(error.code, int) else (OK if error.code is None else FAILED)
    if isinstance(error, KeyboardInterrupt):
        return TEMPFAIL
    return FAILED
