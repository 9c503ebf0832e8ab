"""What an estimate of label noise says."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from fdiv_noisy.transition import Transition, as_matrix

SHOWN_CLASSES = 20
MEANING = {
    "clean": "next to no label noise",
    "sparse": "labels flip inside pairs of classes",
    "uniform": "every other class flips to a class with the same chance",
    "general": "a transition matrix without further structure",
}


@dataclass(frozen=True, eq=False)
class NoiseReport:
    """What `estimate` finds, from noisy labels alone.

    Attributes:
        structure: `clean`, `sparse`, `uniform` or `general`.
        transition: The noise: `Sparse`, `Uniform`, or a (K, K) matrix (for `general` and `clean`).
        pairs: (P, 2) int64, the classes of each pair; none unless the structure is `sparse`.
        rate: Estimated share of wrong labels.
        share: Part of the flips that lies inside pairs, in [0, 1]; see `find_pairs`.
        misfit: L1 distance of the estimated matrix to its uniform fit over its off-diagonal mass, less what sampling
            error alone would give; at least 0.
        n: Number of labels.
        method: How the transition was estimated.
        warnings: What should be known before the estimate is used.
    """

    structure: str
    transition: Transition
    pairs: Tensor
    rate: float
    share: float
    misfit: float
    n: int
    method: str
    warnings: tuple[str, ...] = ()

    def matrix(self) -> Tensor:
        """The (K, K) row-stochastic matrix of the noise."""
        return as_matrix(self.transition)

    def __str__(self) -> str:
        matrix = self.matrix()
        lines = [
            f"{self.structure} noise: {MEANING[self.structure]}",
            f"about {self.rate:.1%} of {self.n} labels wrong ({self.method})",
            f"flips inside pairs: {self.share:.0%}; misfit of the uniform model: {self.misfit:.2f}",
        ]
        for i, j in self.pairs.tolist():
            lines.append(f"  {i} -> {j}: {float(matrix[i, j]):.3f}   {j} -> {i}: {float(matrix[j, i]):.3f}")
        if self.structure in ("uniform", "general") and len(matrix) <= SHOWN_CLASSES:
            lines.append("transition matrix (rows: true class):")
            lines += ["  " + " ".join(f"{value:.3f}" for value in row) for row in matrix.tolist()]
        lines += [f"warning: {text}" for text in self.warnings]
        return "\n".join(lines)
