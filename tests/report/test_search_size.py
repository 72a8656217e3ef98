"""What a search's page says about size."""

import math
from types import SimpleNamespace

import pytest
from scipy.stats import kendalltau

from wsrnas.report.html import escape
from wsrnas.report.search_size import equal_size_gain, size, size_share

PARAMETERS = [1000, 3000, 1500, 8000, 2500, 4000, 1200]


def rows(law=lambda parameters, step: 3 - 0.4 * math.log(parameters) - 0.05 * step, found=6000):
    measured = [{"step": step, "loss_estimator": {"parameters": count, "measured_objective": law(count, step)}}
                for step, count in enumerate(PARAMETERS, start=4)]
    return [{"step": 0}, *measured, {"step": 20, "architecture": {"parameters": found}}]


def test_a_line_over_log_parameters_is_found_beside_the_trend_of_the_steps():
    share = size_share(rows())
    mean = sum(map(math.log, PARAMETERS)) / len(PARAMETERS)
    assert share["gives"] == pytest.approx(0.4 * (math.log(6000) - mean))
    assert share["mean"] == pytest.approx(math.exp(mean)) and share["paths"] == 7 and share["parameters"] == 6000


def test_the_correlation_is_that_of_size_and_gain():
    values = dict(zip(PARAMETERS, [2.0, 2.5, 1.0, 0.5, 1.5, 0.8, 3.0], strict=True))
    share = size_share(rows(lambda parameters, step: values[parameters]))
    assert share["tau"] == pytest.approx(kendalltau(PARAMETERS, [-v for v in values.values()]).statistic)


@pytest.mark.parametrize("known", [rows()[:5], rows(lambda parameters, step: 1.0), [], [{"step": 3}]])
def test_too_little_says_nothing(known):
    assert size_share(known) is None and size(SimpleNamespace(rows=known)) == []


def test_it_is_said_in_words():
    words = str(size(SimpleNamespace(rows=rows()))[0])
    assert "of 7 paths" in words and "6,000 parameters" in words and escape("nats better than the mean path") in words
    assert "nats worse" in str(size(SimpleNamespace(rows=rows(found=1000)))[0])
    assert "What was found" not in str(size(SimpleNamespace(rows=rows()[:-1]))[0])


def of_equal_size(objectives, own=1.0, found="a", other_size=1000):
    """A search whose architecture ``a`` has 1,000 parameters, beside others."""
    paths = [{"architecture": name, "parameters": count, "measured_objective": value} for name, count, value in (
        ("a", 1000, own), *((f"b{place}", other_size, value) for place, value in enumerate(objectives)),
        ("c", 1100, 9.0))]
    return [{"step": 0, "loss_estimator": paths[0], "paths": paths},
            {"step": 1, "architecture": {"genotype": found, "parameters": 1000}}]


def test_the_gain_is_over_the_mean_of_equal_size():
    gain = equal_size_gain(of_equal_size([1.0, 2.0, 3.0, 2.5, 1.5]))
    assert gain["paths"] == 5 and gain["gain"] == pytest.approx(1.0)
    assert 0.3 < gain["low"] < 1 < gain["high"] < 1.7
    assert "+1.000 nats" in str(size(SimpleNamespace(rows=of_equal_size([1.0, 2.0, 3.0, 2.5, 1.5])))[0])


@pytest.mark.parametrize("known", [
    of_equal_size([1.0, 2.0, 3.0, 2.5, float("nan")]), of_equal_size([1.0] * 9, own=float("inf")),
    of_equal_size([1.0, 2.0, 3.0, 2.5]), of_equal_size([1.0] * 9, other_size=1030), of_equal_size([1.0] * 9, found="d"),
    [], [{"step": 3, "architecture": None}]],
    ids=["few numbers", "infinite", "few", "others", "not measured", "nothing", "damaged"])
def test_no_gain_is_claimed_without_others_of_equal_size(known):
    assert equal_size_gain(known) is None


def test_a_gain_of_equal_size_is_not_that_of_the_steps():
    """All losses fall while the supernet learns; what is measured last looks best."""
    paths = [{"step": step, "loss_estimator": {"architecture": f"c{step}", "parameters": 1000,
                                               "measured_objective": 3 - 0.02 * step}} for step in range(40)]
    gain = equal_size_gain([*paths, {"step": 40, "architecture": {"genotype": "c39", "parameters": 1000}}])
    assert gain["gain"] == pytest.approx(0, abs=1e-9) and gain["paths"] == 39
    paths[39]["loss_estimator"]["measured_objective"] -= 0.5
    better = equal_size_gain([*paths, {"step": 40, "architecture": {"genotype": "c39", "parameters": 1000}}])
    assert 0.4 < better["gain"] < 0.5
