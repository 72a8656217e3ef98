"""Flags of images under attack: closed forms, chunks and processes that change nothing, kills, AutoAttack itself."""

import itertools
import json
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from tests.killed import Killed, Mortal
from tests.processes import run_twice
from tests.quick import slow_after
from wsrnas.attacks import attack_mode, fgsm, mim, pgd
from wsrnas.data.datasets import load_dataset
from wsrnas.data.image_set import ImageSet
from wsrnas.data.loader import BatchLoader
from wsrnas.evaluation import attack_table
from wsrnas.evaluation.attack_spec import Attack, at_strength, parse_attack
from wsrnas.evaluation.autoattack import autoattack_stage
from wsrnas.evaluation.carlini_wagner import carlini_wagner
from wsrnas.evaluation.journal import Journal
from wsrnas.evaluation.measurement import Evaluation
from wsrnas.evaluation.protocols import custom_attacks
from wsrnas.runtime.arithmetic import exact_arithmetic
from wsrnas.runtime.distributed import initialize, shutdown
from wsrnas.runtime.errors import InputError, Preempted

pytestmark = pytest.mark.usefixtures("quick_data")

IMAGES = 60


def image_set() -> ImageSet:
    draw = torch.Generator().manual_seed(0)
    pixels = torch.randint(100, 156, (IMAGES, 3, 4, 4), generator=draw, dtype=torch.uint8)  # 0.39 to 0.61: off the box
    return ImageSet(pixels, torch.randint(2, (IMAGES,), generator=draw))


def linear() -> nn.Module:
    torch.manual_seed(1)
    model = nn.Sequential(nn.Flatten(), nn.Linear(48, 2)).eval()
    with torch.no_grad():  # the mean image lies on the boundary
        model[1].bias -= model(image_set().images / 255).mean(0)
    return model


def negative(model: nn.Module) -> nn.Module:
    """The network that answers the opposite."""
    with torch.no_grad():
        for parameter in model[1].parameters():
            parameter.neg_()
    return model


def bent() -> nn.Module:
    """A network whose random starts matter."""
    torch.manual_seed(3)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, 16), nn.ReLU(), nn.Linear(16, 2))
    with torch.no_grad():
        model[-1].bias -= model(image_set().images / 255).mean(0)
    return model.eval()


def evaluation(model: nn.Module, batch_size: int = 16, **arguments) -> Evaluation:
    return Evaluation(model, BatchLoader(image_set(), 7, 0, "test"), 2, batch_size=batch_size, log=lambda line: None,
                      **arguments)


def radii(model: nn.Module, norm: float) -> Tensor:
    """The radius at which each image is lost: its margin over the dual norm of the weights' difference."""
    data, (weight, bias) = image_set(), (p.detach().double() for p in model[1].parameters())
    logits = (data.images.double() / 255).flatten(1) @ weight.T + bias
    rows = torch.arange(IMAGES)
    return (logits[rows, data.labels] - logits[rows, 1 - data.labels]) / (weight[0] - weight[1]).norm(p=norm)


def between(values: Tensor) -> float:
    """Half-way between two of the positive radii, so that no rounding decides."""
    ordered = values[values > 0].sort().values
    middle = len(ordered) // 2
    return float(ordered[middle] + ordered[middle + 1]) / 2


@pytest.mark.parametrize("name, dual", [("fgsm", 1), ("pgd-20", 1), ("pgd-5x3", 1), ("mim-10", 1), ("cw-linf-10", 1),
                                        ("pgd-l2-20", 2), ("fgsm-l2", 2)])
def test_on_a_linear_network_an_image_falls_beyond_its_radius(name, dual):
    model = linear()
    lost_at = radii(model, dual)
    attack = at_strength(parse_attack(name), between(lost_at))
    measured = evaluation(model)
    clean = measured.clean()
    assert torch.equal(clean, lost_at > 0)
    withstood = measured.robust(attack, clean.nonzero().flatten())
    assert torch.equal(withstood, lost_at > attack.epsilon)
    assert 5 < withstood.sum() < clean.sum() - 5


def test_images_that_are_wrong_without_noise_are_not_attacked_and_never_robust():
    measured = evaluation(linear())
    attack = at_strength(parse_attack("pgd-5"), 1e-6)
    among = torch.tensor([3, 17, 40])
    withstood = measured.robust(attack, among)
    assert withstood.nonzero().flatten().tolist() == [i for i in among.tolist() if measured.clean()[i]]


