"""Configuration: dataclass defaults < preset < --config < flags, the published flags, help, JSON."""

import dataclasses
import json
import re
from types import SimpleNamespace
from typing import Literal

import pytest

from retrain.evaluate_settings import EvaluateConfig
from retrain.export import ExportConfig
from retrain.race.settings import RACE_RECIPES, CompareConfig
from retrain.recipes import IMAGENET_RECIPES, ImageNetConfig, RetrainConfig
from retrain.recipes import RECIPES as RETRAIN_PRESETS
from retrain.vulnerability.settings import VulnerabilityConfig
from search.rankings.settings import RankingConfig
from search.rnas_settings import PRESETS as RNAS_PRESETS
from search.rnas_settings import RnasConfig
from search.tabular_settings import TabularConfig
from search.wsr_nas_settings import PRESETS as SEARCH_PRESETS
from search.wsr_nas_settings import SearchConfig
from test_AN_estimator.settings import PRESETS as BENCHMARK_PRESETS
from test_AN_estimator.settings import BenchmarkConfig
from wsrnas.runtime.config import (
    describe,
    format_epsilon,
    from_dict,
    help_of,
    identity_differences,
    load_config,
    option,
    parse_config,
    to_dict,
)
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.flags import FIRST, OTHER, groups_of

COLOURS = {"red": None, "green": SimpleNamespace(help="that of grass")}


@dataclasses.dataclass(frozen=True)
class Small:
    """A program with one field of every kind."""

    preset: str = "plain"
    count: int = option(3, "how many (100 % of them)")
    epsilon: float = option(0.03, "radius")
    strengths: tuple[float, ...] = option((0.1, 0.2), "radii")
    names: tuple[str, ...] = option((), "labels")
    kind: Literal["pgd", "trades"] = option("pgd", "loss")
    fast: bool = option(False, "be quick", identity=False)
    where: str = option("here", "folder", identity=False)
    how_often: int = option(5, "repetitions", aliases=("times_over",))
    colour: str = option("red", "what to paint with", choices=COLOURS)
    newest: int = option(1, "a field that earlier versions lack", added=True)


PLAIN = {"plain": Small(), "large": Small(preset="large", count=30, fast=True)}

# A flag that a published command line may hold must not vanish: removing one has to be done here, too.
TRAINING = """accumulation adv_loss amp arch auxiliary_weight awp_gamma awp_warmup batch_size batch_statistics
    compile cuda_graphs data device drop_path ema_decay epochs epsilon eval_batch_size grad_clip held_out init_channels
    label_smoothing layers learning_rate learning_rate_min max_train milestones momentum num_steps on_overfitting
    peak_share probe_drop probe_steps random_start report_freq runs save save_every schedule seed select_every
    select_steps split_seed step_size strengths sync_bn track trades_beta warmup_epochs weight_decay"""
