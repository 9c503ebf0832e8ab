r"""Label-noise models as transition matrices $T_{ij} = P(\tilde Y = j \mid Y = i)$.

Rows are true classes and sum to one. cleanlab writes the transpose (columns are true classes):
`from_cleanlab` and `to_cleanlab` convert.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor


@dataclass(frozen=True, eq=False)
class Uniform:
    r"""Uniform off-diagonal noise (Wei and Liu 2021, section 3): $T_{ij} = e_j$ for every $i \ne j$.

    Attributes:
        rates: (K,) chances $e_j \ge 0$ with $\sum_j e_j < 1$.
    """

    rates: Tensor

    def __post_init__(self) -> None:
        rates = self.rates
        if rates.ndim != 1 or rates.numel() < 2:
            raise ValueError(f"Uniform: rates must have shape (K,) with K >= 2, got {tuple(rates.shape)}")
        if not bool(((rates >= 0) & (rates < 1)).all()) or float(rates.sum()) >= 1:
            raise ValueError(
                "Uniform: rates must be >= 0 and sum to less than 1, else no label is informative; "
                f"got {rates.tolist()}"
            )

    @property
    def num_classes(self) -> int:
        """Number of classes K."""
        return self.rates.numel()

    def matrix(self) -> Tensor:
        """The (K, K) row-stochastic matrix $(1 - \\sum e) I + 1 e^T$."""
        e = self.rates
        return (1 - e.sum()) * torch.eye(e.numel(), dtype=e.dtype, device=e.device) + e

    def coefficients(self) -> Tensor:
        """The (K, K) correction $I - 1 e^T = (1 - \\sum e)\\, T^{-1}$: what theorem 5's bias term subtracts."""
        return torch.eye(self.num_classes, dtype=self.rates.dtype, device=self.rates.device) - self.rates


@dataclass(frozen=True, eq=False)
class Sparse:
    r"""Sparse noise: labels flip inside disjoint pairs of classes only (Wei and Liu 2021, appendix).

    Classes that stand in no pair keep their label.

    Attributes:
        pairs: (P, 2) int64, the classes (i, j) of each pair.
        rates: (P, 2), the chances $a = T_{ij}$ and $b = T_{ji}$ with $a + b < 1$.
        num_classes: K.
    """

    pairs: Tensor
    rates: Tensor
    num_classes: int

    def __post_init__(self) -> None:
        check_pairs(self.pairs, self.num_classes)
        if self.rates.shape != self.pairs.shape:
            raise ValueError(f"Sparse: rates must have shape {tuple(self.pairs.shape)}, got {tuple(self.rates.shape)}")
        if not bool((self.rates >= 0).all()) or not bool((self.rates.sum(1) < 1).all()):
            raise ValueError(f"Sparse: each pair needs a >= 0, b >= 0 and a + b < 1, got {self.rates.tolist()}")

    def matrix(self) -> Tensor:
        """The (K, K) row-stochastic matrix."""
        t = torch.eye(self.num_classes, dtype=self.rates.dtype, device=self.rates.device)
        i, j = self.pairs.unbind(1)
        a, b = self.rates.unbind(1)
        t[i, i], t[i, j] = 1 - a, a
        t[j, j], t[j, i] = 1 - b, b
        return t

    def coefficients(self) -> Tensor:
        """The (K, K) correction $\\mathrm{diag}(s)\\, T^{-1}$, where $s = 1 - a - b$ in a pair, else 1.

        A label of the pair (i, j) stands for itself less a of class j and b of class i. Pairs are observable, because
        a flip never leaves its pair; subtracting every pair's bias from every sample, as published, over-corrects by
        about K / 2.
        """
        c = torch.eye(self.num_classes, dtype=self.rates.dtype, device=self.rates.device)
        i, j = self.pairs.unbind(1)
        a, b = self.rates.unbind(1)
        c[i, i], c[i, j] = 1 - b, -a
        c[j, j], c[j, i] = 1 - a, -b
        return c


class NoiseModel(Protocol):
    """What a bias correction needs to know of the noise."""

    def matrix(self) -> Tensor:
        """The (K, K) row-stochastic matrix."""
        ...

    def coefficients(self) -> Tensor:
        """The (K, K) correction: a noisy label k stands for the label mass in row k."""
        ...


Transition = NoiseModel | Tensor
"""A noise model: `Uniform`, `Sparse`, or any row-stochastic (K, K) matrix."""


def check_classes(labels: Tensor, num_classes: int) -> None:
    """Raise ValueError unless `labels` are int64 in 0..num_classes-1."""
    if labels.dtype != torch.int64:
        raise ValueError(f"labels must be int64, got {labels.dtype}")
    if labels.numel() and not 0 <= int(labels.min()) <= int(labels.max()) < num_classes:
        raise ValueError(f"labels must be in 0..{num_classes - 1}, got {int(labels.min())}..{int(labels.max())}")


