"""F as a function of A: its gradient by central differences, what it leaves alone, two processes; the bound's texts."""

import copy
import math
from dataclasses import replace

import pytest
import torch
import torch.nn.functional as F

from search.bound import Bound
from search.relaxation import Relaxation
from search.spaces.darts import EDGES
from search.supernet import Supernet, gumbel_noise
from search.vulnerability.constraint import Attacked, Constraint
from search.vulnerability.projection import project
from tests.processes import run_twice
from tests.quick import slow_after
from wsrnas.runtime.distributed import World, initialize, shutdown
from wsrnas.runtime.errors import InputError
from wsrnas.runtime.seeding import generator
from wsrnas.training.losses import LOSSES, LossSettings

EPSILON, TAU, SEED = 0.1, 0.7, 3
# Relaxation, whether BatchNorm takes the batch's statistics, standardisation, cells (one is a reduction alone).
CASES = [("mixed", True, True, 3), ("mixed", True, False, 1), ("mixed", False, True, 1), ("mixed", False, False, 1),
         ("sampled", True, True, 3), ("sampled", True, False, 1), ("sampled", False, True, 1),
         ("sampled", False, False, 3)]
SLOW = {case: pytest.param(case, marks=pytest.mark.slow) for case in CASES}


def make(relaxation="mixed", batch_statistics=True, standardize=True, layers=1, world=None, distance="spatial"):
    """A constraint in float64 on a supernet whose alphas are decided and whose running statistics are somebody's."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        supernet = Supernet(1, layers, 5, TAU, alpha_std=1.0, generator=generator(0, "alphas")).double()
    with torch.no_grad():
        supernet.mix(supernet.alphas().softmax(-1))
        supernet(2 * batch("statistics")[0])
    settings = LossSettings(EPSILON, 2, 0.07, random_start=True, batch_statistics=True)
    return Constraint(supernet, Relaxation(relaxation, TAU, SEED), settings, batch_statistics,
                      2 if relaxation == "sampled" else 1, distance, standardize, world or World(), SEED)


def batch(name="batch", count=4):
    """Images of which many pixels are at the border of the box."""
    images = torch.rand(count, 3, 8, 8, generator=generator(0, name), dtype=torch.float64)
    return (1.4 * images - 0.2).clamp(0, 1), torch.arange(count) % 5


def here(constraint):
    return constraint.supernet.alphas().detach()


def elsewhere(constraint, name="elsewhere"):
    """A random direction, which differs from A's."""
    return torch.randn(2, EDGES, 8, generator=generator(0, name), dtype=torch.float64)


def value_and_gradient(function, alphas):
    leaf = alphas.clone().requires_grad_(True)
    value = function(leaf)
    return value.detach(), torch.autograd.grad(value, leaf)[0]


# -- the value ------------------------------------------------------------------------------------------------------

def by_hand(constraint, parts, alphas):
    """F from the definition: on a copy of the supernet, KL written out, mean over channels, cells and parts."""
    supernet, values = copy.deepcopy(constraint.supernet).train(constraint.batch_statistics), []
    for part in parts:
        if constraint.relaxation.kind == "mixed":
            supernet.mix(alphas.softmax(-1))
        else:
            noise = gumbel_noise((2, EDGES, 8), generator(SEED, "path", *part.draw))
            supernet.use(((alphas + noise) / TAU).softmax(-1))
        outputs, cells = [], []
        supernet(part.images, outputs)
        for output in outputs:
            channels = []
            for clean, attacked in zip(*(half.transpose(0, 1) for half in output.detach().chunk(2)), strict=True):
                deviation = clean.std(correction=0)
                if deviation < 1e-6:
                    continue
                scale = deviation if constraint.standardize else 1
                p, q = ((maps / scale).flatten(1).softmax(1) for maps in (clean, attacked))
                channels.append((p * (p / q).log()).sum(1).mean())
            cells.append(torch.stack(channels).mean() if channels else torch.zeros((), dtype=torch.float64))
        values.append(torch.stack(cells).mean())
    return torch.stack(values).mean()


@pytest.mark.slow
@pytest.mark.parametrize("case", [CASES[0], CASES[3], CASES[4], CASES[7]], ids=str)
def test_it_is_the_mean_divergence_of_the_frozen_images_maps(case):
    constraint = make(*case)
    frozen = constraint.freeze(batch(), "name", 1)
    for alphas in (here(constraint), elsewhere(constraint)):
        found = constraint.value(frozen, alphas)
        assert found == pytest.approx(by_hand(constraint, frozen, alphas).item(), rel=1e-9) and found > 0


def test_an_attack_that_does_nothing_leaves_a_vulnerability_of_zero():
    constraint = make()
    part = Attacked(torch.cat([batch()[0]] * 2), ())
    assert constraint.value([part], here(constraint)) == pytest.approx(0, abs=1e-12)


