"""The RNAS program from its command line: the order of its parts, the bound, its report, interrupted and resumed."""

import json
import math
import os
import shutil
from collections import Counter
from contextlib import contextmanager
from itertools import pairwise

import pytest
import torch
import torch.nn.functional as F

import genotypes
import retrain.train_cifar
import search.cost
import search.rnas as program
import search.rnas_searcher
from search.cost import rnas_passes
from search.rnas_searcher import RnasSearcher
from search.rnas_settings import PRESETS, RnasConfig
from search.search_run import require_same_bound
from search.spaces.darts_supernet import DartsSupernet
from search.split import halves
from search.vulnerability import projection
from tests.run_files import assert_equal, read, without_time
from wsrnas.attacks import pgd
from wsrnas.data.datasets import load_dataset
from wsrnas.genotype import Genotype
from wsrnas.runtime.config import parse_config
from wsrnas.runtime.distributed import initialize
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.program import run_program

pytestmark = pytest.mark.usefixtures("quick_programs")

# T = 3 steps an epoch, u = 1 of them without the bound. One cell, a reduction, unless more are asked for.
SMALL = ["--preset", "tiny", "--device", "cpu", "--init_channels", "1", "--layers", "1", "--max_train", "60",
         "--batch_size", "10", "--num_steps", "1", "--bound_batches", "1", "--watched_batches", "1",
         "--recalibration_batches", "1", "--solver_iterations", "2", "--save", "run"]
WHOLE = [*SMALL, "--epochs", "3", "--warmup_epochs", "1", "--vulnerability_bound", "rel:0.5"]
ONE_EPOCH = [*SMALL, "--epochs", "1", "--warmup_epochs", "0"]
STEPS, FREE, BATCH = 3, 1, 10
# private: the parts of an epoch have no names outside of it.
PARTS = {"_train": "weights", "_descend": "architecture", "_project": "projection", "watch": "vulnerability"}


def start(folder, argv, seed=[0]):  # noqa: B006 - a counter over all starts
    """Run the program; torch's global generator differs every time, for nothing may depend on it."""
    seed[0] += 1
    torch.manual_seed(seed[0])
    if "dual" in argv:
        place = argv.index("--solver_iterations")
        argv = [*argv[:place], *argv[place + 2:]]
    program.main([*argv, "--runs", str(folder)])
    return folder / "search" / "run"


def stored(run):
    return torch.load(run / "checkpoint.pt", weights_only=True)


class Watched:
    """What happened in a run.

    Attributes:
        events: (epoch, step, part of the algorithm, A before, A after, what the part returned).
        images: that went through the supernet to be differentiated, by part.
        projected: what ``project`` was told and what it returned.
        warm: the supernet after each warm-up epoch.
        searcher: the run's.
    """

    def __init__(self):
        self.events, self.images, self.projected, self.warm, self.searcher = [], Counter(), [], [], None

    def of(self, part):
        return [event for event in self.events if event[2] == part]


