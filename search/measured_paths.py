"""What a row of ``metrics.jsonl`` says about the paths that a step has measured."""

from collections.abc import Sequence
from typing import Any

from torch import Tensor

from search.collapse import free_shares
from search.spaces.space import ImageShape, Space

Network = tuple[int, int, int, ImageShape]  # channels C, cells, classes, shape of an image


def parameters(space: Space, choices: Tensor, network: Network) -> list[int]:
    """Return the parameters of the stand-alone networks of choices (n, R)."""
    return space.cost(choices, *network)[:, 0].tolist()


def measured_shares(space: Space, gates: Tensor) -> dict[str, float]:
    """Return the shares of skips and pools among the operations of paths (n, R, O)."""
    return free_shares(space, map(space.decode, space.discrete(gates.cpu().view(-1, *space.shape))))


def described_paths(space: Space, gates: Tensor, network: Network, objectives: Sequence[float],
                    predicted: Sequence[float]) -> list[dict[str, Any]]:
    """Return for each path its architecture, parameters, measured objective and, where known, the predicted one.

    Args:
        space: the search space.
        gates: paths (n, R, O).
        network: size of the networks whose parameters count.
        objectives: measured objectives, n numbers.
        predicted: predicted objectives, n numbers or none.
    """
    choices = space.discrete(gates.view(-1, *space.shape))
    rows = [{"architecture": space.row(space.decode(row)), "measured_objective": objective, "parameters": size}
            for row, objective, size in zip(choices, objectives, parameters(space, choices, network), strict=True)]
    for row, value in zip(rows, predicted, strict=False):
        row["predicted_objective"] = value
    return rows
