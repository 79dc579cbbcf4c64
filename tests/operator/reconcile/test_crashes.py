"""The operator dies again and again, before any of its writes: what was charged, made and finished stays right.

Every sequence of up to three deaths is tried, and then long histories drawn by chance, in which gangs fail and end, the
job is scaled and suspended, and the operator dies in between. (test_gangs.py and test_training.py let it die once.)
"""

import random
from collections import Counter

import pytest
from operator_world import World, generation_job, pin, started, training_job

from frazil_operator.reconcile.plan import GangSupport, Inspection

DEATHS = 3
EVICTED = {"type": "DisruptionTarget", "status": "True", "message": "evicted by the kubelet"}
POLICY = {"retriesPerShard": 3, "maxFailedShards": 2}
SHARDS = 6


def gangs_job(*, replicas=2, **spec):
    workers = {"nodesPerReplica": 2, "gpusPerNode": 1, "replicas": replicas}
    return generation_job(workers=workers, parallelism={"conditioning": 2}, **{"failurePolicy": POLICY, **spec})


def running(body, **world):
    found = started(body, **world)
    for name in found.jobs:
        found.job(name)["status"] = {"active": 2, "ready": 2}
    found.settle()
    return found


def fails(world, name, code=1, *, evicted=False):
    pod = world.failed_pod(name, code, f"rank 0 ended with {code}")
    pod["status"]["conditions"] = [EVICTED] * evicted
    world.end_job(name, "Failed", reason="PodFailurePolicy" if evicted else "BackoffLimitExceeded", failed=2)


def begun(body):
    world = World(body)
    world.inspection = Inspection(pin=pin())
    return world


def broken(body, *names, done=(), **how):
    world = running(body)
    for name in names:
        fails(world, name, **how)
    for name in done:
        world.end_job(name, "Complete", succeeded=2)
    return world


BEGINNINGS = {
    "a training begins": lambda: begun(training_job()),
    "the first gangs begin": lambda: begun(gangs_job(replicas=3)),
    "a training is done": lambda: broken(training_job(), done=["dit-a0"]),
    "a gang is done": lambda: broken(gangs_job(), done=["ice-a0-0"]),
    "the configuration is bad": lambda: broken(gangs_job(), "ice-a0-0", code=78),
    "the input of two gangs is bad": lambda: broken(gangs_job(), "ice-a0-0", "ice-a0-1", code=65),
}
REPLACEMENTS = {
    "a training loses a rank": lambda: broken(training_job(), "dit-a0"),
    "a training is evicted": lambda: broken(training_job(), "dit-a0", code=137, evicted=True),
    "a gang loses a rank": lambda: broken(gangs_job(), "ice-a0-0"),
    "a gang is evicted": lambda: broken(gangs_job(), "ice-a0-0", code=137, evicted=True),
    "two gangs lose a rank": lambda: broken(gangs_job(), "ice-a0-0", "ice-a0-1"),
    "one gang loses a rank and one is done": lambda: broken(gangs_job(), "ice-a0-0", done=["ice-a0-1"]),
}


def after_deaths(make, *, most):
    """The world at rest after each sequence of up to `most` deaths, with the numbers of writes between them."""
    sequences = [()]
    for _ in range(most):
        longer = []
        for sequence in sequences:
            world = lived(make, sequence)
            longer += [(*sequence, writes) for writes in range(world.crash_points())]
        sequences = longer
        for sequence in sequences:
            world = lived(make, sequence)
            world.settle()
            yield sequence, world


def lived(make, sequence):
    """A world whose operator died after so many writes of each pass."""
    world = make()
    for writes in sequence:
        world.step(dies_after=writes)
    return world


def facts(world):
    """What is charged, made and finished."""
    charges = {
        name: {
            key: text for key, text in world.job(name)["metadata"]["labels"].items() if key.startswith("frazil.dev/")
        }
        for name in world.jobs
    }
    status = {name: world.status.get(name) for name in ("attempt", "restarts", "shards")}
    return {"charges": charges, "status": status, "made": sorted(world.made), "objects": sorted(world.objects)}


@pytest.mark.parametrize("case", [*BEGINNINGS, *REPLACEMENTS])
def test_however_often_the_operator_dies_nothing_is_charged_or_made_twice(case):
    make = (BEGINNINGS | REPLACEMENTS)[case]
    plain = make()
    plain.settle()
    found = 0
    for sequence, world in after_deaths(make, most=DEATHS):
        found += 1
        assert facts(world) == facts(plain), f"dead after {sequence} writes"
    assert found


