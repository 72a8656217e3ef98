"""The state of a training: stored and restored bit for bit; parameters off the path; whole epochs."""

import copy
import io
import itertools
import re

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

import wsrnas.runtime.progress
import wsrnas.training.trainer
from search.spaces.supernet import EdgeOperations
from search.supernet import Supernet
from tests.library.training_cases import (
    SETTINGS,
    SHAPE,
    WORLD,
    batch,
    cells,
    float_batch,
    network,
    trainer_of,
    weights,
)
from tests.quick import slow_after
from tests.run_files import assert_equal
from wsrnas.data.image_set import Augmentation, ImageSet
from wsrnas.data.loader import BatchLoader
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError
from wsrnas.training.epoch import Epoch, live_metrics, train_epoch
from wsrnas.training.losses import LOSSES, LossSettings, TrainingLoss
from wsrnas.training.schedules import Schedule
from wsrnas.training.trainer import Refinements, Trainer

# -- state -----------------------------------------------------------------------------------------------------------

def refined(model: nn.Module, bfloat16: bool = False) -> Trainer:
    """With everything that a state could forget."""
    settings = LossSettings(0.05, 2, random_start=True)
    return trainer_of(model, "pgd", settings, 3, Schedule("cosine", 0.1, 6, 3), grad_clip=0.5, accumulation=2,
                      bfloat16=bfloat16, awp_gamma=0.01, awp_from=2, ema_decay=0.9, drop_path=0.4, clean_accuracy=True)


