"""Several paths in an iteration: what is proposed, remembered and corrected for the progress of the supernet."""

import json

import pytest
import torch

import search.wsr_nas as program
from search.cost import total_passes
from search.wsr_nas_searcher import Searcher
from search.wsr_nas_settings import PRESETS, measured_paths, schedule
from tests.run_files import assert_equal, read
from wsrnas.data.datasets import load_dataset
from wsrnas.report.reading.rows import path_rows
from wsrnas.report.search_size import size_share
from wsrnas.runtime.config import parse_config
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError

pytestmark = pytest.mark.usefixtures("quick_programs")

SMALL = ["--preset", "tiny", "--device", "cpu", "--space", "nas-bench-201", "--layers", "3", "--init_channels", "2",
         "--num_steps", "1", "--max_train", "60", "--max_validation", "20", "--batch_size", "15",
         "--recalibration_batches", "1", "--loss_passes", "2", "--estimator_images", "2", "--path_every", "step",
         "--warmup_architectures", "1", "--save", "run"]
SEVERAL = ["--population", "5", "--paths_per_iteration", "2", "--iterations", "3", "--anchors", "3"]
PROGRESS = torch.tensor([-0.4, -0.3, -0.2, -0.1, 0.5])  # of the supernet in a step, by column


def searcher_of(*argv):
    config, _ = parse_config(type(PRESETS["tiny"]), PRESETS, [*SMALL, *argv])
    return Searcher(config, load_dataset("digits", max_train=60), (torch.arange(0, 60, 2), torch.arange(1, 60, 2)),
                    World())


def law(gates, step):
    """Five losses of gates (R, O) at a step: those of the architecture, and the progress of the supernet."""
    gain = torch.arange(gates.numel()).mul(1.7).sin().view_as(gates)
    return 2 + (gates * gain).sum() / len(gates) * torch.arange(1, 6) + step * PROGRESS


def driven(searcher, first=0, last=None):
    """Search without images; what the steps say about their paths."""
    said = []
    for step in schedule(searcher.config)[first:last]:
        searcher.sample(step)
        if step.phase != "warm-up":
            measured = [{"losses": law(searcher.supernet.path.encoding, step.index)} for _ in searcher.each_path()]
            said.append(searcher.remember(step, measured))
        if step.trains_losses:
            searcher.train_loss_estimator(step)
        if step.moves:
            searcher.update_architecture(step)
    return said


# ---- proposals -----------------------------------------------------------------------------------------------------


def test_an_iteration_proposes_several_different_architectures():
    searcher = searcher_of(*SEVERAL)
    said = driven(searcher)
    assert [len(row["paths"]) for row in said] == [2, 2, 1, 2, 2, 2]  # a population of five, then the iterations
    memory = searcher.loss_memory
    assert memory["iteration"].tolist() == [1, 1, 2, 2, 3, 4, 4, 5, 5, 6, 6]
    assert len(searcher.strategy.measured(memory).keys) == 11 == searcher.config.measurements
    found = [path for row in said[3:] for path in row["paths"]]
    assert all({"architecture", "parameters", "measured_objective", "predicted_objective"} == set(path)
               for path in found)
    assert [pair[1] for pair in searcher.predictions] == [path["measured_objective"] for path in found]
    assert [said[-1]["loss_estimator"][name] for name in ("measured_objective", "ranked")] == [
        found[-2]["measured_objective"], 6]


def test_the_papers_strategy_draws_several_paths_from_a():
    searcher = searcher_of("--strategy", "wsr-paper", "--paths_per_iteration", "3", "--iterations", "2",
                           "--warmup_architectures", "4")
    said = driven(searcher)
    assert [len(row["paths"]) for row in said] == [3, 1, 3, 3]
    gates = searcher.loss_memory["gates"]
    assert len(gates) == 10 and len(gates.unique(dim=0)) == 10
    alone = searcher_of("--strategy", "wsr-paper", "--warmup_architectures", "4")
    for number, step in enumerate(schedule(alone.config)[:4]):
        alone.sample(step)
        assert torch.equal(alone.supernet.current_path.encoding, gates[number])  # the same population, by ones


# ---- the progress of the supernet ----------------------------------------------------------------------------------


@pytest.mark.parametrize("strategy", ["wsr", "wsr-paper"])
def test_what_was_measured_before_is_corrected_for_the_progress_of_the_supernet(strategy):
    searcher = searcher_of(*SEVERAL, "--strategy", strategy, "--warmup_architectures", "5")
    said = driven(searcher)
    now = schedule(searcher.config)[-1].index
    expected = torch.stack([law(gates, now) for gates in searcher.loss_memory["gates"]])
    torch.testing.assert_close(searcher.loss_memory["losses"], expected)
    change = searcher.objective(PROGRESS).item()
    assert "anchor_change" not in said[0]["loss_estimator"]  # there was nothing to measure again
    assert all(row["loss_estimator"]["anchor_change"] == pytest.approx(change, abs=1e-5) for row in said[1:])
    assert len(searcher.anchors) == 3


