"""NAS-Bench-201: its cells as graphs of four nodes, and their networks (Dong and Yang, ICLR 2020)."""

from wsrnas.architectures.nas_bench_201.graph import EDGES, OPERATIONS, SPACE, CellGraph, is_graph
from wsrnas.architectures.nas_bench_201.network import (
    STAGES,
    CellNB201,
    NetworkNB201,
    ReductionBlock,
    StagedNetwork,
    nb201_operation,
)

__all__ = ["EDGES", "OPERATIONS", "SPACE", "STAGES", "CellGraph", "CellNB201", "NetworkNB201", "ReductionBlock",
           "StagedNetwork", "is_graph", "nb201_operation"]