@contextmanager
def watched():
    seen, part = Watched(), ["rest"]

    def follow(name):
        original = getattr(RnasSearcher, name)

        def method(self, *arguments):
            seen.searcher, part[0], before = self, PARTS[name], self.alphas().clone()
            result = original(self, *arguments)
            part[0] = "rest"
            if name != "watch":
                seen.events.append((*arguments[:2], PARTS[name], before, self.alphas().clone(), result))
            return result
        return method

    def forward(self, images, outputs=None, original=DartsSupernet.forward):
        seen.images[part[0]] += len(images) * torch.is_grad_enabled()  # TRADES' clean pass has no backward one
        return original(self, images, outputs)

    def warm_up(self, epoch, trained, original=RnasSearcher.warm_up):
        original(self, epoch, trained)
        seen.warm.append({name: value.clone() for name, value in self.supernet.state_dict().items()})

    def project(*arguments, original=search.rnas_searcher.project, **more):
        result = original(*arguments, **more)
        seen.projected.append((arguments, more, result))
        return result

    with pytest.MonkeyPatch.context() as context:
        for name in PARTS:
            context.setattr(RnasSearcher, name, follow(name))
        context.setattr(DartsSupernet, "forward", forward)
        context.setattr(RnasSearcher, "warm_up", warm_up)
        context.setattr(search.rnas_searcher, "project", project)
        yield seen


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted search under half of the vulnerability after the warm-up, and what happened in it."""
    with watched() as seen:
        run = start(tmp_path_factory.mktemp("whole"), WHOLE)
    return run, seen


class Killed(BaseException):
    """As sudden as a kill: nothing in the program may catch it."""


def die(context, owner, name, count):
    """Raise instead of call number ``count``, from 0, of a method."""
    original, left = getattr(owner, name), [count]

    def dying(*arguments, **more):
        if not left[0]:
            raise Killed
        left[0] -= 1
        return original(*arguments, **more)
    context.setattr(owner, name, dying)


@pytest.fixture(scope="module")
def warm(tmp_path_factory):
    """A folder of runs with a search that ended with its warm-up, before which it was to have no bound."""
    folder = tmp_path_factory.mktemp("warm")
    with pytest.MonkeyPatch.context() as context, pytest.raises(Killed):
        die(context, RnasSearcher, "resolve_bound", 0)
        start(folder, [*WHOLE, "--vulnerability_bound", "inf"])
    return folder


@pytest.fixture
def refused(capsys):
    """Run the program and return the one sentence that it left with."""
    def run(folder, argv):
        capsys.readouterr()
        with pytest.raises(SystemExit) as caught:
            run_program(lambda: start(folder, argv))
        said = capsys.readouterr().err
        assert caught.value.code == 2
        assert said.startswith("error: ") and said.endswith("\n") and said.count("\n") == 1, said
        return said
    return run


# -- Algorithm 1 ----------------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_the_order_of_the_parts(whole):
    _, seen = whole
    search = ["weights", "architecture", *["projection", "weights"] * (STEPS - FREE)]
    assert [event[2] for event in seen.events] == ["weights"] * STEPS + search * 2
    steps = [(0, 0), (0, 1), (0, 2)] + [(epoch, step) for epoch in (1, 2) for step in (0, 0, 1, 1, 2, 2)]
    assert [event[:2] for event in seen.events] == steps
    assert len(seen.of("projection")) == 2 * (STEPS - FREE)


@pytest.mark.slow
def test_the_architecture_moves_where_it_should_and_nowhere_else(whole):
    run, seen = whole
    initial = seen.events[0][3]
    for (_, _, part, before, after, result), (_, _, _, following, _, _) in pairwise(seen.events):
        assert torch.equal(after, following)
        if part == "weights":
            assert torch.equal(before, after)
        elif part == "architecture":
            assert not torch.equal(before, after)
        else:
            assert torch.equal(after, result.alphas)
            assert (after - before).norm().item() == pytest.approx(result.distance, rel=1e-3, abs=1e-6)
    assert torch.equal(seen.of("architecture")[0][3], initial)  # the warm-up is for the weights
    assert any(event[5].iterations for event in seen.of("projection"))
    assert not any(torch.equal(a, b) for a, b in pairwise(state["classifier.weight"] for state in (
        *seen.warm, stored(run)["searcher"]["supernet"])))


@pytest.mark.slow
def test_projections_are_asked_for_the_bound(whole):
    run, seen = whole
    bound = read(run)[1]["bound"]
    assert bound["value"] == pytest.approx(0.5 * bound["reference"]) and bound["reference"] == bound["batches"][0]
    assert "bound" not in read(run)[0] and "bound" not in read(run)[2]  # it is resolved once
    assert len(seen.projected) == 1 + 4 + 1  # to see whether it can be reached, in every step, at the end
    for (_, _, value, method), more, result in seen.projected:
        assert value == bound["value"] and method == "slp" and more["max_iterations"] == 2
        assert result.after <= result.before
    last = seen.projected[-1][2]
    assert torch.equal(seen.searcher.alphas(), last.alphas)
    found = json.loads((run / "vulnerability.json").read_text())
    assert found.pop("architecture") == json.loads(json.dumps(seen.searcher.architecture_statistics()))
    assert found["bound"] == bound["value"]
    assert found["projection"] == pytest.approx(projection.summarize([last]))
    assert json.loads((run / "genotype.json").read_text())["meta"] == {
        "program": "search.rnas", "preset": "tiny", "seed": 0, "dataset": "digits", "iteration": 3, **found}
    assert Genotype.load(run / "genotype.json") == seen.searcher.genotype()
    child = found["child"]
    assert len(child["cells"]) == 1 and child["cells"][0] == pytest.approx(child["vulnerability"])
    assert child["vulnerability"] > 0
    for name in ("clean_accuracy", "adversarial_accuracy"):
        assert child[name] * BATCH == pytest.approx(round(child[name] * BATCH)) and 0 <= child[name] <= 1


def test_every_epoch_reports_everything(whole):
    run, seen = whole
    rows = read(run)
    assert [(row["step"], row["number"], row["phase"]) for row in rows] == [
        (0, 0, "warm-up"), (1, 1, "search"), (2, 2, "search")]
    for row in rows:
        assert len(row["vulnerability"]["cells"]) == 1 and row["vulnerability"]["network"] > 0
        assert row["train"]["images"] == STEPS * BATCH
        architecture = row["architecture"]
        alphas = torch.tensor([architecture["alphas"][kind] for kind in ("normal", "reduce")])
        for kind, name in ((0, "normal"), (1, "reduce")):
            mass = alphas[kind].softmax(-1).mean(0).tolist()
            assert architecture["none_mass"][name] == pytest.approx(mass[0], abs=1e-3)
            assert architecture["skip_mass"][name] == pytest.approx(mass[3], abs=1e-3)
            operations = [operation for operation, _ in architecture["genotype"][name]]
            assert architecture["skips"][name] == operations.count("skip_connect")
            assert architecture["pools"][name] == sum("pool" in operation for operation in operations)
    assert "projection" not in rows[0] and "upper_loss" not in rows[0]
    assert rows[0]["architecture"]["changed_choices"] == 0
    for number, row in enumerate(rows[1:]):
        results = [event[5] for event in seen.of("projection")][2 * number:2 * number + 2]
        found, moved = row["projection"], [result for result in results if result.iterations]
        assert found["projections"] == STEPS - FREE and found["active"] == len(moved) / 2
        assert found["evaluations"] == sum(result.evaluations for result in results)
        assert found["feasible"] == sum(result.feasible for result in results) / 2
        for name, of in (("before", results), ("after", results), ("multiplier", moved), ("distance", moved),
                         ("iterations", moved)):
            mean = sum(getattr(result, name) for result in of) / max(len(of), 1)
            assert found[name] == pytest.approx(mean), name
        begin, *_, end = [event for event in seen.events if event[0] == row["number"] and event[1] >= FREE]
        assert found["travelled"] == pytest.approx((end[4] - begin[3]).norm().item())
        upper = seen.of("architecture")[number][5]
        assert list(row["upper_loss"].values()) == pytest.approx(upper.tolist())
        assert list(row["upper_loss"]) == ["clean", "adversarial"] and upper[1] > upper[0]
        genotype = json.loads((run / "genotypes" / f"epoch_{row['number']:03d}.json").read_text())
        assert genotype["normal"] == row["architecture"]["genotype"]["normal"]
    assert rows[1]["projection"]["active"] > 0
    log = (run / "log.txt").read_text()
    for words in ("[1/3] warm-up", "[2/3] search", "| H = ", "projections: F ", "search finished:", "--arch"):
        assert words in log, words


@pytest.mark.slow
def test_the_descent_goes_down_the_loss_on_held_out_images():
    """Adam's first step is the sign of the gradient, which is made by hand from both halves."""
    config, _ = parse_config(RnasConfig, PRESETS, [*WHOLE, "--architecture_weight_decay", "0", "--no-random_start",
                                                   "--upper_weights", "1", "0.5"])
    data = load_dataset("digits", max_train=60)
    searcher = RnasSearcher(config, data, halves(data, 0), initialize("cpu"))
    (_, batch, (images, labels)), = searcher._batches(1, 0, 1, "")  # private: as PARTS
    supernet, before = searcher.supernet.train(), searcher.alphas().clone()
    leaf = before.clone().requires_grad_(True)
    supernet.mix(before.softmax(-1))
    attacked = pgd(supernet, images, labels, 0.1, steps=1, batch_statistics=True)
    supernet.mix(leaf.softmax(-1))
    kept = {name: value.clone() for name, value in supernet.state_dict().items()}
    clean, robust = (F.cross_entropy(half, labels) for half in supernet(torch.cat([images, attacked])).chunk(2))
    gradient, = torch.autograd.grad(clean + 0.5 * robust, leaf)
    supernet.load_state_dict(kept)
    losses = searcher._descend(1, 0, batch, (images, labels))  # private: as PARTS
    torch.testing.assert_close(losses, torch.stack([clean, robust]).detach(), rtol=1e-4, atol=1e-5)
    step, clear = (searcher.alphas() - before) / 0.02, gradient.abs() > 1e-3 * gradient.abs().max()
    clear[..., 0] &= gradient[..., 0].abs() > 1e-6
    assert clear.sum() > 50
    torch.testing.assert_close(step[clear], -gradient.sign()[clear], rtol=1e-2, atol=1e-2)
    after = supernet.state_dict()
    assert all(torch.equal(after[name], value) for name, value in kept.items() if not name.startswith("alphas"))
    assert all(p.grad is None for p in supernet.parameters())