@pytest.mark.slow
def test_distance_and_standardisation_reach_the_metric():
    values = {(distance, standardize): constraint.value(constraint.freeze(batch()), here(constraint))
              for distance in ("spatial", "l1") for standardize in (True, False)
              for constraint in [make("sampled", True, standardize, 1, None, distance)]}
    assert len(set(values.values())) == 4


# -- the gradient ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("case", [CASES[1], *(SLOW[case] for case in CASES if case != CASES[1])], ids=str)
def test_the_gradient_is_not_zero_and_that_of_central_differences(case):
    constraint, step = make(*case), 1e-6
    frozen = constraint.freeze(batch(), "name", 1)
    vulnerability, alphas = constraint.of_batch(frozen), here(constraint)
    value, gradient = value_and_gradient(vulnerability, alphas)
    assert value.item() == constraint.value(frozen, alphas)
    largest = gradient.abs().amax((1, 2))
    assert (largest[1 if case[3] == 1 else 0:] > 1e-3 * value).all()  # a single cell is a reduction
    torch.testing.assert_close(gradient.sum(-1), torch.zeros(2, EDGES, dtype=torch.float64), rtol=0,
                               atol=1e-9 * largest.max().item())  # an edge's softmax does not know a constant
    for direction in (elsewhere(constraint) / 15, gradient / gradient.norm()):
        with torch.no_grad():
            slope = (vulnerability(alphas + step * direction) - vulnerability(alphas - step * direction)) / (2 * step)
        expected = (gradient * direction).sum().item()
        assert slope.item() == pytest.approx(expected, rel=1e-4, abs=1e-5 * gradient.norm().item())


@pytest.mark.slow
@pytest.mark.parametrize("relaxation", ["mixed", "sampled"])
def test_of_many_batches_it_is_the_mean(relaxation):
    constraint = make(relaxation)
    batches = [constraint.freeze(batch(name), name) for name in ("first", "second", "third")]
    for alphas in (here(constraint), elsewhere(constraint)):
        each = [value_and_gradient(constraint.of_batch(frozen), alphas) for frozen in batches]
        value, gradient = value_and_gradient(constraint.of_batches(batches), alphas)
        torch.testing.assert_close(value, torch.stack([v for v, _ in each]).mean())
        torch.testing.assert_close(gradient, torch.stack([g for _, g in each]).mean(0))
        assert len({v.item() for v, _ in each}) == 3


def test_of_paths_that_nothing_passes_it_has_no_gradient(monkeypatch):
    constraint = make("sampled")
    monkeypatch.setattr(type(constraint), "of_batch", lambda self, frozen: lambda alphas: torch.tensor(0.25))
    value, gradient = value_and_gradient(constraint.of_batches([[], []]), here(constraint))
    assert value == 0.25 and not gradient.any()


# -- what stays -----------------------------------------------------------------------------------------------------

def snapshot(constraint):
    """Everything that a measurement might change."""
    supernet = constraint.supernet
    return {"tensors": {name: value.clone() for name, value in supernet.state_dict().items()},
            "modes": [module.training for module in supernet.modules()],
            "tracking": [module.track_running_stats for module in supernet.modules()
                         if hasattr(module, "track_running_stats")],
            "trainable": [p.requires_grad for p in supernet.parameters()],
            "gradients": [None if p.grad is None else p.grad.clone() for p in supernet.parameters()],
            "random": torch.random.get_rng_state()}


def assert_same(before, after):
    for name, values in before.items():
        if name in ("modes", "tracking", "trainable"):
            assert values == after[name], name
        else:
            torch.testing.assert_close(after[name], values, rtol=0, atol=0, msg=name)


@pytest.mark.slow
@pytest.mark.parametrize("case", [CASES[1], CASES[2], CASES[4]], ids=str)
def test_nothing_changes_but_what_it_returns(case):
    constraint = make(*case)
    supernet = constraint.supernet.train()
    supernet.cells[0].edges[3].eval()  # each module has a mode of its own
    supernet.classifier.weight.requires_grad_(False)
    supernet.stem.conv.weight.grad = torch.ones_like(supernet.stem.conv.weight)
    before = snapshot(constraint)
    frozen = constraint.freeze(batch(), "name", 1)
    assert_same(before, snapshot(constraint))
    vulnerability = constraint.of_batch(frozen)
    value, _ = value_and_gradient(vulnerability, elsewhere(constraint))
    value_and_gradient(constraint.of_batches([frozen]), here(constraint))
    assert_same(before, snapshot(constraint))
    for method in ("slp", "dual"):
        found = project(vulnerability, elsewhere(constraint), 0.9 * value.item(), method, max_iterations=2)
        assert found.before == value.item() and found.distance > 0 and not found.alphas.requires_grad
        assert_same(before, snapshot(constraint))


