"""A small part of the soak: programs are stopped at random moments, and the same command ends with the same results."""

import pytest

from tests import soak, soak_faults
from wsrnas.__main__ import COMMANDS


@pytest.mark.slow
def test_programs_survive_signals_at_random_moments(tmp_path):
    out = tmp_path / "soak.json"
    life, = soak.soak(600, 3, ("retrain.train_cifar",), lives=1, out=out)
    assert len(life.signals) >= 2 and life.signals[0][1:] == ("early", True)
    assert soak.read(out) == [life]
    assert soak.soak(600, 3, ("retrain.train_cifar",), lives=1, out=out) == [life]  # the next one would be the second
    assert f"{2 * len(life.signals)} signals survived in 2 lives" in soak.summary([life, life])


@pytest.mark.slow
@pytest.mark.usefixtures("quick_programs")
@pytest.mark.parametrize("program", soak.PROGRAMS)
def test_every_program_survives_faults_of_the_disk_a_second_process_and_a_dead_lock(program, tmp_path):
    found = soak_faults.meet_all(program, tmp_path, moments=1)
    at_once = program == "retrain.export"  # its folder is not there before it is whole
    assert all(found[name]["refused"] for name in ("full", "read-only"))
    assert at_once or all(found[name]["refused"] for name in ("moved", "deleted"))
    assert at_once or program in soak.SHARED or found["two writers"]["refused"]


def test_every_program_and_every_way_has_its_turn():
    programs = list(soak.PROGRAMS)
    first = [soak.plan(programs, number) for number in range(3 * len(programs))]
    assert {(name, "alone") for name in programs} == set(first[:len(programs)])
    assert {(name, "two ranks") for name in soak.RANKED} | {(name, "two at once") for name in soak.SHARED} <= set(first)
    assert set(programs) == {name for name in COMMANDS.values() if name.startswith(("search", "retrain", "test_AN"))}


def test_a_difference_is_noticed(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "result.json").write_text('{"value": 1, "seconds": 3}')
    before = soak.results(tmp_path)
    assert before == {"runs/result.json": {"value": 1}}
    (tmp_path / "runs" / "checkpoint.pt.new").write_text("left behind")
    assert soak.results(tmp_path) != before