@pytest.mark.slow
def test_the_last_act_is_a_projection_under_all_batches_together():
    config, _ = parse_config(RnasConfig, PRESETS, [*WHOLE, "--bound_batches", "2"])
    data = load_dataset("digits", max_train=60)
    searcher = RnasSearcher(config, data, halves(data, 0), initialize("cpu"))
    before, batches = searcher.alphas().clone(), searcher.watched(2)
    values = [searcher.constraint.value(batch, before) for batch in batches]
    searcher.bound = 0.9 * sum(values) / 2
    found = searcher.finish()["projection"]
    assert found["before"] == pytest.approx(sum(values) / 2) and values[0] != values[1]
    assert found["distance"] == pytest.approx((searcher.alphas() - before).norm().item(), rel=1e-4)
    assert found["distance"] > 0.01
    after = [searcher.constraint.value(batch, searcher.alphas()) for batch in batches]
    assert found["after"] == pytest.approx(sum(after) / 2, rel=1e-4) and found["after"] < found["before"]


# -- other ways to search, and what they cost -----------------------------------------------------------------------

def assert_passes(seen, row, argv):
    """The images of each part are those that ``rnas_passes`` foresees, given how often F was evaluated."""
    expected = rnas_passes(seen.searcher)
    found = row["projection"]
    asked = found["projections"] * seen.searcher.config.num_steps + 2 * found.get("evaluations", 0)
    assert seen.images["projection"] == BATCH * asked
    for part in ("weights", "architecture", "vulnerability"):
        assert seen.images[part] == expected[part], (part, argv)


