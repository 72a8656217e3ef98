"""Architectures that are measured after short trainings of their own: all from the same weights and batches."""

import contextlib
import json

import pytest
import torch

import search.wsr_nas as program
from search.cost import halved_epochs, iteration_passes, total_passes
from search.few_shot import own_weights
from search.rankings.sample import measure_alone, open_sample, rank_sample
from search.rankings.trained import open_trained
from search.short_training import ShortTraining, changed
from search.strategy.objective import build_objective
from search.strategy.step import Step
from search.wsr_nas_searcher import Searcher
from search.wsr_nas_settings import PRESETS, rungs, schedule
from tests.killed import Killed, killed_before_saving
from tests.processes import run_twice
from tests.run_files import assert_equal, read, without_time
from wsrnas.data.datasets import load_dataset
from wsrnas.data.splits import load_split
from wsrnas.runtime.config import parse_config
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError
from wsrnas.training.epoch import Diverged

pytestmark = pytest.mark.usefixtures("quick_programs")

SMALL = ["--preset", "tiny", "--device", "cpu", "--space", "nas-bench-201", "--layers", "3", "--init_channels", "2",
         "--num_steps", "1", "--max_train", "60", "--max_validation", "20", "--batch_size", "10",
         "--recalibration_batches", "1", "--estimator_images", "2", "--loss_passes", "2", "--check_images", "0"]
SHORT = ["--save", "run", "--measure", "short", "--short_epochs", "2", "--short_images", "20", "--population", "3",
         "--iterations", "2", "--paths_per_iteration", "2"]
HALVED = ["--halvings", "2", "--short_epochs", "4", "--paths_per_iteration", "5"]
STEP = Step(9, "search", 9, True, True)
SUPERNET = ["--save", "supernet", "--train_only", "--warmup_architectures", "2", "--path_every", "step"]


def config_of(*argv):
    return parse_config(type(PRESETS["tiny"]), PRESETS, [*SMALL, *argv])[0]


def searcher_of(config):
    return Searcher(config, load_dataset("digits", max_train=60), (torch.arange(0, 60, 2), torch.arange(1, 60, 2)),
                    World())


def start(folder, *argv, kill=None):
    """Run the program; ``kill``: the step after whose row it dies, before its checkpoint."""
    with killed_before_saving(kill):
        program.main([*SMALL, *argv, "--runs", str(folder)])
    return folder / "search" / "run"


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """A search by short trainings."""
    return start(tmp_path_factory.mktemp("short"), *SHORT)


def weights_of(supernet):
    return {name: value.clone() for name, value in supernet.state_dict().items() if not name.startswith("alphas_")}


def paths_of(searcher, count):
    choices = searcher.space.sample(count, torch.Generator().manual_seed(5))
    return [searcher.supernet.resolve(gates.view(searcher.space.shape)) for gates in searcher.space.gates(choices)]


def test_a_training_depends_on_nothing_that_was_trained_before():
    searcher = searcher_of(config_of(*SHORT))
    short, (first, second) = ShortTraining(searcher), paths_of(searcher, 2)
    untrained = weights_of(searcher.supernet)
    alone = short.train(first, STEP), weights_of(searcher.supernet)
    short.train(second, STEP)
    assert not torch.equal(weights_of(searcher.supernet)["stem.0.weight"], alone[1]["stem.0.weight"])
    again = short.train(first, STEP), weights_of(searcher.supernet)
    assert_equal(alone[1], again[1])
    assert alone[0]["loss"] == again[0]["loss"] and alone[0]["images"] == 20
    assert not torch.equal(untrained["stem.0.weight"], alone[1]["stem.0.weight"])


def test_the_learning_rate_falls_along_half_a_cosine_in_every_training(monkeypatch):
    searcher, rates = searcher_of(config_of(*SHORT, "--short_epochs", "3")), []
    short, paths = ShortTraining(searcher), paths_of(searcher, 2)
    monkeypatch.setattr("search.supernet_training.train_paths", lambda searcher, *rest: rates.append(
        searcher.trainer.optimizer.param_groups[0]["lr"]))
    for path in paths:
        short.train(path, STEP)
    assert rates == pytest.approx([0.05, 0.001 + 0.049 * 0.75, 0.001 + 0.049 * 0.25] * 2)