def through_a_file(state: dict) -> dict:
    file = io.BytesIO()
    torch.save(state, file)
    file.seek(0)
    return torch.load(file, weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("bfloat16", [False, True])
def test_interrupted_steps_equal_uninterrupted_ones_bit_for_bit(bfloat16):
    whole = refined(cells(), bfloat16)
    expected = [whole.step(*float_batch(seed=step)) for step in range(6)]
    trainer, metrics = refined(cells(), bfloat16), []
    for step in range(3):
        metrics.append(trainer.step(*float_batch(seed=step)))
    state = through_a_file(trainer.state_dict())
    trainer = refined(cells(seed=7), bfloat16)  # all that it starts with is another's
    trainer.step(*float_batch(seed=9))
    trainer.load_state_dict(state)
    assert trainer.steps == 3
    torch.manual_seed(99)
    for step in range(3, 6):
        metrics.append(trainer.step(*float_batch(seed=step)))
    assert_equal(metrics, expected)
    assert_equal(trainer.state_dict(), whole.state_dict())
    assert_equal(dict(trainer.evaluated.state_dict()), dict(whole.evaluated.state_dict()))
    assert not torch.equal(trainer.evaluated.classifier.weight, trainer.network.classifier.weight)


@pytest.mark.slow
def test_a_state_holds_the_buffers_of_the_average_too():
    trainer = refined(cells())
    for step in range(2):
        trainer.step(*float_batch(seed=step))
    state = trainer.state_dict()
    floating = [b for model in (trainer.network, trainer.evaluated) for b in model.buffers() if b.is_floating_point()]
    assert state["steps"] == 2 and state["buffers"].shape == (1, sum(b.numel() for b in floating))
    assert torch.equal(state["buffers"][0], torch.cat([b.flatten() for b in floating]))


@pytest.mark.parametrize("mine, other", [(0.0, 0.9), (0.9, 0.0)])
def test_a_state_with_another_moving_average_is_refused(mine, other):
    state = trainer_of(network(), ema_decay=other).state_dict()
    model = network(seed=1)
    before = weights(model)
    with pytest.raises(ValueError, match="ema_decay"):
        trainer_of(model, ema_decay=mine).load_state_dict(state)
    assert_equal(weights(model), before)


def test_the_state_of_another_training_is_refused():
    trainer = trainer_of(network())
    with pytest.raises(RuntimeError, match="size mismatch"):
        trainer.load_state_dict(trainer_of(network(classes=5)).state_dict())
    with pytest.raises(RuntimeError, match="Unexpected key"):
        trainer.load_state_dict(trainer_of(network().append(nn.Linear(4, 4).double())).state_dict())
    state, shorter = trainer.state_dict(), network()
    groups = torch.optim.SGD(shorter[0].parameters(), 0.1)
    with pytest.raises(ValueError, match="group"):
        Trainer(shorter, LOSSES["pgd"], SETTINGS, groups, WORLD).load_state_dict(state)
    with pytest.raises(RuntimeError):
        trainer.load_state_dict(state | {"buffers": state["buffers"][:, 1:]})
    for key in state:
        with pytest.raises(KeyError, match=key):
            trainer.load_state_dict({name: value for name, value in state.items() if name != key})


# -- some parameters off the path ------------------------------------------------------------------------------------

def on_path(name: str, operations: tuple[EdgeOperations, ...], supernet: Supernet) -> bool:
    """Whether a parameter takes part when these operations are chosen: all but the other operations of the edges."""
    parts = name.split(".")
    if "edges" not in parts:
        return True
    cell, edge, operation = int(parts[1]), int(parts[3]), int(parts[4])
    return operation in operations[supernet.cells[cell].kind][edge]


@pytest.mark.parametrize("loss", slow_after(1, ["pgd", "trades"]))
def test_unsampled_operations_stay_bit_for_bit_despite_momentum_and_weight_decay(loss):
    torch.manual_seed(0)
    supernet = Supernet(4, 3, 4)
    optimizer = torch.optim.SGD(supernet.weight_parameters(), 0.1, momentum=0.9, weight_decay=0.1)
    trainer = Trainer(supernet, LOSSES[loss], LossSettings(0.05, 1, batch_statistics=True), optimizer, WORLD,
                      refinements=Refinements(grad_clip=5.0), single_path=True)
    draw = torch.Generator().manual_seed(0)
    for epoch in range(2):  # in the second one, operations of the first path have momentum
        operations = torch.randint(1, 8, (2, 14), generator=draw)
        path = supernet.use(F.one_hot(operations, 8).float())
        before = {name: value.detach().clone() for name, value in supernet.named_parameters()}
        train_epoch(trainer, Batches([float_batch()] * 2), epoch)
        changed = {name for name, value in supernet.named_parameters() if not torch.equal(value, before[name])}
        trained = {name for name, _ in supernet.named_parameters() if on_path(name, path.operations, supernet)}
        assert changed <= trained - {"alphas_normal", "alphas_reduce"}
        missed = trained - changed - {"alphas_normal", "alphas_reduce"}
        assert not missed, f"epoch {epoch}: on the path and never trained: {missed}"


@pytest.mark.parametrize("single_path", [False, True])
def test_gradients_of_a_path_are_exchanged_once_a_step_before_clipping(single_path, monkeypatch):
    seen = []

    def exchange(parameters, world):
        seen.append(torch.cat([p.grad.flatten() for p in parameters if p.grad is not None]).norm().item())

    monkeypatch.setattr(wsrnas.training.trainer, "average_gradients", exchange)
    model = network()
    trainer = Trainer(model, LOSSES["pgd"], SETTINGS, torch.optim.SGD(model.parameters(), 0.1), WORLD,
                      refinements=Refinements(grad_clip=1e-3, accumulation=2), single_path=single_path)
    trainer.step(*batch())
    assert len(seen) == single_path and all(norm > 0.01 for norm in seen)


def test_a_path_needs_no_distributed_wrapper():
    trainer = Trainer(model := network(), LOSSES["pgd"], SETTINGS, torch.optim.SGD(model.parameters(), 0.1),
                      World(0, 2), single_path=True)
    assert trainer.forward is model and trainer.parallel is None


# -- epochs ----------------------------------------------------------------------------------------------------------

class Batches:
    """These batches in every epoch; remembers what was asked for."""

    def __init__(self, batches: list[tuple[Tensor, Tensor]]) -> None:
        self.list, self.asked = batches, []

    def __len__(self) -> int:
        return len(self.list)

    def batches(self, epoch: int = 0, start: int = 0):
        self.asked.append((epoch, start))
        yield from self.list[start:]


def scripted(losses: list[float], right: list[int] | None = None) -> Trainer:
    """A trainer whose loss returns these values one after the other."""
    model = nn.Linear(1, 1)
    script = iter(zip(losses, right or [0] * len(losses), strict=True))

    def objective(network, images, adversarial, labels, settings):
        value, count = next(script)
        counts = {"adversarial_accuracy": (torch.tensor(count), len(labels)),
                  "clean_accuracy": (torch.tensor(count + 1), 2 * len(labels))}
        return 0 * network.weight.sum() + value, counts

    return Trainer(model, TrainingLoss(LOSSES["standard"].attack, objective), SETTINGS,
                   torch.optim.SGD(model.parameters(), 0.1), WORLD)


def empty(*sizes: int) -> Batches:
    return Batches([(torch.zeros(size, 1), torch.zeros(size)) for size in sizes])


def digits(count: int = 26) -> BatchLoader:
    """Six augmented, shuffled batches of four."""
    draws = torch.Generator().manual_seed(0)
    images = torch.randint(256, (count, *SHAPE), generator=draws, dtype=torch.uint8)
    return BatchLoader(ImageSet(images, torch.arange(count) % 4), 4, 0, "training", shuffle=True,
                       augment=Augmentation(2, True), drop_last=True)


def without_time(summary: dict[str, float]) -> dict[str, float]:
    return {name: value for name, value in summary.items() if name not in ("seconds", "images_per_second")}


def test_the_epoch_reports_means_over_images_not_over_batches():
    result = train_epoch(scripted([1.0, 3.0], [2, 0]), empty(3, 1), 0)
    assert result["loss"] == pytest.approx((3 * 1 + 1 * 3) / 4)
    assert result["adversarial_accuracy"] == pytest.approx((2 + 0) / 4)
    assert result["clean_accuracy"] == pytest.approx((3 + 1) / 8)  # each metric by its own number of samples
    assert result["images"] == 4
    assert result["seconds"] > 0 and result["images_per_second"] == pytest.approx(4 / result["seconds"])
    assert set(result) == {"loss", "adversarial_accuracy", "clean_accuracy", "images", "seconds", "images_per_second"}


def test_sums_are_in_double_precision():
    """Of float32 losses: 1 disappears beside 2**24."""
    result = train_epoch(scripted([2.0**24, *[1.0] * 8]), empty(*[1] * 9), 0)
    assert result["loss"] * 9 == 2**24 + 8


def test_the_epoch_trains_on_the_batches_of_its_number():
    model, loader = network(), digits()
    twin = copy.deepcopy(model).float()
    trainer = trainer_of(model.float())
    result = train_epoch(trainer, loader, 3)
    reference = trainer_of(twin)
    for images, labels in loader.batches(3):
        reference.step(images, labels)
    assert_equal(dict(model.state_dict()), dict(twin.state_dict()))
    assert trainer.steps == 6 and result["images"] == 24
    asked = Batches([float_batch()] * 3)
    train_epoch(trainer, asked, 5, epoch=Epoch(batches=2))
    assert asked.asked == [(5, 2)] and trainer.steps == 7


class Stopped(Exception):
    pass


@pytest.mark.parametrize("loss", ["pgd", "trades"])
@pytest.mark.parametrize("stops", slow_after(2, [[1], [2, 5], [6], [1, 2, 3, 4, 5, 6]]))
def test_an_interrupted_epoch_goes_on_as_if_nothing_had_been(loss, stops):
    loader, torch_seeds = digits(), itertools.count()
    whole = trainer_of(network().float(), loss, clean_accuracy=True)
    expected = train_epoch(whole, loader, 1)
    assert 0 < expected["adversarial_accuracy"] < 1

    def start(epoch: Epoch | None, state: dict | None, stop: int | None) -> tuple[dict, dict] | dict[str, float]:
        torch.manual_seed(next(torch_seeds))
        trainer = trainer_of(network(seed=0 if state is None else 5).float(), loss, clean_accuracy=True)
        if state is not None:
            trainer.load_state_dict(state)
        saved = []

        def after_step(epoch: Epoch) -> None:
            if epoch.batches == stop:
                saved.append(through_a_file({"trainer": trainer.state_dict(), "epoch": epoch.state_dict(WORLD)}))
                raise Stopped

        if stop is None:
            return train_epoch(trainer, loader, 1, epoch=epoch, after_step=after_step), trainer.state_dict()
        with pytest.raises(Stopped):
            train_epoch(trainer, loader, 1, epoch=epoch, after_step=after_step)
        return saved[0]["epoch"], saved[0]["trainer"]

    epoch, state, seconds = None, None, 0.0
    for stop in stops:
        record, state = start(epoch, state, stop)
        assert record["batches"] == stop and record["seconds"] > seconds
        seconds = record["seconds"]
        epoch = Epoch.load(record, WORLD)
    result, state = start(epoch, state, None)
    assert without_time(result) == without_time(expected)
    assert result["seconds"] > seconds
    assert_equal(state, whole.state_dict())


def test_the_state_of_an_epoch_is_plain_numbers():
    epoch = Epoch(seconds=2.5)
    assert epoch.state_dict(WORLD) == {"batches": 0, "seconds": 2.5, "sums": {}}
    epoch.add({"loss": (torch.tensor(6.0), 3), "clean_accuracy": (torch.tensor(2), 4)})
    epoch.add({"loss": (torch.tensor(1.0), 1), "clean_accuracy": (torch.tensor(1), 1)})
    state = epoch.state_dict(WORLD)
    assert_equal(state, {"batches": 2, "seconds": 2.5, "sums": {"clean_accuracy": [3.0, 5], "loss": [7.0, 4]}})
    assert_equal(Epoch.load(state, WORLD).state_dict(WORLD), state)


def test_the_main_process_takes_what_all_have_summed_up():
    state = {"batches": 2, "seconds": 2.5, "sums": {"loss": [7.0, 4]}}
    sums = [Epoch.load(state, World(rank, 2)).sums for rank in range(2)]
    assert sums[0]["loss"] == (7, 4) and sums[1].get("loss", (0, 0)) == (0, 0)


def test_an_epoch_that_was_stopped_after_its_last_step_can_be_summed_up_by_every_process(monkeypatch):
    calls = []
    monkeypatch.setattr(wsrnas.training.epoch, "all_sum", lambda values, world: calls.append(values.shape) or values)
    state = {"batches": 2, "seconds": 2.5, "sums": {"loss": [7.0, 4]}}
    for rank in range(2):
        Epoch.load(state, World(rank, 2)).state_dict(World(rank, 2))
    assert len(calls) == 2 and calls[0] == calls[1]


@pytest.mark.parametrize("report_freq", [1, 2, 50])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), float("-inf")])
def test_divergence_is_refused_and_its_first_step_named(report_freq, value):
    losses = [1.0, value, 1.0, float("nan"), 1.0]
    with pytest.raises(InputError, match=f"^warm-up 3: the training loss is {value} at step 2$"):
        train_epoch(scripted(losses), empty(*[3] * 5), 0, label="warm-up 3", report_freq=report_freq)