FLAGS = {
    SearchConfig: """adv_loss alpha alpha_std architecture_learning_rate architecture_samples attacked_strengths
        batch_size beta check_images cuda_graphs data dataset device download epsilon estimator estimator_batch_size
        estimator_images estimator_learning_rate estimator_max_epsilon estimator_memory estimator_passes
        estimator_weight_decay grad_clip init_channels iterations layers learning_rate learning_rate_min
        loss_hidden_size loss_learning_rate loss_memory loss_passes loss_weight_decay max_estimator_gap
        max_train max_validation momentum num_estimated_strengths num_pgd_strengths num_steps objective
        recalibration_batches report_freq runs save seed space standardize step_size strength_weights strengths tau
        trades_beta distance eval_batch_size vulnerability_bound warmup_architectures weight_decay strategy output
        predictor loss_quantile population proposal_steps proposal_learning_rate architecture_decay architecture_pull
        proposal_samples proposal_draws proposal_parents proposal_patience
        acquisition proposal_batch budget budget_tolerance sync_bn anchors few_shot_edge
        halvings measure path_every paths paths_per_iteration ranking_every ranking_sample ranking_table short_epochs
        short_images sensitivity size_weight naswot_weight ntk_weight training_free_layers supernet track train_only
        validation_steps""",
    RnasConfig: """adv_loss alpha_std architecture_learning_rate architecture_weight_decay batch_size bound_batches
        constrained_step data dataset device distance download epochs epsilon grad_clip init_channels layers
        learning_rate learning_rate_min max_train momentum num_steps order path_samples random_start
        recalibration_batches relaxation report_freq runs save seed solver solver_iterations space standardize
        statistics step_size tau trades_beta unconstrained_share upper_weights vulnerability_bound warmup_epochs
        track watched_batches weight_decay""",
    VulnerabilityConfig: """batch_size data dataset device distance download epsilon layers max_test model names
        num_steps random_start runs save seed standardize step_size weights workers""",
    RetrainConfig: f"{TRAINING} cutout dataset dataset_name download extend init_weights",
    ImageNetConfig: f"{TRAINING} color_jitter extend image_size init_weights workers",
    CompareConfig: " ".join({*TRAINING.split()} - {"arch", "init_channels"}) + """ archs attacks budget check_images
        checks cutout dataset dataset_name download max_test protocol seeds test_strengths tolerance""",
    EvaluateConfig: """anchors attacks batch_size check_images checks data dataset device download init_channels
        l2_strengths layers max_test model names norm out protocol random_start runs seed source state_dict
        step_size_ratio strengths weights workers""",
    BenchmarkConfig: """batch_size data dataset device download epsilon estimator_batch_size estimator_learning_rate
        estimator_weight_decay estimators eval_batch_size grad_clip layers learning_rate leave_one_out_max_epsilon
        max_estimator_train max_test max_train momentum network_batch_size networks num_steps report_freq rotation runs
        save seed single_source sources spectrum spectrum_max_epsilon track train_steps weight_decay""",
}
PUBLISHED = {"init_channels", "layers", "save", "epsilon", "num_steps", "batch_size", "learning_rate", "weight_decay",
             "seed", "report_freq"}
PROGRAMS = [(SearchConfig, SEARCH_PRESETS), (RetrainConfig, RETRAIN_PRESETS), (ImageNetConfig, IMAGENET_RECIPES),
            (EvaluateConfig, None), (BenchmarkConfig, BENCHMARK_PRESETS), (RnasConfig, RNAS_PRESETS),
            (VulnerabilityConfig, None), (CompareConfig, RACE_RECIPES)]


def parse(*argv, cls=Small, presets=PLAIN):
    return parse_config(cls, presets, list(argv), prog="program")[0]


def saved(path, config, **changes):
    path.write_text(json.dumps(to_dict(config) | changes))
    return str(path)


def test_each_source_overrides_the_one_before(tmp_path):
    stored = saved(tmp_path / "config.json", Small(count=7, epsilon=0.5))
    assert parse() == Small()
    assert parse("--preset", "large") == PLAIN["large"]
    assert parse("--preset", "large", "--count", "4") == dataclasses.replace(PLAIN["large"], count=4)
    assert parse("--config", stored) == Small(count=7, epsilon=0.5)
    assert parse("--config", stored, "--count", "9") == Small(count=9, epsilon=0.5)
    with pytest.raises(InputError, match="--preset and --config cannot be given together"):
        parse("--preset", "large", "--config", stored)


def test_values_of_every_kind():
    assert parse("--epsilon", "8/255").epsilon == 8 / 255
    assert parse("--strengths", "4/255", "0.1", "1e-1").strengths == (4 / 255, 0.1, 0.1)
    assert parse("--names", "a", "b").names == ("a", "b")
    assert parse("--fast").fast is True
    assert parse("--preset", "large", "--no-fast").fast is False
    assert parse("--kind", "trades").kind == "trades"
    assert parse("--count=5").count == 5


def test_a_negative_number_in_any_form_is_a_value_and_no_flag():
    assert parse("--strengths", "-4/255", "-1e-1", "-.5").strengths == (-4 / 255, -0.1, -0.5)
    assert parse("--epsilon", "-8/255").epsilon == -8 / 255


def test_dashes_are_understood_and_abbreviations_are_not():
    assert parse("--adv-loss", "trades", cls=SearchConfig, presets=SEARCH_PRESETS).adv_loss == "trades"
    with pytest.raises(InputError, match="unknown argument '--eps'"):
        parse("--eps", "0.1")


def test_a_flag_is_offered_in_one_of_its_spellings():
    with pytest.raises(InputError, match="did you mean --short_epochs") as caught:
        parse("--short-epoch", "1", cls=SearchConfig, presets=SEARCH_PRESETS)
    assert "--short-epochs" not in str(caught.value)


