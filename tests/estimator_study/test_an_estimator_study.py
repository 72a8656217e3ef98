"""Noises, training and measurement of the AN-Estimator study against direct computations on toy networks."""

import json
import math
import weakref
from dataclasses import replace
from itertools import pairwise
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from test_AN_estimator import benchmark, measurement, noises, training
from test_AN_estimator.measurement import cost, estimate, measure
from test_AN_estimator.networks import NetworkSpec
from test_AN_estimator.noises import (
    Noises,
    attack_test_images,
    attack_training_images,
    is_right,
    noise_tasks,
    read,
    training_file,
    write,
)
from test_AN_estimator.settings import PRESETS, BenchmarkConfig
from test_AN_estimator.training import initial_estimator, optimizer_steps, trained_estimator
from wsrnas.attacks import pgd
from wsrnas.data.image_set import Augmentation, DataSet, ImageSet
from wsrnas.data.loader import BatchLoader
from wsrnas.estimators import build_estimator
from wsrnas.estimators.base import project
from wsrnas.estimators.training import hide_each, leave_one_out, schedule_factor
from wsrnas.runtime import checkpoint
from wsrnas.runtime.distributed import World
from wsrnas.runtime.errors import InputError, Preempted
from wsrnas.runtime.run_directory import RunDirectory

CONFIG = replace(PRESETS["tiny"], device="cpu", num_steps=2, sources=(0.06, 0.18), single_source=0.12,
                 spectrum=(0.03, 0.06, 0.15, 0.25), leave_one_out_max_epsilon=0.2, spectrum_max_epsilon=0.3,
                 max_estimator_train=30, batch_size=4, rotation=2, eval_batch_size=4, estimator_batch_size=5)
FIXED, TESTED = (0.06, 0.12, 0.18), (0.03, 0.06, 0.12, 0.15, 0.18, 0.25)
SETTINGS = {setting.name: setting for setting in CONFIG.settings()}
EACH_SETTING = pytest.mark.parametrize("setting", SETTINGS.values(), ids=list(SETTINGS))
SPECS = [NetworkSpec(f"{number}-toy", "toy") for number in (1, 2, 3)]
CPU = torch.device("cpu")


def toy(number: int) -> nn.Module:
    torch.manual_seed(number)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Tanh(), nn.Flatten(), nn.Linear(144, 10))
    nn.init.constant_(model[1].weight, 3.0)  # not every attack succeeds
    model(torch.rand(16, 3, 8, 8) ** 3)  # running statistics that differ from a batch's
    return model.eval()


MODELS = {spec.name: toy(number) for number, spec in enumerate(SPECS)}


def image_set(count: int, seed: int) -> ImageSet:
    """Random pixels; what is in an image, the toy networks say in turn."""
    images = torch.randint(256, (count, 3, 8, 8), generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)
    classes = torch.stack([model(images.float() / 255).argmax(1) for model in MODELS.values()], 1)
    number = torch.arange(count)
    return ImageSet(images.contiguous(memory_format=torch.channels_last), classes[number, number % len(MODELS)])


DATA = DataSet("toy", image_set(40, 0), image_set(10, 1), tuple("0123456789"), Augmentation(1, horizontal_flip=True))


def attacked(model: nn.Module, images: Tensor, labels: Tensor, epsilons: Tensor) -> Tensor:
    """Noise of PGD with CONFIG's two steps, one strength (B,) an image, as a person would write it."""
    radius, noise = epsilons.view(-1, 1, 1, 1), torch.zeros_like(images)
    for _ in range(2):
        leaf = (images + noise).requires_grad_(True)
        F.cross_entropy(model(leaf), labels, reduction="sum").backward()
        noise = (noise + 2.5 / 2 * radius * leaf.grad.sign()).clamp(-radius, radius)
        noise = (images + noise).clamp(0, 1) - images
    return noise


def same_noise(stored: Tensor, direct: Tensor) -> bool:
    """Equal but for half precision, and for a gradient or two that are zero but for rounding."""
    return ((stored - direct).abs() > 2e-4).double().mean().item() < 1e-3


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """All files of noises, made by the toy networks."""
    folder = tmp_path_factory.mktemp("noises")
    with pytest.MonkeyPatch.context() as context:
        context.setattr(noises, "load_network", lambda spec, *_: MODELS[spec.name])
        for task in noise_tasks(CONFIG, SPECS, DATA, folder / "networks", folder, World()):
            assert not task.done()
            task.work(lambda: False)
            assert task.done()
    return folder