def test_divergence_is_noticed_before_it_is_saved():
    """A program asks before it saves; the state of the epoch does not hide it."""
    saved, epoch = [], Epoch()

    def save(epoch: Epoch) -> None:
        epoch.refuse_divergence("epoch 1", WORLD)
        saved.append(epoch.batches)

    with pytest.raises(InputError, match="epoch 1: the training loss is nan at step 3"):
        train_epoch(scripted([1.0, 1.0, float("nan"), 1.0]), empty(*[3] * 4), 0, epoch=epoch, after_step=save)
    assert saved == [1, 2]
    Epoch().refuse_divergence("epoch 1", WORLD)  # nothing done, nothing wrong


def test_the_step_of_a_divergence_counts_from_the_beginning_of_the_epoch():
    with pytest.raises(InputError, match="the training loss is inf at step 4"):
        train_epoch(scripted([1.0, float("inf")]), empty(*[3] * 4), 0, epoch=Epoch(batches=2))


def test_a_network_that_explodes_is_refused():
    with pytest.raises(InputError, match=r"the training loss is (nan|inf)"):
        train_epoch(trainer_of(network(), rates={"lr": 1e308, "momentum": 0.9}), Batches([batch()] * 2), 0)


def test_an_epoch_of_no_batches_is_refused():
    with pytest.raises(InputError, match="search 2: train: no batches"):
        train_epoch(trainer_of(network()), Batches([]), 0, label="search 2: train")


