"""What holds for every value: genotypes as JSON, projections onto balls and boxes, splits, the names of attacks."""

import pytest
import torch
from hypothesis import HealthCheck, given, reject, settings
from hypothesis import strategies as st
from torch import nn

from wsrnas.attacks import pgd
from wsrnas.data.splits import balanced_split, balanced_subset, load_split, save_split
from wsrnas.estimators.base import project
from wsrnas.evaluation.attack_spec import Attack, parse_attack
from wsrnas.evaluation.attack_table import ATTACKS
from wsrnas.genotype import Genotype
from wsrnas.operations import OPERATIONS
from wsrnas.runtime.errors import InputError

MODEL = nn.Sequential(nn.Flatten(), nn.Linear(12, 2))  # of images of 3x2x2 pixels
seeds = st.integers(0, 2**31)


# -- genotypes ------------------------------------------------------------------------------------------------------

@st.composite
def cells(draw):
    """Nodes with one to four edges each, equal ones among them, and concatenated nodes, some of them twice."""
    number = draw(st.integers(1, 5))
    nodes = [draw(st.lists(st.tuples(st.sampled_from(sorted(OPERATIONS)), st.integers(0, node - 1)), min_size=1,
                           max_size=4)) for node in range(2, number + 2)]
    return nodes, draw(st.lists(st.integers(2, number + 1), min_size=1, max_size=5))


@pytest.mark.slow
@given(cells(), cells())
def test_a_genotype_survives_json(tmp_path_factory, normal, reduce):
    genotype = Genotype(*normal, *reduce)
    assert Genotype.from_json(genotype.to_json()) == genotype
    path = tmp_path_factory.mktemp("genotype") / "genotype.json"
    genotype.save(path, {"epoch": 3})
    assert Genotype.load(path) == genotype and hash(Genotype.load(path)) == hash(genotype)


# -- projections ----------------------------------------------------------------------------------------------------

def drawn(seed, *shape):
    """Numbers in [0, 1), a tenth of them at a border of the box."""
    draw = torch.Generator().manual_seed(seed)
    values = torch.rand(shape, generator=draw)
    return torch.where(torch.rand(shape, generator=draw) < 0.1, values.round(), values)


@given(seeds, st.floats(0, 2, width=32), st.floats(0, 3, width=32), st.sampled_from(["linf", "l2"]))
def test_an_attack_projects_into_its_ball_and_into_the_image_box(seed, epsilon, scale, norm):
    images, labels = drawn(seed, 3, 3, 2, 2), torch.tensor([0, 1, 0])
    epsilon = min(epsilon, 1) if norm == "linf" else epsilon  # more is refused
    start = images + scale * (2 * drawn(seed + 1, 3, 3, 2, 2) - 1)

    def projected(values):
        return pgd(MODEL, images, labels, epsilon, 0, start=values, norm=norm)  # no step, so only the projection
    once = projected(start)
    distance = torch.linalg.vector_norm((once - images).flatten(1), 2 if norm == "l2" else torch.inf, dim=1)
    assert (distance <= epsilon * (1 + 1e-5) + 1e-6).all() and once.min() >= 0 and once.max() <= 1
    torch.testing.assert_close(projected(once), once, rtol=0, atol=1e-6)


@given(seeds, st.lists(st.floats(0, 1.5, width=32), min_size=1, max_size=3))
def test_estimated_noise_is_projected_into_its_ball_and_into_the_image_box(seed, epsilons):
    images, epsilons = drawn(seed, 2, 3, 2, 2), torch.tensor(epsilons)
    noise = project(4 * drawn(seed + 1, 2, len(epsilons), 3, 2, 2) - 2, images, epsilons)
    assert (noise.abs() <= epsilons[:, None, None, None]).all()
    pixels = images[:, None] + noise
    assert pixels.min() >= -1e-6 and pixels.max() <= 1 + 1e-6
    assert torch.equal(project(noise, images, epsilons), noise)  # clamping again to the same bounds


# -- splits ---------------------------------------------------------------------------------------------------------

@st.composite
def labelled(draw):
    """Labels of two to five classes, at least two images of each, in any order."""
    sizes = draw(st.lists(st.integers(2, 9), min_size=2, max_size=5))
    return torch.tensor(draw(st.permutations([label for label, size in enumerate(sizes) for _ in range(size)])))


@pytest.mark.slow
@given(labelled(), st.one_of(st.floats(0.05, 0.95), st.integers(1, 40)), seeds)
def test_a_split_is_disjoint_and_complete_and_has_every_class_in_both_parts(tmp_path_factory, labels, share, seed):
    try:
        first, second = balanced_split(labels, share, seed, int(labels.max()) + 1)
    except InputError:
        reject()  # a part would lack a class
    assert torch.equal(torch.cat([first, second]).sort().values, torch.arange(len(labels)))
    assert set(labels[first].tolist()) == set(labels[second].tolist()) == set(labels.tolist())
    assert not isinstance(share, int) or len(first) == share
    path = tmp_path_factory.mktemp("split") / "split.json"
    save_split(path, first, second)
    assert all(map(torch.equal, load_split(path, len(labels)), (first, second)))


@given(labelled(), st.integers(5, 50), seeds)
def test_a_subset_has_the_size_that_was_asked_for_and_balanced_classes(labels, count, seed):
    classes = int(labels.max()) + 1
    chosen = balanced_subset(labels, count, seed, "max_train", classes)
    assert len(chosen) == len(set(chosen.tolist())) == min(count, len(labels))
    counts, sizes = (torch.bincount(values, minlength=classes) for values in (labels[chosen], labels))
    short = counts < sizes  # classes with images left over have as many as any other one, give or take one
    assert not short.any() or (counts[short].min() + 1 >= counts.max())


# -- names of attacks -----------------------------------------------------------------------------------------------

@settings(suppress_health_check=[HealthCheck.filter_too_much])  # many methods take no steps, restarts or norm
@given(st.sampled_from(sorted(ATTACKS)), st.sampled_from(["", "-l2"]), st.integers(0, 300), st.integers(1, 20))
def test_the_text_of_an_attack_is_read_as_that_attack(method, norm, steps, restarts):
    try:
        attack = parse_attack(method + norm + (f"-{steps}" if steps else "") + (f"x{restarts}" if restarts > 1 else ""))
    except InputError:
        reject()
    assert isinstance(attack, Attack) and parse_attack(str(attack)) == attack


@pytest.mark.parametrize("name", ATTACKS)
def test_the_text_of_every_attack_is_read_as_that_attack(name):
    assert parse_attack(str(parse_attack(name))) == parse_attack(name)