@pytest.mark.slow
def test_what_a_search_measures_is_what_a_training_alone_gives(searched):
    rows = read(searched)
    assert [row["phase"] for row in rows] == ["population"] * 2 + ["search"] * 2
    measured = [path for row in rows for path in row["paths"]]
    assert len(measured) == 3 + 4
    config = config_of(*SHORT)
    data = load_dataset("digits", max_train=60)
    trained = torch.load(searched / "checkpoint.pt", weights_only=True)["searcher"]["loss_memory"]
    searcher = Searcher(config, data, load_split(searched / "split.json", 60), World())
    short = ShortTraining(searcher)
    memory = searcher.loss_memory
    memory.load_state_dict(trained, torch.device("cpu"))
    for number in (6, 0):  # in another order
        path = searcher.supernet.use(memory["gates"][number].view(searcher.space.shape))
        short.train(path, STEP)
        searcher.recalibrate(STEP)
        losses = searcher.validate(STEP)["losses"]
        exact = [0, *(1 + strength for strength in searcher.attacked)]  # the estimator was trained meanwhile
        assert torch.equal(losses[exact], memory["losses"][number, exact])


@pytest.mark.slow
@pytest.mark.parametrize(("kill", "more"), [(2, []), (3, HALVED)])
def test_a_killed_search_goes_on_bit_for_bit(tmp_path, kill, more):
    whole = start(tmp_path / "whole", *SHORT, *more)
    with pytest.raises(Killed):
        start(tmp_path / "killed", *SHORT, *more, kill=kill)
    run = start(tmp_path / "killed", *SHORT, *more)
    assert_equal(without_time(read(run)), without_time(read(whole)))
    one, other = (torch.load(folder / "checkpoint.pt", weights_only=True)["searcher"] for folder in (run, whole))
    assert_equal(one["loss_memory"], other["loss_memory"])
    assert_equal(one["supernet"], other["supernet"])


class NoClock:
    """A clock for which time stands still."""

    def __call__(self, phase):
        return contextlib.nullcontext()


def measured_by(short, step=STEP):
    """What is measured of the paths that are trained to the end, and what the row says."""
    row, measured = {}, []
    for _ in short.each_path(step, NoClock(), row):
        short.searcher.recalibrate(step)
        measured.append(short.searcher.validate(step))
    return measured, row


def test_halving_changes_nothing_for_those_that_are_trained_to_the_end():
    found = {}
    for name, more in (("whole", []), ("halved", HALVED)):
        searcher = searcher_of(config_of(*SHORT, "--short_epochs", "4", *more))
        short = ShortTraining(searcher)
        searcher.paths = paths_of(searcher, 5)
        measured, row = measured_by(short)
        found[name] = short, measured, row, short.all_measured(measured, row, NoClock())
    short, measured, row, everything = found["halved"]
    assert len(short.kept) == len(measured) == 2 and len(everything) == 5 and "halving" not in found["whole"][2]
    for number, result in zip(short.kept, measured, strict=True):
        assert_equal(result, found["whole"][1][number])
        assert_equal(everything[number], result)
    first, second = row["halving"]
    assert (first["epochs"], second["epochs"]) == (1, 2) and list(first["objectives"]) == [0, 1, 2, 3, 4]
    better = sorted(first["objectives"], key=first["objectives"].get)[:3]
    assert sorted(second["objectives"]) == sorted(better)
    assert set(short.kept) == set(sorted(second["objectives"], key=second["objectives"].get)[:2])
    for number in set(range(5)) - set(short.kept):
        rung = 1 if number in second["objectives"] else 0
        then = {place: candidate.measured[rung]["losses"] for place, candidate in enumerate(short.candidates)
                if len(candidate.measured) > rung}
        change = sum(everything[kept]["losses"] - then[kept] for kept in short.kept) / 2
        torch.testing.assert_close(everything[number]["losses"], then[number] + change)


def test_what_ended_early_gets_the_mean_change_of_the_others():
    others = [(torch.tensor([1.0, 2.0]), torch.tensor([0.5, 1.0])),
              (torch.tensor([3.0, 4.0]), torch.tensor([1.5, 1.0]))]
    value = torch.tensor([2.0, 0.1])
    torch.testing.assert_close(changed("losses", value, others), value + torch.tensor([-1.0, -2.0]))
    # A vulnerability stays positive: its logarithm changes, here by log 1/2, and by the mean of log 1/2 and log 1/4.
    torch.testing.assert_close(changed("vulnerabilities", value, others), value * torch.tensor([0.5, 8 ** -0.5]))
    assert changed("vulnerabilities", value, [(value, 0 * value)]).ge(0).all()


