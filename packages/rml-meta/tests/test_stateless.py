from __future__ import annotations

import torch
from rml_meta.adaptation.stateless import stateless_call, tied_names
from torch import Tensor, nn


class Shared(nn.Module):
    """A layer in two places, and a weight in two layers."""

    def __init__(self) -> None:
        super().__init__()
        self.one = nn.Linear(3, 3)
        self.again = self.one
        self.tied = nn.Linear(3, 3)
        self.tied.weight = self.one.weight

    def forward(self, x: Tensor) -> Tensor:
        return self.tied(self.again(self.one(x)))


def test_shared_modules_get_their_parameters_back() -> None:
    model, x = Shared(), torch.randn(4, 3)
    own = {n: id(p) for n, p in model.named_parameters()}
    other = {n: torch.randn_like(p) for n, p in model.named_parameters()}
    out = stateless_call(model, other, x)
    w, b = other["one.weight"], other["one.bias"]
    expected = ((x @ w.T + b) @ w.T + b) @ w.T + other["tied.bias"]
    torch.testing.assert_close(out, expected)
    assert own == {n: id(p) for n, p in model.named_parameters()}


def test_ties_are_named_once() -> None:
    ties = tied_names(Shared())
    assert ties == {"tied.weight": "one.weight"}
