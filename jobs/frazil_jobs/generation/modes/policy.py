"""What a step of an approximate mode may be, and what decides it. One policy serves one image (or batch of images).

A policy is a function of the predictions so far, which every rank holds in full after each step, so that all ranks (and
the simulator) decide alike without a message.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import StrEnum
from typing import Protocol

import torch


class Kind(StrEnum):
    """How one step is evaluated."""

    WHOLE = "whole"
    """Every branch in full: what mode Exact does."""
    REUSED = "reused"
    """Every branch without its core, whose features are forecast."""
    STAGED = "staged"
    """In stages, each on a rank of its own, on what the others made of the step before."""


@dataclass
class Course:
    """What the steps of one image were."""

    kinds: list[Kind] = field(default_factory=list)
    ages: list[int] = field(default_factory=list)
    """Of each step: steps since the oldest features, or boundary, that this rank used in it were made; 0 where it used none.
    """
    guidance_off: int = 0
    """Steps whose prediction did not depend on the guidance scale."""
    reason: str = ""
    """Why all steps were whole, where it isn't the policy's own decision."""

    def count(self, kind: Kind) -> int:
        """Steps of a kind."""
        return self.kinds.count(kind)

    @property
    def facts(self) -> dict[str, str]:
        """For the manifest."""
        return {
            "steps_whole": str(self.count(Kind.WHOLE)),
            "steps_reused": str(self.count(Kind.REUSED)),
            "steps_staged": str(self.count(Kind.STAGED)),
            "steps_without_guidance": str(self.guidance_off),
            **({"all_whole_because": self.reason} if self.reason else {}),
        }


class Policy(Protocol):
    """Decides the kinds of the steps of one image."""

    @property
    def kind(self) -> Kind:
        """Of the step that comes next."""
        ...

    @property
    def learning(self) -> bool:
        """Whether what a whole step makes may be used by a later one."""
        ...

    def observe(self, predictions: torch.Tensor) -> None:
        """Take in the predictions (branches, images, …) of that step; the one after it comes next."""
        ...

    def from_stages(self, prediction: torch.Tensor) -> torch.Tensor:
        """The predictions of all branches (branches, images, …) from that of the prompt's branch (images, …)."""
        ...

    def forget(self) -> None:
        """Another denoiser takes over: nothing of the one before can be used."""
        ...


class AllWhole:
    """The policy of mode Exact."""

    kind = Kind.WHOLE
    learning = False

    def observe(self, predictions: torch.Tensor) -> None:
        """Nothing to learn."""

    def from_stages(self, prediction: torch.Tensor) -> torch.Tensor:
        """Never asked."""
        raise RuntimeError("no step is staged")

    def forget(self) -> None:
        """Nothing to forget."""


def per_image(values: torch.Tensor) -> torch.Tensor:
    """The mean of each image over all else; `values` is (images, …)."""
    return values.flatten(1).double().mean(1)


def rms(values: torch.Tensor) -> torch.Tensor:
    """The root mean square of each image; `values` is (images, …)."""
    return per_image(values.double().square()).sqrt()
