"""The strategies in a supernet search: proposals, outputs, resume, what the presets ask for, what is refused."""

import dataclasses
import json

import pytest
import torch

import search.wsr_nas as program
from search.spaces import SPACES
from search.supernet_strategies import SUPERNET_STRATEGIES
from search.wsr_nas_searcher import Searcher
from search.wsr_nas_settings import PRESETS, schedule
from tests.killed import Killed, killed_before_saving
from tests.quick import slow_after
from tests.run_files import assert_equal, read, without_time
from wsrnas.data.datasets import load_dataset
from wsrnas.genotype import Genotype
from wsrnas.runtime.config import parse_config
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError

pytestmark = pytest.mark.usefixtures("quick_programs")

SMALL = ["--preset", "tiny", "--device", "cpu", "--init_channels", "2", "--layers", "3", "--num_steps", "1",
         "--max_train", "60", "--max_validation", "20", "--batch_size", "15", "--recalibration_batches", "1",
         "--loss_passes", "3", "--estimator_images", "2", "--warmup_architectures", "2", "--population", "2",
         "--iterations", "3", "--save", "run"]

SMALLEST_FIRST = sorted(SPACES, key=lambda name: SPACES[name].num_rows)


def searcher_of(*argv):
    config, _ = parse_config(type(PRESETS["tiny"]), PRESETS, [*SMALL, *argv])
    return Searcher(config, load_dataset("digits", max_train=60), (torch.arange(0, 60, 2), torch.arange(1, 60, 2)),
                    World())


def law(gates):
    """Five losses of gates (R, O): a gain for each operation in each row."""
    gain = torch.arange(gates.numel()).mul(1.7).sin().view_as(gates)
    return 2 + (gates * gain).sum() / len(gates) * torch.arange(1, 6)


def driven(searcher, first=0, last=None):
    """Search without images; the paths in their order."""
    paths = []
    for step in schedule(searcher.config)[first:last]:
        searcher.sample(step)
        gates = searcher.supernet.path.encoding
        paths.append(gates.clone())
        if step.phase != "warm-up":
            searcher.remember(step, [{"losses": law(gates)}])
        if step.trains_losses:
            assert searcher.train_loss_estimator(step) >= 0
        if step.moves:
            searcher.update_architecture(step)
    return paths


def measured_by(searcher):
    """What the strategy has measured, and the objective of each."""
    measured = searcher.strategy.measured(searcher.loss_memory)
    return measured, searcher.objective(measured.losses)


# ---- proposals and outputs -----------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("space", slow_after(1, SMALLEST_FIRST))
def test_the_warm_up_is_random_and_no_architecture_is_measured_twice(space):
    searcher = searcher_of("--space", space, "--iterations", "6")
    paths = driven(searcher)
    assert all(((path == 0) | (path == 1)).all() and (path.sum(-1) == 1).all() for path in paths)
    measured, objectives = measured_by(searcher)
    assert len(measured) == 8 and len(measured.keys) == 8 and not torch.equal(paths[0], paths[1])
    assert torch.equal(searcher.loss_memory["gates"], torch.stack(paths[2:]))
    sizes = searcher.strategy.problem.size(measured.choices)
    assert sizes[0] == sizes.max(), "the population begins with the largest"
    assert objectives[2:].min() < objectives[:2].min()


@pytest.mark.slow
def test_the_memory_of_the_new_strategy_forgets_nothing():
    searcher = searcher_of("--loss_memory", "2")
    driven(searcher)
    assert len(searcher.loss_memory) == 5
    paper = searcher_of("--loss_memory", "2", "--strategy", "wsr-paper")
    driven(paper)
    assert len(paper.loss_memory) == 2


@pytest.mark.slow
@pytest.mark.parametrize("output", SUPERNET_STRATEGIES["wsr"].outputs)
def test_the_genotype_is_the_output_that_was_asked_for(output):
    searcher = searcher_of("--output", output, "--space", "nas-bench-201", "--iterations", "5")
    assert searcher.genotype() == searcher.initial_genotype
    driven(searcher)
    measured, objectives = measured_by(searcher)
    predicted = searcher.strategy.strategy.predict(measured, measured.choices, torch.Generator())
    found = searcher.space.encode(searcher.genotype())
    assert searcher.architecture_statistics()["genotype"] == searcher.space.row(searcher.genotype())
    if output == "argmax":
        assert not torch.equal(found, searcher.space.encode(searcher.initial_genotype))
    else:
        chosen = {"best": objectives, "verified": predicted}[output].argmin()
        assert torch.equal(found, measured.choices[chosen])