@pytest.mark.parametrize(("argv", "words"), [
    (["--epsilonn", "1"], "unknown argument '--epsilonn'; did you mean --epsilon"),
    (["--count", "many"], "--count: invalid int value: 'many'"),
    (["--count", "1.5"], "--count: invalid int value"),
    (["--epsilon", "8/0"], "'8/0' is not a number such as 0.031 or 8/255"),
    (["--epsilon", "large"], "'large' is not a number"),
    (["--strengths", "0.1", "x"], "'x' is not a number"),
    (["--kind", "fast"], "invalid choice: 'fast'"),
    (["--preset", "huge"], "invalid choice: 'huge'"),
    (["--epsilon"], "expected one argument"),
    (["stray"], "unknown argument 'stray'"),
    (["--config", "nowhere.json"], "the configuration nowhere.json does not exist"),
])
def test_a_wrong_command_line_is_one_sentence(argv, words):
    with pytest.raises(InputError) as caught:
        parse(*argv)
    assert words in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("cls", "presets"), PROGRAMS)
def test_json_round_trip_of_every_preset(cls, presets, tmp_path):
    for config in (presets or {"default": cls()}).values():
        path = tmp_path / "config.json"
        saved(path, config)
        assert load_config(cls, path) == config
        assert identity_differences(config, json.loads(path.read_text())) == []


@pytest.mark.parametrize(("text", "words"), [
    ("{", "is not JSON"),
    ("[1]", "expected a JSON object of configuration fields"),
    ('{"count": 1}', "missing configuration fields"),
])
def test_a_broken_config_file_is_refused(text, words, tmp_path):
    path = tmp_path / "config.json"
    path.write_text(text)
    with pytest.raises(InputError, match=words) as caught:
        parse("--config", str(path))
    assert str(path) in str(caught.value)


@pytest.mark.parametrize(("field", "value"), [
    ("count", "3"), ("count", 3.5), ("count", True), ("count", None), ("epsilon", "0.03"), ("epsilon", [0.03]),
    ("strengths", 0.1), ("strengths", [0.1, "a"]), ("names", [1]), ("kind", "fast"), ("kind", ["pgd"]),
    ("fast", "yes"), ("fast", 1), ("where", 5),
])
def test_a_value_of_the_wrong_type_in_a_config_file_is_named(field, value, tmp_path):
    stored = saved(tmp_path / "config.json", Small(), **{field: value})
    with pytest.raises(InputError) as caught:
        parse("--config", stored)
    assert f"{field} is {value!r}; expected" in str(caught.value)
    with pytest.raises(InputError, match="unknown configuration fields"):
        from_dict(Small, to_dict(Small()) | {"stray": 1}, "here")


def test_an_integer_is_a_number_in_a_config_file(tmp_path):
    assert parse("--config", saved(tmp_path / "config.json", Small(), epsilon=1, strengths=[1, 0.5])).epsilon == 1


def test_only_fields_that_change_the_result_are_compared():
    stored = to_dict(Small(count=4, fast=True, where="there"))
    assert identity_differences(Small(), stored) == ["count: 4 -> 3"]
    stored.pop("epsilon")
    assert identity_differences(Small(), stored) == ["count: 4 -> 3", "epsilon: absent -> 0.03"]


@pytest.mark.parametrize("flag", ["--how_often", "--how-often", "--times_over", "--times-over"])
def test_an_alias_is_a_flag_like_the_name_of_the_field(flag):
    assert parse(flag, "7").how_often == 7


def test_a_stored_configuration_may_use_an_alias(tmp_path):
    stored = to_dict(Small(how_often=6))
    stored["times_over"] = stored.pop("how_often")
    assert from_dict(Small, stored, "here").how_often == 6
    assert identity_differences(Small(how_often=6), stored) == []
    assert identity_differences(Small(), stored) == ["how_often: 6 -> 5"]
    assert from_dict(Small, {**stored, "how_often": 9}, "here").how_often == 6


def test_a_stored_configuration_may_lack_a_field_that_was_added_later():
    stored = to_dict(Small())
    del stored["newest"]
    assert from_dict(Small, stored, "here") == Small()
    assert identity_differences(Small(), stored) == []
    assert identity_differences(Small(newest=2), stored) == ["newest: 1 -> 2"]


