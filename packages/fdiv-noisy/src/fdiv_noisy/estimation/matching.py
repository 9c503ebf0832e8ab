"""Disjoint pairs of classes of the largest total weight."""

from __future__ import annotations

import torch
from torch import Tensor


def best_pairs(weight: Tensor) -> Tensor:
    """The maximum-weight matching of the classes.

    It is exact (Edmonds' blossom algorithm, from networkx, on which torch depends), for even and odd K; 100 classes
    take under half a second. Taking the heaviest edges one by one can miss it: where an edge between two pairs is
    heavier than each of them, the matching still sees that taking it would lose both.

    Args:
        weight: (K, K); the weight of the pair {i, j} is ``weight[i, j] + weight[j, i]``. The diagonal is not used, and
            pairs of weight <= 0 are never taken.

    Returns:
        (P, 2) int64 disjoint pairs, i < j in each, sorted; P <= K / 2.

    Raises:
        ValueError: The weights are not a finite square matrix.
    """
    if weight.ndim != 2 or weight.shape[0] != weight.shape[1] or not bool(weight.isfinite().all()):
        raise ValueError(f"weights must be a finite matrix (K, K), got shape {tuple(weight.shape)}")
    from networkx import Graph, max_weight_matching  # here, because only this needs it

    symmetric = (weight + weight.T).triu(1)
    edges = [(int(i), int(j), float(symmetric[i, j])) for i, j in (symmetric > 0).nonzero().tolist()]
    graph = Graph()
    graph.add_weighted_edges_from(edges)
    pairs = sorted(sorted(pair) for pair in max_weight_matching(graph))
    return torch.tensor(pairs, dtype=torch.int64, device=weight.device).reshape(-1, 2)
