"""The search program from its command line: Algorithm 1's order, its report, and interrupted = uninterrupted."""

import json
import math
import os
import signal
from collections import Counter
from contextlib import contextmanager
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from PIL import Image

import search.supernet_training
import search.wsr_nas as program
import search.wsr_nas_parts
import search.wsr_nas_searcher
from search.spaces.darts_supernet import DartsSupernet
from search.spaces.nas_bench_201_supernet import SupernetNB201
from search.strategy.memory import Memory
from search.strategy.objective import (
    OBJECTIVES,
    PriorObjective,
    RobustObjective,
    SensitiveObjective,
    natural_loss,
)
from search.strategy.rank_correlation import rank_correlation
from search.wsr_nas_searcher import Searcher
from search.wsr_nas_settings import PRESETS, SearchConfig, schedule
from tests.run_files import assert_equal, read, without_time
from wsrnas.data.datasets import load_dataset
from wsrnas.genotype import Genotype, count_differences
from wsrnas.models import load_architecture
from wsrnas.runtime.config import parse_config
from wsrnas.runtime.distributed import initialize
from wsrnas.runtime.errors import InputError, Preempted
from wsrnas.runtime.run_directory import RunDirectory

pytestmark = pytest.mark.usefixtures("quick_programs")

SMALL = ["--dataset", "digits", "--device", "cpu", "--init_channels", "2", "--layers", "2", "--num_steps", "1",
         "--max_train", "60", "--max_validation", "20", "--batch_size", "15", "--recalibration_batches", "1",
         "--loss_passes", "3", "--estimator_images", "2", "--save", "run"]
TINY = ["--preset", "tiny", "--strategy", "wsr-paper", *SMALL, "--warmup_architectures", "2", "--iterations", "2"]
# A supernet with a tenth of the modules, for what does not depend on the space.
QUICK = ["--space", "nas-bench-201", "--layers", "3"]
NAMES = ["natural", "eps_0.05", "eps_0.1", "eps_0.15", "eps_0.2"]


def start(folder, argv, seed=[0]):  # noqa: B006 - a counter over all starts
    """Run the program; torch's global generator differs every time, for nothing may depend on it."""
    seed[0] += 1
    torch.manual_seed(seed[0])
    program.main([*argv, "--runs", str(folder)])
    return folder / "search" / "run"


@contextmanager
def counted():
    """Images that go through the supernet, by step, phase and kind, where kind is that of ``cost.iteration_passes``."""
    steps, phase, counts = [], ["none"], Counter()

    class Clock(program.PhaseClock):
        @contextmanager
        def __call__(self, name):
            phase[0] = name
            with super().__call__(name):
                yield
            phase[0] = "none"

    def counting(original):
        def forward(self, images, outputs=None):
            counts[phase[0], "forward_backward" if torch.is_grad_enabled() else "forward"] += len(images)
            return original(self, images, outputs)
        return forward

    def record(self, step, values, original=RunDirectory.record):
        steps.append(dict(counts))
        counts.clear()
        return original(self, step, values)

    with pytest.MonkeyPatch.context() as context:
        context.setattr(program, "PhaseClock", Clock)
        for kind in (DartsSupernet, SupernetNB201):
            context.setattr(kind, "forward", counting(kind.forward))
        context.setattr(RunDirectory, "record", record)
        yield steps


