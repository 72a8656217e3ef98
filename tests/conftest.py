"""Fixtures of all tests: one thread each (the networks are tiny), and the main process' world."""

import pytest
import torch
from hypothesis import settings

from tests.quick import small_digits, undrawn_pages
from wsrnas.runtime.distributed import World

torch.set_num_threads(1)
# The same examples every time, whatever they take.
settings.register_profile("tests", derandomize=True, deadline=None, database=None, max_examples=50)
settings.load_profile("tests")


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def words_only():
    """Pages without drawings, for tests of what is said."""
    with undrawn_pages():
        yield


@pytest.fixture(scope="module")
def quick_programs():
    """Small digits and pages without drawings: a program takes half of the time."""
    with small_digits(), undrawn_pages():
        yield


@pytest.fixture
def seed() -> None:
    """Torch's own generator begins anew."""
    torch.manual_seed(0)
