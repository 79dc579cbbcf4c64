import pytest

from frazil_cli.machine import Degrees, Layout, Machine, layout, visible
from frazil_jobs.base.exits import BadConfiguration

TWO_CORES = Machine(cores=2, gpus=())
EIGHT_GPUS = Machine(cores=64, gpus=tuple(str(index) for index in range(8)))


@pytest.mark.parametrize(
    ("sentence", "degrees", "machine", "shards", "options", "ranks", "replicas", "threads"),
    [
        ("two cores take one guidance branch each", Degrees(2), TWO_CORES, 9, {}, 2, 1, 1),
        ("one core evaluates both branches", Degrees(2), Machine(1, ()), 9, {}, 1, 1, 1),
        ("cores beyond the ranks become threads", Degrees(2), Machine(8, ()), 9, {}, 2, 1, 4),
        ("two GPUs take one branch each", Degrees(2), Machine(16, ("0", "1")), 9, {}, 2, 1, 8),
        ("eight GPUs are four replicas of two ranks", Degrees(2), EIGHT_GPUS, 9, {}, 2, 4, 8),
        ("no more replicas than shards", Degrees(2), EIGHT_GPUS, 3, {}, 2, 3, 10),
        ("two branches times four sequence parts fill eight GPUs", Degrees(2, 1, 4), EIGHT_GPUS, 9, {}, 8, 1, 8),
        (
            "a sequence degree shrinks to a divisor that fits",
            Degrees(2, 1, 4),
            Machine(4, ("0", "1", "2", "3", "4")),
            9,
            {},
            4,
            1,
            1,
        ),
        ("guidance branches come before sequence parts", Degrees(2, 1, 4), Machine(4, ("0", "1")), 9, {}, 2, 1, 2),
        ("one rank when a person says so", Degrees(2), EIGHT_GPUS, 99, {"ranks": 1}, 1, 8, 8),
        ("GPUs are left alone when a person says so", Degrees(2), EIGHT_GPUS, 9, {"device": "cpu"}, 2, 1, 32),
        ("replicas as a person says", Degrees(2), TWO_CORES, 9, {"replicas": 2}, 2, 2, 1),
        ("threads as a person says", Degrees(2), TWO_CORES, 9, {"threads": 3}, 2, 1, 3),
    ],
)
def test_the_layout_fits_the_machine(sentence, degrees, machine, shards, options, ranks, replicas, threads):
    found = layout(degrees, machine=machine, shards=shards, **options)
    assert (found.ranks, found.replicas, found.threads) == (ranks, replicas, threads), sentence


def test_a_grid_that_was_made_smaller_is_said():
    assert "2 ranks" in layout(Degrees(2), machine=Machine(1, ()), shards=1).notes[0]
    assert layout(Degrees(2), machine=TWO_CORES, shards=1).notes == ()


@pytest.mark.parametrize(
    ("options", "field", "words"),
    [
        ({"ranks": 3}, "--ranks", "multiply to 2, not to 3"),
        ({"device": "cuda"}, "--device", "no CUDA device"),
    ],
)
def test_a_layout_that_cannot_be_names_the_option(options, field, words):
    with pytest.raises(BadConfiguration, match=words) as caught:
        layout(Degrees(2), machine=TWO_CORES, shards=4, **options)
    assert caught.value.field == field
    assert caught.value.remedy


def test_more_replicas_than_gpus_are_refused():
    with pytest.raises(BadConfiguration, match="need 10 GPUs; there are 8"):
        layout(Degrees(2), machine=EIGHT_GPUS, shards=9, replicas=5)


def test_each_replica_has_gpus_of_its_own():
    found = layout(Degrees(2), machine=EIGHT_GPUS, shards=9)
    given = [gpu for replica in range(found.replicas) for gpu in found.gpus_of(replica, EIGHT_GPUS)]
    assert given == list(EIGHT_GPUS.gpus)
    assert Layout("cpu", Degrees(2), 1, 1).gpus_of(0, EIGHT_GPUS) == ()


@pytest.mark.parametrize(
    ("listed", "found", "names"),
    [
        ("0,1", 4, ("0", "1")),
        ("", 4, ()),
        ("-1", 4, ()),
        ("2,9,1", 4, ("2",)),
        ("GPU-8b1c,1", 4, ("GPU-8b1c", "1")),
        ("0,1", 0, ()),
    ],
)
def test_cuda_visible_devices_is_read_as_cuda_reads_it(listed, found, names):
    assert visible(listed, found=found) == names
