"""Two processes (gloo): collectives, a search, a retraining; evaluation equals that of one process.

All under one launch, because starting processes is what takes the time.
"""

import functools
import json
from dataclasses import replace

import pytest
import torch

import genotypes
import retrain.small_images
import retrain.train_cifar
import search.wsr_nas
from benchmarks import scale_out_work
from retrain.construction import make_network, make_trainer
from retrain.recipes import RECIPES
from search.supernet_strategies import SUPERNET_STRATEGIES
from search.wsr_nas_searcher import Searcher
from search.wsr_nas_settings import PRESETS
from tests.processes import run_twice
from tests.quick import pages_without_sections, small_digits
from wsrnas.data.datasets import load_dataset
from wsrnas.data.image_set import Augmentation, DataSet, ImageSet
from wsrnas.data.loader import BatchLoader
from wsrnas.evaluation import robust_accuracy
from wsrnas.runtime.distributed import (
    World,
    all_sum,
    average_gradients,
    barrier,
    broadcast,
    broadcast_model,
    initialize,
    shutdown,
)
from wsrnas.runtime.errors import InputError
from wsrnas.subjects.checkpoints import load_model
from wsrnas.training.batch_norm import average_buffers

pytestmark = pytest.mark.usefixtures("quick_programs")

SEARCH = ["--preset", "tiny", "--space", "nas-bench-201", "--device", "cpu", "--init_channels", "2", "--layers", "3",
          "--max_train", "40", "--max_validation", "15", "--validation_batch_size", "8", "--num_steps", "1",
          "--batch_size", "10", "--warmup_architectures", "1", "--iterations", "1", "--loss_passes", "2",
          "--estimator_images", "1", "--recalibration_batches", "1", "--population", "1"]
RETRAIN = ["--preset", "tiny", "--device", "cpu", "--init_channels", "2", "--layers", "3", "--max_train", "60",
           "--held_out", "21", "--num_steps", "1", "--batch_size", "12", "--epochs", "2", "--select_every", "1",
           "--select_steps", "2", "--eval_batch_size", "8", "--save", "run"]


def layer(rank):
    """A small network with BatchNorm whose numbers tell the rank."""
    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    with torch.no_grad():
        for value in network.state_dict().values():
            value.fill_(10 * (rank + 1))
    return network


def collectives(world):
    """What the collectives make of numbers that differ on the processes."""
    network = layer(world.rank)
    network[0].weight.grad = torch.tensor([[1.0, 2.0], [3.0, 4.0]]) * (world.rank + 1)
    network[1].bias.grad = torch.tensor([8.0, -8.0]) * world.rank
    average_gradients(network.parameters(), world)
    averaged = layer(world.rank)
    average_buffers(averaged, world)
    sent, copied = layer(world.rank), [torch.full((2,), float(world.rank))]
    broadcast_model(sent, world)
    broadcast(copied, world)
    return {
        "weight": network[0].weight.grad.tolist(), "bias": network[1].bias.grad.tolist(),
        "none": [network[0].bias.grad, network[1].weight.grad],
        "sum": all_sum(torch.tensor([1.0, world.rank]), world).tolist(),
        "mean": averaged[1].running_mean.tolist(), "var": averaged[1].running_var.tolist(),
        "kept": averaged[0].weight.flatten().tolist(),
        "sent": [value.flatten().tolist() for value in sent.state_dict().values()], "copied": copied[0].tolist(),
    }


def evaluate(checkpoint, world):
    model, _ = load_model(checkpoint)
    loader = BatchLoader(load_dataset("digits", max_test=51).test, 10, 0, "test", rank=world.rank,
                         world_size=world.size)
    return robust_accuracy(model, loader, (0.02, 0.1), 3, world=world)


LOSSES = {"pgd": {}, "fast": {},
          "trades refined": {"awp_gamma": 0.01, "drop_path": 0.3, "ema_decay": 0.9}}


def four_steps(case, world, precision=torch.float64):
    """Weights and their average after 4 steps of a loss with synchronised BatchNorm, on 16 images a step in all."""
    config = replace(RECIPES["tiny"], adv_loss=case.split()[0], sync_bn=True, init_channels=2, layers=2, batch_size=16,
                     epsilon=0.05, num_steps=2, learning_rate=0.1, epochs=2, milestones=(1,), held_out=40,
                     trades_beta=6.0, **LOSSES[case])
    data = load_dataset("digits", max_train=40 + 2 * 16)
    # Noise: in the digits' even areas gradients are exactly zero, and the signs of roundings would steer the attack.
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, data.train.images.shape, dtype=torch.uint8, generator=draw)
    data = replace(data, train=ImageSet(pixels.contiguous(memory_format=torch.channels_last), data.train.labels))
    loader, _ = retrain.small_images.make_loaders(config, data, world)
    network = make_network(config, genotypes.load("WsrNet_Basic"), 10, (3, 32, 32), world).to(precision)
    trainer = make_trainer(config, network, len(loader), world)
    for epoch in range(2):
        for images, labels in loader.batches(epoch):
            trainer.step(images.to(precision), labels)
    assert trainer.steps == 4
    return {key: value.flatten().tolist() for key, value in trainer.evaluated.state_dict().items()}


