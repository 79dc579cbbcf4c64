"""What a run was like: few points, the newest always among them."""

from __future__ import annotations

from frazil_jobs.training.history import MOST_POINTS, History, Point


def point(step: int) -> Point:
    return Point(step=step, loss=1 / step, learning_rate=0.1, gradient_norm=1.0, seconds=1.0, throughput=1.0)


def test_a_long_run_keeps_few_points_and_its_last_step():
    history = History()
    for step in range(1, 2 * MOST_POINTS + 4):
        history.add(point(step))
        assert history.points[-1].step == step
    steps = [one.step for one in history.points]
    assert steps == [*range(history.every, step + 1, history.every), *([step] if step % history.every else [])]
    assert len(steps) <= MOST_POINTS + 1
    assert step % history.every, "the last step is one that isn't due"
    again = History.of(history.document())
    again.add(point(step + 1))
    assert step not in [one.step for one in again.points]
