"""The exponential of affine generators, without the host synchronisations of `torch.linalg.matrix_exp`, and its
inverse."""

from __future__ import annotations

import torch
from torch import Tensor

_SQUARINGS = 4
_DEGREE = 14


def affine_exponential(generators: Tensor) -> Tensor:
    r"""The exponential of affine generators (..., 2, 3), whose third row is zero, as affine matrices (..., 2, 3).

    $\exp(A) = (\exp(A / 2^4))^{2^4}$, the inner one by its Taylor polynomial of degree 14. The remainder is below
    rounding for $\lVert A \rVert \le 12$; a box of Lie coordinates stays under 7. A fixed number of steps needs no look
    at the norms: nothing waits for the device, and the gradient is twice as fast as that of `matrix_exp`.

    The third diagonal entry of a generator must be 0: equations 19 and 20 of the paper print a 1 there, which would
    put e in the corner and shrink translations; the published code has 0.
    """
    kind = torch.promote_types(generators.dtype, torch.float32)
    with torch.autocast(generators.device.type, enabled=False):
        scaled = torch.nn.functional.pad(generators.to(kind), (0, 0, 0, 1)) / 2**_SQUARINGS
        eye = torch.eye(3, dtype=kind, device=generators.device)
        result = eye + scaled / _DEGREE
        for k in range(_DEGREE - 1, 0, -1):
            result = eye + scaled @ result / k
        for _ in range(_SQUARINGS):
            result = result @ result
    return result[..., :2, :]


_ROOTS = 8


def affine_logarithm(matrices: Tensor) -> Tensor:
    r"""The generators (..., 2, 3) whose exponentials are affine matrices (..., 2, 3), computed in float64.

    $\log(M) = 2^8 \log(M^{1/2^8})$: the square root of a 2x2 matrix A is $(A + s I) / \sqrt{\mathrm{tr} A + 2 s}$ with
    $s = \sqrt{\det A}$, and the logarithm of what is left, close to the identity, a short series. Rotations come out
    within ±180 degrees.

    Raises:
        ValueError: A matrix mirrors or is singular: it is no exponential.
    """
    linear, shift = matrices[..., :2].double(), matrices[..., 2:].double()
    if not bool((torch.linalg.det(linear) > 0).all()):
        raise ValueError("only matrices of a positive determinant have a logarithm: these mirror or are singular")
    eye = torch.eye(2, dtype=torch.float64, device=matrices.device)
    for _ in range(_ROOTS):
        side = torch.linalg.det(linear).sqrt()[..., None, None]
        trace = linear.diagonal(dim1=-2, dim2=-1).sum(-1)[..., None, None] + 2 * side
        linear = (linear + side * eye) / trace.clamp_min(1e-30).sqrt()
        shift = torch.linalg.solve(linear + eye, shift)
    rest = torch.nn.functional.pad(torch.cat([linear - eye, shift], -1), (0, 0, 0, 1))
    power, total = rest, torch.zeros_like(rest)
    for k in range(1, _DEGREE):
        total = total + power * (-1) ** (k + 1) / k
        power = power @ rest
    return total[..., :2, :] * 2**_ROOTS