def test_without_anchors_nothing_is_corrected():
    searcher = searcher_of("--iterations", "3")
    driven(searcher)
    memory = searcher.loss_memory
    expected = [law(gates, step) for gates, step in zip(memory["gates"], memory["iteration"], strict=True)]
    assert torch.equal(memory["losses"], torch.stack(expected))


def test_a_fallback_corrects_the_anchors_too():
    searcher = searcher_of(*SEVERAL)
    driven(searcher, last=3)
    before = searcher.anchors.losses.clone()
    searcher.attack_too(0.1, [0.25], schedule(searcher.config)[2])
    torch.testing.assert_close(searcher.anchors.losses - before, torch.tensor([0, 0, 0.25, 0, 0]).expand(3, 5))


# ---- state, cost, refusals -----------------------------------------------------------------------------------------


def test_a_search_with_several_paths_goes_on_from_its_state_after_any_step(tmp_path):
    whole = searcher_of(*SEVERAL)
    driven(whole)
    state = None
    for step in schedule(whole.config):
        searcher = searcher_of(*SEVERAL)
        if state is not None:
            searcher.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
        driven(searcher, step.index, step.index + 1)
        state = searcher.state_dict()
        torch.save(state, tmp_path / "state.pt")
    assert_equal(state, whole.state_dict())


def test_a_state_of_an_earlier_version_goes_on():
    """It has one proposal (R,), a number that is predicted for it, and no anchors."""
    searcher = searcher_of("--iterations", "2")
    driven(searcher, last=3)
    state = searcher.state_dict()
    del state["anchors"]
    state["strategy"] = state["strategy"] | {"next": state["strategy"]["next"][0],
                                             "predicted": state["strategy"]["predicted"][0]}
    again = searcher_of("--iterations", "2")
    again.load_state_dict(state)
    for one in (searcher, again):
        driven(one, 3)
    assert_equal(again.state_dict(), searcher.state_dict())


def test_the_program_measures_all_paths_and_counts_them(tmp_path, capsys):
    argv = [*SMALL, "--population", "2", "--paths_per_iteration", "2", "--iterations", "1", "--anchors", "1",
            "--runs", str(tmp_path)]
    program.main(argv)
    rows = read(tmp_path / "search" / "run")
    assert [len(row.get("paths", [])) for row in rows] == [0, 2, 2]
    config = searcher_of(*argv[len(SMALL):-2])
    assert [measured_paths(config.config, step) for step in schedule(config.config)] == [0, 2, 3]
    assert rows[2]["passes"]["recalibrate"]["forward"] == 3 * 15
    for kind, total in total_passes(config).items():
        assert total == sum(phase[kind] for row in rows for phase in row["passes"].values())
    assert "anchor_change" in rows[2]["loss_estimator"]
    program.main([*argv, "--dry_run"])
    assert "measured: 4 architectures, 2 in an iteration; 1 of the first ones again" in capsys.readouterr().out
    known = [path["parameters"] for row in rows for path in row.get("paths", [])]
    assert [row["loss_estimator"]["parameters"] for row in path_rows(rows) if "paths" in row] == known


def test_the_page_looks_at_all_paths_of_a_step():
    paths = [{"parameters": 10 ** n, "measured_objective": -float(n)} for n in range(6)]
    rows = [{"step": 0, "loss_estimator": paths[0], "paths": paths[:3]},
            {"step": 1, "loss_estimator": paths[3], "paths": paths[3:]}]
    assert size_share(json.loads(json.dumps(rows))) == {"paths": 6, "tau": pytest.approx(1)}


@pytest.mark.parametrize("argv, said", [
    (["--path_every", "epoch", "--paths_per_iteration", "2"], "paths_per_iteration is 2 but path_every is epoch: the "
     "first one alone would be trained .*; expected --path_every step, --supernet or"),
    (["--path_every", "epoch", "--anchors", "1"], "anchors is 1 but path_every is epoch: new paths would be trained"),
    (["--anchors", "2"], "anchors is 2 but only 1 architectures are measured before the first iteration"),
    (["--anchors", "1", "--supernet", "net"], "anchors is 1 but supernet is net, which makes no progress"),
    (["--paths_per_iteration", "0"], "paths_per_iteration is 0; expected at least 1"),
    (["--paths_per_iteration", "400", "--iterations", "30"], "the search measures 12001; expected fewer --iterations"),
])
def test_what_cannot_be_measured_together_is_refused(argv, said):
    with pytest.raises(InputError, match=said):
        parse_config(type(PRESETS["tiny"]), PRESETS, [*SMALL, *argv])