def test_something_is_called_after_every_step():
    seen = []
    trainer = scripted([1.0, 2.0, 4.0])

    def after_step(epoch: Epoch) -> None:
        seen.append((epoch.batches, trainer.steps, epoch.sums["loss"][0].item()))

    train_epoch(trainer, empty(1, 1, 1), 0, after_step=after_step)
    assert seen == [(1, 1, 1.0), (2, 2, 3.0), (3, 3, 7.0)]


def test_a_long_epoch_writes_lines_into_the_log(monkeypatch):
    def lines(seconds: float, report_freq: int) -> list[str]:
        monkeypatch.setattr(wsrnas.runtime.progress, "SECONDS_BETWEEN_LINES", seconds)
        said: list[str] = []
        train_epoch(scripted([1.0, 2.0, 3.0, 4.0, 5.0], [2, 2, 2, 2, 2]), empty(*[4] * 5), 0, label="epoch 1/9",
                    report_freq=report_freq, log=said.append)
        return said

    assert [re.sub(r"img/s [1-9]\d*", "img/s N", line) for line in lines(0, 2)] == [
        "epoch 1/9: 1 of 5, 0 min left",
        *[f"epoch 1/9: {done} of 5, 0 min left, loss 1.500, clean 37.5%, robust 50.0%, img/s N" for done in (2, 3)],
        "epoch 1/9: 4 of 5, 0 min left, loss 2.500, clean 37.5%, robust 50.0%, img/s N"]
    assert lines(1e9, 1) == []


def test_live_metrics_are_words_and_means():
    epoch = Epoch()
    epoch.add({"loss": (torch.tensor(6.0), 3), "adversarial_accuracy": (torch.tensor(1), 3)})
    assert live_metrics(epoch) == {"loss": "2.000", "robust": "33.3%"}
    epoch.add({"loss": (torch.tensor(1.0), 1), "adversarial_accuracy": (torch.tensor(1), 1),
               "clean_accuracy": (torch.tensor(7), 8)})
    assert live_metrics(epoch) == {"loss": "1.750", "clean": "87.5%", "robust": "50.0%"}
    epoch = Epoch()
    epoch.add({"loss": (torch.tensor(6.0), 3), "clean_accuracy": (torch.tensor(3), 3)})
    assert live_metrics(epoch) == {"loss": "2.000", "clean": "100.0%"}
