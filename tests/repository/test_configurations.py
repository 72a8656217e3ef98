"""The configuration of every program: the same from its JSON, from its flags, and from both."""

import dataclasses
import json
from typing import Literal, get_args, get_origin, get_type_hints

import pytest
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st

from retrain.evaluate_settings import EvaluateConfig
from retrain.race.settings import RACE_RECIPES, CompareConfig
from retrain.recipes import IMAGENET_RECIPES, RECIPES, ImageNetConfig, RetrainConfig
from retrain.vulnerability.settings import VulnerabilityConfig
from search.rankings.settings import RankingConfig
from search.rnas_settings import PRESETS as RNAS_PRESETS
from search.rnas_settings import RnasConfig
from search.tabular_settings import TabularConfig
from search.wsr_nas_settings import PRESETS as SEARCH_PRESETS
from search.wsr_nas_settings import SearchConfig
from test_AN_estimator.settings import PRESETS as BENCHMARK_PRESETS
from test_AN_estimator.settings import BenchmarkConfig
from wsrnas.runtime.config import choices_of, from_dict, parse_config, to_dict
from wsrnas.runtime.errors import InputError

PROGRAMS = {SearchConfig: SEARCH_PRESETS, RnasConfig: RNAS_PRESETS, RetrainConfig: RECIPES,
            ImageNetConfig: IMAGENET_RECIPES, CompareConfig: RACE_RECIPES, BenchmarkConfig: BENCHMARK_PRESETS,
            EvaluateConfig: {}, VulnerabilityConfig: {}, TabularConfig: {}, RankingConfig: {}}
words = st.text("abcxyz0123_./", min_size=1, max_size=8)


def values_of(field, annotation, base):
    """Values that a field may have: those of its kind, and its own."""
    table, own = choices_of(field), st.just(getattr(base, field.name))
    if table and get_origin(annotation) is not tuple:
        return own | st.sampled_from(sorted(table))
    if get_origin(annotation) is Literal:
        return st.sampled_from(get_args(annotation))
    return own | {bool: st.booleans(), int: st.integers(0, 300), float: st.floats(1e-4, 0.9), str: words,
                  tuple[float, ...]: st.lists(st.floats(1e-3, 0.9), min_size=1, max_size=4, unique=True).map(
                      lambda values: tuple(sorted(values))),
                  tuple[int, ...]: st.lists(st.integers(1, 300), min_size=1, max_size=4, unique=True).map(
                      lambda values: tuple(sorted(values)))}.get(annotation, st.nothing())


@st.composite
def configurations(draw, cls, presets):
    """A preset with up to three other values, if the program accepts them together."""
    base = draw(st.sampled_from(list(presets.values()))) if presets else cls()
    hints = get_type_hints(cls)
    fields = draw(st.lists(st.sampled_from([field for field in dataclasses.fields(cls) if field.name != "preset"]),
                           max_size=3, unique_by=lambda field: field.name))
    try:
        return dataclasses.replace(base, **{field.name: draw(values_of(field, hints[field.name], base))
                                            for field in fields})
    except InputError:
        reject()


def flags_of(config, base):
    """The command line of a configuration: its preset, and a flag for each field that differs from it."""
    flags = []
    if hasattr(config, "preset"):
        flags += [getattr(config, "preset_flags", ["--preset"])[0], config.preset]
    for field in dataclasses.fields(config):
        value = getattr(config, field.name)
        if value == getattr(base, field.name):
            continue
        if isinstance(value, bool):
            flags.append(f"--{'' if value else 'no-'}{field.name}")
        elif isinstance(value, tuple):
            flags += [f"--{field.name}", *map(str, value)]
        else:
            flags.append(f"--{field.name}={value}")
    return flags


@pytest.mark.slow
@pytest.mark.parametrize("cls", PROGRAMS, ids=lambda cls: cls.__name__)
def test_a_configuration_is_the_same_from_json_and_from_flags(cls, tmp_path):
    presets, path = PROGRAMS[cls], tmp_path / "config.json"

    @settings(suppress_health_check=[HealthCheck.filter_too_much], max_examples=25)
    @given(configurations(cls, presets))
    def check(config):
        stored = json.dumps(to_dict(config))
        assert from_dict(cls, json.loads(stored), "here") == config
        path.write_text(stored)
        assert parse_config(cls, presets, ["--config", str(path)])[0] == config
        base = presets[config.preset] if presets else cls()
        unread = config.unread() if hasattr(config, "unread") else ()
        read = dataclasses.replace(config, **{name: getattr(base, name) for name in unread})
        assert parse_config(cls, presets, flags_of(read, base))[0] == read
    check()