# -- settings -------------------------------------------------------------------------------------------------------

def test_the_questions_of_the_study():
    """The paper's, a search's with all sources, a search's with one; unseen strengths are those not attacked."""
    assert CONFIG.fixed_strengths == FIXED and CONFIG.tested_strengths == TESTED
    assert [(s.name, s.sources, s.targets, s.drawn) for s in SETTINGS.values()] == [
        ("leave-one-out", (0.06, 0.18), (), 3), ("spectrum-2", (0.06, 0.18), (0.03, 0.15, 0.25), 4),
        ("spectrum-1", (0.12,), CONFIG.spectrum, 4)]
    inside = replace(CONFIG, single_source=0.06).settings()
    assert (inside[0].drawn, inside[1].targets, inside[2].targets) == (2, (0.03, 0.15, 0.25), (0.03, 0.15, 0.25))


@pytest.mark.parametrize(("change", "words"), [
    ({"sources": (0.1,)}, "expected at least two"), ({"sources": (0.2, 0.1)}, "sources must increase"),
    ({"sources": (0.1, 0.1)}, "sources contains 0.1 twice"), ({"sources": (0.0, 0.1)}, "strictly inside"),
    ({"spectrum": (0.1, 1.0)}, "strictly inside"), ({"spectrum": (0.06, 0.18)}, "other than the sources"),
    ({"spectrum": (0.12,)}, "other than the sources"), ({"estimators": ()}, "at least one"),
    ({"estimators": ("A-ANE", "A-ANE")}, "different names"),
    ({"networks": ()}, "networks is empty"), ({"rotation": 0}, "rotation is 0"), ({"epsilon": 8.0}, "epsilon is 8"),
])
def test_a_study_without_sense_is_refused(change, words):
    with pytest.raises(InputError, match=words) as caught:
        replace(CONFIG, **change)
    assert "\n" not in str(caught.value)


# -- noises ---------------------------------------------------------------------------------------------------------

def test_the_training_noise_is_the_attack_on_one_network_after_the_other(folder):
    assert {path.name for path in folder.glob("train-*")} == {f"train-{n:05d}.pt" for n in range(4)}
    loader = BatchLoader(DATA.train, 4, CONFIG.seed, "estimators", shuffle=True, augment=DATA.augmentation,
                         drop_last=True)
    batches = list(loader.batches())[:7]  # 30 images: seven whole batches; the last rotation has one
    for rotation in range(4):
        images, labels = map(torch.cat, zip(*batches[2 * rotation:2 * rotation + 2], strict=True))
        made = read(training_file(folder, rotation), CPU)
        assert torch.equal(made.images, images) and torch.equal(made.labels, labels)
        assert torch.equal(made.epsilons[:, :3], torch.tensor(FIXED).expand(len(images), -1))
        for column in range(5):
            agreeing = [spec.name for spec in SPECS if same_noise(made.noises[:, column], attacked(
                MODELS[spec.name], images, labels, made.epsilons[:, column]))]
            assert agreeing == [SPECS[rotation % 3].name]
        assert checkpoint.read(training_file(folder, rotation))["noises"].dtype == torch.float16
        assert len(made.clean_correct) == len(made.pgd_correct) == 0


def test_a_file_read_is_inside_ball_and_box(folder):
    for path in folder.glob("*.pt"):
        made = read(path, CPU)
        radius, images = made.epsilons[:, :, None, None, None], made.images.unsqueeze(1)
        assert (made.noises.abs() <= radius).all()
        assert (made.noises >= -images).all() and (made.noises <= 1 - images).all()
        assert made.noises.dtype == torch.float32 and (made.noises.abs() == radius).any()
        assert made.images.is_contiguous(memory_format=torch.channels_last)