def check_pairs(pairs: Tensor, num_classes: int) -> None:
    """Raise ValueError unless `pairs` (P, 2) are disjoint pairs of classes below `num_classes`."""
    if pairs.ndim != 2 or pairs.shape[1] != 2 or pairs.dtype != torch.int64:
        raise ValueError(f"pairs must be int64 of shape (P, 2), got {pairs.dtype} {tuple(pairs.shape)}")
    flat = pairs.flatten()
    if bool((flat < 0).any()) or bool((flat >= num_classes).any()):
        raise ValueError(f"pairs must name classes 0..{num_classes - 1}, got {pairs.tolist()}")
    if flat.unique().numel() != flat.numel():
        raise ValueError(f"pairs must be disjoint: a class stands in one pair only, got {pairs.tolist()}")


def check_matrix(matrix: Tensor, tolerance: float = 1e-4) -> None:
    """Raise ValueError unless `matrix` (K, K) is row-stochastic."""
    if matrix.ndim != 2 or matrix.shape[0] != matrix.shape[1]:
        raise ValueError(f"a transition matrix must be square (K, K), got {tuple(matrix.shape)}")
    rows = matrix.sum(1)
    if not (bool((matrix >= 0).all()) and bool(((rows - 1).abs() <= tolerance).all())):
        columns = matrix.sum(0)
        hint = (
            "; its columns do: transpose it, or use from_cleanlab"
            if bool(((columns - 1).abs() <= tolerance).all())
            else ""
        )
        raise ValueError(
            f"a transition matrix needs entries >= 0 and rows that sum to 1, got row sums {rows.tolist()}{hint}"
        )


def as_matrix(transition: Transition) -> Tensor:
    """The (K, K) row-stochastic matrix of any noise model; a plain matrix is checked and returned."""
    if isinstance(transition, Tensor):
        check_matrix(transition)
        return transition
    return transition.matrix()


def coefficients(transition: Transition) -> Tensor:
    r"""The bias correction of any noise model: a (K, K) matrix whose row k replaces the noisy label k.

    For a plain matrix it is $T^{-1}$: then $E[(T^{-1} v)_{\tilde Y} \mid Y] = v_Y$ for any values v of the
    labels, which makes every label-linear loss unbiased (Natarajan et al. 2013). The uniform and sparse models scale
    it by the share of information left, which keeps the variance down and gives the subtracted bias of Wei and Liu
    2021, corollary 1.

    Raises:
        ValueError: The matrix is not row-stochastic, or is singular.
    """
    if not isinstance(transition, Tensor):
        return transition.coefficients()
    check_matrix(transition)
    inverse, info = torch.linalg.inv_ex(transition)
    if int(info) != 0 or not bool(inverse.isfinite().all()):
        raise ValueError("the transition matrix is singular: some classes cannot be told apart from noisy labels")
    return inverse


def fit_uniform(matrix: Tensor) -> tuple[Uniform, float]:
    r"""The uniform off-diagonal model nearest to `matrix` (K, K) and how far it is.

    $e_j$ is the mean of column j off the diagonal, the least-squares answer.

    Returns:
        The model and the residual $\lVert T - T_{fit} \rVert_1 / \lVert T_{off} \rVert_1$, relative to the
        off-diagonal mass (0 where there is none).
    """
    check_matrix(matrix)
    k = matrix.shape[0]
    off = matrix - matrix.diag().diag()
    rates = off.sum(0) / (k - 1)
    total = rates.sum()
    if float(total) >= 1:  # noisier than any uniform model: the nearest one that is still informative
        rates = rates * (0.999 / total)
    model = Uniform(rates)
    return model, _relative_residual(matrix, model.matrix())


def fit_sparse(matrix: Tensor, pairs: Tensor) -> tuple[Sparse, float]:
    """The sparse model on the given `pairs` (P, 2) nearest to `matrix` (K, K), and its residual as above."""
    check_matrix(matrix)
    check_pairs(pairs, matrix.shape[0])
    i, j = pairs.unbind(1)
    flips = torch.stack([matrix[i, j], matrix[j, i]], dim=1)
    kept = torch.stack([matrix[i, i], matrix[j, j]], dim=1)
    rates = flips / (flips + kept).clamp_min(torch.finfo(matrix.dtype).tiny)  # 0 where a class leaves its pair wholly
    total = rates.sum(1, keepdim=True)
    rates = torch.where(total >= 1, rates * (0.999 / total), rates)
    model = Sparse(pairs, rates, matrix.shape[0])
    return model, _relative_residual(matrix, model.matrix())


def _relative_residual(matrix: Tensor, fitted: Tensor) -> float:
    off = matrix - matrix.diag().diag()
    return float((matrix - fitted).abs().sum() / off.abs().sum().clamp_min(torch.finfo(matrix.dtype).tiny))


def from_cleanlab(noise_matrix: Tensor) -> Tensor:
    """cleanlab's `noise_matrix` (K, K), whose columns are true classes and sum to one, with rows as true classes."""
    transition = noise_matrix.T.contiguous()
    check_matrix(transition)
    return transition


def to_cleanlab(transition: Transition) -> Tensor:
    """Any noise model as cleanlab's `noise_matrix` (K, K): P(label = i | true = j), columns sum to one."""
    return as_matrix(transition).T.contiguous()
