"""Few-shot supernets: each is trained on the paths of its operation alone, and measures those alone."""


import shutil
from dataclasses import replace

import pytest
import torch

import search.path_training
from search.few_shot import FewShot
from search.rankings.bench import build_bench
from search.rankings.inherited import inherited
from search.rankings.trained import open_trained
from search.spaces import SPACES
from search.training_paths import PATHS, paths_of_epoch, possible_operations
from search.wsr_nas_searcher import Searcher
from search.wsr_nas_settings import PRESETS, learning_rate, schedule
from tests.killed import Killed
from tests.run_files import assert_equal, read, without_time
from tests.search import small_search
from tests.search.small_search import state_of
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError

pytestmark = pytest.mark.usefixtures("quick_programs")

EDGE, SPACE = 3, SPACES["nas-bench-201"]
STEPS = ["--path_every", "step", "--adv_loss", "fast"]
FAMILY = ["--save", "family", "--train_only", "--few_shot_edge", str(EDGE), "--warmup_architectures", "2"]
SEARCH = ["--save", "run", "--iterations", "4", "--seed", "7"]


def start(folder, *argv, kill=None):
    return small_search.start(folder, *STEPS, *argv, kill=kill)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The run directory of the supernet that all of them begin with."""
    return start(tmp_path_factory.mktemp("first"), "--save", "net", "--train_only", "--warmup_architectures",
                 "1") / "net"


@pytest.fixture(scope="module")
def family(first, tmp_path_factory):
    """The run directory of the few-shot supernets."""
    return start(tmp_path_factory.mktemp("family"), *FAMILY, "--supernet", str(first)) / "family"


def test_a_search_on_them_has_the_images_of_the_first_supernet_whatever_their_seed(first, tmp_path):
    family = start(tmp_path, *FAMILY, "--warmup_architectures", "1", "--supernet", str(first), "--seed", "5") / "family"
    assert open_trained(family, "").data.train.fingerprint() == open_trained(first, "").data.train.fingerprint()
    assert (start(tmp_path, *SEARCH, "--supernet", str(family)) / "run" / "FINISHED").exists()


def test_every_operation_has_a_supernet_that_trained_its_paths_alone(first, family):
    stored, begun = state_of(family)["few_shot"], state_of(first)["supernet"]
    assert list(stored) == list(SPACE.operations) and len(read(family)) == 2 * len(SPACE.operations)
    weights = [name for name in begun if f"edges.{EDGE}." in name and name.endswith("weight")]
    assert weights
    for operation, state in stored.items():
        assert set(state) == {name for name in begun if not name.startswith("alphas_")}
        moved = {name for name in weights if not torch.equal(state[name], begun[name])}
        place = SPACE.operations.index(operation)
        assert all(f"edges.{EDGE}.{place}." in name for name in moved)
        assert bool(moved) == ("conv" in operation)


def test_all_begin_alike_also_if_their_supernet_changes_meanwhile(first, family, tmp_path, monkeypatch):
    copy = tmp_path / "copy"
    shutil.copytree(first, copy)
    calls = []

    def train(*arguments, original=search.path_training.train_paths):
        calls.append(torch.load(copy / "checkpoint.pt", weights_only=True))
        broken = calls[0] | {"searcher": calls[0]["searcher"] | {"supernet": {
            name: value * 2 for name, value in calls[0]["searcher"]["supernet"].items()}}}
        torch.save(broken, copy / "checkpoint.pt")
        return original(*arguments)

    monkeypatch.setattr(search.path_training, "train_paths", train)
    found = start(tmp_path, *FAMILY, "--supernet", str(copy)) / "family"
    assert len(calls) > 1
    assert_equal(state_of(found)["few_shot"], state_of(family)["few_shot"])


@pytest.mark.parametrize("kind", PATHS)
@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_paths_of_an_edge(space, kind):
    """They have its operation and, apart from it, all the operations."""
    row = space.num_rows - 1
    possible = possible_operations(space.name, kind, row)
    assert len(possible) >= len(space.operations) - 1
    for operation in possible:
        paths = paths_of_epoch(space, kind, 0, 0, 25, (row, operation))
        choices = torch.stack([path.encoding.argmax(-1) for path in paths])
        assert len(paths) == 25 and (choices[:, row] == operation).all()
        assert len(set(choices[:, 0].tolist())) >= len(space.operations) - 1


def test_an_edge_that_is_always_kept_has_no_supernet_without_an_operation():
    darts = SPACES["darts"]
    assert possible_operations("darts", "cell", 0) == tuple(set(range(len(darts.operations))) - {darts.none})
    assert possible_operations("darts", "edges", 0) == tuple(range(len(darts.operations)))


def test_a_path_is_measured_with_the_weights_of_its_operation(family, tmp_path, monkeypatch):
    stored, seen = state_of(family)["few_shot"], set()

    def validate(self, step, original=Searcher.validate):
        choice = int(self.supernet.current_path.encoding[EDGE].argmax())
        weights = stored[SPACE.operations[choice]]
        own = self.supernet.state_dict()
        assert all(torch.equal(own[name], value) for name, value in weights.items() if name.endswith("weight"))
        seen.add(choice)
        return original(self, step)

    monkeypatch.setattr(Searcher, "validate", validate)
    start(tmp_path, *SEARCH, "--supernet", str(family))
    assert len(seen) > 1


def test_resumes_bit_for_bit(first, family, tmp_path):
    with pytest.raises(Killed):
        start(tmp_path, *FAMILY, "--supernet", str(first), kill=4)
    assert_equal(state_of(start(tmp_path, *FAMILY, "--supernet", str(first)) / "family"), state_of(family))
    whole = start(tmp_path / "whole", *SEARCH, "--supernet", str(family)) / "run"
    with pytest.raises(Killed):
        start(tmp_path / "killed", *SEARCH, "--supernet", str(family), kill=3)
    assert_equal(without_time(read(start(tmp_path / "killed", *SEARCH, "--supernet", str(family)) / "run")),
                 without_time(read(whole)))


def test_a_ranking_uses_them(family):
    trained = open_trained(family, "")
    bench = build_bench(trained, 20, (0.1,), 1, 1, 20, 0, World())
    measured = inherited(bench)
    choices = torch.full((SPACE.num_rows,), 3)
    values = measured(choices, lambda: False)
    assert trained.few_shot and trained.few_shot.current[1] == 3
    for operation, weights in trained.few_shot.members.items():  # the same numbers whatever was measured before
        measured(choices.clone().index_fill_(0, torch.tensor([EDGE]), operation), lambda: False)
        assert trained.few_shot.current[1] == operation and trained.few_shot.members[operation] is weights
    assert measured(choices, lambda: False) == values


def test_unknown_operation():
    shots = FewShot(SPACE, EDGE, {1: {}, 2: {}})
    gates = SPACE.gates(torch.zeros(SPACE.num_rows, dtype=torch.long)).view(SPACE.shape)
    with pytest.raises(InputError, match=f"no supernet was trained for {SPACE.operations[0]} in row {EDGE} of A, "
                                         f"only for {SPACE.operations[1]}, {SPACE.operations[2]}"):
        shots.use(None, gates)


@pytest.mark.parametrize(("argv", "message"), [
    (["--few_shot_edge", "6"], "few_shot_edge is 6; expected a row of A from 0 to 5, or -1"),
    (["--few_shot_edge", "-2"], "few_shot_edge is -2; expected"),
    (["--few_shot_edge", "0"], "few_shot_edge is 0; expected it with --train_only"),
    (["--few_shot_edge", "0", "--train_only"], "and the --supernet to begin with"),
    (["--few_shot_edge", "0", "--train_only", "--path_every", "epoch", "--supernet", "FIRST"], "--path_every step"),
    (["--train_only", "--supernet", "FIRST"], "expected one of the two, or --few_shot_edge"),
    (["--measure", "short", "--supernet", "FAMILY"], "expected a run with one supernet for --measure short"),
    (["--few_shot_edge", "0", "--train_only", "--supernet", "FAMILY", "--dry_run"],
     "expected a run with one supernet for --few_shot_edge"),
])
def test_what_does_not_fit(argv, message, first, family, tmp_path):
    argv = [{"FIRST": str(first), "FAMILY": str(family)}.get(word, word) for word in argv]
    with pytest.raises(InputError, match=message):
        start(tmp_path, *argv, "--save", "other")


def test_unfinished_supernets_are_not_searched(first, tmp_path):
    with pytest.raises(Killed):
        start(tmp_path, *FAMILY, "--supernet", str(first), kill=4)
    with pytest.raises(InputError, match="has not trained all of its few-shot supernets yet"):
        start(tmp_path, *SEARCH, "--supernet", str(tmp_path / "search/family"))


def test_each_has_a_whole_schedule_of_its_own(first):
    config = replace(PRESETS["tiny"], space=SPACE.name, layers=3, train_only=True, path_every="step",
                     few_shot_edge=EDGE, supernet=str(first), warmup_architectures=4)
    steps = schedule(config)
    rates = [learning_rate(config, step) for step in steps]
    assert len(steps) == 4 * len(SPACE.operations) and len(set(rates[:4])) == 4 and rates == rates[:4] * 5
    assert [config.member(step) for step in steps] == [step.number // 4 for step in steps]


def test_dry_run_counts_them(first, tmp_path, capsys):
    start(tmp_path, *FAMILY, "--supernet", str(first), "--dry_run")
    printed = capsys.readouterr().out
    assert f"{len(SPACE.operations)} supernets from the weights of {first}" in printed
    assert f"{2 * len(SPACE.operations)} epochs ({2 * len(SPACE.operations)} warm-up)" in printed
