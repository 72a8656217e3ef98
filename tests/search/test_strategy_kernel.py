"""The prior covariance of the predictors: explicit features, soft and one-hot gates, draws of the prior."""

import itertools

import pytest
import torch
import torch.nn.functional as F

from search.strategy.kernel import CHANGE, PARTS, covariances, hard_covariances, prior_draw, variances


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def soft(count, rows=4, operations=3, seed=0):
    """Gates (count, rows, operations) between the operations, and sizes (count, 2)."""
    generator = seeded(seed)
    logits = 2 * torch.randn(count, rows, operations, generator=generator, dtype=torch.float64)
    return logits.softmax(-1), torch.randn(count, 2, generator=generator, dtype=torch.float64)


def hard(count, rows=4, operations=3, seed=0):
    gates, sizes = soft(count, rows, operations, seed)
    return F.one_hot(gates.argmax(-1), operations).double(), sizes


def by_features(a, size_a, b, size_b):
    """The parts between two architectures, from features written out."""
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
                        together, (size_a * size_b).mean(), together * near])


@pytest.mark.parametrize("gates", [soft, hard])
def test_every_part_is_the_product_of_its_features(gates):
    (a, size_a), (b, size_b) = gates(3, seed=1), gates(2, seed=2)
    expected = torch.stack([torch.stack([by_features(a[i], size_a[i], b[j], size_b[j]) for j in range(2)], 1)
                            for i in range(3)], 1)
    torch.testing.assert_close(covariances(a, size_a, b, size_b), expected)
    assert len(expected) == len(PARTS)


def test_one_hot_gates_have_a_quick_way():
    (a, size_a), (b, size_b) = hard(6, 9, 5, seed=1), hard(4, 9, 5, seed=2)
    torch.testing.assert_close(hard_covariances(a, size_a, b, size_b), covariances(a, size_a, b, size_b))


@pytest.mark.parametrize("gates", [soft, hard])
def test_variances_are_the_diagonal(gates):
    a, size = gates(7)
    torch.testing.assert_close(variances(a, size), covariances(a, size, a, size).diagonal(dim1=1, dim2=2))


def test_a_random_architecture_has_a_variance_of_about_one():
    gates, _ = hard(20000, 6, 5)
    sizes = torch.randn(20000, 2, generator=seeded(3), dtype=torch.float64)
    found = variances(gates, sizes).mean(1)
    assert found.min() > 0.9 and found.max() < 2 and found[[0, 1, 3, 4, 5, 6]].max() < 1.1


def test_every_part_is_positive_semidefinite():
    a, size = hard(30, 5, 4)
    for part in covariances(a, size, a, size):
        assert torch.linalg.eigvalsh(part).min() > -1e-9


def test_gradients_are_those_of_differences():
    (a, size_a), (b, size_b) = soft(2, seed=1), soft(2, seed=2)
    assert torch.autograd.gradcheck(lambda gates, sizes: covariances(gates, sizes, b, size_b),
                                    (a.requires_grad_(), size_a.requires_grad_()))


@pytest.mark.parametrize("part", range(7))
def test_draws_of_the_prior_have_its_covariance(part):
    gates, sizes = soft(3, seed=4)
    shares = torch.zeros(7, dtype=torch.float64)
    shares[part] = 2.0
    generator = seeded(5)
    draws = torch.stack([prior_draw(shares, 4, 3, 2, generator)(gates, sizes) for _ in range(600)])
    expected = 2 * covariances(gates, sizes, gates, sizes)[part]
    scale = expected.diagonal().max()
    assert (draws.T @ draws / len(draws) - expected).abs().max() < 0.25 * scale