def assert_reported_passes(rows, steps):
    for row, counts in zip(rows, steps, strict=True):
        reported = {(phase, kind): number for phase, kinds in row["passes"].items() for kind, number in kinds.items()
                    if number}
        assert reported == counts, row["step"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted search, and the images that it sent through the supernet."""
    with counted() as steps:
        run = start(tmp_path_factory.mktemp("whole"), TINY)
    return run, steps


# -- interrupted = uninterrupted ------------------------------------------------------------------------------------

class Killed(BaseException):
    """As sudden as a kill: nothing in the program may catch it."""


def kill(epoch):
    raise Killed


def ask_to_stop(epoch):
    os.kill(os.getpid(), signal.SIGTERM)


def die_in_training(context, index, how=kill):
    """Raise in the middle of the epoch of step ``index`` (one of its two batches is trained on)."""
    def dying(trainer, loader, *arguments, after_step, original=search.supernet_training.train_epoch, **more):
        def die(epoch):
            if dying.left == 0:
                assert epoch.batches == 1 < len(loader)
                how(epoch)
            after_step(epoch)
        result = original(trainer, loader, *arguments, after_step=die, **more)
        dying.left -= 1
        return result
    dying.left = index
    context.setattr(search.supernet_training, "train_epoch", dying)


def stop_in_training(context, index):
    """The same, but asked for by a signal."""
    die_in_training(context, index, ask_to_stop)


def die_between_record_and_checkpoint(context, count):
    """Raise where a step is recorded and its genotype written, but the checkpoint is not."""
    def dying(self, payload, name="checkpoint.pt", original=RunDirectory.save):
        if dying.left == 0:
            raise Killed
        dying.left -= 1
        original(self, payload, name)
    dying.left = count
    context.setattr(RunDirectory, "save", dying)


@pytest.mark.slow
def test_interrupted_equals_uninterrupted_bit_for_bit(whole, tmp_path):
    deaths = [(die_in_training, 1, 1),                    # the second warm-up step (index 1)
              (die_in_training, 2, 3),                    # the second network of the population (index 3)
              (die_between_record_and_checkpoint, 1, 4),  # the first search step (index 4)
              (stop_in_training, 1, 5)]                   # the second search step (index 5)
    run = tmp_path / "search" / "run"
    for die, after, completed in deaths:
        with pytest.MonkeyPatch.context() as context, pytest.raises((Killed, Preempted)):
            die(context, after)
            start(tmp_path, TINY)
        assert torch.load(run / "checkpoint.pt", weights_only=True)["step"] == completed
    start(tmp_path, TINY)

    expected, _ = whole
    states = [torch.load(path / "checkpoint.pt", weights_only=True) for path in (expected, run)]
    for state in states:
        assert state.pop("config").pop("runs")
        assert state["step"] == 6
    assert_equal(*states)
    assert (run / "genotype.json").read_text() == (expected / "genotype.json").read_text()
    assert without_time(read(run)) == without_time(read(expected))
    files = [sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file() and "tb" not in p.parts)
             for path in (run, expected)]
    assert files[0] == files[1]
    for name in files[0]:
        if "genotype" in name or name == "split.json":
            assert (run / name).read_bytes() == (expected / name).read_bytes(), name


@pytest.mark.slow
def test_a_finished_search_says_so_and_stops(whole, capsys):
    run, _ = whole
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    start(run.parent.parent, TINY)
    said = capsys.readouterr().out
    assert "is finished" in said and "genotype.json" in said and "--overwrite" in said
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


@pytest.mark.slow
def test_same_seed_same_genotype_and_another_seed_another(tmp_path):
    once = [*TINY, *QUICK, "--preset", "naive-1", "--warmup_architectures", "1", "--iterations", "1"]
    first, same, other = (start(tmp_path / str(number), [*once, "--seed", seed])
                          for number, seed in enumerate(("0", "0", "1")))
    assert (same / "genotype.json").read_bytes() == (first / "genotype.json").read_bytes()
    assert without_time(read(same)) == without_time(read(first))
    assert load_architecture(first) != load_architecture(other)
    assert (other / "split.json").read_bytes() != (first / "split.json").read_bytes()
    assert read(other)[0]["train"]["loss"] != read(first)[0]["train"]["loss"]


# -- Algorithm 1 ----------------------------------------------------------------------------------------------------

def test_the_phases_follow_one_another_as_in_algorithm_1(whole):
    rows = read(whole[0])
    assert [row["step"] for row in rows] == list(range(6))
    assert [(row["phase"], row["number"]) for row in rows] == [
        (phase, number) for phase in ("warm-up", "population", "search") for number in range(2)]
    assert ["losses" in row for row in rows] == [False] * 2 + [True] * 4            # lines 3-5 only train
    assert ["squared_error" in row.get("loss_estimator", {}) for row in rows] == [False] * 3 + [True] * 3  # 18, 23
    assert ["predicted_objective" in row for row in rows] == [False] * 4 + [True] * 2    # line 24
    assert [row["architecture"]["changed_choices"] > 0 for row in rows[:4]] == [False] * 4
    entropies = [row["architecture"]["alpha_entropy"]["normal"] for row in rows]
    assert len(set(entropies[:4])) == 1 and len(set(entropies)) == 3                 # A moves in the search alone


def test_the_schedule_has_the_steps_of_algorithm_1():
    for population, iterations in ((1, 1), (3, 2), (100, 100)):
        config, _ = parse_config(type(PRESETS["paper"]), PRESETS, ["--warmup_architectures", str(population),
                                                                   "--iterations", str(iterations)])
        steps = schedule(config)
        assert [step.index for step in steps] == list(range(2 * population + iterations))
        assert Counter(step.phase for step in steps) == {"warm-up": population, "population": population,
                                                         "search": iterations}
        assert [step.index for step in steps if step.trains_losses] == list(
            range(2 * population - 1, 2 * population + iterations))


@pytest.mark.slow
def test_both_warm_up_loops_train_the_same_architectures(tmp_path):
    paths = []

    def sample(self, step, original=Searcher.sample):
        original(self, step)
        paths.append((step.phase, step.number, self.supernet.path.gates.clone()))

    with pytest.MonkeyPatch.context() as context:
        context.setattr(Searcher, "sample", sample)
        context.setattr(search.supernet_training, "train_epoch",
                        lambda *a, **k: {"loss": 1.0, "adversarial_accuracy": 0.0})
        start(tmp_path, [*TINY, *QUICK, "--preset", "naive-1"])
    gates = {(phase, number): value for phase, number, value in paths}
    for number in range(2):
        assert torch.equal(gates["warm-up", number], gates["population", number])
    assert not torch.equal(gates["warm-up", 0], gates["warm-up", 1])
    assert not torch.equal(gates["search", 0], gates["population", 0])


def test_every_search_step_reports_everything(whole):
    run, _ = whole
    for row in read(run)[4:]:
        architecture = row["architecture"]
        for kind in ("normal", "reduce"):
            assert len(architecture["genotype"][kind]) == 8
            assert 0 < architecture["alpha_entropy"][kind] < math.log(8) + 1e-6
        assert 0 <= architecture["changed_choices"] <= 16
        assert list(row["losses"]) == NAMES == list(row["accuracies"])
        assert all(math.isfinite(loss) and loss > 0 for loss in row["losses"].values())
        phases = ["train", "recalibrate", "estimator", "validate", "estimator_check", "loss_estimator", "architecture"]
        assert list(row["seconds"]) == phases and all(value > 0 for value in row["seconds"].values())
        assert set(row["passes"]) == set(phases[:5])
        check = row["estimator_check"]
        assert check["images"] == 20 and check["attacked"] == [0.05, 0.15] and "fallback" not in check
        for key in ("gap", "loss_gap", "estimated_accuracy", "pgd_accuracy"):
            assert list(check[key]) == ["eps_0.1", "eps_0.2"] and all(map(math.isfinite, check[key].values()))
        assert f"| estimator gap {100 * check['mean_gap']:+.1f} points (worst" in (run / "log.txt").read_text()
        assert row["estimator"]["relative_error"] > 0
        assert {"predicted_objective", "measured_objective", "ranked", "squared_error"} <= set(row["loss_estimator"])
        stored = json.loads((run / "genotypes" / f"epoch_{row['number']:03d}.json").read_text())
        assert stored["normal"] == architecture["genotype"]["normal"]
        assert stored["meta"]["iteration"] == row["number"] + 1
    assert (run / "genotype.json").read_text() == (run / "genotypes" / "epoch_001.json").read_text()
    assert [row["estimator"]["networks"] for row in read(run)[2:]] == [1, 2, 3, 4]
    assert [row["estimator"]["tasks"] for row in read(run)[2:]] == [6, 12, 18, 24]   # 2 images, 2 + 1 strengths
    assert [row["loss_estimator"]["ranked"] for row in read(run)[4:]] == [1, 2]
    changed = count_differences(Genotype.load(run / "genotype.json"), Genotype.load(run / "genotypes" / "initial.json"))
    assert read(run)[-1]["architecture"]["changed_choices"] == changed


@pytest.mark.slow
def test_a_search_minimises_the_objective_that_it_is_told(tmp_path, capsys):
    with pytest.raises(SystemExit):
        program.main(["--help"])
    assert "natural (the natural loss alone" in " ".join(capsys.readouterr().out.split())
    once = ["--warmup_architectures", "1", "--iterations", "1"]
    rows = read(start(tmp_path, [*TINY, *QUICK, *once, "--objective", "natural"]))
    measured = [(row["loss_estimator"]["measured_objective"], row["losses"]["natural"])
                for row in rows if row["phase"] == "search"]
    assert measured and all(objective == pytest.approx(loss) for objective, loss in measured)


@pytest.mark.slow
@pytest.mark.parametrize("strategy", [[], ["--strategy", "wsr-paper"]], ids=["wsr", "wsr-paper"])
def test_a_search_may_reward_features_that_an_attack_moves(tmp_path, strategy):
    once = ["--warmup_architectures", "1", "--iterations", "1"]
    run = start(tmp_path, [*TINY, *QUICK, *once, *strategy, "--objective", "sensitive", "--sensitivity", "0.5"])
    row = read(run)[-1]
    moved = [-math.log(value) for value in row["vulnerabilities"].values()]
    assert len(moved) == 4 and row["loss_estimator"]["measured_objective"] == pytest.approx(
        row["losses"]["natural"] + 0.5 * sum(moved) / 4, rel=1e-5)
    stored = torch.load(run / "checkpoint.pt", weights_only=True)["searcher"]["loss_memory"]
    kept = Memory(100)
    kept.load_state_dict(stored, torch.device("cpu"))
    assert kept["losses"][-1, 5:].tolist() == pytest.approx(moved, rel=1e-5)


@pytest.mark.parametrize("strategy", [[], pytest.param(["--strategy", "wsr-paper"], marks=pytest.mark.slow)],
                         ids=["wsr", "wsr-paper"])
def test_the_size_may_count(tmp_path, strategy):
    flags = ["--warmup_architectures", "1", "--iterations", "1", "--objective", "natural", "--size_weight", "0.25"]
    run = start(tmp_path, [*TINY, *QUICK, *strategy, *flags])
    found = read(run)[-1]
    sizes = [math.log(row["parameters"]) for row in found["paths"]]
    assert found["loss_estimator"]["measured_objective"] == pytest.approx(found["losses"]["natural"] - sizes[0] / 4,
                                                                          rel=1e-5)
    kept = Memory(100)
    kept.load_state_dict(torch.load(run / "checkpoint.pt", weights_only=True)["searcher"]["loss_memory"],
                         torch.device("cpu"))
    assert kept["losses"].shape[1] == 6 and kept["losses"][-1, 5].item() == pytest.approx(-sizes[0], rel=1e-6)


def test_an_untrained_networks_score_may_count(tmp_path):
    flags = ["--warmup_architectures", "1", "--iterations", "1", "--objective", "natural", "--naswot_weight", "0.5"]
    run = start(tmp_path, [*TINY, *QUICK, *flags])
    row = read(run)[-1]
    kept = Memory(100)
    kept.load_state_dict(torch.load(run / "checkpoint.pt", weights_only=True)["searcher"]["loss_memory"],
                         torch.device("cpu"))
    scores = kept["losses"][:, 5].tolist()
    assert kept["losses"].shape[1] == 6 and len(set(scores)) > 1
    assert row["loss_estimator"]["measured_objective"] == pytest.approx(row["losses"]["natural"] + scores[-1] / 2,
                                                                        rel=1e-5)


def test_priors_are_no_matter_of_the_other_objective():
    rows = torch.tensor([[1.0, 8.0, 9.0, -3.0, 1.0], [2.0, 0.0, 0.0, -1.0, 4.0]])
    robust = RobustObjective(0.5, 0.5, (0.5, 0.5))
    torch.testing.assert_close(PriorObjective(robust, (0.5,))(rows[:, :4]), robust(rows[:, :3]) + rows[:, 3] / 2)
    torch.testing.assert_close(PriorObjective(robust, (0.5, 2))(rows),
                               robust(rows[:, :3]) + rows[:, 3] / 2 + 2 * rows[:, 4])


def test_the_sensitive_objective_reads_the_natural_loss_and_the_logarithms():
    rows = torch.tensor([[1.0, 8.0, 9.0, 3.0, 5.0], [2.0, 0.0, 0.0, -1.0, 1.0]])
    assert SensitiveObjective(natural_loss, 0.25, 2)(rows).tolist() == [2.0, 2.0]
    robust = SimpleNamespace(alpha=0.75, beta=0.25, strengths=(1, 2), strength_weights=(0.5, 0.5), sensitivity=0.25)
    assert OBJECTIVES["robust-sensitive"].build(robust)(rows).tolist() == [0.75 + 0.25 * 8.5 + 1, 1.5]
    assert OBJECTIVES["sensitive"].build(robust)(rows).tolist() == [2.0, 2.0]
    measured = {"losses": torch.tensor([1.0, 2.0]), "vulnerabilities": torch.tensor([math.e**-3])}
    torch.testing.assert_close(OBJECTIVES["sensitive"].row(measured), torch.tensor([1.0, 2.0, 3.0]))
    torch.testing.assert_close(OBJECTIVES["robust"].row(measured), torch.tensor([1.0, 2.0, math.e**-3]))
    dead = {"losses": torch.tensor([1.0, 2.0]), "vulnerabilities": torch.tensor([0.0])}
    assert OBJECTIVES["sensitive"].row(dead).isfinite().all()


@pytest.mark.parametrize(("flags", "words"), [
    (["--objective", "sensitive", "--sensitivity", "0"], "sensitivity is 0; expected above 0"),
    (["--size_weight", "-0.1"], "size_weight is -0.1; expected 0 or more"),
    (["--naswot_weight", "-2"], "naswot_weight is -2; expected 0 or more"),
    (["--ntk_weight", "-1"], "ntk_weight is -1; expected 0 or more"),
    (["--training_free_layers", "-1"], "training_free_layers is -1; expected at least 0"),
    (["--training_free_layers", "6"], "expected --ntk_weight or --naswot_weight above 0"),
    (["--ntk_weight", "0.1", "--training_free_layers", "4", "--space", "nas-bench-201", "--layers", "3"],
     "training_free_layers is 4; the space nas-bench-201 expects"),
    (["--naswot_weight", "0.1", "--strategy", "wsr-paper", "--vulnerability_bound", "1"], "expected one of the two"),
    (["--size_weight", "0.1", "--strategy", "wsr-paper", "--vulnerability_bound", "1"], "expected one of the two"),
    (["--objective", "sensitive", "--max_estimator_gap", "0.1"], "expected neither"),
    (["--objective", "robust-sensitive", "--max_estimator_gap", "0.1"], "expected neither"),
    (["--objective", "robust-sensitive", "--sensitivity", "-1"], "sensitivity is -1; expected above 0"),
    (["--objective", "robust-sensitive", "--alpha", "0.9"], "expected 1 (Eq. 10)"),
    (["--objective", "sensitive", "--strategy", "wsr-paper", "--vulnerability_bound", "1"], "expected neither"),
])
def test_an_objective_that_does_not_fit_is_refused(flags, words):
    with pytest.raises(InputError) as caught:
        parse_config(SearchConfig, PRESETS, ["--preset", "tiny", *flags])
    assert words in str(caught.value)


def test_the_objective_is_equation_10_of_the_measured_losses(whole):
    row = read(whole[0])[-1]
    natural, *robust = row["losses"].values()
    expected = 0.8 * natural + 0.2 * sum(w * loss for w, loss in zip((0.1, 0.2, 0.3, 0.4), robust, strict=True))
    assert row["loss_estimator"]["measured_objective"] == pytest.approx(expected, rel=1e-5)


def test_the_last_line_says_how_to_go_on(whole):
    log = (whole[0] / "log.txt").read_text()
    assert "search finished:" in log and "--arch" in log and "[6/6] search 2 | train loss" in log


def test_the_rank_correlation_is_kendalls():
    assert rank_correlation([[1, 2], [2, 3]]) == {}
    assert rank_correlation([[1, 2], [2, 3], [3, 4]]) == {"kendall_tau": pytest.approx(1)}
    assert rank_correlation([[1, 5], [2, 4], [3, 3], [4, 2]]) == {"kendall_tau": pytest.approx(-1)}
    trend = [[10 - i + e, 10 - i - e] for i, e in enumerate((0.1, -0.2, 0.2, -0.1, 0.15, -0.15))]
    result = rank_correlation(trend)
    assert result["kendall_tau"] > 0.5 and result["kendall_tau_detrended"] < -0.5
    assert rank_correlation([[1, 1], [1, 2], [1, 3]]) == {"kendall_tau": None}


# -- passes ---------------------------------------------------------------------------------------------------------

def test_reported_passes_are_the_images_that_went_through_the_supernet(whole):
    assert_reported_passes(read(whole[0]), whole[1])


@pytest.fixture
def pictures(tmp_path):
    """A folder of random pictures: two classes of 30 to train, of 2 to test, 12 pixels high and 16 wide."""
    stream = np.random.default_rng(0)
    for part, count in (("train", 30), ("test", 2)):
        for name in ("a", "b"):
            folder = tmp_path / "pictures" / part / name
            folder.mkdir(parents=True)
            for number in range(count):
                pixels = stream.integers(0, 256, (12, 16, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(folder / f"{number}.png")
    return tmp_path / "pictures"


@pytest.mark.slow
@pytest.mark.parametrize(("argv", "learns", "checks"), [
    (["--preset", "paper", "--adv_loss", "trades", "--num_steps", "2", *QUICK], True, True),
    (["--preset", "paper", "--adv_loss", "fast", "--num_steps", "2", "--validation_steps", "3", "--path_every", "step",
      *QUICK], True, True),
    (["--preset", "plus", "--dataset", "folder", "--data", "{pictures}", "--check_images", "0", *QUICK],
     True, False),
    (["--preset", "wide", *QUICK], False, True),
    (["--preset", "wide", "--path_every", "step", "--paths_per_iteration", "2", "--anchors", "1", *QUICK], False, True),
    (["--preset", "naive-6", "--validation_batch_size", "7", *QUICK], False, False),
    (["--preset", "paper", "--vulnerability_bound", "rel:0.6", *QUICK], True, True),
], ids=["trades", "fast", "plus", "wide", "several", "naive", "bounded"])
def test_other_ways_to_search_report_their_passes_losses_and_checks(argv, learns, checks, pictures, tmp_path):
    once = ["--warmup_architectures", "1", "--population", "1", "--iterations", "1"]
    with counted() as steps:
        run = start(tmp_path, [*SMALL, *(word.format(pictures=pictures) for word in argv), *once])
    rows = read(run)
    assert_reported_passes(rows, steps)
    assert len(rows) == 3
    for row in rows[1:]:
        assert len(row["losses"]) == 1 + len(PRESETS[argv[1]].strengths)
        assert ("estimator" in row) == ("estimator" in row["seconds"]) == learns
        assert ("vulnerabilities" in row) == ("--vulnerability_bound" in argv)
        assert ("estimator_check" in row) == ("estimator_check" in row["seconds"]) == checks
    assert (run / "noise_samples.npz").exists() == checks
    for row in rows[1:]:
        assert ("clean_accuracy" in row["train"]) == ("trades" in argv)
    load_architecture(run)


# -- a bound on the vulnerability -----------------------------------------------------------------------------------

BOUNDED = [*TINY, *QUICK, "--vulnerability_bound", "rel:0.5"]


@pytest.fixture(scope="module")
def bounded(tmp_path_factory):
    """An uninterrupted search under a bound, and its counted images."""
    with counted() as steps:
        run = start(tmp_path_factory.mktemp("bounded"), BOUNDED)
    return run, steps


@pytest.mark.slow
def test_a_bound_changes_nothing_before_the_architecture_moves(bounded, tmp_path):
    with pytest.MonkeyPatch.context() as context, pytest.raises(Killed):
        die_in_training(context, 4)
        start(tmp_path, [*TINY, *QUICK])
    free, rows = read(tmp_path / "search" / "run"), read(bounded[0])[:4]
    assert [row.get("losses") for row in free] == [row.get("losses") for row in rows] and "losses" in rows[-1]
    assert [row["train"]["loss"] for row in free] == [row["train"]["loss"] for row in rows]


@pytest.mark.slow
def test_a_bounded_search_measures_and_bounds_the_vulnerability_at_every_strength(bounded):
    rows = read(bounded[0])
    assert_reported_passes(rows, bounded[1])
    for row in rows[2:]:
        values = list(row["vulnerabilities"].values())
        assert list(row["vulnerabilities"]) == NAMES[1:] and values == sorted(values) and values[0] > 0
        assert set(row["estimator_check"]["vulnerability_gap"]) == set(row["estimator_check"]["loss_gap"])
    # M_v at the first projection: the population and the network of the first iteration.
    remembered = torch.tensor([list(row["vulnerabilities"].values()) for row in rows[2:5]])
    for row in rows[4:]:
        found = row["projection"]
        torch.testing.assert_close(torch.tensor(list(found["bounds"].values())), 0.5 * remembered.median(0).values)
        assert found["after"] <= found["before"] and (found["feasible"] == 1) == (found["after"] <= 1.01)
    assert any(row["projection"]["distance"] > 0 for row in rows[4:])
    state = torch.load(bounded[0] / "checkpoint.pt", weights_only=True)["searcher"]
    assert state["loss_memory"]["losses"].shape[1] == 5 + 4
    for measured, row in zip(state["loss_memory"]["losses"].tolist(), rows[2:], strict=True):
        assert measured == pytest.approx([*row["losses"].values(), *row["vulnerabilities"].values()])


@pytest.mark.slow
def test_a_bounded_search_goes_on_as_if_unbroken_but_not_under_another_bound(bounded, tmp_path):
    run = tmp_path / "search" / "run"
    with pytest.MonkeyPatch.context() as context, pytest.raises(Killed):
        die_in_training(context, 5)
        start(tmp_path, BOUNDED)
    assert torch.load(run / "checkpoint.pt", weights_only=True)["searcher"]["bounds"] is not None
    for bound in ("rel:0.9", "inf"):
        with pytest.raises(InputError, match=r"another configuration \(vulnerability_bound"):
            start(tmp_path, [*BOUNDED[:-1], bound])
    start(tmp_path, BOUNDED)
    assert without_time(read(run)) == without_time(read(bounded[0]))


@pytest.mark.slow
def test_a_strength_that_falls_back_takes_its_vulnerability_along(tmp_path):
    with weak_estimates():
        run = start(tmp_path, [*FALLING, "--vulnerability_bound", "rel:0.5"])
    first, second = read(run)[1:3]
    name = f"eps_{first['estimator_check']['fallback']:g}"
    column = 5 + NAMES[1:].index(name)
    memory = torch.load(run / "checkpoint.pt", weights_only=True)["searcher"]["loss_memory"]["losses"]
    gaps = [first["estimator_check"]["vulnerability_gap"][name]]
    if f"eps_{second['estimator_check']['fallback']:g}" == name:
        gaps.append(second["estimator_check"]["vulnerability_gap"][name])
    assert all(gaps)
    assert memory[0, column] == pytest.approx(first["vulnerabilities"][name] + sum(gaps), rel=1e-5)


# -- the fallback from estimates to PGD -----------------------------------------------------------------------------

FALLING = [*TINY, *QUICK, "--warmup_architectures", "1", "--max_estimator_gap", "0.4"]


@contextmanager
def weak_estimates():
    """Every check finds a largest gap of 50 points, where the largest one was measured."""
    def gap(*arguments, original=search.wsr_nas_searcher.estimator_gap):
        return original(*arguments) | {"largest_gap": 0.5}
    with pytest.MonkeyPatch.context() as context:
        context.setattr(search.wsr_nas_searcher, "estimator_gap", gap)
        yield


@pytest.fixture(scope="module")
def fallen(tmp_path_factory):
    """An uninterrupted search in which both estimated strengths fall back to PGD, and its counted images."""
    with counted() as steps, weak_estimates():
        run = start(tmp_path_factory.mktemp("fallen"), FALLING)
    return run, steps


@pytest.mark.slow
def test_one_strength_an_iteration_falls_back_until_none_is_estimated(fallen):
    run, steps = fallen
    rows = read(run)
    first, second = (row["estimator_check"]["fallback"] for row in rows[1:3])
    assert {first, second} == {0.1, 0.2}
    assert [row["estimator_check"]["attacked"] for row in rows[1:3]] == [[0.05, 0.15], sorted([0.05, 0.15, first])]
    assert list(rows[2]["estimator_check"]["gap"]) == [f"eps_{second:g}"]
    assert [row["estimator"]["networks"] for row in rows[1:3]] == [1, 1]  # M_a begins anew
    assert [row["estimator"]["tasks"] for row in rows[1:3]] == [6, 8]     # 2 images, N1 + 1 strengths
    for name in ("estimator", "estimator_check"):
        assert name not in rows[3] and name not in rows[3]["seconds"] and name not in rows[3]["passes"]
    assert [list(row["losses"]) for row in rows[1:]] == [NAMES] * 3
    assert_reported_passes(rows, steps)
    log = (run / "log.txt").read_text()
    for strength, text in ((first, "estimator gap 50.00 points exceeds 40: "), (second, "exceeds 40: ")):
        assert f"{text}{strength:.4f} ({strength * 255:.4g}/255) is attacked by PGD from now on" in log


@pytest.mark.slow
def test_a_search_interrupted_at_a_fallback_is_the_unbroken_one(fallen, tmp_path):
    run = tmp_path / "search" / "run"
    for die, after, completed in ((die_between_record_and_checkpoint, 1, 1), (die_in_training, 1, 2)):
        with weak_estimates(), pytest.MonkeyPatch.context() as context, pytest.raises(Killed):
            die(context, after)
            start(tmp_path, FALLING)
        assert torch.load(run / "checkpoint.pt", weights_only=True)["step"] == completed
    assert len(torch.load(run / "checkpoint.pt", weights_only=True)["searcher"]["attacked"]) == 3
    with weak_estimates():
        start(tmp_path, FALLING)
    states = [torch.load(path / "checkpoint.pt", weights_only=True) for path in (fallen[0], run)]
    for state in states:
        assert state.pop("config").pop("runs") and state["searcher"]["attacked"] == [0, 1, 2, 3]
    assert_equal(*states)
    assert without_time(read(run)) == without_time(read(fallen[0]))


# -- data -----------------------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_the_halves_are_disjoint_stored_and_reused(whole, tmp_path):
    run, _ = whole
    split = json.loads((run / "split.json").read_text())
    first, second = split["first"], split["second"]
    assert sorted(first + second) == list(range(60)) and len(first) == len(second) == 30
    labels = load_dataset("digits", max_train=60).train.labels
    assert torch.bincount(labels[first]).tolist() == torch.bincount(labels[second]).tolist() == [3] * 10

    used = []

    def build(config, data, split, world, original=search.wsr_nas_searcher.build_loaders):
        loaders = original(config, data, split, world)
        used.append((loaders.train_set.images, loaders.validation.image_set.images, data))
        return loaders

    swapped = json.dumps({"format": 1, "first": second, "second": first})
    with pytest.MonkeyPatch.context() as context:
        context.setattr(search.wsr_nas_searcher, "build_loaders", build)
        with pytest.MonkeyPatch.context() as inner, pytest.raises(Killed):
            die_in_training(inner, 1)
            start(tmp_path, [*TINY, *QUICK])
        (tmp_path / "search" / "run" / "split.json").write_text(swapped)  # recognisable: is it the stored one?
        with pytest.MonkeyPatch.context() as inner, pytest.raises(Killed):
            die_in_training(inner, 0)
            start(tmp_path, [*TINY, *QUICK])
    for (train, validation, data), half, other in zip(used, (first, second), (second, first), strict=True):
        assert torch.equal(train, data.train.images[half])
        pixels = {image.numpy().tobytes() for image in data.train.images[other]}
        assert len(validation) == 20 and all(image.numpy().tobytes() in pixels for image in validation)
    assert (tmp_path / "search" / "run" / "split.json").read_text() == swapped


def test_validation_images_are_not_augmented(tmp_path):
    data = load_dataset("digits", max_train=60)
    config, _ = parse_config(type(PRESETS["tiny"]), PRESETS, [*TINY, *QUICK])
    split = torch.arange(0, 60, 2), torch.arange(1, 60, 2)
    with pytest.MonkeyPatch.context() as context:
        context.setattr(search.wsr_nas_parts, "balanced_subset", lambda labels, *rest: torch.arange(len(labels)))
        searcher = Searcher(config, data, split, initialize("cpu"))
    seen = torch.cat([images for images, _ in searcher.validation_loader.batches()])
    expected = data.train.images[split[1]].float() / 255
    found = (seen.flatten(1).unsqueeze(1) == expected.flatten(1)).all(2)  # D_v is in a random order
    assert len(seen) == 30 and found.any(0).all() and found.any(1).all()


# -- dry run, refusal -----------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_a_dry_run_writes_nothing(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    program.main([*TINY, "--dry_run"])
    said = capsys.readouterr().out
    assert os.listdir(tmp_path) == []
    for words in ("init_channels ", "parameters", "multiply-adds", "6 epochs (2 warm-up, 2 population, 2 search)",
                  "forward and backward", "memory: about", "strengths by PGD: 0.0500 (12.75/255), 0.1500 (38.25/255)",
                  "D_t 30, D_v 20", "estimator check: 20 images of D_v at the estimated strengths in every iteration; "
                  "only reported"):
        assert words in said, words
    program.main([*TINY, "--dry_run", "--max_estimator_gap", "0.03", "--attacked_strengths", "0.2", "0.1"])
    said = capsys.readouterr().out
    for words in ("above a gap of 3 points PGD attacks the strength with the largest gap from then on",
                  "more after a fallback",
                  "strengths by PGD: 0.1000 (25.5/255), 0.2000 (51/255); estimated: 0.0500"):
        assert words in said, words
    assert "training-free: no scores" in said
    program.main([*TINY, "--dry_run", "--ntk_weight", "0.1", "--naswot_weight", "0.1", "--training_free_layers", "8"])
    assert ("training-free: naswot, ntk of untrained networks of 8 cells; for each measured architecture 256 images "
            "forward and backward and 20 forward, not counted below\n") in capsys.readouterr().out
    program.main([*TINY, "--dry_run", "--check_images", "0"])
    assert "estimator check: none" in capsys.readouterr().out


def test_the_dry_run_counts_the_passes_of_the_run(whole, capsys, tmp_path):
    program.main([*TINY, "--dry_run", "--runs", str(tmp_path)])
    totals = Counter()
    for counts in whole[1]:
        for (_, kind), number in counts.items():
            totals[kind] += number
    said = capsys.readouterr().out
    assert f"passes: {program.readable(totals['forward_backward'])} images forward and backward, " \
           f"{program.readable(totals['forward'])} forward" in said


def test_a_dry_run_makes_no_optimiser_with_which_torch_would_import_its_compiler(tmp_path, monkeypatch):
    monkeypatch.setattr(torch.optim.Optimizer, "__init__", None)
    program.main([*TINY, "--dry_run", "--runs", str(tmp_path)])


def test_a_refused_batch_size_does_not_spoil_the_run_directory(tmp_path):
    with pytest.raises(InputError, match="the training batch size is 31, expected at most 30"):
        start(tmp_path, [*TINY, *QUICK, "--batch_size", "31"])
    with pytest.MonkeyPatch.context() as context, pytest.raises(Killed):
        die_in_training(context, 0)
        start(tmp_path, [*TINY, *QUICK])


# -- a real one -----------------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_a_small_search_on_real_digits_learns_and_moves_the_architecture(tmp_path):
    run = start(tmp_path, ["--preset", "tiny", "--strategy", "wsr-paper", "--device", "cpu", "--max_train",
                           "160", "--max_validation", "30", "--warmup_architectures", "1", "--iterations", "3",
                           "--init_channels", "3",
                           "--layers", "3", "--estimator_images", "5", "--estimator_passes", "1",
                           "--estimator_memory", "45", "--save", "run", *QUICK])
    rows = [row for row in read(run) if "losses" in row]
    assert rows[-1]["architecture"]["changed_choices"] > 0
    assert load_architecture(run) != load_architecture(run / "genotypes" / "initial.json")
    columns = {name: [row["losses"][name] for row in rows] for name in NAMES}
    means = {name: sum(values) / len(values) for name, values in columns.items()}
    for name, values in columns.items():
        assert max(values) - min(values) > 1e-3 * means[name], name
    assert max(means.values()) < 30 * min(means.values())
    assert [row["estimator"]["networks"] for row in rows] == [1, 2, 3, 3]  # M_a: 45 tasks, 15 of each network
    assert min(row["train"]["loss"] for row in rows) < read(run)[0]["train"]["loss"]
