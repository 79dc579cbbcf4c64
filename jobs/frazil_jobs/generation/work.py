"""How the branches of one step are evaluated on the ranks of a replica: `Work`, and mode Exact's.

The branch split (`one_call.py`, `two_call.py`) knows how a pipeline asks for branches and which of them are this rank's;
`Work` knows what an evaluation is (whole, or partial in an approximate mode) and how predictions get to all ranks.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Protocol

import torch

from frazil_jobs.generation.exchange import gather
from frazil_jobs.generation.groups import RankGroups

if TYPE_CHECKING:
    from frazil_jobs.generation.guidance import Guidance
    from frazil_jobs.generation.modes.conductor import StepRecord
    from frazil_jobs.generation.modes.policy import Course


class Work(Protocol):
    """The evaluation of one step. `branch` counts from 0 in the pipeline's order."""

    @property
    def line_branch(self) -> int | None:
        """The one branch that all ranks evaluate together in the step that comes next; None: each its own."""
        ...

    def enter(self, module: torch.nn.Module) -> None:
        """A step of guided calls of `module` begins."""
        ...

    def evaluate(self, branch: Any, arguments: Mapping[str, Any], call: Callable[[], Any]) -> Any:
        """What `call()` returns, an evaluation of one branch with `arguments`."""
        ...

    def exchange(self, prediction: torch.Tensor) -> torch.Tensor:
        """This rank's predictions in, those of all branches out, one below the other. On every rank alike."""
        ...

    def observe(self, predictions: torch.Tensor) -> None:
        """The step is over, with predictions (branches, images, …)."""
        ...


class ModeWork(Work, Protocol):
    """The evaluation of an approximate mode, over the steps of one call after another."""

    course: Course
    records: list[StepRecord]

    def begin(self, guidance: Guidance, arguments: Mapping[str, Any], *, exact: bool = False) -> None:
        """A pipeline call begins; `exact`: all of its steps are to be whole."""
        ...

    def end(self) -> None:
        """The pipeline call is over, however it ended."""
        ...

    def close(self) -> None:
        """Take the hooks off."""
        ...


class ExactWork:
    """Mode Exact: everything is evaluated whole, and one gather brings it together."""

    line_branch = None

    def __init__(self, groups: RankGroups) -> None:
        self._groups = groups

    def enter(self, module: torch.nn.Module) -> None:
        """Nothing to prepare."""

    def evaluate(self, branch: Any, arguments: Mapping[str, Any], call: Callable[[], Any]) -> Any:
        """The call itself."""
        return call()

    def exchange(self, prediction: torch.Tensor) -> torch.Tensor:
        """One gather."""
        return gather(prediction, self._groups)

    def observe(self, predictions: torch.Tensor) -> None:
        """Nothing to learn."""