def test_choices_are_those_of_a_table_as_it_is_when_the_command_line_is_read(monkeypatch, capsys, tmp_path):
    with pytest.raises(InputError, match="invalid choice: 'blue'"):
        parse("--colour", "blue")
    with pytest.raises(InputError, match="colour is 'blue'; expected one of red, green"):
        parse("--config", saved(tmp_path / "config.json", Small(), colour="blue"))
    monkeypatch.setitem(COLOURS, "blue", SimpleNamespace(help="that of the sea"))
    assert parse("--colour", "blue").colour == "blue"
    assert parse("--config", saved(tmp_path / "config.json", Small(), colour="blue")).colour == "blue"
    monkeypatch.setenv("COLUMNS", "20000")
    with pytest.raises(SystemExit):
        parse("--help")
    assert "what to paint with: red, green (that of grass), blue (that of the sea) (default: red)" in (
        capsys.readouterr().out)


@pytest.mark.parametrize(("cls", "presets"), PROGRAMS)
def test_no_alias_means_two_fields(cls, presets):
    names = [field.name for field in dataclasses.fields(cls)]
    names += [alias for field in dataclasses.fields(cls) for alias in field.metadata.get("aliases", ())]
    assert len(names) == len(set(names))


@pytest.mark.parametrize(("cls", "old", "field"), [
    (SearchConfig, "validation_batch_size", "eval_batch_size"), (CompareConfig, "test_batch_size", "eval_batch_size"),
    (RetrainConfig, "beta", "trades_beta"), (ImageNetConfig, "beta", "trades_beta"),
    (CompareConfig, "beta", "trades_beta"),
    (EvaluateConfig, "eval_batch_size", "batch_size"), (VulnerabilityConfig, "eval_batch_size", "batch_size")])
def test_a_published_flag_keeps_its_meaning_under_its_old_name(cls, old, field):
    presets = dict(PROGRAMS)[cls] or {}
    argv = ["--model", "resnet18"] if cls in (EvaluateConfig, VulnerabilityConfig) else []
    argv += ["--adv_loss", "trades"] if field == "trades_beta" else []
    assert getattr(parse_config(cls, presets, [*argv, f"--{old}", "3"], "program")[0], field) == 3


HERE = {"save", "runs", "device", "report_freq", "data", "track"}  # where a run lives, what it prints
SELECTS = {"eval_batch_size", "save_every", "on_overfitting", "cuda_graphs"}


@pytest.mark.parametrize(("cls", "free"), [
    (SearchConfig, HERE | {"download", "eval_batch_size", "cuda_graphs", "ranking_every", "ranking_sample",
                           "ranking_table"}),
    (RnasConfig, HERE | {"download", "vulnerability_bound"}),
    # Of a network, its genotype or name is what counts, not how it was called: runs keep it beside the configuration.
    # Of its first weights, their hash.
    (RetrainConfig, HERE | SELECTS | {"download", "arch", "init_weights", "extend"}),
    (ImageNetConfig, HERE | SELECTS | {"workers", "arch", "init_weights", "extend"}),
    (CompareConfig, HERE | SELECTS | {"download", "archs", "seeds", "tolerance", "protocol", "attacks", "max_test",
                                      "test_strengths", "check_images", "checks"}),
])
def test_where_a_run_lives_is_not_its_identity(cls, free):
    fields = dataclasses.fields(cls)
    assert {field.name for field in fields if not field.metadata.get("identity", True)} == free


@pytest.mark.parametrize(("cls", "presets"), PROGRAMS)
def test_help_shows_every_field_and_its_default(cls, presets, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "20000")
    with pytest.raises(SystemExit) as caught:
        parse_config(cls, presets, ["--help"], prog="program")
    assert caught.value.code == 0
    text = capsys.readouterr().out
    entries = {entry.split()[0].rstrip(","): " ".join(entry.split()) for entry in re.split(r"\n\n|\n  (?=--)", text)
               if entry.startswith("--")}
    base = next(iter(presets.values())) if presets else cls()  # what the program does without a flag
    shown = {name: value.strip() for name, _, value in (line.strip().partition(" ") for line in
                                                        describe(base).splitlines())}
    for field in dataclasses.fields(cls):
        if field.name == "preset":
            continue
        assert entries[f"--{field.name}"].endswith(f"{help_of(field)} (default: {shown[field.name] or 'empty'})")
    assert cls.__doc__.strip().splitlines()[0] in text
    for name in presets or ():
        assert name in text


