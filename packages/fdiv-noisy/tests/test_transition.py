"""Noise models: matrices, corrections, fits and conventions."""

from __future__ import annotations

import pytest
import torch
from fdiv_noisy.transition import (
    Sparse,
    Uniform,
    as_matrix,
    check_matrix,
    coefficients,
    fit_sparse,
    fit_uniform,
    from_cleanlab,
    to_cleanlab,
)

RATES = torch.tensor([0.1, 0.2, 0.05, 0.15], dtype=torch.float64)
SPARSE = Sparse(torch.tensor([[0, 3], [4, 1]]), torch.tensor([[0.3, 0.1], [0.7, 0.2]], dtype=torch.float64), 5)


def test_uniform_matrix_is_its_definition() -> None:
    t = Uniform(RATES).matrix()
    check_matrix(t)
    for i in range(4):
        for j in range(4):
            assert float(t[i, j]) == pytest.approx(float(RATES[j] if i != j else 1 - RATES.sum() + RATES[j]), abs=1e-15)


def test_sparse_matrix_is_its_definition() -> None:
    t = SPARSE.matrix()
    check_matrix(t)
    expected = torch.eye(5, dtype=torch.float64)
    expected[0, [0, 3]] = torch.tensor([0.7, 0.3], dtype=torch.float64)
    expected[3, [3, 0]] = torch.tensor([0.9, 0.1], dtype=torch.float64)
    expected[4, [4, 1]] = torch.tensor([0.3, 0.7], dtype=torch.float64)
    expected[1, [1, 4]] = torch.tensor([0.8, 0.2], dtype=torch.float64)
    torch.testing.assert_close(t, expected)


def test_coefficients_are_scaled_inverses() -> None:
    inverse = torch.linalg.inv(Uniform(RATES).matrix())
    torch.testing.assert_close(Uniform(RATES).coefficients(), (1 - RATES.sum()) * inverse)
    share = torch.tensor([0.6, 0.1, 1.0, 0.6, 0.1], dtype=torch.float64)
    torch.testing.assert_close(SPARSE.coefficients(), share[:, None] * torch.linalg.inv(SPARSE.matrix()))
    torch.testing.assert_close(coefficients(SPARSE.matrix()), torch.linalg.inv(SPARSE.matrix()))


def test_fits_recover_what_made_the_matrix() -> None:
    model, residual = fit_uniform(Uniform(RATES).matrix())
    torch.testing.assert_close(model.rates, RATES)
    assert residual < 1e-12
    sparse, residual = fit_sparse(SPARSE.matrix(), SPARSE.pairs)
    torch.testing.assert_close(sparse.rates, SPARSE.rates)
    assert residual < 1e-12
    assert fit_uniform(SPARSE.matrix())[1] > 0.5
    assert fit_sparse(Uniform(RATES).matrix(), torch.tensor([[0, 1], [2, 3]]))[1] > 0.5


def test_fit_of_a_matrix_without_information_stays_valid() -> None:
    noise = torch.full((3, 3), 1 / 3, dtype=torch.float64)
    assert float(fit_uniform(noise)[0].rates.sum()) < 1
    assert float(fit_sparse(noise, torch.tensor([[0, 1]]))[0].rates.sum()) < 1


def test_sparse_fit_of_a_class_that_leaves_its_pair_wholly() -> None:
    t = torch.tensor([[0.0, 0.0, 1.0], [0.4, 0.6, 0.0], [0.0, 0.0, 1.0]])
    model, residual = fit_sparse(t, torch.tensor([[0, 1]]))
    torch.testing.assert_close(model.rates, torch.tensor([[0.0, 0.4]]))
    assert residual == pytest.approx(2 / 1.4)  # row 0 is wrong by 2, the mass off the diagonal is 1.4


def test_cleanlab_convention_is_the_transpose() -> None:
    theirs = to_cleanlab(SPARSE)
    torch.testing.assert_close(theirs.sum(0), torch.ones(5, dtype=torch.float64))
    torch.testing.assert_close(from_cleanlab(theirs), as_matrix(SPARSE))
    with pytest.raises(ValueError, match="its columns do: transpose it"):
        check_matrix(theirs)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Uniform(torch.tensor([0.5, 0.6])), "sum to less than 1"),
        (lambda: Uniform(torch.tensor([-0.1, 0.2])), "must be >= 0"),
        (lambda: Uniform(torch.tensor(0.1)), r"shape \(K,\)"),
        (lambda: Sparse(torch.tensor([[0, 1], [1, 2]]), torch.zeros(2, 2), 3), "disjoint"),
        (lambda: Sparse(torch.tensor([[0, 3]]), torch.zeros(1, 2), 3), r"classes 0\.\.2"),
        (lambda: Sparse(torch.tensor([[0, 1]]), torch.tensor([[0.6, 0.5]]), 3), r"a \+ b < 1"),
        (lambda: Sparse(torch.tensor([0, 1]), torch.zeros(2), 3), r"shape \(P, 2\)"),
        (lambda: check_matrix(torch.rand(3, 4)), "square"),
    ],
)
def test_bad_models_are_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_a_matrix_of_no_numbers_is_refused() -> None:
    matrix = torch.eye(3)
    matrix[1] = torch.nan
    with pytest.raises(ValueError, match="entries >= 0 and rows that sum to 1"):
        check_matrix(matrix)