@pytest.mark.slow
@pytest.mark.parametrize(("argv", "free", "tail"), [
    (["--order", "second", "--upper_weights", "0", "1", "--constrained_step", "descend+project",
      "--vulnerability_bound", "1e9"], 1, ["weights", "architecture", "projection"]),
    (["--relaxation", "sampled", "--layers", "3", "--solver", "dual", "--upper_weights", "1", "0", "--adv_loss", "fast",
      "--constrained_step", "project", "--path_samples", "2", "--vulnerability_bound", "rel:0.9"], 1, ["projection"]),
    (["--statistics", "running", "--adv_loss", "trades", "--distance", "l1", "--unconstrained_share", "0.7",
      "--num_steps", "2", "--vulnerability_bound", "1e9", "--no-standardize"], 2, ["projection", "weights"]),
    (["--relaxation", "sampled", "--order", "second", "--adv_loss", "fast", "--unconstrained_share", "1",
      "--path_samples", "5", "--vulnerability_bound", "inf"], 3, []),
], ids=["second", "dual", "running", "sampled"])
def test_other_ways_to_search(argv, free, tail, tmp_path, monkeypatch):
    monkeypatch.setitem(projection._METHODS, "dual", (projection._dual, 3))  # private: fewer steps than are useful
    monkeypatch.setattr(search.cost, "PROJECTION_EVALUATIONS", 1)
    monkeypatch.setattr(search.rnas_searcher, "LEAST_ITERATIONS", 3)
    with watched() as seen:
        run = start(tmp_path, [*ONE_EPOCH, *argv])
    row, = read(run)
    assert [event[2] for event in seen.events] == ["weights", "architecture"] * free + tail * (STEPS - free)
    assert_passes(seen, row, argv)
    assert row["projection"]["projections"] == (STEPS - free)
    unweighted = {"clean": "0" in argv[argv.index("--upper_weights") + 1:][:1],
                  "adversarial": "0" in argv[argv.index("--upper_weights") + 1:][1:2]} \
        if "--upper_weights" in argv else {"clean": False, "adversarial": False}
    assert {name: loss == 0 for name, loss in row["upper_loss"].items()} == unweighted
    config = seen.searcher.config
    for arguments, more, _ in seen.projected:
        assert arguments[3] == config.solver and (more["max_iterations"] is None) == (config.solver == "dual")
    constraint = seen.searcher.constraint
    assert constraint.paths == (config.path_samples if "sampled" in argv else 1)
    assert (constraint.distance, constraint.standardize, constraint.batch_statistics) == (
        config.distance, "--no-standardize" not in argv, "running" not in argv)
    if "1e9" in argv:  # every projection begins within the bound: one evaluation, and nothing moves
        assert seen.images["projection"] == rnas_passes(seen.searcher)["projection"]
        assert seen.images["projection"] == BATCH * (STEPS - free) * (config.num_steps + 2)
        assert row["projection"]["active"] == row["projection"]["distance"] == 0
    if "inf" in argv:
        assert not seen.projected and row["projection"] == {"projections": 0, "travelled": 0.0}
        assert rnas_passes(seen.searcher)["projection"] == 0
        assert "Infinity" not in (run / "genotype.json").read_text() + (run / "metrics.jsonl").read_text()
    Genotype.load(run / "genotype.json")


