"""NAS-Bench-201: its cells as graphs of four nodes, and their networks (Dong and Yang, ICLR 2020)."""

from wsrnas.architectures.nas_bench_201.graph import EDGES, OPERATIONS, SPACE, STAGES, CellGraph, is_graph

__all__ = ["EDGES", "OPERATIONS", "SPACE", "STAGES", "CellGraph", "is_graph"]
