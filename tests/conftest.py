"""Fixtures of all tests: one thread each (the networks are tiny), and the main process' world."""

import gc
import os

import pytest
import torch
from hypothesis import settings

from tests.quick import pages_without_sections, short_checks, small_digits, undrawn_pages
from wsrnas.report.figures.cells import cell_figure
from wsrnas.report.figures.svg import svg_text
from wsrnas.runtime import program
from wsrnas.runtime.distributed import World

torch.set_num_threads(1)
# Torch looks for devices at the first backward pass. Its fake tensors pretend that there is a GPU, and a process that
# believes it cannot differentiate in forks, which tests use as second processes. So look before they do.
torch.ones(1, requires_grad=True).sum().backward()
# The same examples every time, whatever they take.
settings.register_profile("tests", derandomize=True, deadline=None, database=None, max_examples=50)
settings.load_profile("tests")


def pytest_collection_finish() -> None:
    """Never look for garbage among modules and tests: they stay, and a network is thousands of small objects."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(20_000)


@pytest.fixture(scope="session", autouse=True)
def disks_without_delay():
    """Files are written, but nobody waits until the disk has them."""
    with pytest.MonkeyPatch.context() as context:
        context.setattr(os, "fsync", lambda file: None)
        yield


@pytest.fixture(scope="session", autouse=True)
def no_words_of_tensorboard():
    """Runs that a test leaves unfinished, in a folder that is deleted, do not complain during another test."""
    with program.no_words_of_tensorboard():
        yield


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def words_only():
    """Pages without drawings, for tests of what is said."""
    with undrawn_pages():
        yield


@pytest.fixture(scope="module")
def quick_data():
    """Small digits."""
    with small_digits():
        yield


@pytest.fixture(scope="module")
def quick_programs(quick_data):
    """Small digits, short checks and pages without sections: a program takes half of the time."""
    with short_checks(), pages_without_sections():
        yield


@pytest.fixture(scope="module")
def quick_pages(quick_data):
    """Small digits, short checks and pages without drawings."""
    with short_checks(), undrawn_pages():
        yield


@pytest.fixture
def drawn_pages():
    """Pages with drawings after all."""
    with pytest.MonkeyPatch.context() as context:
        context.setattr("wsrnas.report.figures.picture.svg_text", svg_text)
        context.setattr("wsrnas.report.figures.cells.cell_figure", cell_figure)
        yield


@pytest.fixture
def seed() -> None:
    """Torch's own generator begins anew."""
    torch.manual_seed(0)