def test_the_parts_of_a_whole_search_cost_what_is_foreseen(whole):
    run, seen = whole
    expected = rnas_passes(seen.searcher)
    for part in ("weights", "architecture", "vulnerability"):
        assert seen.images[part] == expected[part], part
    asked = sum(row["projection"]["projections"] + 2 * row["projection"]["evaluations"] for row in read(run)[1:])
    assert seen.images["projection"] == BATCH * asked
    assert expected["projection"] == BATCH * 4 * (1 + 2 * 4)


# -- the bound ------------------------------------------------------------------------------------------------------

@pytest.mark.slow
def test_with_and_without_a_bound_the_warm_up_is_the_same_and_the_architecture_is_not(whole, tmp_path):
    run, bounded = whole
    with watched() as free:
        other = start(tmp_path, [*WHOLE, "--vulnerability_bound", "inf"])
    assert_equal(free.warm, bounded.warm)
    assert without_time(read(other))[0] == without_time(read(run))[0]
    assert not free.projected and not free.of("projection")
    first, second = (seen.of("architecture")[0] for seen in (bounded, free))
    assert torch.equal(first[4], second[4])  # step 1 is the same, too
    for ends in ([stored(path)["searcher"]["supernet"]["alphas_reduce"] for path in (run, other)],
                 [seen.searcher.alphas() for seen in (bounded, free)]):
        assert (ends[0] - ends[1]).norm() > 0.1
    assert json.loads((other / "vulnerability.json").read_text())["bound"] is None


@pytest.mark.slow
def test_a_bound_out_of_reach_is_refused_after_the_warm_up_and_a_larger_one_goes_on(
        warm, tmp_path, refused, monkeypatch):
    monkeypatch.setattr(search.rnas_searcher, "LEAST_ITERATIONS", 2)
    shutil.copytree(warm, tmp_path, dirs_exist_ok=True)
    run, before = tmp_path / "search" / "run", (warm / "search" / "run" / "checkpoint.pt").read_bytes()
    said = refused(tmp_path, [*WHOLE, "--vulnerability_bound", "1e-9"])
    for words in ("vulnerability_bound is 1e-9, that is H = 1e-09", "the least vulnerability found on 1 batches of D_v",
                  "expected at least rel:0.", "the same command with a larger bound continues from there"):
        assert words in said, said
    least = float(said.split("of D_v is ")[1].split()[0])
    assert (run / "checkpoint.pt").read_bytes() == before and stored(run)["step"] == 1

    named = float(said.split("at least rel:")[1].split(",")[0])
    reference = float(said.split("after the warm-up it is ")[1].split(")")[0])
    assert -0.001 * reference < named * reference - least < 0.011 * reference, "not refused again"

    larger = [*WHOLE, "--vulnerability_bound", "rel:0.9"]
    with pytest.MonkeyPatch.context() as context, pytest.raises(Killed):
        die(context, RnasSearcher, "begin_epoch", 1)
        start(tmp_path, larger)
    first, second = read(run)
    assert without_time([first]) == without_time(read(warm / "search" / "run"))
    assert second["bound"]["value"] == pytest.approx(0.9 * second["bound"]["reference"])
    assert 1e-9 < least < second["bound"]["reference"]
    said = refused(tmp_path, WHOLE)  # its bound has been in use for an epoch
    assert "has searched under --vulnerability_bound rel:0.9, not rel:0.5" in said and "--overwrite" in said
    assert stored(run)["step"] == 2 and len(read(run)) == 2


