"""What an estimate of label noise says."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from torch import Tensor

from fdiv_noisy.transition import Transition, as_matrix

SHOWN_CLASSES = 20
MEANING = {
    "clean": "next to no label noise",
    "sparse": "labels flip inside pairs of classes",
    "sparse+uniform": "labels flip inside pairs of classes, and evenly to all others",
    "groups": "labels flip inside groups of classes",
    "uniform": "every other class flips to a class with the same chance",
    "general": "a transition matrix without further structure",
    "undecided": "classes that overlap look the same as wrong labels here",
}


def class_name(number: int, names: Sequence[str] = ()) -> str:
    """What a class is called: its number where there are no names."""
    return names[number] if names else str(number)


@dataclass(frozen=True, eq=False)
class NoiseReport:
    """What `estimate` finds, from noisy labels alone.

    Attributes:
        structure: `clean`, `sparse`, `sparse+uniform`, `groups`, `uniform`, `general`, or `undecided` where the labels
            may as well be right.
        transition: The noise: `Sparse`, `Uniform`, or a (K, K) matrix.
        pairs: (P, 2) int64, the classes of each pair; none unless the structure is `sparse` or `sparse+uniform`.
        rate: Estimated share of wrong labels; the largest one where the structure is `undecided`. Where the
            matrix holds more than the most typical samples allow, which a warning says, it is what they allow.
        share: Part of the flips that lies inside pairs, in [0, 1]; see `find_pairs`.
        misfit: L1 distance of the estimated matrix to its uniform fit over its off-diagonal mass, less what sampling
            error alone would give; at least 0.
        n: Number of labels.
        method: How the transition was estimated.
        warnings: What should be known before the estimate is used.
        interval: Bounds of the share of wrong labels, from what the most typical samples show: overlap of classes,
            which raises `rate`, is least there. The lower is 0 where the structure is `undecided`. (0, 1) where nothing
            was asked.
        choice: What a race of losses found, as text; empty where there was none.
        names: Of the classes, which the text takes in place of their numbers; empty where they are not known.
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
    interval: tuple[float, float] = (0.0, 1.0)
    choice: str = ""
    names: tuple[str, ...] = ()

    def matrix(self) -> Tensor:
        """The (K, K) row-stochastic matrix of the noise."""
        return as_matrix(self.transition)

    def __str__(self) -> str:
        matrix = self.matrix()
        low, high = self.interval
        how_many = f"about {self.rate:.1%}, between {low:.0%} and {high:.0%},"
        if self.structure == "undecided":
            how_many = f"none to {high:.0%}"
        lines = [
            f"{self.structure} noise: {MEANING[self.structure]}",
            f"{how_many} of {self.n} labels wrong ({self.method})",
            f"flips inside pairs: {self.share:.0%}; misfit of the uniform model: {self.misfit:.2f}",
        ]
        for i, j in self.pairs.tolist():
            a, b = class_name(i, self.names), class_name(j, self.names)
            lines.append(f"  {a} -> {b}: {float(matrix[i, j]):.3f}   {b} -> {a}: {float(matrix[j, i]):.3f}")
        if self.structure not in ("clean", "sparse") and len(matrix) <= SHOWN_CLASSES:
            lines.append("transition matrix (rows: true class):")
            lines += ["  " + " ".join(f"{value:.3f}" for value in row) for row in matrix.tolist()]
        lines += [f"warning: {text}" for text in self.warnings]
        lines += [self.choice] if self.choice else []
        return "\n".join(lines)
