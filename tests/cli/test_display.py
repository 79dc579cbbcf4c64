import io

import pytest
from rich.console import Console

from frazil_cli.display import Bars, Plain, ShardView, View, choose, count, duration, rate_text

VIEW = View(
    phase="generating",
    total=200,
    generated=112,
    stored=110,
    images_per_second=1.6,
    shards=(ShardView(index=7, replica=0, total=16, generated=12, stored=10, step=5, steps=20, images_per_second=0.8),),
    notices=("the store can't be reached: 2 images wait in the spool",),
)


def terminal(**options) -> Console:
    return Console(file=io.StringIO(), force_terminal=True, width=100, highlight=False, color_system=None, **options)


def test_bars_show_each_shard_the_total_the_rate_and_what_is_wrong():
    console = terminal()
    console.print(Bars(console).drawn(VIEW))
    text = console.file.getvalue()
    for part in (
        "generating",
        "shard 7",
        "12/16",
        "step 5/20",
        "112/200",
        "110 stored",
        "1.6 images/s",
        "55 s left",
        "2 images wait",
    ):
        assert part in text, text


def test_lines_say_what_is_new_and_not_the_same_again():
    console = Console(file=io.StringIO(), width=200)
    plain = Plain(console)
    plain.show(VIEW)
    plain.show(VIEW)
    plain.show(
        View(
            phase="generating",
            total=200,
            generated=113,
            stored=111,
            notices=("the store can't be reached: 3 images wait in the spool",),
        )
    )
    plain.show(View(phase="generating", total=200, generated=200, stored=200))
    assert console.file.getvalue().splitlines() == [
        "generating",
        "! the store can't be reached: 2 images wait in the spool",
        "112 of 200 images made, 110 stored · 1.6 images/s · 55 s left",
        "200 of 200 images made, 200 stored",
    ]


def test_what_is_typed_is_never_read_as_markup():
    console = Console(file=io.StringIO(), width=200)
    Plain(console).say("[red]a prompt[/nonsense]")
    assert "[red]a prompt[/nonsense]" in console.file.getvalue()
    bars = terminal()
    bars.print(Bars(bars).drawn(View(phase="[bold]x[/nope]", notices=("[/also]",))))
    assert "[bold]x[/nope]" in bars.file.getvalue()


def test_what_is_chosen_depends_on_the_terminal():
    assert isinstance(choose(quiet=False, as_json=False, console=terminal()), Bars)
    assert isinstance(choose(quiet=False, as_json=False, console=Console(file=io.StringIO())), Plain)
    assert type(choose(quiet=True, as_json=False, console=terminal())).__name__ == "Quiet"
    assert type(choose(quiet=False, as_json=True, console=terminal())).__name__ == "Quiet"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4 s"), (9.96, "10.0 s"), (59, "59 s"), (64, "1:04 min"), (3600, "1:00:00 h"), (7384, "2:03:04 h")],
)
def test_durations_are_read_at_a_glance(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("rate", "text"), [(1.62, "1.6 images/s"), (42.3, "42 images/s"), (0.02, "50 s an image"), (0.0, "")]
)
def test_rates_are_read_at_a_glance(rate, text):
    assert rate_text(rate) == text


@pytest.mark.parametrize(
    ("number", "words", "text"),
    [(1, ("image",), "1 image"), (1200, ("image",), "1,200 images"), (0, ("index", "indices"), "0 indices")],
)
def test_one_is_not_plural(number, words, text):
    assert count(number, *words) == text