SHARED = [*SHORT, *HALVED, "--iterations", "3", "--check_images", "10", "--max_estimator_gap", "0", "--strengths",
          "2/255", "8/255", "16/255", "--strength_weights", "0.3", "0.3", "0.4", "--num_pgd_strengths", "1",
          "--num_estimated_strengths", "2", "--ranking_table", "demo", "--ranking_sample", "10"]


@contextlib.contextmanager
def one_fallback():
    """The first process sees a gap in step 1, and no other does."""
    check = program.check_estimator

    def checked(run, searcher, step):
        row = check(run, searcher, step)
        return row | ({"fallback": row["largest_gap_at"]} if step.index == 1 and run.world.is_main else {})

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(program, "check_estimator", checked)
        yield


def share(folder):
    """One of two processes."""
    with one_fallback():
        start(folder, *SHARED)


@pytest.mark.slow
def test_two_processes_find_what_one_finds(tmp_path):
    """Each trains architectures of its own, to a rung and on from there; one of five is left to the second process.

    Three are measured by the population, so one process is idle; estimators and M_a are those of the first path.
    """
    (tmp_path / "two").mkdir()
    run_twice(share, tmp_path / "two")
    with one_fallback():
        alone = start(tmp_path / "one", *SHARED)
    together = tmp_path / "two/search/run"
    assert_equal(without_time(read(together)), without_time(read(alone)))
    found, expected = (torch.load(run / "checkpoint.pt", weights_only=True)["searcher"] for run in (together, alone))
    last = ("supernet", "weight_optimizer")  # of the architecture that the first process trained last; none goes on
    for name in expected.keys() - last:
        assert_equal(found[name], expected[name])
    assert json.loads((together / "env.json").read_text())[0]["processes"] == 2
    assert [len(row["estimator_check"]["attacked"]) for row in read(together)] == [1, 1, 2, 2]


def test_every_process_needs_an_architecture():
    config, data = config_of(*SHORT, "--paths_per_iteration", "3"), load_dataset("digits", max_train=60)
    with pytest.raises(InputError, match="paths_per_iteration is 3, but 4 processes train architectures of their own"):
        program.check(config, data, World(0, 4))
    program.check(config, data, World(0, 3))


def test_the_population_is_not_halved():
    config = config_of(*SHORT, *HALVED, "--short_epochs", "8")
    assert [rungs(config, step) for step in schedule(config)] == [[], [2, 4], [2, 4]]


@pytest.mark.parametrize(("paths", "epochs", "rungs", "found"), [
    (3, 5, (), (15, 3)), (4, 8, (2, 4), (4 * 2 + 2 * 2 + 1 * 4, 7)), (5, 4, (2,), (5 * 2 + 3 * 2, 8)),
])
def test_halving_saves_epochs_and_costs_measurements(paths, epochs, rungs, found):
    assert halved_epochs(paths, epochs, rungs) == found


@pytest.mark.slow
def test_a_search_that_halves_remembers_every_proposal(tmp_path):
    run = start(tmp_path, *SHORT, *HALVED)
    rows = [row for row in read(run) if row["phase"] == "search"]
    assert [len(row["paths"]) for row in rows] == [5, 5] and all(len(row["halving"]) == 2 for row in rows)
    firsts = []
    for row in rows:  # the losses of a row are measured, not what a training that ended early would have reached
        objectives = row["halving"][-1]["objectives"]
        first = min(sorted(objectives, key=objectives.__getitem__)[:2], key=int)
        found = build_objective(config_of(*SHORT))(torch.tensor(list(row["losses"].values())))
        assert found.item() == pytest.approx(row["paths"][int(first)]["measured_objective"])
        firsts.append(int(first))
    assert any(firsts)
    # 5 paths for an epoch, 3 for another, 2 for two more: 12 epochs of 20 images, two passes each.
    assert rows[0]["passes"]["train"]["forward_backward"] == 12 * 40 and "halving" in rows[0]["seconds"]


@pytest.mark.slow
def test_architectures_may_inherit_the_weights_of_a_trained_supernet(tmp_path):
    start(tmp_path, *SUPERNET)
    source = tmp_path / "search/supernet"
    run = start(tmp_path, *SHORT, "--supernet", str(source), "--iterations", "1")
    assert len(read(run)) == 3 and "train" in read(run)[0]["passes"]
    searcher = searcher_of(config_of(*SHORT, "--supernet", str(source)))
    short = ShortTraining(searcher)
    inherited = open_trained(source, "").weights
    assert_equal({name: short.first[name] for name in inherited}, dict(inherited))
    with pytest.raises(InputError, match="has trained every architecture by itself; expected a run with a supernet"):
        start(tmp_path, *SMALL, "--save", "other", "--supernet", str(run))


