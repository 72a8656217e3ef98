"""Processes that train architectures of their own: how these are divided, and what happens when one of them fails."""

import json
import os
import signal
import time
from types import SimpleNamespace

import pytest
import torch

from search.apart import Apart
from tests.processes import run_twice
from wsrnas.runtime.distributed import World, initialize, shutdown
from wsrnas.runtime.errors import InputError, Preempted
from wsrnas.runtime.preemption import Interrupts, stop_requests


def apart_of(world, divided=True):
    return Apart(SimpleNamespace(world=world, batch_world=world.alone() if divided else world, stop=lambda: False))


@pytest.mark.parametrize("rank, size, numbers, found", [
    (0, 1, [4, 7, 9], [4, 7, 9]), (0, 2, [4, 7, 9], [4, 9]), (1, 2, [4, 7, 9], [7]), (2, 3, [4, 7], [4]),
])
def test_the_first_process_has_the_first_and_none_is_without(rank, size, numbers, found):
    assert apart_of(World(rank, size)).share(numbers) == found
    assert list(apart_of(World(rank, size)).share(range(3)))


def test_processes_that_share_batches_divide_nothing():
    apart = apart_of(World(1, 2), divided=False)
    assert apart.share([4, 7]) == [4, 7] and apart.gather({7: "x", 4: "y"}) == {4: "y", 7: "x"}
    with pytest.raises(InputError, match="mine"), apart.by_itself():
        raise InputError("mine")


def exchange(folder):
    """One of two processes: writes what it got."""
    world = initialize("cpu")
    apart, seen = apart_of(world), {}
    with apart.by_itself():
        found = apart.gather({0: torch.full((2,), float(world.rank)), 5 - world.rank: {"own": world.rank}})
    seen["gathered"] = [found[0].tolist(), found[4], found[5]]
    seen["first"] = apart.first(world.rank)
    for process, error in ((1, InputError("of the second")), (None, InputError("of both")), (0, Preempted("stopped"))):
        try:
            with apart.by_itself():
                if process in (None, world.rank):
                    raise error
                apart.gather({})
        except (InputError, Preempted) as caught:
            seen[str(error)] = [type(caught).__name__, str(caught)]
    began, whole = time.monotonic(), 600
    try:
        with apart.by_itself():
            if world.rank == 0:
                raise InputError("the learning rate is too large")
            while time.monotonic() - began < whole:
                if apart.searcher.stop():
                    raise Preempted("stopped in the middle")
            apart.gather({})
    except InputError as caught:
        seen["of another"] = [str(caught), time.monotonic() - began < whole / 2]
    with Interrupts(), stop_requests(world) as apart.searcher.stop:
        apart.searcher.stop()
        for _ in range(2):  # a program that was asked to stop ends at once only before its first step
            with apart.by_itself():
                if world.rank == 1:
                    os.kill(os.getpid(), signal.SIGTERM)
                seen["alone"] = apart.searcher.stop()
        seen["together"] = apart.searcher.stop()
    (folder / f"rank{world.rank}.json").write_text(json.dumps(seen))
    shutdown()


def test_two_processes_know_all_results_and_fail_and_stop_together(tmp_path):
    run_twice(exchange, tmp_path)
    both = [json.loads((tmp_path / f"rank{rank}.json").read_text()) for rank in range(2)]
    assert [seen.pop("alone") for seen in both] == [False, True]
    assert both[0] == both[1] == {
        "gathered": [[0, 0], {"own": 1}, {"own": 0}], "first": 0, "together": True,
        "of the second": ["InputError", "of the second"], "of both": ["InputError", "of both"],
        "stopped": ["Preempted", "stopped"], "of another": ["the learning rate is too large", True]}
