"""Freezing at run time: which backward work is skipped in which microbatch, and when that is planned anew."""

from frazil_jobs.training.freezing.freezer import Freezer

__all__ = ["Freezer"]