@pytest.mark.parametrize("case", BEGINNINGS)
def test_however_often_the_operator_dies_the_phase_is_right_in_the_end(case):
    plain = BEGINNINGS[case]()
    plain.settle()
    for sequence, world in after_deaths(BEGINNINGS[case], most=DEATHS):
        assert world.phase == plain.phase, f"dead after {sequence} writes"


@pytest.mark.parametrize("case", REPLACEMENTS)
def test_however_often_the_operator_dies_the_phase_is_that_of_the_new_attempt(case):
    plain = REPLACEMENTS[case]()
    plain.settle()
    for sequence, world in after_deaths(REPLACEMENTS[case], most=DEATHS):
        assert world.phase == plain.phase, f"dead after {sequence} writes"


def live(world):
    """Gangs that have not ended and are not held back."""
    jobs = [(name, world.job(name)) for name in world.jobs]
    return [
        name for name, job in jobs if not job.get("status", {}).get("conditions") and not job["spec"].get("suspend")
    ]


class History:
    """One life of a job whose replicas are gangs, drawn by chance; what happened is counted beside the operator."""

    def __init__(self, seed):
        self.dice = random.Random(seed)
        self.provider = GangSupport(self.dice.choice(["none", "volcano", "native-v1beta1"]))
        policy = {
            "retriesPerShard": self.dice.randint(0, 3),
            "maxFailedShards": self.dice.randint(0, SHARDS),
            "maxRestarts": self.dice.randint(0, 30),
        }
        prompts = {"inline": [f"prompt {index}" for index in range(4 * SHARDS)], "perShard": 4}
        gang = "Auto" if self.provider.provider == "none" else "Required"
        body = gangs_job(replicas=2, failurePolicy=policy, prompts=prompts, scheduling={"gang": gang})
        self.world = World(body, gang=self.provider)
        self.world.inspection = Inspection(pin=pin(4 * SHARDS))
        self.crashes = 0
        """Failures that may be charged."""
        self.done = {}
        """Shards that ended well, and how many gangs had been made by then."""

    def go_on(self):
        world, dice = self.world, self.dice
        event = dice.choice(
            ["ready", "crash", "evicted", "bad input", "done", "scale", "suspend", "provider", *["died"] * 4]
        )
        if event == "died":
            world.step(dies_after=dice.randint(0, 4))
        elif event == "scale":
            world.body["spec"]["workers"]["replicas"] = dice.randint(1, 3)
        elif event == "suspend":
            world.body["spec"]["suspend"] = not world.body["spec"].get("suspend", False)
        elif event == "provider":
            world.gang = dice.choice([self.provider, GangSupport()])
        elif names := live(world):
            self.of_a_gang(event, dice.choice(names))

    def of_a_gang(self, event, name):
        if event == "ready":
            self.world.job(name)["status"] = {"active": 2, "ready": 2}
        elif event == "done":
            self.world.end_job(name, "Complete", succeeded=2)
            self.done[name.rsplit("-", 1)[1]] = len(self.world.made)
        else:
            self.crashes += event == "crash"
            fails(self.world, name, {"crash": 1, "evicted": 137, "bad input": 65}[event], evicted=event == "evicted")

    def to_the_end(self):
        """Nothing bad happens any more."""
        self.world.body["spec"]["suspend"] = False
        self.world.gang = self.provider
        for _ in range(2 * SHARDS):
            self.world.settle()
            for name in live(self.world):
                self.of_a_gang("done", name)


@pytest.mark.parametrize("seed", range(60))
def test_in_any_history_names_are_used_once_charges_are_true_and_done_shards_are_left_alone(seed):
    history = History(seed)
    world = history.world
    for _ in range(60):
        history.go_on()
    history.to_the_end()
    assert max(Counter(world.made).values()) == 1
    assert world.status["restarts"] <= history.crashes
    for shard, made in history.done.items():
        assert not [name for name in world.made[made:] if name.endswith(f"-{shard}")], f"shard {shard} was done"
    assert world.phase in ("Storing", "Failed")
    if world.phase == "Storing":
        shards = world.status["shards"]
        assert shards["completedCount"] + shards["failedCount"] == SHARDS
        assert world.jobs == []
