"""Processes that train architectures of their own: how these are divided, and what happens when one of them fails."""

import json
import os
import signal
from contextlib import suppress
from types import SimpleNamespace

import pytest
import torch

from search.apart import Apart
from tests.processes import run_twice
from wsrnas.runtime.distributed import World, initialize, shutdown
from wsrnas.runtime.errors import InputError, Preempted
from wsrnas.runtime.preemption import stop_requests


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
    with suppress(InputError), apart.by_itself():
        if world.rank == 1:
            raise InputError("the second one failed")
        try:
            apart.wait()
        except InputError:
            seen["caught"] = "a loop that goes on after errors would not end"
    for process, error in ((1, InputError("of the second")), (None, InputError("of both")), (0, Preempted("stopped"))):
        try:
            with apart.by_itself():
                if process in (None, world.rank):
                    raise error
                apart.gather({})
        except (InputError, Preempted) as caught:
            seen[str(error)] = [type(caught).__name__, str(caught)]
    with stop_requests(world) as apart.searcher.stop:
        if world.rank == 1:
            os.kill(os.getpid(), signal.SIGTERM)
        with apart.by_itself():
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
        "stopped": ["Preempted", "stopped"]}
