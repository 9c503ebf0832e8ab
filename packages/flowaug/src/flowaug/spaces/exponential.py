"""The matrix exponential, exact to rounding, without the host synchronisations of `torch.linalg.matrix_exp`."""

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
