"""The prior covariance of the predictors: explicit features, soft and one-hot gates, draws of the prior."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from search.strategy.kernel import CHANGE, SHARPNESS, Covariance, Encoded, prior_draw
from search.strategy.shares import PARTS

MIXED = [0.5, 0, 2, 0.1, 0.7, 0.2, 1, 3]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def soft(count, rows=4, operations=3, seed=0):
    """Gates (count, rows, operations) between the operations, sizes (count, 2) and paths (count, 3)."""
    generator = seeded(seed)
    logits = 2 * torch.randn(count, rows, operations, generator=generator, dtype=torch.float64)
    features = torch.randn(count, 5, generator=generator, dtype=torch.float64)
    return Encoded(logits.softmax(-1), features[:, :2], features[:, 2:], hard=False)


def hard(count, rows=4, operations=3, seed=0):
    between = soft(count, rows, operations, seed)
    return between._replace(gates=F.one_hot(between.gates.argmax(-1), operations).double(), hard=True)


def share_of(part):
    return [float(part == other) for other in range(len(PARTS))]


def covariances(a, b):
    """The covariance (8, m, n) of every part."""
    return torch.stack([Covariance(share_of(part), b)(a)[0] for part in range(len(PARTS))])


def by_features(one, i, other, j):
    """The parts between two architectures, from features written out."""
    (a, size_a, path_a), (b, size_b, path_b) = ([part[k] for part in coded[:3]] for coded, k in ((one, i), (other, j)))
    rows, operations = a.shape
    za, zb = a - 1 / operations, b - 1 / operations
    single = rows * (1 - 1 / operations)
    pairs = rows * (rows - 1) / 2 * (1 - 1 / operations) ** 2
    anywhere = sum(za[:, o].sum() * zb[:, o].sum() for o in range(operations))
    pair_anywhere = sum(za[:, o].sum() * za[:, p].sum() * zb[:, o].sum() * zb[:, p].sum()
                        for o in range(operations) for p in range(operations))
    in_pairs = sum(za[r, o] * za[s, p] * zb[r, o] * zb[s, p] for r, s in itertools.combinations(range(rows), 2)
                   for o in range(operations) for p in range(operations))
    together = 1.0
    for r in range(rows):
        together = together * (1 - CHANGE + CHANGE * (a[r] * b[r]).sum())
    near = torch.exp(-(size_a - size_b).square().sum() / 2)
    return torch.stack([anywhere / single, (za * zb).sum() / single, pair_anywhere / (2 * pairs), in_pairs / pairs,
                        together, (size_a * size_b).mean(), together * near,
                        torch.exp(-SHARPNESS / 2 * (path_a - path_b).square().mean())])


@pytest.mark.parametrize("gates", [soft, hard])
def test_every_part_is_the_product_of_its_features(gates):
    a, b = gates(3, seed=1), gates(2, seed=2)
    expected = torch.stack([torch.stack([by_features(a, i, b, j) for j in range(2)], 1) for i in range(3)], 1)
    torch.testing.assert_close(covariances(a, b), expected)
    assert len(expected) == len(PARTS)
    for shares in (MIXED, [0] * 8):
        weighted = torch.tensordot(torch.tensor(shares).double(), expected, 1)
        torch.testing.assert_close(Covariance(shares, b)(a)[0], weighted)


@pytest.mark.parametrize("shares", [MIXED, *map(share_of, range(len(PARTS)))])
def test_one_hot_gates_have_a_quick_way(shares):
    a, covariance = hard(6, 9, 5, seed=1), Covariance(shares, hard(4, 9, 5, seed=2))
    for quick, found in zip(covariance(a), covariance(a._replace(hard=False)), strict=True):
        torch.testing.assert_close(quick, found)


@pytest.mark.parametrize("gates", [soft, hard])
@pytest.mark.parametrize("rows", [1, 2, 4])
def test_variances_are_the_diagonal(rows, gates):
    covariance, variances = Covariance(MIXED, gates(7, rows))(gates(7, rows))
    torch.testing.assert_close(variances, covariance.diagonal())


def test_a_random_architecture_has_a_variance_of_about_one():
    features = torch.randn(20000, 5, generator=seeded(3), dtype=torch.float64)
    a = hard(20000, 6, 5)._replace(sizes=features[:, :2], paths=features[:, 2:])
    found = torch.stack([Covariance(share_of(part), hard(1, 6, 5))(a)[1].mean() for part in range(len(PARTS))])
    assert found.min() > 0.9 and found.max() < 2 and found[[0, 1, 3, 4, 5, 6, 7]].max() < 1.1


def test_one_row_has_no_pairs():
    a = hard(4, rows=1)
    assert covariances(a, a)[3].abs().max() < 1e-12 and covariances(a, a).isfinite().all()


def test_every_part_is_positive_semidefinite():
    a = hard(30, 5, 4)
    for part in covariances(a, a):
        assert torch.linalg.eigvalsh(part).min() > -1e-9


@pytest.mark.parametrize("gates", [soft, hard])
@pytest.mark.parametrize("shares", [MIXED, *map(share_of, range(len(PARTS)))])
def test_gradients_are_those_of_differences(shares, gates):
    a, covariance = gates(2, seed=1), Covariance(shares, soft(3, seed=2))
    inputs = tuple(part.requires_grad_() for part in a[:3])
    for results in (slice(0, 2), slice(0, 1), slice(1, 2)):  # both, and one of them alone
        def found(*parts, results=results):
            return covariance(Encoded(*parts, hard=False))[results]

        assert torch.autograd.gradcheck(found, inputs)


@pytest.mark.slow
@pytest.mark.parametrize("part", range(len(PARTS)))
def test_draws_of_the_prior_have_its_covariance(part):
    a, generator = soft(3, seed=4), seeded(5)
    shares = [2.0 * (part == other) for other in range(len(PARTS))]
    draws = torch.stack([prior_draw(shares, a, generator)(a) for _ in range(600)])
    expected = 2 * covariances(a, a)[part]
    scale = expected.diagonal().max()
    assert (draws.T @ draws / len(draws) - expected).abs().max() < 0.25 * scale