@pytest.mark.parametrize("case", [CASES[1], SLOW[CASES[2]], SLOW[CASES[4]]], ids=str)
def test_the_same_alphas_have_the_same_vulnerability(case, monkeypatch):
    """The images are those of the freezing, wherever A moves: nobody attacks again."""
    constraint = make(*case)
    frozen = constraint.freeze(batch(), "name", 1)
    images = [part.images.clone() for part in frozen]
    monkeypatch.setitem(LOSSES, "pgd", None)
    vulnerability, alphas = constraint.of_batch(frozen), here(constraint)
    value, gradient = value_and_gradient(vulnerability, alphas)
    with torch.no_grad():
        for parameter, there in zip(constraint.supernet.architecture_parameters(), elsewhere(constraint), strict=True):
            parameter.copy_(there)  # the supernet's own A is not asked
    torch.manual_seed(17)
    other, _ = value_and_gradient(vulnerability, elsewhere(constraint))
    again = value_and_gradient(vulnerability, alphas)
    assert torch.equal(again[0], value) and torch.equal(again[1], gradient) and not torch.equal(other, value)
    assert all(torch.equal(part.images, kept) for part, kept in zip(frozen, images, strict=True))


@pytest.mark.slow
def test_a_projection_onto_the_bound():
    constraint = make()
    vulnerability = constraint.of_batch(constraint.freeze(batch()))
    before = vulnerability(here(constraint)).item()
    found = project(vulnerability, here(constraint), 0.9 * before)
    assert found.feasible and found.after <= 0.9 * before * 1.01 and 0 < found.distance < 2
    assert vulnerability(found.alphas).item() == found.after


# -- the frozen images ----------------------------------------------------------------------------------------------

@pytest.mark.parametrize("case", [CASES[1], SLOW[CASES[2]], SLOW[CASES[4]]], ids=str)
def test_the_frozen_images_are_in_ball_and_box(case):
    constraint = make(*case)
    images, labels = batch()
    frozen = constraint.freeze((images, labels), "name", 1)
    assert len(frozen) == constraint.paths and [part.draw for part in frozen] == [
        ("name", 1, number) for number in range(constraint.paths)]
    clean, attacked = (torch.cat(halves) for halves in zip(*(part.images.chunk(2) for part in frozen), strict=True))
    assert torch.equal(clean, images)
    assert attacked.min() >= 0 and attacked.max() <= 1
    distance = (attacked - images).abs()
    assert distance.max() <= EPSILON + 1e-12 and (distance > 0.05).double().mean() > 0.3
    same = constraint.freeze((images, labels), "name", 1)
    assert all(torch.equal(a.images, b.images) for a, b in zip(frozen, same, strict=True))
    other = constraint.freeze((images, labels), "name", 2)  # another random start
    assert not torch.equal(frozen[0].images, other[0].images)
    with torch.no_grad():
        for parameter in constraint.supernet.architecture_parameters():
            parameter.copy_(parameter.flip(0))
    moved = constraint.freeze((images, labels), "name", 1)  # at another A
    assert not torch.equal(frozen[0].images, moved[0].images)


@pytest.mark.parametrize("batch_statistics", [True, False])
def test_the_attack_maximises_the_loss_of_the_network_that_is_measured(batch_statistics):
    """From the images themselves, one step of it is the sign of the gradient of the cross-entropy."""
    constraint = make("mixed", batch_statistics)
    constraint = replace(constraint, settings=replace(constraint.settings, steps=1, step_size=0.05, random_start=False))
    images, labels = batch()
    attacked = constraint.freeze((images, labels))[0].images[len(images):]
    supernet = copy.deepcopy(constraint.supernet).train(batch_statistics)
    supernet.mix(here(constraint).softmax(-1))
    leaf = images.clone().requires_grad_(True)
    gradient, = torch.autograd.grad(F.cross_entropy(supernet(leaf), labels), leaf)
    torch.testing.assert_close(attacked, (images + 0.05 * gradient.sign()).clamp(0, 1))


# -- two processes --------------------------------------------------------------------------------------------------

SHARED = [("mixed", True, True, 1), ("sampled", False, True, 3)]


def measure(case, world):
    """What one process sees of a batch of which it has every ``size``-th image."""
    constraint = make(*case, world)
    images, labels = batch(count=8)
    share = images[world.rank::world.size], labels[world.rank::world.size]
    first, second = (constraint.freeze(share, name) for name in ("first", "second"))
    value, gradient = value_and_gradient(constraint.of_batch(first), elsewhere(constraint))
    both = value_and_gradient(constraint.of_batches([first, second]), elsewhere(constraint))
    found = project(constraint.of_batch(first), elsewhere(constraint), 0.9 * value.item(), max_iterations=1)
    return {"value": value, "gradient": gradient, "both": both, "projected": found.alphas, "without graph":
            constraint.value(first, elsewhere(constraint)), "images": [[p.images for p in f] for f in (first, second)]}


