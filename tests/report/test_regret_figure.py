"""The figure of strategies on a table: its band is an interval for as few seeds as there are."""

import pytest

from tests.pages import kept_figures
from wsrnas.report.figures.regret import regret_over_queries


def result(seeds, error):
    return {"strategy": "wsr", "seeds": list(range(seeds)), "curve": [[2.0, error], [1.0, error]],
            "regret": {"2": {"verified": [0.5, error]}}}


@pytest.mark.parametrize("seeds, error, reach, words", [
    (4, 0.1, 0.31824, "band of 95 % (Student's t)"), (2, 0.01, 0.12706, "band of 95 %"), (1, None, 0, "one seed.")])
def test_the_band_follows_students_t(seeds, error, reach, words):
    """With 1.96 standard errors, that of four seeds covered 85 %."""
    with kept_figures() as figures:
        found = regret_over_queries([result(seeds, error)])
    axes = figures["regret-over-queries"].axes[0]
    corners = axes.collections[0].get_paths()[0].vertices[:, 1]
    assert corners.max() - 2 == pytest.approx(reach, abs=2e-5) and 1 - corners.min() == pytest.approx(reach, abs=2e-5)
    assert words in found.caption