def test_the_random_strengths_belong_to_seed_and_rotation(folder, monkeypatch):
    def drawn(rotation, model=MODELS["1-toy"], **changes):
        return attack_training_images(replace(CONFIG, num_steps=1, **changes), model, DATA, rotation,
                                      World())["epsilons"][:, 3:]

    every = torch.cat([read(training_file(folder, rotation), CPU).epsilons[:, 3:] for rotation in range(4)])
    largest = torch.tensor([0.2, 0.3])
    assert (every > 0).all() and (every <= largest).all() and (every.amax(0) > 0.8 * largest).all()
    assert len(every.unique()) == every.numel()  # none is drawn twice
    assert len((every / largest).unique()) == every.numel()  # nor are the columns the same, scaled
    assert torch.equal(drawn(1), every[8:16])
    assert torch.equal(drawn(1, MODELS["3-toy"], spectrum=(0.01, 0.25)), every[8:16])
    assert not torch.isin(drawn(1, seed=1), every).any()
    monkeypatch.setattr(torch, "rand", lambda *size, **_: torch.zeros(size))
    assert torch.equal(drawn(0), largest.expand(8, -1))  # never zero: rand() is in [0, 1)


def test_the_test_noise_of_every_network(folder):
    strengths = []
    for spec in SPECS:
        made = [read(noises.tested_file(folder, spec, chunk), CPU) for chunk in range(3)]
        images, labels = (torch.cat([getattr(part, name) for part in made]) for name in ("images", "labels"))
        assert torch.equal((images * 255).round().byte(), DATA.test.images) and torch.equal(labels, DATA.test.labels)
        for part in made:
            assert torch.equal(part.epsilons[:, :6], torch.tensor(TESTED).expand(len(part.labels), -1))
            for column, epsilons in enumerate(part.epsilons.unbind(1)):
                assert same_noise(part.noises[:, column], attacked(MODELS[spec.name], part.images, part.labels,
                                                                   epsilons))
        strengths.append(torch.cat([part.epsilons[:, 6] for part in made]))
    assert torch.equal(strengths[0], strengths[1]) and torch.equal(strengths[0], strengths[2])
    assert (strengths[0] > 0).all() and (strengths[0] <= 0.2).all() and len(strengths[0].unique()) == 10
    assert not list(folder.glob("test-*-0003.pt"))
    whole = attack_test_images(replace(CONFIG, eval_batch_size=10), MODELS["1-toy"], DATA, 0, World())
    assert torch.equal(whole["epsilons"][:, 6], strengths[0])  # whatever the size of the files


def test_right_and_wrong_are_those_of_the_noise_that_is_read(folder, monkeypatch, tmp_path):
    seen, shown = set(), []
    for spec in SPECS:
        for chunk in range(3):
            made = read(noises.tested_file(folder, spec, chunk), CPU)
            right = [MODELS[spec.name](made.images + noise).argmax(1) == made.labels
                     for noise in made.noises.unbind(1)]
            assert torch.equal(made.pgd_correct, torch.stack(right, 1))
            assert torch.equal(made.clean_correct, MODELS[spec.name](made.images).argmax(1) == made.labels)
            seen |= {*made.pgd_correct.flatten().tolist()}
    assert seen == {True, False}
    monkeypatch.setattr(noises, "is_right", lambda model, images, labels: (
        shown.append(images), is_right(model, images, labels))[1])
    write(tmp_path / "test.pt", attack_test_images(CONFIG, MODELS["1-toy"], DATA, 0, World()))
    made = read(tmp_path / "test.pt", CPU)
    for images, noise in zip(shown, [0 * made.noises[:, 0], *made.noises.unbind(1)], strict=True):
        assert torch.equal(images, made.images + noise)  # to the last bit


def test_attacks_leave_the_network_as_it_was_and_see_its_running_statistics():
    model, reference = toy(0).train(), toy(0)
    images = torch.rand(6, 3, 8, 8)
    expected = attack_test_images(CONFIG, reference, DATA, 0, World())
    stored = {name: value.clone() for name, value in model.state_dict().items()}
    found = attack_test_images(CONFIG, model, DATA, 0, World())
    assert all(torch.equal(value, found[name]) for name, value in expected.items())
    labels = reference(images).argmax(1)
    labels[::2] = (labels[::2] + 1) % 10
    assert is_right(model, images, labels).tolist() == [False, True] * 3
    attack_training_images(CONFIG, model, DATA, 0, World())
    assert model.training and all(torch.equal(value, stored[name]) for name, value in model.state_dict().items())