def main(folder):
    world = initialize("cpu")
    torch.manual_seed(world.rank)  # the processes may agree on nothing by chance
    torch.save({case: measure(case, world) for case in SHARED}, folder / f"rank{world.rank}.pt")
    shutdown()


@pytest.mark.slow
def test_two_processes_agree_on_the_mean_of_their_shares(tmp_path):
    run_twice(main, tmp_path)
    ranks = [torch.load(tmp_path / f"rank{rank}.pt") for rank in range(2)]
    for case in SHARED:
        constraint, (first, second) = make(*case), (rank[case] for rank in ranks)
        for name in ("value", "gradient", "projected", "without graph"):
            assert torch.equal(torch.as_tensor(first[name]), torch.as_tensor(second[name])), name
        assert all(torch.equal(a, b) for a, b in zip(first["both"], second["both"], strict=True))
        means = []
        for number, name in enumerate(("first", "second")):
            each = [value_and_gradient(constraint.of_batch([Attacked(images, (name, part))
                                                            for part, images in enumerate(rank["images"][number])]),
                                       elsewhere(constraint)) for rank in (first, second)]
            assert each[0][0] != each[1][0]  # the processes have images of their own
            means.append([torch.stack(values).mean(0) for values in zip(*each, strict=True)])
        torch.testing.assert_close([first["value"], first["gradient"]], means[0])
        torch.testing.assert_close(list(first["both"]), [(a + b) / 2 for a, b in zip(*means, strict=True)])
        assert first["without graph"] == first["value"].item()
        assert not torch.equal(first["projected"], elsewhere(constraint))


@pytest.mark.slow
def test_two_processes_attack_as_one_does():
    """Where BatchNorm does not look at the batch, an image's noise does not depend on the number of processes."""
    constraint, (images, labels) = make("mixed", False), batch()
    whole = constraint.freeze((images, labels), "name")[0].images[4:]
    for rank in range(2):
        share = replace(constraint, world=World(rank, 2)).freeze((images[rank::2], labels[rank::2]), "name")
        torch.testing.assert_close(share[0].images[2:], whole[rank::2])


# -- the bound ------------------------------------------------------------------------------------------------------

@pytest.mark.parametrize(("text", "value", "relative", "resolved"), [
    ("1e-3", 1e-3, False, 1e-3), ("8/255", 8 / 255, False, 8 / 255), ("rel:0.6", 0.6, True, 1.2),
    ("rel:3/4", 0.75, True, 1.5), ("rel:1.5", 1.5, True, 3.0), ("inf", math.inf, False, math.inf),
    ("Infinity", math.inf, False, math.inf),
])
def test_the_text_of_a_bound_is_a_number_or_a_share(text, value, relative, resolved):
    bound = Bound.parse(text)
    assert bound == Bound(value, relative) and bound.resolve(2.0) == pytest.approx(resolved)
    assert bound.finite == math.isfinite(value)


@pytest.mark.parametrize("text", ["0", "-1", "rel:0", "rel:-0.5", "rel:inf", "nan", "rel:nan", "-inf", "0.0",
                                  "1e400", "rel:1e400"])
def test_bounds_that_are_not_above_zero_are_refused(text):
    with pytest.raises(InputError) as caught:
        Bound.parse(text)
    assert str(caught.value) == (f"vulnerability_bound is {text}; expected a number above 0, rel:0.6 (a share of the "
                                 "vulnerability after the warm-up), or inf")


@pytest.mark.parametrize("text", ["", "abc", "rel:", "rel:x", "rel: ", "relative:0.6", "rel:rel:0.6", "1/0", "0,5"])
def test_texts_that_are_no_bounds_are_refused(text):
    with pytest.raises(InputError) as caught:
        Bound.parse(text)
    assert str(caught.value) == (f"vulnerability_bound is {text!r}, which is not a bound; expected a number above 0, "
                                 "rel:0.6 (a share of the vulnerability after the warm-up), or inf")


@pytest.mark.parametrize("mean", slow_after(1, [1e-3, 0.3, 7.0]))
def test_f_is_exactly_the_mean_over_the_processes(mean, monkeypatch):
    """Or processes would decide differently and wait for one another: x + (m - x) is not always m."""
    constraint = make()
    monkeypatch.setattr(Constraint, "mean_over_processes", lambda self, values: torch.full_like(values.detach(), mean))
    leaf = here(constraint).requires_grad_(True)
    value = constraint.of_batch(constraint.freeze(batch()))(leaf)
    assert torch.equal(value.detach(), torch.full_like(value.detach(), mean))
    assert torch.autograd.grad(value, leaf)[0].abs().sum() > 0