@pytest.mark.parametrize("diverging", [False, True])
def test_a_ranking_changes_no_weights_and_ends_no_search(diverging, capsys, monkeypatch):
    config = config_of(*SHORT, "--ranking_table", "demo", "--ranking_sample", "10")
    searcher, train, calls = searcher_of(config), ShortTraining.train, []

    def trained(self, path, step):
        calls.append(train(self, path, step))
        if diverging and len(calls) == 2:
            raise Diverged("the loss is nan")

    monkeypatch.setattr(ShortTraining, "train", trained)
    short, before = ShortTraining(searcher), own_weights(searcher.supernet)
    found = rank_sample(searcher, open_sample(config), schedule(config)[0], short)
    assert_equal(own_weights(searcher.supernet), before)
    assert found["architectures"] == 10 and set(found["tau"]) > {"loss, clean", "parameters"}
    assert ("counts as the worst" in capsys.readouterr().err) == diverging


def test_a_diverged_training_is_unknown_on_the_device_of_the_others(monkeypatch):
    searcher = searcher_of(config_of(*SHORT))
    monkeypatch.setattr(searcher, "world", World(device=torch.device("meta")))
    monkeypatch.setattr(ShortTraining, "train", lambda *rest: (_ for _ in ()).throw(Diverged("the loss is nan")))
    found = measure_alone(searcher, None, STEP, ShortTraining(searcher))
    assert found.pop("problem") == "the loss is nan"
    assert {values.device.type for values in found.values()} == {"meta"}


def test_the_passes_of_short_trainings_are_counted():
    searcher = searcher_of(config_of(*SHORT, "--ranking_table", "demo", "--ranking_sample", "10"))
    passes = iteration_passes(searcher, 2, ranked=True)
    # 2 paths, 2 epochs of 20 images, one step of the attack and one of the training.
    assert passes["train"] == {"forward_backward": 160, "forward": 0}
    assert passes["ranking"]["forward_backward"] == 10 * (80 + passes["validate"]["forward_backward"] // 2)
    steps = schedule(searcher.config)
    assert [step.phase for step in steps] == ["population"] * 2 + ["search"] * 2
    plain = searcher_of(config_of(*SHORT))
    assert total_passes(plain)["forward_backward"] >= 7 * 80


def test_a_dry_run_tells_what_is_trained(capsys, tmp_path):
    start(tmp_path, *SHORT, "--dry_run")
    said = capsys.readouterr().out
    assert "training paths: the measured ones, each by itself, from the same first weights" in said
    assert "short: each after a short adversarial training of its own" in said
    assert "a short training has 2 epochs of 2 batches of 10" in said and not (tmp_path / "search").exists()


@pytest.mark.parametrize(("flags", "words"), [
    (["--measure", "short", "--train_only"], "measure is short: no supernet is trained"),
    (["--measure", "short", "--path_every", "step", "--anchors", "1"], "measure is short: no supernet is trained"),
    (["--measure", "long"], "long"),
    (["--short_epochs", "0"], "short_epochs is 0; expected at least 1"),
    (["--short_images", "-1"], "short_images is -1; expected at least 0"),
    (["--paths_per_iteration", "2"], "expected --path_every step, --supernet or --measure short"),
    (["--halvings", "1"], "halvings is 1 but measure is supernet"),
    (["--measure", "short", "--halvings", "1", "--paths_per_iteration", "2"],
     "short_epochs is 3; expected a multiple of 2"),
    (["--measure", "short", "--halvings", "2", "--short_epochs", "4", "--paths_per_iteration", "3"],
     "paths_per_iteration is 3; expected at least 4"),
    (["--measure", "short", "--halvings", "999999999"], "halvings is 999999999"),
    (["--measure", "short", "--halvings", "1", "--short_epochs", "2"], "paths_per_iteration is 1; expected at least 2"),
    (["--measure", "short", "--halvings", "-1"], "halvings is -1; expected at least 0"),
])
def test_ways_to_measure_that_do_not_fit_are_refused(flags, words):
    with pytest.raises(InputError) as caught:
        config_of(*flags)
    assert words in str(caught.value)


def test_runs_before_short_trainings_are_supernets(tmp_path):
    run = start(tmp_path, *SUPERNET).parent / "supernet"
    config = json.loads((run / "config.json").read_text())
    for name in ("measure", "short_epochs", "short_images", "halvings"):
        del config[name]
    (run / "config.json").write_text(json.dumps(config))
    assert open_trained(run, "").config.measure == "supernet"
