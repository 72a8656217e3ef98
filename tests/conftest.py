"""Fixtures of all tests: one thread each (the networks are tiny), and the main process' world."""

import pytest
import torch

from wsrnas.runtime.distributed import World

torch.set_num_threads(1)


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def words_only(monkeypatch) -> None:
    """Pages without drawings, for tests of what is said."""
    monkeypatch.setattr("wsrnas.report.html.svg_text", lambda *a: '<svg viewBox="0 0 1 1"></svg>')


@pytest.fixture
def seed() -> None:
    """Torch's own generator begins anew."""
    torch.manual_seed(0)