def exact_search(strategy, world):
    """A search with synchronised BatchNorm whose supernet computes in float64."""
    config = replace(PRESETS["tiny"], space="nas-bench-201", strategy=strategy, output="argmax", sync_bn=True,
                     init_channels=2, layers=3, batch_size=4, eval_batch_size=4, num_steps=1, warmup_architectures=1,
                     population=1, iterations=1, loss_passes=2, estimator_images=1, recalibration_batches=2,
                     check_images=10)
    if strategy == "wsr":  # and several paths, whose weights every training step changes in another place
        config = replace(config, adv_loss="fast", path_every="step", paths_per_iteration=2, population=2, anchors=1)
    # Noise without black margins: areas of one colour have zero gradients and ties, which rounding would decide.
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (24, 3, 8, 8), dtype=torch.uint8, generator=draw)
    images = ImageSet(pixels.contiguous(memory_format=torch.channels_last), torch.arange(24) % 10)
    data = DataSet("noise", images, images, tuple("0123456789"), Augmentation())
    found = scale_out_work.search(config, data, world, double=True)
    return {key: found[key] for key in ("choices", "losses")}


@functools.cache
def four_steps_alone(case):
    """The same of one process."""
    return four_steps(case, World())


def fingerprint(state):
    """Every tensor of nested containers as numbers that any difference changes."""
    if isinstance(state, dict):
        return {str(key): fingerprint(value) for key, value in state.items()}
    if isinstance(state, list | tuple):
        return [fingerprint(value) for value in state]
    if isinstance(state, torch.Tensor):
        values = state.detach().double().flatten()
        return [values.sum().item(), (values * torch.arange(1, len(values) + 1)).sum().item()]
    return state


def main(folder):
    """One of the processes: writes what it saw to ``rank<n>.json``."""
    with small_digits(), pages_without_sections():
        write_everything(folder)


def write_everything(folder):
    world = initialize("cpu")
    torch.manual_seed(world.rank)  # the processes may agree on nothing by chance
    seen = {"world": [world.rank, world.size], "collectives": collectives(world)}
    owners = []
    search.wsr_nas.Searcher = lambda *a: owners.append(Searcher(*a)) or owners[-1]
    for strategy in SUPERNET_STRATEGIES:
        search.wsr_nas.main([*SEARCH, "--strategy", strategy, "--save", strategy, "--runs", str(folder)])
        seen[strategy] = fingerprint(owners[-1].state_dict())

    models, build = [], make_network
    retrain.small_images.make_network = lambda *a: models.append(build(*a)) or models[-1]
    retrain.train_cifar.main([*RETRAIN, "--runs", str(folder)])
    seen["retrain"] = fingerprint(models[0].state_dict())
    barrier(world)
    seen["evaluation"] = evaluate(folder / "retrain" / "run" / "checkpoint.pt", world)
    try:
        retrain.train_cifar.main([*RETRAIN, "--runs", str(folder), "--batch_size", "13"])
    except InputError as error:
        seen["odd batch"] = str(error)
    seen["exact search"] = {strategy: exact_search(strategy, world) for strategy in SUPERNET_STRATEGIES}
    seen["four steps"] = {case: four_steps(case, world) for case in LOSSES}
    (folder / f"rank{world.rank}.json").write_text(json.dumps(seen))
    shutdown()


@pytest.fixture(scope="module")
def launched(tmp_path_factory):
    """The folder and what both processes saw."""
    folder = tmp_path_factory.mktemp("launched")
    run_twice(main, folder)
    return folder, [json.loads((folder / f"rank{rank}.json").read_text()) for rank in range(2)]


@pytest.mark.slow
def test_collectives_sum_average_and_copy(launched):
    for rank, seen in enumerate(launched[1]):
        assert seen["world"] == [rank, 2]
        result = seen["collectives"]
        assert result["weight"] == [[1.5, 3.0], [4.5, 6.0]] and result["bias"] == [4.0, -4.0]
        assert result["none"] == [None, None]  # no gradient stays no gradient
        assert result["sum"] == [2.0, 1.0]
        assert result["mean"] == result["var"] == [15.0, 15.0]
        assert result["kept"] == [10.0 * (rank + 1)] * 4  # buffers alone are averaged
        assert result["sent"] == [[10] * 4, [10] * 2, [10] * 2, [10] * 2, [10] * 2, [10] * 2, [10]]
        assert result["copied"] == [0.0, 0.0]