# -- interrupted = uninterrupted ------------------------------------------------------------------------------------

@pytest.mark.slow
def test_interrupted_equals_uninterrupted_bit_for_bit(whole, warm, tmp_path):
    """Killed after the warm-up (under another bound), and between two projections of the last epoch."""
    shutil.copytree(warm, tmp_path, dirs_exist_ok=True)
    run = tmp_path / "search" / "run"
    with pytest.MonkeyPatch.context() as context, pytest.raises(Killed):
        die(context, RnasSearcher, "_project", 3)  # private: as PARTS
        start(tmp_path, WHOLE)
    assert stored(run)["step"] == 2
    start(tmp_path, WHOLE)
    expected = whole[0]
    states = [stored(path) for path in (expected, run)]
    for state in states:
        assert state.pop("config").pop("runs") and state["step"] == 3
    assert_equal(*states)
    assert without_time(read(run)) == without_time(read(expected))
    names = [sorted(p.relative_to(path).as_posix() for p in path.rglob("*") if p.is_file() and "tb" not in p.parts)
             for path in (expected, run)]
    assert names[0] == names[1]
    for name in names[0]:
        if "genotype" in name or name in ("split.json", "vulnerability.json"):
            assert (run / name).read_bytes() == (expected / name).read_bytes(), name


def test_a_finished_search_says_so_and_stops(whole, capsys, refused):
    run, _ = whole
    before = {p: p.stat().st_mtime_ns for p in run.rglob("*")}
    start(run.parent.parent, WHOLE)
    said = capsys.readouterr().out
    assert "is finished" in said and "genotype.json" in said and "--overwrite" in said
    assert "vulnerability_bound rel:0.5, not 0.1" in refused(
        run.parent.parent, [*WHOLE, "--vulnerability_bound", "0.1"])
    assert {p: p.stat().st_mtime_ns for p in run.rglob("*")} == before


# -- what comes after, dry run, refusal -----------------------------------------------------------------------------

def test_the_cell_can_be_retrained(whole, tmp_path, capsys):
    path = str(whole[0] / "genotype.json")
    assert genotypes.load(path) == Genotype.load(path)
    retrain.train_cifar.main(["--recipe", "tiny", "--device", "cpu", "--arch", path, "--dry_run", "--runs",
                              str(tmp_path)])
    assert path in capsys.readouterr().out


