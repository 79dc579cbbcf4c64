"""One rank of a TrainingJob: `python -m frazil_jobs.training.worker`, started by the launcher only. See `session`."""

from __future__ import annotations

from frazil_jobs.launching.settings import RankSettings
from frazil_jobs.launching.stopping import StopFlag
from frazil_jobs.launching.worker import guarded


def work(rank: RankSettings, flag: StopFlag) -> None:
    """Run the rank; nothing large is loaded before the guard stands."""
    from frazil_jobs.training.session import run_rank

    run_rank(rank, flag)


if __name__ == "__main__":
    guarded("training", work)
