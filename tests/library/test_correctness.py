"""The one rule of which images are right, and that every count of the programs keeps to it."""


import torch
from torch import nn

from test_AN_estimator.noises import is_right
from wsrnas.attacks import is_correct


def test_what_is_no_number_is_never_right():
    logits = torch.tensor([[3.0, 1.0], [torch.nan, 1.0], [torch.inf, 1.0], [0.0, -torch.inf], [1.0, 3.0]])
    assert is_correct(logits, torch.zeros(5, dtype=torch.long)).tolist() == [True, False, False, False, False]


def test_is_correct_compares_the_largest_logit():
    logits, labels = torch.randn(50, 7, generator=torch.Generator().manual_seed(0)), torch.arange(50) % 7
    assert is_correct(logits, labels).tolist() == [max(range(7), key=row.__getitem__) == label
                                                   for row, label in zip(logits.tolist(), labels.tolist(), strict=True)]


class Broken(nn.Module):
    """A network whose logits are NaN: argmax gives class 0."""

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return images.new_full((len(images), 3), torch.nan)


def test_a_network_that_has_broken_down_is_right_about_nothing():
    images, labels = torch.rand(4, 3, 8, 8), torch.zeros(4, dtype=torch.long)
    assert not is_right(Broken(), images, labels).any()
