"""A small part of the soak: programs are stopped at random moments, and the same command ends with the same results."""

import pytest

from tests import soak


@pytest.mark.slow
def test_programs_survive_signals_at_random_moments():
    tally = soak.soak(600, 3, ("retrain.train_cifar",), lives=1)
    assert tally.lives.total() == 1 and tally.signals.total() >= 2


def test_a_difference_is_noticed(tmp_path):
    (tmp_path / "runs").mkdir()
    (tmp_path / "runs" / "result.json").write_text('{"value": 1, "seconds": 3}')
    before = soak.results(tmp_path)
    assert before == {"runs/result.json": {"value": 1}}
    (tmp_path / "runs" / "checkpoint.pt.new").write_text("left behind")
    assert soak.results(tmp_path) != before