ATTACKS = custom_attacks(["pgd-1", "pgd-2x3", "mim-3", "cw-linf-3x2", "noise-4", "pgd-l2-2x2"], [0.02], [0.07], 0.25,
                         random_start=True)


def flags(measured: Evaluation) -> list[Tensor]:
    among = measured.clean().nonzero().flatten()
    return [measured.robust(attack, among) for attack in ATTACKS]


@pytest.mark.slow
def test_the_size_of_the_chunks_changes_nothing():
    first, *others = (flags(evaluation(bent(), size)) for size in (60, 1, 13))
    for other in others:
        assert all(map(torch.equal, first, other))
    assert len({tuple(flag.tolist()) for flag in first}) == len(ATTACKS)


def test_random_numbers_are_an_images_own():
    """Another seed changes them; another choice of images does not."""
    model, attack = bent(), at_strength(parse_attack("pgd-1x2"), 0.02, 0.25)
    measured = evaluation(model)
    among = measured.clean().nonzero().flatten()
    whole = measured.robust(attack, among)
    part = measured.robust(attack, among[::3])
    assert torch.equal(part[among[::3]], whole[among[::3]])
    seeds = {tuple(evaluation(model, seed=seed).robust(attack, among).tolist()) for seed in range(4)}
    assert len(seeds) > 1


def test_more_starts_never_help_the_network():
    measured = evaluation(bent())
    among = measured.clean().nonzero().flatten()
    counts: list[Tensor] = []
    for restarts in (2, 4, 8):
        withstood = measured.robust(at_strength(parse_attack(f"pgd-1x{restarts}"), 0.03, 0.25), among)
        assert not counts or not (withstood & ~counts[-1]).any()
        counts.append(withstood)
    assert counts[0].sum() > counts[-1].sum()


def test_a_transfer_attack_comes_from_its_source():
    """The opposite network's images do the opposite of harm; its own are those of PGD."""
    model, opposite = linear(), negative(linear())
    attack = at_strength(parse_attack("transfer-20"), between(radii(model, 1)))
    among = evaluation(model).clean().nonzero().flatten()
    helped = evaluation(model, source=opposite, source_name="a").robust(attack, among)
    assert helped.sum() == len(among)
    harmed = evaluation(model, source=model, source_name="b").robust(attack, among)
    assert torch.equal(harmed, evaluation(model).robust(at_strength(parse_attack("pgd-20"), attack.epsilon), among))
    with pytest.raises(InputError, match="--source"):
        evaluation(model).robust(attack, among)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
def test_logits_that_are_no_numbers_are_never_correct(number):
    class Broken(nn.Sequential):
        """The largest of its logits is no number where the first pixel is bright: argmax may still find the label."""

        def forward(self, images: Tensor) -> Tensor:
            logits = super().forward(images)
            return torch.where((logits == logits.amax(1, keepdim=True)) & bright(images), number, logits)

    def bright(images: Tensor) -> Tensor:
        return images[:, :1, 0, 0] > 0.5

    finite = ~bright(image_set().images / 255).flatten()
    clean = evaluation(linear()).clean()
    assert (clean & ~finite).any()
    assert torch.equal(evaluation(Broken(*linear())).clean(), clean & finite)