GROUPED = [*(cls for cls, _ in PROGRAMS), TabularConfig, RankingConfig, ExportConfig]


@pytest.mark.parametrize("cls", GROUPED)
def test_every_flag_has_a_titled_group_and_the_first_are_few(cls):
    groups = groups_of(cls)
    assert {field.name for field in dataclasses.fields(cls)} == set(groups)
    assert [name for name, title in groups.items() if title == OTHER and name != "preset"] == []
    assert 3 < len(cls.first_flags) <= 10
    assert [name for name, title in groups.items() if title == FIRST] == sorted(cls.first_flags, key=[*groups].index)


@dataclasses.dataclass(frozen=True)
class Base(Small):
    """A class whose second field begins a group."""

    first: int = option(1, "")
    second: int = option(2, "", group="late")
    third: int = option(3, "")


@dataclasses.dataclass(frozen=True)
class Derived(Base):
    """A class that changes the default of a field that it has from another."""

    first_flags = ("own",)
    fourth: int = option(4, "", group="new")
    second: int = option(20, "")
    fifth: int = option(5, "")
    own: int = option(6, "")


def test_a_group_lasts_to_the_next_in_its_class_and_an_inherited_field_stays_in_its_own():
    groups = groups_of(Derived)
    expected = {"count": OTHER, "first": OTHER, "second": "late", "third": "late", "fourth": "new", "fifth": "new",
                "own": FIRST}
    assert {name: groups[name] for name in expected} == expected


@pytest.mark.parametrize("argv", [["--recipe", "tiny"], ["--preset=tiny"], ["--recipe", "strong", "--recipe", "tiny"]])
def test_help_shows_the_values_of_the_preset_that_is_asked_for(argv, capsys):
    with pytest.raises(SystemExit):
        parse_config(RetrainConfig, RETRAIN_PRESETS, [*argv, "--epsilon", "0.3", "--help"], prog="program")
    text = " ".join(capsys.readouterr().out.split())
    assert "below are the values of tiny (default: wsrnet-basic)" in text
    assert "--epochs EPOCHS number of epochs;" in text and "evaluation (default: 6)" in text
    assert text.index(f"{FIRST}:") < text.index("--arch TEXT") < text.index("optimiser:") < text.index("--momentum X")


def test_help_shows_one_spelling_and_takes_both(capsys):
    with pytest.raises(SystemExit):
        parse("--help")
    assert "--how_often N " in (text := capsys.readouterr().out)
    assert "--how-often" not in text and "--times_over" not in text and "--strengths EPS [EPS ...]" in text
    assert parse("--how-often", "7").how_often == parse("--times-over", "7").how_often == 7


@pytest.mark.parametrize(("cls", "presets"), PROGRAMS)
def test_the_flags_are_frozen(cls, presets, capsys):
    fields = {field.name for field in dataclasses.fields(cls)} - {"preset"}
    assert fields == set(FLAGS[cls].split())
    with pytest.raises(SystemExit):
        parse_config(cls, presets, ["--help"], prog="program")
    flags = set(re.findall(r"--[a-z_]+", capsys.readouterr().out))
    assert flags >= {"--config", "--dry_run"}
    assert "--overwrite" in flags
    if cls not in (EvaluateConfig, VulnerabilityConfig):
        one_each = {"init_channels"} if cls in (BenchmarkConfig, CompareConfig) else set()  # a width for each network
        assert fields >= PUBLISHED - one_each
    if cls in (RetrainConfig, ImageNetConfig):
        assert "arch" in fields and "--recipe" in flags


def test_the_presets_of_the_paper():
    assert list(SEARCH_PRESETS) == ["paper", "plus", "wide", "naive-1", "naive-3", "naive-6", "naive-11", "tiny"]
    counts = {name: (c.num_pgd_strengths, c.num_estimated_strengths) for name, c in SEARCH_PRESETS.items()}
    assert counts == {"paper": (3, 3), "plus": (3, 8), "wide": (1, 15), "naive-1": (1, 0), "naive-3": (3, 0),
                      "naive-6": (6, 0), "naive-11": (11, 0), "tiny": (2, 2)}
    for name, config in SEARCH_PRESETS.items():
        assert config.preset == name
        assert len(config.strengths) == len(config.strength_weights) == sum(counts[name])
    assert SEARCH_PRESETS["paper"].strengths == (0.03, 0.045, 0.06, 0.075, 0.09, 0.105)
    assert all(config.preset == name for name, config in (RETRAIN_PRESETS | IMAGENET_RECIPES).items())


