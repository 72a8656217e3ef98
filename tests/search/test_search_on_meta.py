"""The steps of a search on torch's device ``meta``: nothing is read or copied inside a loop."""

import dataclasses
from itertools import cycle

import pytest
import torch

from search.loss_estimator import ValidationLossEstimator, train_loss_estimator
from search.measurement import measure
from search.spaces import SPACES
from search.split import halves
from search.strategy.objective import RobustObjective, update_architecture
from search.supernet_training import build_supernet, build_trainer
from search.unrolled import unrolled_gradient
from search.wsr_nas_searcher import Searcher
from search.wsr_nas_settings import PRESETS, schedule
from tests.operators import META, Operators, on_meta
from tests.quick import slow_after
from wsrnas.data.datasets import load_dataset
from wsrnas.evaluation.vulnerability import DISTANCES, network_vulnerability
from wsrnas.runtime.distributed import World

BATCH = 4
WAITS = "cannot be called on meta tensors|out of meta tensor"
CONFIG = dataclasses.replace(PRESETS["tiny"], num_steps=2, layers=3)


@pytest.fixture(autouse=True)
def meta(monkeypatch):
    on_meta(monkeypatch)


@pytest.fixture
def batch():
    with META:
        return torch.rand(BATCH, 3, 32, 32).contiguous(memory_format=torch.channels_last), torch.zeros(BATCH).long()


def supernet(space, config=CONFIG):
    network = build_supernet(dataclasses.replace(config, space=space), 10).to(META, memory_format=torch.channels_last)
    choices = SPACES[space].sample(1, torch.Generator().manual_seed(0))
    network.use(SPACES[space].gates(choices)[0].view(SPACES[space].shape))
    return network


@pytest.mark.parametrize("space, loss", list(zip(SPACES, cycle(["pgd", "trades"]), strict=False)))
def test_a_path_is_trained_without_being_read(space, loss, batch):
    config = dataclasses.replace(CONFIG, adv_loss=loss)
    trainer = build_trainer(config, supernet(space), World(device=META))
    with Operators():
        trainer.step(*batch)
    assert trainer.steps == 1


@pytest.mark.parametrize("bound", ["inf", "1"])
@pytest.mark.parametrize("space", SPACES)
def test_losses_on_the_validation_set_are_added_up_on_the_device(space, bound, batch):
    config = dataclasses.replace(CONFIG, strategy="wsr-paper", output="argmax", vulnerability_bound=bound)
    images, labels = batch
    network = supernet(space)
    with Operators():
        sums = measure(network, [images, images], labels, config)
    assert sums.shape == (2 + config.measures_vulnerability, 2) and sums.is_meta


@pytest.mark.parametrize("distance", DISTANCES)
def test_the_gradient_of_the_vulnerability_reads_nothing(distance, batch):
    network, clean, attacked = supernet("nas-bench-201"), [], []
    images = batch[0].requires_grad_(True)
    with Operators():
        network(batch[0].detach(), clean)
        network(images, attacked)
        gradient, = torch.autograd.grad(network_vulnerability(clean, attacked, distance), images)
    assert gradient.shape == images.shape


@pytest.mark.parametrize("preset", slow_after(1, ["tiny", "wide"]))
def test_a_validation_reads_its_losses_once_at_the_end(preset, quick_data):
    config = dataclasses.replace(
        PRESETS["tiny"], space="nas-bench-201", num_steps=2, layers=3, batch_size=8, eval_batch_size=10,
        max_validation=20, **{name: getattr(PRESETS[preset], name) for name in (
            "num_pgd_strengths", "num_estimated_strengths", "strengths", "strength_weights", "attacked_strengths",
            "estimator")})
    data = load_dataset("digits", max_train=80)
    searcher = Searcher(config, data, halves(data, 0), World())
    step = schedule(config)[-1]
    searcher.sample(step)
    searcher.world = World(device=META)
    path = searcher.supernet.current_path
    searcher.supernet.to(META).use(path.gates)
    searcher.estimator.to(META)
    searcher.source_epsilons, searcher.target_epsilons = searcher.source_epsilons.to(META), searcher.target_epsilons.to(
        META)
    loader = searcher.validation_loader
    loader.image_set = loader.image_set.to(META)
    calls = []
    searcher.supernet.stem.register_forward_hook(lambda *arguments: calls.append(1))
    with pytest.raises(RuntimeError, match=WAITS):
        searcher.validate(step)
    asked = searcher.estimator.gradients(config.num_estimated_strengths)
    assert len(calls) >= len(loader) * (config.num_steps + asked + 1 + len(config.strengths))


def test_the_loss_estimator_is_trained_without_being_read_before_the_end():
    with META:
        estimator = ValidationLossEstimator(num_losses=3)
        gates, losses = torch.rand(10, 28, 8), torch.rand(10, 3)
    optimizer, steps = torch.optim.Adam(estimator.parameters()), []
    optimizer.register_step_post_hook(lambda *arguments: steps.append(1))
    with pytest.raises(RuntimeError, match=WAITS):
        train_loss_estimator(estimator, optimizer, gates, losses, 2, torch.Generator(), batch_size=5)
    assert len(steps) == 4


def test_a_step_of_the_architecture_reads_its_prediction_after_the_step():
    network = supernet("darts")
    with META:
        estimator = ValidationLossEstimator(num_losses=3).requires_grad_(False)
    optimizer, steps = torch.optim.Adam(network.architecture_parameters()), []
    optimizer.register_step_post_hook(lambda *arguments: steps.append(1))
    with pytest.raises(RuntimeError, match=WAITS):
        update_architecture(network, estimator, optimizer, RobustObjective(0.8, 0.2, (0.5, 0.5)), 4, torch.Generator())
    assert steps == [1]


@pytest.mark.slow
def test_the_second_order_gradient_of_the_architecture_reads_nothing(batch):
    images, labels = batch
    network = supernet("nas-bench-201")
    weights = network.weight_parameters()
    shape = SPACES["nas-bench-201"].shape

    def loss(alphas):
        network.mix(alphas.softmax(-1))
        return torch.nn.functional.cross_entropy(network(images), labels)

    with Operators():
        gradient = unrolled_gradient(loss, loss, torch.zeros(shape, device=META), weights, [None] * len(weights), 0.1)
    assert gradient.shape == shape and gradient.is_meta