def test_one_network_is_in_memory_at_a_time(monkeypatch, tmp_path):
    loaded, alive = [], weakref.WeakSet()

    def load(spec, *_):
        assert not alive
        loaded.append(spec.name)
        model = nn.Identity()
        alive.add(model)
        return model

    monkeypatch.setattr(noises, "load_network", load)
    monkeypatch.setattr(noises, "write", lambda *_: None)
    for name in ("attack_test_images", "attack_training_images"):
        monkeypatch.setattr(noises, name, lambda *_: None)
    for task in noise_tasks(CONFIG, SPECS, DATA, tmp_path, tmp_path / "noises", World()):
        task.work(lambda: False)
    assert loaded == [spec.name for spec in SPECS]


@pytest.mark.parametrize(("limit", "batches"), [(0, 10), (30, 7), (28, 7), (1000, 10)])
def test_an_epoch_has_whole_batches(limit, batches):
    assert noises.training_batches(replace(CONFIG, max_estimator_train=limit), DATA) == batches
    assert noises.rotations(replace(CONFIG, max_estimator_train=limit), DATA) == math.ceil(batches / 2)


def test_an_epoch_without_a_whole_batch_is_refused():
    with pytest.raises(InputError, match="batch_size is 4, but the estimators' epoch has 3 images"):
        noises.training_batches(replace(CONFIG, max_estimator_train=3), DATA)


# -- tasks ----------------------------------------------------------------------------------------------------------

def test_each_noise_is_hidden_once():
    """Against loops over images and strengths."""
    stream = torch.Generator().manual_seed(0)
    images, epsilons = torch.rand(3, 3, 2, 2, generator=stream), torch.rand(3, 4, generator=stream)
    given = torch.rand(3, 4, 3, 2, 2, generator=stream)
    expected = []
    for image in range(3):
        ordered = sorted(range(4), key=lambda column: epsilons[image, column].item())
        for hidden in ordered:
            rest = [column for column in ordered if column != hidden]
            expected.append((images[image], given[image, rest], epsilons[image, rest], epsilons[image, [hidden]],
                             given[image, hidden]))
    tasks = hide_each(images, epsilons, given)
    assert list(tasks) == ["images", "source_noises", "source_epsilons", "target_epsilons", "target_noises"]
    for name, rows in zip(tasks, zip(*expected, strict=True), strict=True):
        assert torch.equal(tasks[name], torch.stack(rows)), name


def test_leave_one_out_hides_what_it_attacks():
    """A second implementation: one attack for each strength."""
    images, labels, sources = DATA.test.images.float() / 255, DATA.test.labels, torch.tensor([0.06, 0.18])
    tasks = leave_one_out(MODELS["1-toy"], images, labels, sources, 0.25, 2, torch.Generator().manual_seed(5))
    drawn = 0.25 * (1 - torch.rand(10, 1, generator=torch.Generator().manual_seed(5)))[:, 0]
    columns = [torch.full((10,), 0.06), torch.full((10,), 0.18), drawn]
    made = [pgd(MODELS["1-toy"], images, labels, column, steps=2) - images for column in columns]
    for image in range(10):
        (a, x), (b, y), (c, z) = sorted(((e[image].item(), n[image]) for e, n in zip(columns, made, strict=True)),
                                        key=lambda pair: pair[0])
        rows = slice(3 * image, 3 * image + 3)
        assert tasks["target_epsilons"][rows, 0].tolist() == [a, b, c]
        assert tasks["source_epsilons"][rows].tolist() == [[b, c], [a, c], [a, b]]
        assert torch.equal(tasks["images"][rows], images[image].expand(3, -1, -1, -1))
        torch.testing.assert_close(tasks["target_noises"][rows], torch.stack([x, y, z]))
        torch.testing.assert_close(tasks["source_noises"][rows], torch.stack([torch.stack(pair) for pair in (
            (y, z), (x, z), (x, y))]))


# -- training -------------------------------------------------------------------------------------------------------

LEARNED = ("A-ANE", "E-ANE", "E-ANE-minus", "A-ANE-plus")


def never() -> bool:
    return False


def spied(monkeypatch, tmp_path, folder, setting, name):
    """What ``train_estimator`` is given, call by call."""
    calls = []

    def note(estimator, optimizer, tasks, passes, generator, *, step, **settings):
        calls.append((tasks, passes, generator.get_state(), step, settings))
        return 0.0, step + math.ceil(len(tasks["images"]) / settings["batch_size"])

    monkeypatch.setattr(training, "train_estimator", note)
    run = RunDirectory(tmp_path / setting.name / name, CONFIG, World())
    torch.manual_seed(len(name))  # nothing may depend on it
    trained_estimator(CONFIG, setting, name, DATA, folder, run, never)
    return calls