def test_strengths_and_fields_are_printed_in_readable_form():
    assert format_epsilon(8 / 255) == "0.0314 (8/255)"
    assert describe(Small()).splitlines()[:3] == ["  preset     plain", "  count      3", "  epsilon    0.03"]
    assert "  strengths  0.1 0.2" in describe(Small())


def test_a_path_that_begins_at_home_is_there(monkeypatch):
    """A shell leaves ~ as it is after "=": the results would be in a folder of that name."""
    monkeypatch.setenv("HOME", "/home/somebody")
    config, _ = parse_config(RetrainConfig, RETRAIN_PRESETS, ["--preset", "tiny", "--runs=~/runs", "--data", "~/in"])
    assert (config.runs, config.data) == ("/home/somebody/runs", "/home/somebody/in")


UNREAD = [(RetrainConfig, ["--trades_beta", "6"], "--trades_beta is given, but nothing reads it: adv_loss is pgd"),
          (RetrainConfig, ["--strengths", "0.1"], "expected --adv_loss multi with it, or no --strengths"),
          (RetrainConfig, ["--random_start", "--adv_loss", "trades"], "--random_start is given"),
          (RetrainConfig, ["--awp_warmup", "3"], "awp_gamma is 0; expected --awp_gamma with it"),
          (RetrainConfig, ["--probe_steps", "3"], "expected --adv_loss fast with it"),
          (RetrainConfig, ["--milestones", "1", "--schedule", "constant"], "expected --schedule multi-step with it"),
          (RetrainConfig, ["--peak_share", "0.3", "--schedule", "cosine"], "schedule cyclic or one-cycle with it"),
          (CompareConfig, ["--strengths", "0.1"], "those of the test are --test_strengths"),
          (SearchConfig, ["--trades_beta", "6"], "expected --adv_loss trades with it"),
          (SearchConfig, ["--short_epochs", "5"], "measure is supernet; expected --measure short with it"),
          (EvaluateConfig, ["--model", "run", "--layers", "3"], "a network without --state_dict has its own size")]


@pytest.mark.parametrize(("cls", "argv", "said"), UNREAD)
def test_a_flag_that_nothing_reads_is_refused(cls, argv, said):
    with pytest.raises(InputError) as refused:
        parse_config(cls, dict(PROGRAMS)[cls] or {}, argv, "program")
    assert said in str(refused.value)


@pytest.mark.parametrize(("cls", "argv"), [
    (RetrainConfig, ["--trades_beta", "6", "--adv_loss", "mart"]), (CompareConfig, ["--strengths", "0.1", "--adv_loss",
                                                                                 "multi"]),
    (RetrainConfig, ["--awp_warmup", "3", "--awp_gamma", "0.01"]), (RetrainConfig, ["--random_start"]),
    (RetrainConfig, ["--milestones", "1"]), (RetrainConfig, ["--probe_steps", "3", "--adv_loss", "fast"]),
    (SearchConfig, ["--short_epochs", "5", "--measure", "short"])])
def test_a_flag_that_is_read_is_taken(cls, argv):
    parse_config(cls, dict(PROGRAMS)[cls] or {}, argv, "program")


@pytest.mark.parametrize("cls", [RetrainConfig, SearchConfig, EvaluateConfig, CompareConfig])
def test_seeds_are_not_negative(cls):
    with pytest.raises(InputError, match="seed is -1; expected at least 0"):
        parse_config(cls, dict(PROGRAMS)[cls] or {}, ["--seed", "-1"], "program")


def test_a_strength_that_is_given_twice_is_named():
    with pytest.raises(InputError, match=r"strengths contains 0\.1 twice; expected each strength once"):
        parse_config(RetrainConfig, dict(PROGRAMS)[RetrainConfig], ["--adv_loss", "multi", "--strengths", "0.1", "0.05",
                                                                    "0.1"], "program")
