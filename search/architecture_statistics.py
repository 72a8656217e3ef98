"""Summary statistics of the architecture parameters A."""

from typing import Any

from search.supernet import NONE, Supernet
from wsrnas.genotype import KINDS, Genotype, count_differences
from wsrnas.operations import PRIMITIVES

SKIP = PRIMITIVES.index("skip_connect")


def architecture_statistics(supernet: Supernet, genotype: Genotype, initial: Genotype) -> dict[str, Any]:
    """Return the ``genotype`` of the current A, A itself and how far it has moved, by kind of cell.

    Args:
        supernet: owner of A.
        genotype: genotype of the current A.
        initial: genotype of the initial A.

    Returns:
        ``changed_choices`` (of 16, against ``initial``), ``alpha_entropy`` in nats an edge, ``none_mass`` and
        ``skip_mass`` (mean of softmax(A) over the edges), ``skips`` and ``pools`` (their numbers in the genotype).
    """
    alphas = supernet.alphas().detach()
    mass = alphas.softmax(-1).mean(1).tolist()  # kind, operation
    count = {kind: [name for node in genotype.nodes(kind) for name, _ in node] for kind in KINDS}
    return {
        "genotype": {"normal": genotype.normal, "reduce": genotype.reduce},
        "alphas": {kind: [[round(value, 4) for value in edge] for edge in rows]
                   for kind, rows in zip(KINDS, alphas.tolist(), strict=True)},
        "changed_choices": count_differences(genotype, initial),
        "alpha_entropy": dict(zip(KINDS, supernet.entropy(), strict=True)),
        "none_mass": {kind: row[NONE] for kind, row in zip(KINDS, mass, strict=True)},
        "skip_mass": {kind: row[SKIP] for kind, row in zip(KINDS, mass, strict=True)},
        "skips": {kind: names.count("skip_connect") for kind, names in count.items()},
        "pools": {kind: sum("pool" in name for name in names) for kind, names in count.items()},
    }
