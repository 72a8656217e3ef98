"""The paths that train a supernet step by step: fair, the same everywhere, and gone when a path is measured."""

import pytest
import torch

import search.wsr_nas as program
from search.spaces import SPACES
from search.spaces.fairness import balanced_draws
from search.training_paths import PATHS, paths_of_epoch
from search.wsr_nas_searcher import Searcher
from search.wsr_nas_settings import PRESETS, schedule
from tests.killed import Killed, killed_before_saving
from tests.run_files import assert_equal, read, without_time
from wsrnas.data.datasets import load_dataset
from wsrnas.runtime.config import parse_config
from wsrnas.runtime.distributed import World
from wsrnas.training.trainer import Trainer

pytestmark = pytest.mark.usefixtures("quick_programs")

SMALL = ["--preset", "tiny", "--device", "cpu", "--space", "nas-bench-201", "--layers", "3", "--init_channels", "2",
         "--num_steps", "1", "--max_train", "60", "--max_validation", "20", "--batch_size", "15",
         "--recalibration_batches", "1", "--estimator_images", "2", "--warmup_architectures", "1", "--iterations", "1",
         "--loss_passes", "2", "--save", "run"]


def seeded(number=0):
    return torch.Generator().manual_seed(number)


def searcher_of(*argv):
    config, _ = parse_config(type(PRESETS["tiny"]), PRESETS, [*SMALL, *argv])
    return Searcher(config, load_dataset("digits", max_train=60), (torch.arange(0, 60, 2), torch.arange(1, 60, 2)),
                    World())


# ---- fairness ------------------------------------------------------------------------------------------------------


def test_every_block_of_draws_holds_every_value_once():
    drawn = balanced_draws(23, 6, 5, seeded())
    assert drawn.shape == (23, 6)
    for first in range(0, 20, 5):
        assert (drawn[first:first + 5].sort(0).values == torch.arange(5).unsqueeze(1)).all()
    assert all(len(set(column)) == 3 for column in drawn[20:].T.tolist())
    assert not torch.equal(drawn[:5], drawn[5:10]) and not torch.equal(drawn[:, 0], drawn[:, 1])


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_a_row_has_all_of_its_operations_before_any_returns(space):
    """Of a genotype's edge, those draws count that keep the edge; it is never ``none``."""
    total = 150
    for name, kind in PATHS.items():
        choices = kind.draw(space, total, seeded())
        assert choices.shape == (total, space.num_rows) and not torch.equal(choices, kind.draw(space, total, seeded(1)))
        leaves = name == "cell" and space.name == "darts"
        for row in choices.T.tolist():
            kept = [operation for operation in row if not leaves or operation != space.none]
            size = len(space.operations) - leaves
            blocks = [kept[first:first + size] for first in range(0, len(kept), size)]
            assert all(len(set(block)) == len(block) for block in blocks), name


def test_cells_of_darts_are_genotypes_with_all_pairs_of_inputs_equally_often():
    space, total = SPACES["darts"], 60
    choices = space.fair_sample(total, seeded())
    assert torch.equal(torch.stack([space.encode(space.decode(row)) for row in choices]), choices)
    kept = (choices != space.none).view(total, 2, 14)
    for kind in range(2):
        for inputs, pairs in ((2, 1), (3, 3), (4, 6), (5, 10)):
            edges = [number for number, (_, target) in enumerate(space.edges) if target == inputs]
            for first in range(0, total, pairs):
                block = kept[first:first + pairs, kind][:, edges]
                assert len(block.unique(dim=0)) == pairs and (block.sum(1) == 2).all()


# ---- pure functions ------------------------------------------------------------------------------------------------


def test_the_paths_of_an_epoch_follow_from_seed_and_epoch_alone():
    space = SPACES["nas-bench-201"]
    supernet = space.supernet(2, 3, 10, 0.1, 1e-3, seeded())
    paths = {draw: paths_of_epoch(space, "cell", *draw, 7) for draw in ((0, 3), (0, 4), (1, 3))}
    torch.manual_seed(5)
    again = paths_of_epoch(space, "cell", 0, 3, 7)
    assert [path.operations for path in again] == [path.operations for path in paths[0, 3]]
    assert len({tuple(path.operations for path in drawn) for drawn in paths.values()}) == 3
    for path in again:
        used = supernet.use(path.gates)
        assert used.operations == path.operations and used.scales == path.scales


# ---- training ------------------------------------------------------------------------------------------------------


