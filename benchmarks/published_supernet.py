"""The supernet and the loss estimator as the published procedure runs them, in plain torch, for comparisons of speed.

Written from the facts about the published code, of which nothing is copied. It imports nothing of the library, so that
no improvement there makes the comparison quicker as well. Layers, widths and sampling are those of
``search.supernet.Supernet``; what differs is how a forward pass is run.
"""

from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn

NODES = 4
SOURCES = tuple(tuple(range(2 + node)) for node in range(NODES))
EDGES = sum(map(len, SOURCES))
OPERATIONS = 8


def pointwise(channels_in: int, channels: int) -> nn.Sequential:
    """Return ReLU, 1x1 convolution, BatchNorm."""
    return nn.Sequential(nn.ReLU(), nn.Conv2d(channels_in, channels, 1, bias=False),
                         nn.BatchNorm2d(channels, affine=False))


def depthwise(channels: int, size: int, stride: int, dilation: int = 1) -> nn.Sequential:
    """Return ReLU, depthwise convolution, 1x1 convolution, BatchNorm."""
    return nn.Sequential(
        nn.ReLU(), nn.Conv2d(channels, channels, size, stride, dilation * (size // 2), dilation, channels, bias=False),
        nn.Conv2d(channels, channels, 1, bias=False), nn.BatchNorm2d(channels, affine=False))


class Halving(nn.Module):
    """Halve height and width by two 1x1 convolutions of stride 2, one pixel apart."""

    def __init__(self, channels_in: int, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels_in, channels // 2, 1, 2, bias=False)
        self.second = nn.Conv2d(channels_in, channels - channels // 2, 1, 2, bias=False)
        self.norm = nn.BatchNorm2d(channels, affine=False)

    def forward(self, x: Tensor) -> Tensor:
        """Return (B, channels, H / 2, W / 2)."""
        x = F.relu(x)
        return self.norm(torch.cat([self.first(x), self.second(x[:, :, 1:, 1:])], 1))


class Nothing(nn.Module):
    """The operation ``none``."""

    def __init__(self, stride: int) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, x: Tensor) -> Tensor:
        """Return zeros."""
        return 0 * x[:, :, ::self.stride, ::self.stride]


def candidates(channels: int, stride: int) -> nn.ModuleList:
    """Return the eight operations of an edge."""
    norm = [nn.BatchNorm2d(channels, affine=False) for _ in range(2)]
    return nn.ModuleList([
        Nothing(stride),
        nn.Sequential(nn.MaxPool2d(3, stride, 1), norm[0]),
        nn.Sequential(nn.AvgPool2d(3, stride, 1, count_include_pad=False), norm[1]),
        nn.Identity() if stride == 1 else Halving(channels, channels),
        *(nn.Sequential(depthwise(channels, size, stride), depthwise(channels, size, 1)) for size in (3, 5)),
        *(depthwise(channels, size, stride, dilation=2) for size in (3, 5))])


class PublishedCell(nn.Module):
    """A cell with all operations on all edges, of which the largest weight chooses one in each forward pass."""

    def __init__(self, before: int, previous: int, channels: int, reduction: bool, halve: bool) -> None:
        super().__init__()
        self.first = Halving(before, channels) if halve else pointwise(before, channels)
        self.second = pointwise(previous, channels)
        self.edges = nn.ModuleList(candidates(channels, 2 if reduction and source < 2 else 1)
                                   for sources in SOURCES for source in sources)

    def forward(self, s0: Tensor, s1: Tensor, weights: Tensor) -> Tensor:
        """Return (B, 4 C, H, W) for weights (E, O) on the device."""
        states = [self.first(s0), self.second(s1)]
        edges = iter(zip(self.edges, weights, strict=True))
        for _ in range(NODES):
            incoming = []
            for state in list(states):
                operations, weight = next(edges)
                chosen = weight.argmax()
                operation = cast(nn.ModuleList, operations)[int(chosen)]  # the host waits for the device (B23)
                incoming.append(weight[chosen] * operation(state))
            states.append(sum(incoming[1:], incoming[0]))
        return torch.cat(states[2:], 1)


class PublishedSupernet(nn.Module):
    """The supernet: alphas are plain tensors, and every cell computes the softmax of its weights again.

    Args:
        channels: C of the first cells.
        layers: number of cells.
        classes: K.
        temperature: that of the Gumbel-softmax.
    """

    def __init__(self, channels: int, layers: int, classes: int, temperature: float = 0.1) -> None:
        super().__init__()
        self.temperature = temperature
        self.stem = nn.Sequential(nn.Conv2d(3, 3 * channels, 3, padding=1, bias=False), nn.BatchNorm2d(3 * channels))
        before = previous = 3 * channels
        self.reductions = {layers // 3, 2 * layers // 3}
        self.cells = nn.ModuleList()
        for number in range(layers):
            reduction = number in self.reductions
            channels *= 2 if reduction else 1
            self.cells.append(PublishedCell(before, previous, channels, reduction, number - 1 in self.reductions))
            before, previous = previous, NODES * channels
        self.head = nn.Linear(previous, classes)
        self.alphas = [1e-3 * torch.randn(EDGES, OPERATIONS) for _ in range(2)]
        self.noises = [torch.zeros(EDGES, OPERATIONS) for _ in range(2)]

    def use(self, device: torch.device) -> None:
        """Move what is not a parameter to the device as well."""
        self.alphas = [alpha.to(device) for alpha in self.alphas]

    def sample(self, generator: torch.Generator) -> None:
        """Draw the Gumbel noise of one iteration."""
        self.noises = [-(-torch.rand(alpha.shape, generator=generator).clamp_min(1e-12).log()).log().to(alpha)
                       for alpha in self.alphas]

    def weights(self, kind: int) -> Tensor:
        """Return H (E, O) of the normal (0) or the reduction cell (1)."""
        return ((self.alphas[kind] + self.noises[kind]) / self.temperature).softmax(-1)

    def forward(self, images: Tensor) -> Tensor:
        """Return logits (B, K)."""
        s0 = s1 = self.stem(images)
        for number, cell in enumerate(self.cells):
            s0, s1 = s1, cell(s0, s1, self.weights(int(number in self.reductions)).detach())
        return self.head(s1.mean((2, 3)))


class PublishedLossEstimator(nn.Module):
    """The VLE: an LSTM over the 28 rows of H, and one head of 2 * sigmoid for each loss.

    Args:
        losses: number of heads.
    """

    def __init__(self, losses: int) -> None:
        super().__init__()
        self.encoder = nn.LSTM(OPERATIONS, 16, batch_first=True)
        self.heads = nn.ModuleList(nn.Linear(16, 1) for _ in range(losses))

    def forward(self, gates: Tensor) -> Tensor:
        """Return losses (B, L) of gates (B, 28, 8)."""
        hidden = self.encoder(gates)[0][:, -1]
        return torch.cat([2 * head(hidden).sigmoid() for head in self.heads], 1)
