"""Summary statistics of the architecture parameters A."""

from typing import Any

from search.collapse import free_shares
from search.spaces.space import Space
from search.spaces.supernet import Supernet


def architecture_statistics(space: Space, supernet: Supernet, genotype: Any, initial: Any) -> dict[str, Any]:
    """Return the architecture of the current A, A itself and how far it has moved, by kind of cell.

    Args:
        space: the search space.
        supernet: owner of A.
        genotype: architecture of the current A.
        initial: architecture of the initial A.

    Returns:
        ``genotype``, ``alphas``, ``changed_choices`` (against ``initial``), ``alpha_entropy`` in nats an edge,
        ``skips`` and ``pools`` (their numbers in the architecture), and ``shares`` of both among its operations. Where
        the space has the operations, ``none_mass`` and ``skip_mass`` (mean of softmax(A) over the edges).
    """
    alphas = supernet.alphas().detach()
    mass = dict(zip(space.cells, alphas.softmax(-1).mean(1).tolist(), strict=True))
    chosen = space.chosen(genotype)
    masses = {f"{word}_mass": {kind: row[space.operations.index(name)] for kind, row in mass.items()}
              for word, name in (("none", "none"), ("skip", "skip_connect")) if name in space.operations}
    return {
        "genotype": space.row(genotype),
        "alphas": {kind: [[round(value, 4) for value in edge] for edge in rows]
                   for kind, rows in zip(space.cells, alphas.tolist(), strict=True)},
        "changed_choices": space.differences(genotype, initial),
        "alpha_entropy": dict(zip(space.cells, supernet.entropy(), strict=True)),
        **masses,
        "skips": {kind: names.count("skip_connect") for kind, names in chosen.items()},
        "pools": {kind: sum("pool" in name for name in names) for kind, names in chosen.items()},
        "shares": free_shares(space, [genotype]),
    }