def stepwise(searcher, step):
    """Train one epoch; the paths of its steps."""
    paths, original = [], Trainer.step

    def noted(self, images, labels):
        paths.append(self.network.current_path)
        return original(self, images, labels)

    with pytest.MonkeyPatch.context() as context:
        context.setattr(Trainer, "step", noted)
        searcher.train_supernet(step)
    return paths


@pytest.mark.parametrize("strategy, kind", [("wsr", "edges"), ("wsr-paper", "cell")])
def test_every_step_trains_its_own_path_and_the_sampled_one_is_back_afterwards(strategy, kind):
    searcher = searcher_of("--strategy", strategy, "--path_every", "step", "--paths", kind)
    for step in schedule(searcher.config)[:2]:
        searcher.sample(step)
        sampled = searcher.supernet.current_path
        trained = stepwise(searcher, step)
        expected = paths_of_epoch(searcher.space, kind, 0, step.index, 2)
        assert [path.operations for path in trained] == [path.operations for path in expected]
        assert searcher.supernet.current_path is sampled and len(trained) == 2


def test_weights_off_the_path_of_a_step_stay_as_they_are():
    """Neither weight decay nor an old momentum moves them."""
    searcher = searcher_of("--path_every", "step")
    supernet, trainer = searcher.supernet, searcher.trainer
    images, labels = next(iter(searcher.train_loader.batches()))
    paths = paths_of_epoch(searcher.space, "cell", 0, 0, 5)  # a block: every operation has a momentum then
    for path in paths:
        supernet.path = path
        trainer.step(images, labels)
    supernet.path = paths[0]
    idle = {parameter for module in supernet.idle_modules() for parameter in module.parameters()}
    before = {p: (p.detach().clone(), trainer.optimizer.state[p]["momentum_buffer"].clone())
              for p in trainer.parameters if p in trainer.optimizer.state}
    assert idle & before.keys()
    trainer.step(images, labels)
    moved = {p for p, (value, _) in before.items() if not torch.equal(p, value)}
    assert moved and not moved & idle
    assert all(torch.equal(trainer.optimizer.state[p]["momentum_buffer"], before[p][1]) for p in idle & before.keys())


def test_the_papers_strategy_measures_a_cell_where_paths_are_cells():
    searcher = searcher_of("--strategy", "wsr-paper", "--paths", "cell", "--space", "darts", "--layers", "3")
    for step in schedule(searcher.config):
        searcher.sample(step)
        gates = searcher.supernet.current_path.gates
        choices = gates.argmax(-1).flatten()
        assert torch.equal(searcher.space.encode(searcher.space.decode(choices)), choices)
        assert set(gates.unique().tolist()) == {0, 1}


def test_the_warm_up_of_wsr_trains_all_edges_where_it_is_told_to():
    searcher = searcher_of("--paths", "edges", "--space", "darts", "--layers", "3")
    warm_up, population, _ = schedule(searcher.config)
    searcher.sample(warm_up)
    assert (searcher.supernet.current_path.gates.argmax(-1) != 0).sum() > 16  # a cell has eight edges
    searcher.sample(population)
    assert (searcher.supernet.current_path.gates.argmax(-1) != 0).sum() == 16


# ---- the program ---------------------------------------------------------------------------------------------------


def start(folder, *argv, kill=None):
    """Run the program; ``kill``: the step after whose row it dies, before its checkpoint."""
    with killed_before_saving(kill):
        program.main([*SMALL, *argv, "--runs", str(folder)])
    return folder / "search" / "run"


def test_an_interrupted_search_with_a_path_a_step_is_the_uninterrupted_one(tmp_path):
    whole = start(tmp_path / "whole", "--path_every", "step")
    with pytest.raises(Killed):
        start(tmp_path, "--path_every", "step", kill=2)
    run = start(tmp_path, "--path_every", "step")
    states = [torch.load(path / "checkpoint.pt", weights_only=True)["searcher"] for path in (whole, run)]
    assert_equal(*states)
    assert without_time(read(run)) == without_time(read(whole))


def test_a_dry_run_names_the_training_paths(tmp_path, capsys):
    for argv, words in (([], "one for every epoch; cell: an architecture"),
                        (["--strategy", "wsr-paper"], "one for every epoch; edges: one operation on every edge"),
                        (["--path_every", "step"], "one for every training step, fair over operations; cell: an")):
        program.main([*SMALL, *argv, "--dry_run", "--runs", str(tmp_path)])
        assert f"training paths: {words}" in capsys.readouterr().out