@EACH_SETTING
def test_every_estimator_gets_the_same_tasks_of_the_settings_own_columns(setting, folder, monkeypatch, tmp_path):
    every = {name: spied(monkeypatch, tmp_path, folder, setting, name) for name in LEARNED}
    columns = [FIXED.index(epsilon) for epsilon in setting.sources] + [3 if setting.name == "leave-one-out" else 4]
    expected = []
    for rotation in range(4):
        made = read(training_file(folder, rotation), CPU)
        for begin in range(0, len(made.images), 4):
            rows = slice(begin, begin + 4)
            expected.append(hide_each(made.images[rows], made.epsilons[rows][:, columns],
                                      made.noises[rows][:, columns]))
    total = 7 * math.ceil(4 * (len(setting.sources) + 1) / 5)
    assert optimizer_steps(CONFIG, setting, DATA) == total
    for calls in every.values():
        assert len(calls) == 7
        for number, (call, first, tasks) in enumerate(zip(calls, every["A-ANE"], expected, strict=True)):
            assert all(torch.equal(call[0][name], value) for name, value in tasks.items())
            assert call[1] == 1 and torch.equal(call[2], first[2])  # one pass, in the same order
            assert call[3] == number * total // 7
            assert call[4] == {"learning_rate": CONFIG.estimator_learning_rate, "total_steps": total, "batch_size": 5}
    assert len({state.numpy().tobytes() for _, _, state, _, _ in every["A-ANE"]}) == 7  # another order in each batch