class Shown(nn.Sequential):
    """It remembers what it was asked to predict, gradients apart."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__(*model)
        self.images: list[Tensor] = []

    def forward(self, images: Tensor) -> Tensor:
        if not torch.is_grad_enabled():
            self.images.append(images.clone())
        return super().forward(images)


def several_classes(classes: int) -> tuple[Shown, BatchLoader]:
    """A network and images that it all gets right."""
    torch.manual_seed(4)
    model = nn.Sequential(nn.Conv2d(3, 16, 3), nn.ReLU(), nn.Flatten(), nn.Linear(64, classes)).eval()
    with torch.no_grad():
        model[-1].bias -= model(image_set().images / 255).mean(0)
        labels = model(image_set().images / 255).argmax(1)
    return Shown(model), BatchLoader(ImageSet(image_set().images, labels), 7, 0, "test")


def shown(attack: Attack, classes: int = 6, images: int = IMAGES, seed: int = 0) -> list[Tensor]:
    """The adversarial images that the network is to classify, a tensor a stage."""
    model, loader = several_classes(classes)
    Evaluation(model, loader, classes, seed=seed, batch_size=IMAGES, log=lambda line: None).robust(
        attack, torch.arange(images))
    return model.images


PIXELS = torch.stack(list(image_set().images)).float() / 255


@pytest.mark.parametrize("name, directly", [
    ("fgsm-l2", partial(fgsm, epsilon=0.05, norm="l2")),
    ("pgd-3", partial(pgd, epsilon=0.05, steps=3, step_size=0.03)),
    ("pgd-l2-3", partial(pgd, epsilon=0.05, steps=3, step_size=0.03, norm="l2")),
    ("cw-linf-3", partial(pgd, epsilon=0.05, steps=3, step_size=0.03, loss="margin")),
    ("mim-3", partial(mim, epsilon=0.05, steps=3, step_size=0.03)),
    ("cw-l2-7", partial(carlini_wagner, steps=7)),
])
def test_the_network_is_shown_what_the_attack_makes_with_all_its_parameters(name, directly):
    model, loader = several_classes(6)
    pixels, labels = next(iter(loader.images_at([torch.arange(IMAGES)])))
    last, = shown(at_strength(parse_attack(name), 0.05, 0.6))
    assert torch.equal(last, directly(model, pixels, labels)) and not torch.equal(last, pixels)


def test_random_noise_is_of_full_strength_and_an_images_own():
    attack = at_strength(parse_attack("noise-2"), 1e-3)
    first, second = shown(attack, images=1)
    assert not torch.equal(first, second)
    every = shown(attack)[0]
    assert torch.equal(every[:1], first), "the other images changed it"
    assert torch.allclose((every - PIXELS).abs(), torch.tensor(1e-3), atol=1e-6)
    signs = (every > PIXELS).flatten(1)
    assert len(signs.unique(dim=0)) == IMAGES and 0.45 < signs.float().mean() < 0.55
    far, = shown(at_strength(parse_attack("noise-1"), 0.7))
    assert far.min() == 0 and far.max() == 1


def test_random_starts_fill_the_ball_and_are_an_images_own():
    attack = replace(at_strength(parse_attack("pgd-1x2"), 0.05), step_size=0.0)
    noise = shown(attack)[0] - PIXELS
    assert 0.049 < noise.abs().max() <= 0.05 + 1e-6 and noise.std().item() == pytest.approx(0.05 / 3**0.5, rel=0.05)
    assert len(noise.flatten(1).unique(dim=0)) == IMAGES
    l2 = replace(at_strength(parse_attack("pgd-l2-1x2"), 0.05), step_size=0.0)
    norms = (shown(l2)[0] - PIXELS).flatten(1).norm(dim=1)
    assert 0.045 < norms.max() <= 0.05 + 1e-6


def test_the_network_is_left_as_it_was():
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2)).eval()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    flags(evaluation(model))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert all(p.requires_grad and p.grad is None for p in model.parameters())


def test_reported_numbers_are_in_full_float32():
    matmul, cudnn = torch.backends.cuda.matmul, torch.backends.cudnn
    before = matmul.allow_tf32, cudnn.allow_tf32
    try:
        matmul.allow_tf32 = cudnn.allow_tf32 = True
        with exact_arithmetic():
            assert not matmul.allow_tf32 and not cudnn.allow_tf32
        assert matmul.allow_tf32 and cudnn.allow_tf32  # what comes next is not slower
    finally:
        matmul.allow_tf32, cudnn.allow_tf32 = before


# ---- memory ----------------------------------------------------------------------------------------------------------


class Small(nn.Sequential):
    """A network on a GPU that holds so many images."""

    def __init__(self, model: nn.Module, room: int) -> None:
        super().__init__(*model)
        self.room, self.seen = room, []

    def forward(self, images: Tensor) -> Tensor:
        self.seen.append(len(images))
        if len(images) > self.room:
            raise torch.OutOfMemoryError("CUDA out of memory")
        return super().forward(images)


def test_torchscript_runs_out_of_memory_in_its_own_words():
    class Script(Small):
        def forward(self, images: Tensor) -> Tensor:
            try:
                return super().forward(images)
            except torch.OutOfMemoryError as error:
                raise RuntimeError(f"The following operation failed in the interpreter.\n{error}") from None
    assert all(map(torch.equal, flags(evaluation(Script(bent(), 9), 500)), flags(evaluation(bent(), 500))))


def test_what_belongs_to_a_batch_is_taken_from_equal_batches_alone(tmp_path):
    """Square draws for a batch: a check of some of the images leaves other batches behind."""
    attack, everything = at_strength(parse_attack("square-5"), 0.3), torch.arange(IMAGES)
    fresh = evaluation(bent(), 16).robust(attack, everything)
    journal, asked = Journal(tmp_path, {}), []

    class Watched(nn.Sequential):
        def forward(self, images: Tensor) -> Tensor:
            asked.append(len(images))
            return super().forward(images)

    for chosen in (everything[1::2], everything[:16], everything, everything):
        asked.clear()
        found = evaluation(Watched(*bent()), 16, journal=journal).robust(attack, chosen)
    assert torch.equal(found, fresh) and not asked  # the second time all batches are known


def test_random_numbers_of_smaller_batches_are_said():
    """Square draws for a batch: where memory halves it, the result is that of other numbers."""
    attack = at_strength(parse_attack("square-5"), 0.1)
    small, large = evaluation(Small(bent(), 9), 16), evaluation(bent(), 16)
    text = "random numbers of batches of 8 images, for which alone the memory was sufficient"
    for measured, words in ((small, [text]), (large, [])):
        measured.robust(attack, torch.arange(measured.images))
        assert measured.cost(attack)[1] == words


@pytest.mark.parametrize("name", [name for name, entry in attack_table.ATTACKS.items()
                                  if entry.white_box and not entry.stages])
def test_no_attack_of_a_cpu_follows_the_gradient_of_more_images_than_its_caches_hold(name, monkeypatch):
    monkeypatch.setattr("wsrnas.attacks.CPU_ROWS", 7)
    model, seen = bent(), []

    class Watched(nn.Sequential):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(len(images) * images.requires_grad)
            return super().forward(images)
    kind = parse_attack(f"{name}-2" if attack_table.ATTACKS[name].steps else name)
    attack = kind if kind.entry.unbounded else at_strength(kind, 0.1)
    measured = evaluation(Watched(*model), 40)
    measured.robust(attack, torch.arange(measured.images))
    assert 0 < max(seen) <= 7


def test_out_of_memory_halves_the_batch_says_so_and_changes_nothing():
    said: list[str] = []
    model = Small(bent(), 9)
    measured = evaluation(model, 500)  # more than there are: half of those that there are is tried next
    measured.log = said.append
    assert all(map(torch.equal, flags(measured), flags(evaluation(bent(), 500))))
    assert said == ["the GPU is out of memory: going on with 30 images at a time",
                    "the GPU is out of memory: going on with 15 images at a time",
                    "the GPU is out of memory: going on with 7 images at a time"]
    assert max(model.seen[4:]) <= 7, "it does not try the large batch again"
    with pytest.raises(InputError, match="out of memory with a single image"):
        evaluation(Small(bent(), 0)).clean()


# ---- the journal -----------------------------------------------------------------------------------------------------


def chunks_in(folder: Path) -> int:
    return sum(len(path.read_text().splitlines()) - 1 for path in folder.glob("*.jsonl"))


@pytest.mark.slow
def test_a_killed_evaluation_goes_on_where_it_was(tmp_path):
    whole = flags(evaluation(bent(), 16, journal=Journal(tmp_path / "whole", {"model": 1})))
    total = chunks_in(tmp_path / "whole")
    assert total > 20
    for kill in range(0, total, 3):
        folder = tmp_path / str(kill)
        with pytest.raises(Killed):
            flags(evaluation(bent(), 16, journal=Mortal(folder, {"model": 1}, chunks=kill)))
        model = Small(bent(), 10**9)
        assert all(map(torch.equal, flags(evaluation(model, 16, journal=Journal(folder, {"model": 1}))), whole))
        assert chunks_in(folder) == total, "a chunk was measured twice"
    seen = Small(bent(), 10**9)
    assert all(map(torch.equal, flags(evaluation(seen, 16, journal=Journal(tmp_path / "whole", {"model": 1}))), whole))
    assert seen.seen == [], "everything was stored"


@pytest.mark.parametrize("chunks, during", slow_after(1, [
    (0, "clean"), (3, "clean"), (4, "PGD-1  eps 0.02"), (5, "PGD-1  eps 0.02")]))
def test_an_evaluation_that_is_asked_to_stop_keeps_its_chunks(chunks, during, tmp_path):
    """Sixty images are four chunks without noise; the first attack comes next."""
    whole = flags(evaluation(bent(), 16))
    answers, model = iter([False] * chunks + [True]), Small(bent(), 10**9)
    with pytest.raises(Preempted, match=f"^evaluate: stopped during {during}"):
        flags(evaluation(model, 16, journal=Journal(tmp_path, {}), stop=lambda: next(answers)))
    assert chunks_in(tmp_path) == chunks and len(model.seen) <= 3 * chunks, "more was begun"
    kept = {path.name: path.read_text() for path in tmp_path.iterdir()}
    assert all(map(torch.equal, flags(evaluation(bent(), 16, journal=Journal(tmp_path, {}))), whole))
    assert all((tmp_path / name).read_text().startswith(text) for name, text in kept.items())
    measured = [(path.name, row["stage"], image) for path in tmp_path.iterdir()
                for row in map(json.loads, path.read_text().splitlines()[1:]) for image in row["images"]]
    assert len(measured) == len(set(measured)), "a chunk was measured twice"
    everything = evaluation(bent(), 16, journal=Journal(tmp_path, {}), stop=lambda: True)
    assert all(map(torch.equal, flags(everything), whole)), "nothing is left to stop before"


@pytest.mark.slow
def test_a_torn_line_is_measured_again(tmp_path):
    whole = flags(evaluation(bent(), 16, journal=Journal(tmp_path, {"model": 1})))
    for path in tmp_path.glob("*.jsonl"):
        path.write_bytes(path.read_bytes()[:-10])
    assert all(map(torch.equal, flags(evaluation(bent(), 16, journal=Journal(tmp_path, {"model": 1}))), whole))
    for path in tmp_path.glob("*.jsonl"):
        assert all(json.loads(line) for line in path.read_text().splitlines())


def test_what_another_network_did_is_not_believed(tmp_path):
    flags(evaluation(bent(), 16, journal=Journal(tmp_path, {"model": 1})))
    other = flags(evaluation(linear(), 16, journal=Journal(tmp_path, {"model": 2})))
    assert all(map(torch.equal, other, flags(evaluation(linear(), 16))))
    again = Small(linear(), 10**9)
    flags(evaluation(again, 16, journal=Journal(tmp_path, {"model": 2})))
    assert again.seen == [], "the new network's chunks took the place of the old one's"


@pytest.mark.slow
def test_another_size_of_chunks_goes_on_too(tmp_path):
    whole = flags(evaluation(bent(), 16, journal=Journal(tmp_path, {"model": 1})))
    with pytest.raises(Killed):
        flags(evaluation(bent(), 16, journal=Mortal(tmp_path / "b", {"model": 1}, chunks=9)))
    assert all(map(torch.equal, flags(evaluation(bent(), 11, journal=Journal(tmp_path / "b", {"model": 1}))), whole))


def test_chunks_of_which_a_part_is_stored_are_measured_whole(tmp_path):
    attack = at_strength(parse_attack("pgd-2x2"), 0.02)
    fresh = evaluation(bent())
    among = fresh.clean().nonzero().flatten()
    expected = fresh.robust(attack, among)
    assert expected.any()
    measured = evaluation(bent(), journal=Journal(tmp_path, {}))
    part = torch.zeros_like(expected)
    part[among[::3]] = expected[among[::3]]
    assert torch.equal(measured.robust(attack, among[::3]), part)
    assert torch.equal(measured.robust(attack, among), expected)
    assert torch.equal(measured.robust(attack, among[::3]), part), "images that were not asked for"


def test_images_of_another_source_are_measured_anew(tmp_path):
    model, opposite = linear(), negative(linear())
    attack = at_strength(parse_attack("transfer-20"), between(radii(model, 1)))
    among = evaluation(model).clean().nonzero().flatten()
    count = {name: int(evaluation(model, source=source, source_name=name, journal=Journal(tmp_path, {}))
                       .robust(attack, among).sum()) for name, source in (("a", opposite), ("b", model))}
    assert count["a"] == len(among) > count["b"]


def test_the_cost_of_an_attack_is_that_of_all_its_stages_and_counts_once(tmp_path):
    attack, everything = at_strength(parse_attack("pgd-1x2"), 0.1), list(range(IMAGES))
    journal = Journal(tmp_path, {})
    journal.append(attack.key, "start 1", everything[:40], [True] * 40, 1.5, ["odd"])
    journal.append(attack.key, "start 1", everything[40:], [True] * 20, 0.25)
    journal.append(attack.key, "start 2", everything, [True] * IMAGES, 4.0, ["b", "a"])
    measured = evaluation(bent(), journal=journal)
    for _ in range(2):
        assert measured.robust(attack, torch.arange(IMAGES)).all()
        assert measured.cost(attack) == (5.75, ["a", "b", "odd"])
    assert measured.cost(at_strength(attack, 0.2)) == (0, [])


def test_seconds_and_warnings_are_stored(tmp_path):
    journal = Journal(tmp_path, {"model": 1})
    journal.append("pgd", "start 1", [0, 2], [True, False], 1.5, ["odd"])
    journal.append("pgd", "start 2", [0], [False], 2.0)
    journal.append("pgd", "start 1", [1], [True], 0.25)
    found = Journal(tmp_path, {"model": 1}, rank=1).read("pgd", "start 1", 4)
    assert found.values.tolist() == [1, 1, 0, -1] and found.seconds == 1.75 and found.warnings == ["odd"]
    assert Journal(tmp_path, {"model": 2}).read("pgd", "start 1", 4).values.tolist() == [-1] * 4
    chunks = Journal(tmp_path, {"model": 1}).read("pgd", "start 1", 4, [[0, 1], [1], [3]])
    assert chunks.values.tolist() == [-1, 1, -1, -1] and chunks.seconds == 0.25  # equal chunks alone


# ---- several processes -----------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_two_processes_give_the_flags_of_one(tmp_path):
    alone = evaluation(bent(), 16)
    expected, passes = flags(alone), [pytest.approx(alone.passes_of(attack)) for attack in ATTACKS]
    with pytest.raises(Killed):  # one process began, two go on
        flags(evaluation(bent(), 16, journal=Mortal(tmp_path / "shared", {"model": 1}, chunks=7)))
    run_twice(in_two_processes, tmp_path)
    for rank in range(2):
        for kind in ("shared", "fresh"):
            assert all(map(torch.equal, torch.load(tmp_path / f"{kind}.{rank}.pt"), expected))
    ranks = {path.name.split(".")[-2] for path in (tmp_path / "fresh").glob("*.jsonl")}
    assert ranks == {"0", "1"}, "one process did all the work"
    for kind in ("shared", "fresh"):
        for rank in range(2):
            costs = json.loads((tmp_path / f"{kind}.{rank}.json").read_text())
            assert [spent for _, spent in costs] == passes
            for attack, (seconds, _) in zip(ATTACKS, costs, strict=True):
                rows = [json.loads(line) for path in (tmp_path / kind).glob(f"{attack.key}.*.jsonl")
                        for line in path.read_text().splitlines()[1:]]
                assert seconds == pytest.approx(sum(row["seconds"] for row in rows), abs=0.001 * len(rows))
                assert seconds > 0
    assert chunks_in(tmp_path / "fresh") == chunks_in(tmp_path / "shared")


def in_two_processes(folder: Path) -> None:
    world = initialize("cpu")
    for kind in ("fresh", "shared"):
        measured = evaluation(bent(), 16, world=world, journal=Journal(folder / kind, {"model": 1}, world.rank))
        torch.save(flags(measured), folder / f"{kind}.{world.rank}.pt")
        (folder / f"{kind}.{world.rank}.json").write_text(json.dumps([
            (measured.cost(attack)[0], measured.passes_of(attack)) for attack in ATTACKS]))
    shutdown()


# ---- AutoAttack ------------------------------------------------------------------------------------------------------

STRENGTH, COUNT, CHUNK, SEED = 0.07, 21, 8, 3


@pytest.fixture(scope="module")
def digits() -> tuple[ImageSet, nn.Module]:
    data = load_dataset("digits", max_train=400, max_test=100)
    torch.manual_seed(0)
    model = nn.Sequential(nn.AdaptiveAvgPool2d(4), nn.Flatten(), nn.Linear(48, 24), nn.ReLU(), nn.Linear(24, 10))
    images, labels = data.train.images.float() / 255, data.train.labels
    optimizer = torch.optim.Adam(model.parameters(), 0.01)
    for _ in range(120):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), labels).backward()
        optimizer.step()
    return data.test.subset(torch.arange(0, 100, 5)[:COUNT]), model.eval()


@pytest.fixture
def asked(monkeypatch) -> set[tuple[int, ...]]:
    """Steps and queries that are asked of AutoAttack; it makes a part of them, for they take seconds."""
    from pyautoattack import AutoAttack

    asked, original = set(), AutoAttack.run_standard_evaluation

    def shorter(attack, *arguments, **more):
        parts = attack.apgd, attack.apgd_targeted, attack.fab
        asked.add((*(part.n_iter for part in parts), attack.square.n_queries))
        for part in parts:
            part.n_iter //= 5
        attack.square.n_queries //= 20
        return original(attack, *arguments, **more)

    monkeypatch.setattr(AutoAttack, "run_standard_evaluation", shorter)
    return asked


def directly(digits) -> Tensor:
    """Which images withstand pyautoattack called on all of them at once."""
    from pyautoattack import AutoAttack

    data, model = digits
    images = (data.images.float() / 255).contiguous()
    adversarial, _ = AutoAttack(model, eps=STRENGTH, seed=SEED).run_standard_evaluation(images, data.labels,
                                                                                       batch_size=CHUNK)
    return model(adversarial).argmax(1) == data.labels


def autoattacked(digits, name: str = "autoattack", **arguments) -> Tensor:
    data, model = digits
    measured = Evaluation(model, BatchLoader(data, CHUNK, 0, "test"), 10, seed=SEED, batch_size=CHUNK,
                          log=lambda line: None, **arguments)
    return measured.robust(at_strength(parse_attack(name), STRENGTH), measured.clean().nonzero().flatten())


@pytest.mark.slow
def test_autoattack_in_chunks_is_autoattack_image_by_image_killed_and_resumed(digits, asked, tmp_path):
    expected = directly(digits)
    assert asked == {(100, 100, 100, 5000)}
    torch.manual_seed(99)
    state = torch.get_rng_state()
    with pytest.raises(Killed):  # in the middle of the second of its four attacks
        autoattacked(digits, journal=Mortal(tmp_path, {}, chunks=7))
    withstood = autoattacked(digits, journal=Journal(tmp_path, {}))
    assert torch.equal(withstood, expected)
    assert asked == {(100, 100, 100, 5000)}
    assert 2 < withstood.sum() < COUNT - 2, "nothing to compare"
    stages = [json.loads(line)["stage"] for path in tmp_path.glob("autoattack*") for line in
              path.read_text().splitlines()[1:]]
    assert [stage for stage, _ in itertools.groupby(stages)] == ["apgd-ce", "apgd-t", "fab-t", "square"]
    assert torch.equal(torch.get_rng_state(), state), "the global generator was reseeded"


@pytest.mark.slow
def test_apgd_ce_t_is_pgd_and_the_first_two_parts_of_autoattack_image_by_image(digits, asked, tmp_path):
    from pyautoattack import AutoAttack

    data, model = digits
    images = (data.images.float() / 255).contiguous()
    with attack_mode(model):
        first = pgd(model, images, data.labels, STRENGTH, 10, 2.5 * STRENGTH / 10, loss="margin")
    expected = model(first).argmax(1) == data.labels
    left = expected.nonzero().flatten()
    adversary = AutoAttack(model, eps=STRENGTH, seed=SEED)
    adversary.attacks_to_run = ["apgd-ce", "apgd-t"]
    adversarial, _ = adversary.run_standard_evaluation(images[left], data.labels[left], batch_size=CHUNK)
    expected[left] = model(adversarial).argmax(1) == data.labels[left]
    with pytest.raises(Killed):
        autoattacked(digits, "apgd-ce+t", journal=Mortal(tmp_path, {}, chunks=5))
    withstood = autoattacked(digits, "apgd-ce+t", journal=Journal(tmp_path, {}))
    assert torch.equal(withstood, expected) and 2 < withstood.sum() < len(left) < COUNT - 2
    stages = {json.loads(line)["stage"] for path in tmp_path.glob("apgd-ce+t*")
              for line in path.read_text().splitlines()[1:]}
    assert stages == {"pgd-margin", "apgd-ce", "apgd-t"}


def test_what_falls_to_ten_steps_is_not_attacked_by_apgd(monkeypatch):
    asked: list[str] = []
    monkeypatch.setattr(attack_table, "run_autoattack", lambda task: asked.append(task.stage) or task.images)
    torch.manual_seed(0)
    five = nn.Sequential(nn.Flatten(), nn.Linear(48, 5)).eval()
    measured = Evaluation(five, BatchLoader(image_set(), 7, 0, "test"), 5, batch_size=4, log=lambda line: None)
    attack = at_strength(parse_attack("apgd-ce+t"), 0.9)
    among = measured.clean().nonzero().flatten()
    assert not measured.robust(attack, among).any() and not asked
    assert measured.passes_of(attack) == (10 * len(among) / measured.images, len(among) / measured.images)


def test_autoattack_needs_four_classes_and_takes_fewer_than_ten():
    attack = at_strength(parse_attack("autoattack"), 0.1)
    with pytest.raises(InputError, match="at least 4 classes, and there are 2"):
        evaluation(linear()).robust(attack, torch.arange(4))
    torch.manual_seed(0)
    five = nn.Sequential(nn.Flatten(), nn.Linear(48, 5)).eval()
    measured = Evaluation(five, BatchLoader(image_set(), 7, 0, "test"), 5, batch_size=4, log=lambda line: None)
    among = measured.clean().nonzero().flatten()[:4]
    assert measured.robust(at_strength(parse_attack("apgd-ce"), 1e-9), among).sum() == len(among)


def test_warnings_of_autoattack_are_kept(tmp_path):
    def cost() -> tuple[float, list[str]]:
        measured = evaluation(nn.Sequential(*linear(), nn.Softmax(1)).eval(), journal=Journal(tmp_path, {}))
        attack = at_strength(parse_attack("apgd-ce"), 0.1)
        measured.robust(attack, torch.arange(8))
        return measured.cost(attack)

    seconds, warnings = cost()
    assert seconds > 0 and any("probability distribution" in warning for warning in warnings)
    assert cost()[1] == warnings, "what is stored has lost its warnings"


def test_square_asks_as_often_as_it_may():
    fewer, more = (len(shown(at_strength(parse_attack(f"square-{n}"), 1e-9), images=2)) for n in (40, 65))
    assert more - fewer == 25


@pytest.mark.parametrize("name, order", slow_after(1, [
    ("square-40", torch.inf), ("apgd-ce", torch.inf), ("apgd-ce-l2", 2)]))
def test_the_parts_of_autoattack_keep_to_their_norm_and_seed(name, order):
    attack = at_strength(parse_attack(name), 0.05)
    last, again, other = (shown(attack, seed=seed)[-1] for seed in (3, 3, 4))
    assert (last - PIXELS).flatten(1).norm(order, dim=1).max().item() == pytest.approx(0.05, rel=1e-3)
    assert torch.equal(last, again) and not torch.equal(last, other)


def test_batches_of_another_size_are_other_images_to_autoattack(tmp_path):
    model, loader = several_classes(6)
    calls = []
    for size in (60, 20, 60):
        seen = Small(nn.Sequential(*model).eval(), 60)
        Evaluation(seen, loader, 6, batch_size=size, journal=Journal(tmp_path, {}), log=lambda line: None).robust(
            at_strength(parse_attack("square-20"), 1e-3), torch.arange(IMAGES))
        calls.append(len(seen.seen))
    assert calls[0] > 0 and calls[1] > calls[0] and calls[2] == 0


@pytest.mark.parametrize("stage", ["apgd-t", "fab-t"])
def test_the_targeted_attacks_try_nine_classes_or_all_others(stage, monkeypatch):
    from pyautoattack import AutoAttack

    model, loader = several_classes(4)
    pixels, labels = next(iter(loader.images_at([torch.arange(2)])))
    adversarial, _ = autoattack_stage(model, pixels, labels, stage, 0.2, 4)
    assert (model(adversarial).argmax(1) != labels).all()

    asked = []

    def record(attack, images, labels, batch_size):
        targeted = attack.apgd_targeted if stage == "apgd-t" else attack.fab
        asked.append((targeted.n_target_classes, batch_size))
        return images, labels

    monkeypatch.setattr(AutoAttack, "run_standard_evaluation", record)
    for classes in (5, 9, 10, 11, 1000):
        autoattack_stage(model, pixels, labels, stage, 0.2, classes)
    assert asked == [(count, 2) for count in (4, 8, 9, 9, 9)]