@pytest.mark.slow
def test_the_statistics_see_the_a_of_the_strategy():
    searcher = searcher_of("--space", "nas-bench-201")
    before = searcher.supernet.alphas().detach().clone()
    driven(searcher, last=3)
    assert torch.equal(searcher.supernet.alphas(), before)  # before the population is complete, A does not move
    driven(searcher, 3)
    torch.testing.assert_close(searcher.supernet.alphas().detach()[0].double(), searcher.strategy.strategy.alphas)
    assert not torch.equal(searcher.supernet.alphas(), before)


@pytest.mark.slow
def test_predictions_are_in_nats_and_made_before_the_measurement():
    searcher = searcher_of("--space", "nas-bench-201", "--iterations", "12", "--loss_quantile", "1")
    driven(searcher)
    pairs = torch.tensor(list(searcher.predictions))
    assert len(pairs) == 12 and (pairs[:, 0] - pairs[:, 1]).abs()[4:].mean() < 0.5
    assert not (pairs[:, 0] == pairs[:, 1]).all()


@pytest.mark.slow
def test_the_predictor_reads_losses_that_a_fallback_corrected():
    searcher = searcher_of()
    driven(searcher, last=4)
    before, _ = measured_by(searcher)
    searcher.attack_too(0.1, [0.25], schedule(searcher.config)[3])
    after, _ = measured_by(searcher)
    torch.testing.assert_close(after.losses - before.losses,
                               torch.tensor([0, 0, 0.25, 0, 0]).double().expand(2, 5))
    driven(searcher, 4, 5)
    learned = searcher.strategy.strategy.fit(measured_by(searcher)[0], torch.Generator()).targets
    assert learned.columns.shape == (3, 5) and len(searcher.predictions) == 1


# ---- resume --------------------------------------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize(("space", "predictor"), [*((space, "sized") for space in SMALLEST_FIRST),
                                                  (SMALLEST_FIRST[0], "lstm")])
def test_a_search_goes_on_from_its_state_after_any_step(space, predictor, tmp_path):
    argv = ["--space", space, "--predictor", predictor, "--iterations", "2"]
    whole = searcher_of(*argv)
    driven(whole)
    state = None
    for step in schedule(whole.config):
        searcher = searcher_of(*argv)
        if state is not None:
            searcher.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        driven(searcher, step.index, step.index + 1)
        state = searcher.state_dict()
        torch.save(state, tmp_path / "state.pt")
    assert_equal(state["strategy"], whole.state_dict()["strategy"])
    assert_equal(state, whole.state_dict())


def start(folder, argv, kill=None):
    """Run the program; ``kill``: the step after whose row it dies, before its checkpoint."""
    with killed_before_saving(kill):
        program.main([*argv, "--runs", str(folder)])
    return folder / "search" / "run"


@pytest.mark.slow
def test_an_interrupted_search_is_the_uninterrupted_one(tmp_path):
    argv = [*SMALL, "--space", "nas-bench-201", "--iterations", "2"]
    whole = start(tmp_path / "whole", argv)
    for kill in (2, 4, 6):
        with pytest.raises(Killed):
            start(tmp_path, argv, kill)
    run = start(tmp_path, argv)
    states = [torch.load(path / "checkpoint.pt", weights_only=True) for path in (whole, run)]
    for state in states:
        assert state.pop("config").pop("runs")
    assert_equal(*states)
    assert without_time(read(run)) == without_time(read(whole))
    assert (run / "genotype.json").read_bytes() == (whole / "genotype.json").read_bytes()


# ---- the program ---------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_the_new_strategy_searches_and_reports(tmp_path):
    run = start(tmp_path, [*SMALL, "--warmup_architectures", "1", "--iterations", "1"])
    rows = read(run)
    assert [row["phase"] for row in rows] == ["warm-up", "population", "population", "search"]
    assert ["predicted_objective" in row for row in rows] == [False, False, True, True]
    found = rows[-1]["loss_estimator"]
    assert found["predicted_objective"] == rows[2]["predicted_objective"] and found["ranked"] == 1
    assert {"measured_objective", "squared_error"} <= set(found)
    document = json.loads((run / "genotype.json").read_text())
    assert document["normal"] == rows[-1]["architecture"]["genotype"]["normal"]
    memory = torch.load(run / "checkpoint.pt", weights_only=True)["searcher"]["loss_memory"]["gates"].argmax(-1)
    assert SPACES["darts"].encode(Genotype.load(run / "genotype.json")).tolist() in memory.tolist()


def test_a_dry_run_names_predictor_and_population(tmp_path, capsys):
    program.main([*SMALL, "--dry_run", "--runs", str(tmp_path)])
    said = capsys.readouterr().out
    assert "predictor paths, output verified" in said and "7 epochs (2 warm-up, 2 population, 3 search)" in said


# ---- configuration -------------------------------------------------------------------------------------------------