@pytest.mark.slow
def test_a_dry_run_writes_nothing(whole, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(torch.optim.Optimizer, "__init__", None)  # with the first one torch imports its compiler
    for relaxation, more in (("mixed", []), ("sampled", ["--path_samples", "2"])):
        program.main([*WHOLE, "--relaxation", relaxation, *more, "--dry_run"])
        said = capsys.readouterr().out
        assert os.listdir(tmp_path) == []
        for words in ("vulnerability_bound ", "D_t 30, D_v 30", f"({relaxation} operations)", "memory: about",
                      "epochs: 3 of 3 steps of 10 images (1 x 10), 1 of them warm-up; after it 1 steps without the "
                      "bound and 2 that project"):
            assert words in said, words
        for name, count in rnas_passes(whole[1].searcher).items():
            assert f"{name} {program.readable(count)}" in said


@pytest.mark.parametrize(("argv", "sentence"), [
    (["--upper_weights", "1", "-1"], "the adversarial loss has the weight -1; expected a number of at least 0"),
    (["--upper_weights", "-0.5", "1"], "upper_weights: the clean loss has the weight -0.5; expected a number"),
    (["--upper_weights", "1", "1", "1"], "upper_weights has 3 entries; expected two"),
    (["--upper_weights", "0", "0"], "upper_weights are both 0; expected one above 0"),
    (["--warmup_epochs", "3"], "warmup_epochs is 3; expected fewer than the 3 epochs of the search"),
    (["--warmup_epochs", "-1"], "warmup_epochs is -1; expected at least 0"),
    (["--relaxation", "sampled", "--statistics", "running"], "statistics running with sampled paths"),
    (["--watched_batches", "2"], "watched_batches is 2; expected at most bound_batches, 1"),
    (["--bound_batches", "4"], "D_v has 3 batches of 10 images; expected at least bound_batches, 4"),
    (["--unconstrained_share", "1.5"], "unconstrained_share is 1.5; expected a number from 0 to 1"),
    (["--solver_iterations", "0"], "solver_iterations is 0; expected at least 1"),
    (["--architecture_learning_rate", "0"], "architecture_learning_rate is 0; expected a number above 0"),
    (["--vulnerability_bound", "0"], "vulnerability_bound is 0; expected a number above 0"),
    (["--vulnerability_bound", "rel:x"], "vulnerability_bound is 'rel:x', which is not a bound"),
    (["--constrained_step", "project", "--unconstrained_share", "0.3"], "no step of an epoch would train the weights"),
    (["--constrained_step", "project", "--vulnerability_bound", "inf"], "but there is no bound to project onto"),
    (["--relaxation", "sampled", "--path_samples", "4"], "batch_size is 10; expected a multiple of 4"),
    (["--upper_weights", "inf", "1"], "upper_weights is inf; expected a number of at most 1e+09"),
])
def test_bad_input_is_refused_in_one_sentence(argv, sentence, tmp_path, refused):
    assert sentence in refused(tmp_path, [*WHOLE, *argv])


@pytest.mark.parametrize("argv, sentence", [
    (["--tau", "0.5"], "relaxation is mixed; expected --relaxation sampled with it"),
    (["--path_samples", "2"], "relaxation is mixed; expected --relaxation sampled with it"),
    (["--solver", "dual", "--solver_iterations", "3"], "solver is dual; expected --solver slp with it"),
])
def test_a_flag_that_nothing_reads_is_refused(argv, sentence, tmp_path, refused):
    assert sentence in refused(tmp_path, [*WHOLE, *argv])


def test_no_bound_is_a_number():
    assert math.isinf(RnasConfig(vulnerability_bound="inf").bound().value)
    assert not RnasConfig(vulnerability_bound="inf").bounded and RnasConfig().bounded


@pytest.mark.parametrize("preset", PRESETS)
def test_fast_training_keeps_its_own_step(preset):
    config, _ = parse_config(RnasConfig, PRESETS, ["--preset", preset, "--adv_loss", "fast"])
    assert config.loss_settings().step_size is None  # 1.25 epsilon
    assert config.pgd_settings() == parse_config(RnasConfig, PRESETS, ["--preset", preset])[0].loss_settings()


def test_a_refused_bound_changes_nothing_in_the_run(whole, refused):
    before = {name: (whole[0] / name).read_bytes() for name in ("config.json", "bound.json", "checkpoint.pt")}
    folder = whole[0].parent.parent
    assert "has searched under --vulnerability_bound" in refused(folder, [*WHOLE, "--vulnerability_bound", "rel:0.7"])
    assert before == {name: (whole[0] / name).read_bytes() for name in before}


def test_a_bound_is_known_by_its_value_and_binds_what_has_begun(whole, tmp_path, capsys):
    require_same_bound(whole[0], "rel:0.50")  # the same number as rel:0.5
    shutil.copytree(whole[0].parent.parent, tmp_path, dirs_exist_ok=True)
    run = tmp_path / "search" / whole[0].name
    (run / "bound.json").unlink()  # the checkpoint has a bound, config.json says which
    with pytest.raises(InputError, match=r"has searched under --vulnerability_bound rel:0\.5, not rel:0\.7"):
        start(tmp_path, [*WHOLE, "--vulnerability_bound", "rel:0.7"])
    assert "bound.json is missing; the bound rel:0.5 of config.json counts" in capsys.readouterr().err
    assert json.loads((run / "config.json").read_text())["vulnerability_bound"] == "rel:0.5"
    for file in [*run.glob("checkpoint*"), run / "FINISHED"]:
        file.unlink()
    require_same_bound(run, "rel:0.7")  # nothing has begun


@pytest.mark.parametrize("layers", [1, 2, 3])
def test_with_fewer_than_three_cells_a_note_says_what_is_not_searched(layers, tmp_path, capsys):
    start(tmp_path, [*WHOLE, "--layers", str(layers), "--dry_run"])
    said = capsys.readouterr().out
    note = f"note: layers is {layers}: with fewer than 3 cells all are reduction cells, so the normal cell is not"
    assert (note in said) is (layers < 3)


@pytest.mark.parametrize(("share", "steps", "free"), [(0.29, 100, 29), (0.57, 100, 57), (0.5, 9, 4), (1, 7, 7),
                                                      (0, 7, 0)])
def test_the_unconstrained_steps_are_a_share_without_rounding(share, steps, free):
    assert RnasConfig(unconstrained_share=share).unconstrained_steps(steps) == free
