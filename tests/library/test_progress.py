"""How far a long loop is: a bar on a terminal, a line from time to time in a file."""

import io

import pytest

import wsrnas.runtime.progress
from wsrnas.runtime.distributed import World
from wsrnas.runtime.progress import progress


class Clock:
    """A clock that a test moves."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 1000.0
        monkeypatch.setattr(wsrnas.runtime.progress.time, "monotonic", lambda: self.now)

    def run(self, items, seconds: float) -> list:
        """Go through ``items``, each of which takes so long."""
        seen = []
        for item in items:
            seen.append(item)
            self.now += seconds
        return seen


@pytest.fixture
def clock(monkeypatch) -> Clock:
    return Clock(monkeypatch)


def test_in_a_file_a_long_loop_says_every_five_minutes_how_far_it_is(clock, capsys):
    assert clock.run(progress("abcdefghij", "cells", World()), 100) == list("abcdefghij")
    assert capsys.readouterr().err.splitlines() == [
        "cells: 3 of 10, 12 min left", "cells: 6 of 10, 7 min left", "cells: 9 of 10, 2 min left"]


def test_a_slow_item_is_told_once_and_the_end_is_not(clock, capsys):
    clock.run(progress(range(2), "images", World()), 3000)
    assert capsys.readouterr().err == "images: 1 of 2, 50 min left\n"


@pytest.mark.parametrize(("seconds", "world"), [(29.9, World()), (1000, World(rank=1, size=2))])
def test_a_short_loop_and_another_process_print_nothing(clock, capsys, seconds, world):
    clock.run(progress(range(10), "images", world), seconds)
    assert capsys.readouterr() == ("", "")


def test_what_was_done_before_counts_but_not_for_the_speed(clock, capsys):
    clock.run(progress(iter(range(2)), "steps", World(), 100, initial=98), 360)
    assert capsys.readouterr().err == "steps: 99 of 100, 6 min left\n"


def test_a_loop_without_a_length_says_how_many_are_done(clock, capsys):
    clock.run(progress(iter(range(2)), "pairs", World()), 400)
    assert capsys.readouterr().err == "pairs: 1 done\npairs: 2 done\n"


def test_a_log_takes_the_lines_with_the_values_that_are_shown(clock, capsys):
    said: list[str] = []
    bar = progress(range(3), "epoch", World(), log=said.append)
    for item in bar:
        bar.show({"loss": f"{item}.5", "img/s": "7"})
        clock.now += 301
    assert said == ["epoch: 1 of 3, 10 min left, loss 0.5, img/s 7", "epoch: 2 of 3, 5 min left, loss 1.5, img/s 7"]
    assert capsys.readouterr() == ("", "")


def test_on_a_terminal_it_is_a_bar_and_no_line(clock, monkeypatch):
    terminal = io.StringIO()
    monkeypatch.setattr(terminal, "isatty", lambda: True, raising=False)
    monkeypatch.setattr("sys.stderr", terminal)
    clock.run(progress(range(3), "cells", World()), 1000)
    assert "cells:   0%" in terminal.getvalue()
    assert "left" not in terminal.getvalue()


def test_a_loop_that_is_left_early_is_closed():
    closed = []

    def items():
        try:
            yield from range(9)
        finally:
            closed.append(True)

    for item in progress(items(), "steps", World()):
        if item == 2:
            break
    assert closed == [True]