def test_the_papers_presets_keep_the_papers_strategy():
    for name, config in PRESETS.items():
        paper = name not in ("wide", "tiny")
        assert (config.strategy, config.output) == (("wsr-paper", "argmax") if paper else ("wsr", "verified"))
        if paper:
            assert (config.warmup_architectures, config.population_size, config.iterations) == (100, 100, 100)
            assert (config.loss_passes, config.loss_hidden_size, config.loss_learning_rate, config.loss_weight_decay,
                    config.architecture_learning_rate, config.architecture_samples) == (500, 16, 1e-3, 1e-3, 0.03, 64)


def test_wide_costs_what_the_papers_strategy_costs():
    phases = [step.phase for step in schedule(PRESETS["wide"])]
    assert len(phases) == 300 and phases.count("warm-up") == 100


def test_the_papers_strategy_brings_its_output():
    config, _ = parse_config(type(PRESETS["tiny"]), PRESETS, ["--preset", "tiny", "--strategy", "wsr-paper"])
    assert config == dataclasses.replace(PRESETS["tiny"], strategy="wsr-paper", output="argmax")
    assert [step.moves for step in schedule(config)] == [step.phase == "search" for step in schedule(config)]


@pytest.mark.slow
@pytest.mark.parametrize("space", slow_after(1, SMALLEST_FIRST))
def test_a_budget_bounds_what_is_trained_measured_and_found(space):
    kind, layers = SPACES[space], SPACES[space].fitting_layers(3)
    network = (2, layers, 10, load_dataset("digits", max_train=60).image_shape)
    value = kind.cost(kind.sample(400, torch.Generator().manual_seed(0)), *network)[:, 1].median().item()
    searcher = searcher_of("--space", space, "--budget", f"macs={value}@C2L{layers}", "--budget_tolerance", "0.1",
                           "--proposal_batch", "2", "--output", "argmax")
    paths = torch.stack(driven(searcher)).argmax(-1)
    cost = kind.cost(torch.cat([paths, kind.encode(searcher.genotype())[None]]), *network)[:, 1]
    assert ((cost - value).abs() <= 0.1 * value).all() and cost.unique().numel() > 1
    with pytest.raises(InputError, match=r"of 50,000 random .* 0 different ones are within the budget.* measures 5 "
                                         r"\(params go .*, nearest to it is .*\); expected another"):
        searcher_of("--space", space, "--budget", "params=1")


@pytest.mark.slow
@pytest.mark.parametrize("output", ["best", "verified", "argmax"])
def test_nothing_is_proposed_or_found_that_has_an_operation_on_no_path(output):
    """The four paths of a graph by hand; a random graph of this size has an idle operation in one of three cases."""
    space = SPACES["nas-bench-201"]
    searcher = searcher_of("--space", space.name, "--output", output, "--iterations", "12", "--population", "6",
                           "--budget", "params=344346@C16L15", "--proposal_batch", "3")
    paths = driven(searcher)[searcher.config.warmup_architectures:]
    found = [searcher.space.encode(searcher.genotype()), *(gates.argmax(-1) for gates in paths)]
    for choices in found:
        runs = {edge for edge, choice in zip(space.edges, choices.tolist(), strict=True) if choice != space.none}
        used = [path for path in ([(0, 3)], [(0, 1), (1, 3)], [(0, 2), (2, 3)], [(0, 1), (1, 2), (2, 3)])
                if runs.issuperset(path)]
        assert runs == {edge for path in used for edge in path}


def test_every_operation_of_a_darts_cell_counts():
    space = SPACES["darts"]
    assert bool(space.lean(space.sample(100, torch.Generator().manual_seed(0))).all())


@pytest.mark.parametrize(("argv", "said"), [
    (["--output", "verified"], "output is verified but strategy is wsr-paper; expected --output argmax, or --strategy"),
    (["--strategy", "wsr", "--vulnerability_bound", "rel:0.6"],
     "vulnerability_bound is rel:0.6 but strategy is wsr, which predicts no vulnerability; expected --strategy wsr-pa"),
    (["--budget", "params=1M"], "budget is params=1M but strategy is wsr-paper, .*; expected --strategy wsr, or"),
    (["--strategy", "wsr", "--budget", "1M"], "budget is '1M'; expected params=NUMBER or macs=NUMBER"),
    (["--strategy", "wsr", "--population", "0"], "population is 0; expected at least 1"),
    (["--preset", "tiny", "--strategy", "wsr-paper", "--output", "best"], "output is best but strategy is wsr-paper"),
])
def test_values_that_do_not_fit_together_are_refused(argv, said):
    with pytest.raises(InputError, match=said):
        parse_config(type(PRESETS["tiny"]), PRESETS, argv)
