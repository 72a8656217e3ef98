"""Fixtures of the tests of pages."""

import pytest

import search.wsr_nas
from tests.pages import kept_figures
from tests.report.run_pages import SEARCH, made, write_search


@pytest.fixture
def drawn():
    with kept_figures() as figures:
        yield figures


@pytest.fixture(scope="module")
def a_search(tmp_path_factory):
    """A search's run directory by hand, its page, and the figures in it."""
    run = write_search(tmp_path_factory.mktemp("by-hand") / "run")
    with kept_figures() as figures:
        return run, made(run), figures


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    folder = tmp_path_factory.mktemp("searched")
    search.wsr_nas.main([*SEARCH, "--runs", str(folder)])
    return folder / "search" / "run"