@pytest.mark.slow
@pytest.mark.parametrize("strategy", SUPERNET_STRATEGIES)
def test_a_search_leaves_all_processes_with_the_same_state(strategy, launched):
    folder, (first, second) = launched
    assert first[strategy] == second[strategy]
    run = folder / "search" / strategy
    stored = torch.load(run / "checkpoint.pt", weights_only=True)
    assert json.loads(json.dumps(fingerprint(stored["searcher"]))) == first[strategy]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2] and [row["train"]["images"] for row in rows] == [20] * 3
    assert (run / "FINISHED").exists() and (run / "genotype.json").exists()
    assert json.loads((run / "env.json").read_text())[0]["processes"] == 2


@pytest.mark.slow
def test_a_retraining_leaves_all_processes_with_the_same_weights(launched):
    folder, (first, second) = launched
    assert first["retrain"] == second["retrain"]
    run = folder / "retrain" / "run"
    stored = torch.load(run / "checkpoint.pt", weights_only=True)["model"]
    assert json.loads(json.dumps(fingerprint(stored))) == first["retrain"]
    rows = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows] == [0, 1] and [row["train"]["images"] for row in rows] == [36] * 2
    assert "batch 12 = 2 x 6" in (run / "log.txt").read_text()


@pytest.mark.slow
def test_evaluation_by_two_processes_equals_that_by_one(launched, world):
    folder, seen = launched
    alone = json.loads(json.dumps(evaluate(folder / "retrain" / "run" / "checkpoint.pt", world)))
    assert seen[0]["evaluation"] == seen[1]["evaluation"] == alone
    assert alone["images"] == 51


@pytest.mark.slow
def test_a_batch_that_cannot_be_shared_out_is_refused_by_all(launched):
    for seen in launched[1]:
        assert seen["odd batch"] == ("batch_size is 13, for all processes together; expected a multiple of 2 "
                                     "(2 processes)")


def test_one_process_needs_no_collective():
    world = initialize("cpu")
    assert world == World(0, 1, torch.device("cpu")) and world.is_main
    network = layer(0)
    before = {name: value.clone() for name, value in network.state_dict().items()}
    broadcast_model(network, world)
    average_buffers(network, world)
    average_gradients(network.parameters(), world)
    barrier(world)
    shutdown()
    assert all(torch.equal(before[name], value) for name, value in network.state_dict().items())
    assert not World(1, 2).is_main


def test_more_processes_than_gpus_are_refused(monkeypatch):
    monkeypatch.setenv("LOCAL_RANK", "2")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    with pytest.raises(InputError, match="process 2 of this machine has no GPU: 2 visible"):
        initialize()


def test_tasks_of_srun_without_torchrun_are_refused(monkeypatch):
    monkeypatch.delenv("RANK", raising=False)
    monkeypatch.setenv("SLURM_PROCID", "3")
    with pytest.raises(InputError, match="started by srun as task 3 without torchrun"):
        initialize("cpu")


@pytest.mark.slow
@pytest.mark.parametrize("case", LOSSES)
def test_two_processes_train_as_one_does(case, launched):
    """With synchronised BatchNorm, the number of processes changes nothing but rounding."""
    alone = four_steps_alone(case)
    for rank in range(2):
        shared = launched[1][rank]["four steps"][case]
        assert shared.keys() == alone.keys()
        for key, value in alone.items():
            assert shared[key] == pytest.approx(value, rel=1e-9, abs=1e-11), key


@pytest.mark.slow
@pytest.mark.parametrize("strategy", SUPERNET_STRATEGIES)
def test_two_processes_search_as_one_does(strategy, launched):
    """With synchronised BatchNorm, the number of processes changes nothing but rounding."""
    alone = exact_search(strategy, World())
    assert len(alone["losses"]) == 2 and alone["losses"][0] != alone["losses"][1]
    for rank in range(2):
        shared = launched[1][rank]["exact search"][strategy]
        assert shared["choices"] == alone["choices"]
        for found, expected in zip(shared["losses"], alone["losses"], strict=True):
            assert found == pytest.approx(expected, rel=1e-6)


@pytest.mark.slow
def test_four_steps_change_the_weights():
    config = replace(RECIPES["tiny"], init_channels=2, layers=2)
    before = make_network(config, genotypes.load("WsrNet_Basic"), 10, (3, 32, 32), World()).state_dict()
    after = four_steps_alone("pgd")
    assert max(abs(a - b) for key in before if before[key].is_floating_point()
               for a, b in zip(after[key], before[key].flatten().tolist(), strict=True)) > 0.05