def contents(run):
    """The checkpoint as plain values, tensors as bytes, and the metrics."""
    def plain(value):
        if isinstance(value, dict):
            return {key: plain(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [plain(inner) for inner in value]
        return value.numpy().tobytes() if isinstance(value, Tensor) else value
    return plain(checkpoint.read(run / "checkpoint.pt")), (run / "metrics.jsonl").read_text()


@pytest.mark.slow
def test_stopped_and_started_again_equals_never_stopped(folder, tmp_path):
    setting = SETTINGS["spectrum-2"]

    def train(name, stop):
        torch.manual_seed(len(list(tmp_path.iterdir())))
        return trained_estimator(CONFIG, setting, "A-ANE", DATA, folder,
                                 RunDirectory(tmp_path / name, CONFIG, World()), stop)

    whole = train("whole", never)
    for call in (1, 3, 4):
        answers = iter([False] * (call - 1) + [True])
        with pytest.raises(Preempted, match=f"stopped before rotation {call}/4"):
            train(f"stopped{call}", lambda: next(answers))  # noqa: B023 - called here
        again = train(f"stopped{call}", never)
        assert contents(tmp_path / f"stopped{call}") == contents(tmp_path / "whole")
        assert not again.training
        assert all(torch.equal(value, again.state_dict()[name]) for name, value in whole.state_dict().items())
    stored = checkpoint.read(tmp_path / "whole" / "checkpoint.pt")
    begin = initial_estimator(CONFIG, "A-ANE", DATA).state_dict()
    assert any(not torch.equal(value, begin[name]) for name, value in stored["estimator"].items())
    assert stored["optimizer_step"] == 21 == stored["optimizer"]["state"][0]["step"]
    rate = stored["optimizer"]["param_groups"][0]["lr"]  # the last step's, at the end of the schedule
    assert rate == CONFIG.estimator_learning_rate * schedule_factor(20, 21) < 0.01 * CONFIG.estimator_learning_rate
    assert stored["optimizer"]["param_groups"][0]["weight_decay"] == CONFIG.estimator_weight_decay
    rows = [json.loads(line) for line in contents(tmp_path / "whole")[1].splitlines()]
    assert [row["step"] for row in rows] == [0, 1, 2, 3] and all(0 < row["relative_error"] < 10 for row in rows)


def test_weights_begin_the_same_wherever_they_are_trained():
    states = []
    for seed, config in ((1, CONFIG), (2, CONFIG), (1, replace(CONFIG, seed=1))):
        torch.manual_seed(seed)
        states.append(torch.cat([p.flatten() for p in initial_estimator(config, "A-ANE", DATA).parameters()]))
        after = torch.rand(1)
        torch.manual_seed(seed)
        assert after == torch.rand(1)  # and the world's own stream is untouched
    assert torch.equal(states[0], states[1]) and not torch.equal(states[0], states[2])


@pytest.mark.parametrize("name", ["WA-ANE", "C-ANE"])
def test_an_estimator_without_weights_is_not_trained(name, tmp_path):
    run = RunDirectory(tmp_path / name, CONFIG, World())
    assert not trained_estimator(CONFIG, SETTINGS["spectrum-1"], name, DATA, tmp_path / "nowhere", run, never).training


# -- measurement ----------------------------------------------------------------------------------------------------

class Asked(nn.Module):
    """An estimator that is a function; it is checked to be asked as ``NoiseEstimator`` demands."""

    def __init__(self, function):
        super().__init__()
        self.function = function

    def more_sources(self, model, images, labels, noises, epsilons, target_epsilons):
        return noises, epsilons

    def forward(self, noises, images, epsilons, target_epsilons):
        assert noises.shape[:2] == epsilons.shape and len(epsilons) == len(images) == len(target_epsilons)
        assert all((a < b).all() for a, b in pairwise(epsilons.unbind(1)))
        return self.function(noises, images, epsilons, target_epsilons)


def constant(epsilons: Tensor) -> Tensor:
    """Noise (B, K, 3, 8, 8) of one entry everywhere, half its strength."""
    return (epsilons / 2)[:, :, None, None, None].expand(-1, -1, 3, 8, 8)


def columns(setting) -> tuple[list[int], list[int]]:
    sources = [TESTED.index(epsilon) for epsilon in setting.sources]
    targets = [TESTED.index(epsilon) for epsilon in setting.targets]
    return (sources, targets) if targets else ([*sources, 6], [*sources, 6])


@pytest.fixture(scope="module")
def made(folder) -> Noises:
    """The first test images; their random strengths lie below, between and above the sources."""
    made = read(noises.tested_file(folder, SPECS[0], 0), CPU)
    epsilons = made.epsilons.clone()
    epsilons[:, 6] = torch.tensor([0.05, 0.1, 0.19, 0.2])
    return replace(made, epsilons=epsilons)


@EACH_SETTING
def test_noises_stay_with_their_strengths_and_targets_in_their_columns(setting, made):
    marked = replace(made, noises=constant(made.epsilons))

    def check(noises, images, epsilons, target_epsilons):
        assert torch.equal(noises, constant(epsilons)) and torch.equal(images, made.images)
        assert not any(torch.isclose(epsilons, target).any() for target in target_epsilons.split(1, 1))
        return constant(target_epsilons)

    found = estimate(CONFIG, setting, Asked(check), MODELS["1-toy"], marked)
    assert torch.equal(found, marked.noises[:, columns(setting)[1]])


@EACH_SETTING
@pytest.mark.parametrize("name", ["WA-ANE", "C-ANE", "A-ANE"])
def test_the_hidden_noise_is_never_seen(name, setting, made):
    estimator = initial_estimator(CONFIG, name, DATA).eval()

    def estimated(*poisoned):
        noises = made.noises.clone()
        noises[:, list(poisoned)] = torch.nan
        return estimate(CONFIG, setting, estimator, MODELS["1-toy"], replace(made, noises=noises))

    sources, targets = columns(setting)
    clean = estimated()
    assert clean.isfinite().all() and not clean.requires_grad
    if setting.targets:
        assert torch.equal(estimated(*(set(range(7)) - set(sources))), clean)
        assert estimated(sources[0]).isnan().any()
        return
    for place, hidden in enumerate(targets):
        found = estimated(hidden, *(set(range(7)) - set(sources)))
        assert torch.equal(found[:, place], clean[:, place])
        assert all(found[:, other].isnan().any() for other in range(3) if other != place)


@EACH_SETTING
def test_what_the_estimator_asks_of_the_network_reaches_it(setting, made):
    class Asking(Asked):
        def more_sources(self, model, images, labels, noises, epsilons, target_epsilons):
            assert model is MODELS["1-toy"] and torch.equal(labels, made.labels)
            epsilons = torch.cat([epsilons, torch.full((len(images), 1), 0.9)], 1)
            return torch.cat([noises, constant(epsilons[:, -1:])], 1), epsilons

    def check(noises, images, epsilons, target_epsilons):
        assert (epsilons[:, -1] == 0.9).all() and epsilons.shape[1] == len(columns(setting)[0]) + bool(setting.targets)
        return constant(target_epsilons)

    estimate(CONFIG, setting, Asking(check), MODELS["1-toy"], made)


def measured(folder, setting, estimator, number=0):
    return measure(CONFIG, setting, SPECS[number], MODELS[SPECS[number].name], estimator, DATA, folder, CPU)


def test_noise_that_is_not_finite_is_no_attack(folder):
    nothing = Asked(lambda noises, images, sources, targets: torch.full((*targets.shape, 3, 8, 8), math.nan))
    with pytest.raises(InputError, match="the estimated noise is not finite"):
        measured(folder, CONFIG.settings()[1], nothing)


@EACH_SETTING
def test_an_estimator_that_knows_the_attacks_noise_has_no_gap(setting, folder):
    made = [read(noises.tested_file(folder, SPECS[0], chunk), CPU) for chunk in range(3)]
    images, epsilons, known = (torch.cat([getattr(part, name) for part in made])
                               for name in ("images", "epsilons", "noises"))

    def look_up(noises, some, source_epsilons, target_epsilons):
        rows = [next(n for n, image in enumerate(images) if torch.equal(image, wanted)) for wanted in some]
        return torch.stack([torch.stack([known[row, (epsilons[row] == target).nonzero()[0, 0]] for target in targets])
                            for row, targets in zip(rows, target_epsilons, strict=True)])

    result = measured(folder, setting, Asked(look_up))
    right = {flag for target in result["targets"] for flag in target["pgd"]}
    for target in result["targets"]:
        assert target["estimate"] == target["pgd"] and len(target["pgd"]) == 10
        assert target["cosine"] == pytest.approx(1, abs=1e-6) and target["sign_agreement"] == 1
        assert target["ball"] == target["pgd_ball"] > 0.3
    assert [target["epsilon"] for target in result["targets"]] == list(setting.targets or (*setting.sources, None))
    assert right == {"0", "1"}


@EACH_SETTING
def test_no_noise_is_no_attack(setting, folder):
    result = measured(folder, setting, Asked(lambda noises, images, epsilons, targets: 0 * constant(targets)))
    assert "1" in result["clean"] and result["network"] == SPECS[0].name
    for target in result["targets"]:
        assert target["estimate"] == result["clean"]
        assert target["cosine"] == target["ball"] == 0


@EACH_SETTING
def test_the_numbers_of_a_network_are_those_of_loops_over_its_images(setting, folder):
    wa, model = build_estimator("WA-ANE", DATA.image_shape), MODELS[SPECS[1].name]
    sources, targets = columns(setting)
    rows = {place: [] for place in range(len(targets))}
    clean = ""
    for chunk in range(3):
        made = read(noises.tested_file(folder, SPECS[1], chunk), CPU)
        for n, image in enumerate(made.images):
            clean += "01"[(model(image[None]).argmax() == made.labels[n]).item()]
            for place, column in enumerate(targets):
                known = sorted((c for c in sources if c != column), key=lambda c: made.epsilons[n, c].item())
                epsilon = made.epsilons[n, [column]]
                noise = project(wa(made.noises[n:n + 1, known], image[None], made.epsilons[n, known], epsilon),
                                image[None], epsilon)[0, 0]
                a, b = (v.double().numpy().ravel() for v in (noise, made.noises[n, column]))
                rows[place].append((
                    "01"[(model((image + noise)[None]).argmax() == made.labels[n]).item()],
                    "01"[made.pgd_correct[n, column].item()], a @ b / np.linalg.norm(a) / np.linalg.norm(b),
                    (np.sign(a) == np.sign(b)).mean(), np.abs(a).mean() / epsilon.item(),
                    np.abs(b).mean() / epsilon.item()))
    result = measured(folder, setting, wa, 1)
    assert result["clean"] == clean
    for place, target in enumerate(result["targets"]):
        estimates, attack, *numbers = zip(*rows[place], strict=True)
        assert (target["estimate"], target["pgd"]) == ("".join(estimates), "".join(attack))
        assert [target[name] for name in ("cosine", "sign_agreement", "ball", "pgd_ball")] == pytest.approx(
            [np.mean(values) for values in numbers], rel=1e-5)


@EACH_SETTING
def test_the_cost_is_for_an_image_and_a_strength(setting, made, monkeypatch):
    """Medians over the rounds but the first, on a clock that only the estimator and the attack move."""
    clock = {"now": 0.0, "rounds": 0}
    calls = 1 if setting.targets else len(setting.sources) + 1  # of the estimator; its own time and the network's
    slow = (10, 3, 1, 2, 5, 4, 7, 6), (10, 1, 1, 1, 2, 2, 2, 2)  # medians 4 and 2, of their ratios 2.5

    def advance(seconds, which):
        clock["now"] += seconds * slow[which][clock["rounds"]]

    class Slow(Asked):
        def more_sources(self, *arguments):
            advance(0.5 / calls, 0)
            return super().more_sources(*arguments)

        def forward(self, *arguments):
            advance(1.5 / calls, 0)
            return super().forward(*arguments)

    def attack(model, images, labels, epsilon, steps):
        assert steps == CONFIG.num_steps and len(epsilon) == len(images) == 4
        advance(40.0, 1)
        clock["rounds"] += 1

    monkeypatch.setattr(measurement, "pgd", attack)
    monkeypatch.setattr("wsrnas.runtime.device.time", SimpleNamespace(perf_counter=lambda: clock["now"]))
    found = cost(CONFIG, setting, Slow(lambda *arguments: constant(arguments[-1])), MODELS["1-toy"], made)
    each, of_pgd = 1000 * 2.0 / 4 / len(columns(setting)[1]), 1000 * 40.0 / 4
    assert found == pytest.approx({"milliseconds": 4 * each, "pgd_milliseconds": 2 * of_pgd,
                                   "share_of_pgd": 2.5 * each / of_pgd})
    assert clock["rounds"] == measurement.REPEATS + 1


def test_a_missing_file_of_noises_is_one_sentence(tmp_path):
    with pytest.raises(InputError, match="no checkpoint at"):
        read(tmp_path / "train-00000.pt", CPU)
    path = tmp_path / "test.pt"
    write(path, {"images": torch.rand(1, 3, 8, 8), "noises": torch.zeros(1, 1, 3, 8, 8).half()})
    path.write_bytes(path.read_bytes()[:100])
    with pytest.raises(InputError, match="truncated"):
        read(path, CPU)


def test_the_published_study_is_the_default():
    config = BenchmarkConfig()
    assert config.sources == (0.03, 0.06, 0.09) and config.num_steps == 7 and config.rotation == 10
    assert config.batch_size == config.estimator_batch_size == 32 and len(config.networks) == 7
    assert [len(setting.targets) for setting in config.settings()] == [0, 13, 15]


# -- what fails, and what is lost ------------------------------------------------------------------------------------

def test_estimators_that_did_not_fail_are_reported_before_the_failure_is_said(tmp_path, monkeypatch, capsys):
    def failing(tasks, claims, label, world):
        if label == "estimators":
            raise InputError("1 of 2 estimators failed: A-ANE: the loss is nan")

    for name, value in (("share", failing), ("training_tasks", lambda *given: []), ("noise_tasks", lambda *given: []),
                        ("write_report", lambda config, study: "the report")):
        monkeypatch.setattr(benchmark, name, value)
    words = "A-ANE: the loss is nan; --estimators goes on without some"
    with pytest.raises(InputError, match=words):
        benchmark.run_study(CONFIG, SPECS, DATA, tmp_path, World())
    assert capsys.readouterr().out == ""
    result = tmp_path / "spectrum-1" / "WA-ANE" / "result.json"
    result.parent.mkdir(parents=True)
    result.touch()
    with pytest.raises(InputError, match=words):
        benchmark.run_study(CONFIG, SPECS, DATA, tmp_path, World())
    assert capsys.readouterr().out == "the report\n"


def test_a_finished_estimator_without_its_result_is_told(tmp_path):
    assert not benchmark.is_measured(tmp_path)
    (tmp_path / "FINISHED").touch()
    with pytest.raises(InputError, match=r"is finished and has no result\.json; move the folder aside"):
        benchmark.is_measured(tmp_path)
    (tmp_path / "result.json").touch()
    assert benchmark.is_measured(tmp_path)
