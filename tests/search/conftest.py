"""Fixtures of the tests of rankings: one tiny search and one small table for each file of tests."""

from pathlib import Path

import pytest

from tests.search import small_ranking


@pytest.fixture(scope="module")
def trained(tmp_path_factory, quick_programs) -> Path:
    """The run directory of a tiny search."""
    return small_ranking.search_run(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def table(tmp_path_factory) -> Path:
    """A table of a few graphs, two of which share their results."""
    return small_ranking.table_file(tmp_path_factory.mktemp("table"))
