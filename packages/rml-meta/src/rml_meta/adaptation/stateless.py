"""Calling a module with other parameters, whatever it shares."""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.func import functional_call


def tied_names(model: nn.Module) -> dict[str, str]:
    """Names of the further places of shared parameters and buffers -> the name that `named_parameters` gives them.

    A module that stands in several places has its tensors in one.
    """
    first: dict[int, str] = {}
    ties = {}
    for path, module in model.named_modules():
        prefix = f"{path}." if path else ""
        for key, tensor in [*module._parameters.items(), *module._buffers.items()]:
            if tensor is None:
                continue
            name = first.setdefault(id(tensor), prefix + key)
            if name != prefix + key:
                ties[prefix + key] = name
    return ties


def stateless_call(
    model: nn.Module, tensors: Mapping[str, Tensor], x: Tensor, ties: Mapping[str, str] | None = None
) -> Tensor:
    """Output of `model` with parameters and buffers by name in its own's place, tied ones in all of theirs.

    `torch.func.functional_call` alone ties weights too, but where a module stands in several places it leaves the
    given tensors in the model for good (torch 2.15): it swaps such a place twice and restores the first swap last.

    Args:
        model: Of one input.
        tensors: By name; those left out stay the model's own.
        x: The input.
        ties: `tied_names(model)`, where it is known already.
    """
    ties = tied_names(model) if ties is None else ties
    further = {place: tensors[name] for place, name in ties.items() if name in tensors}
    return functional_call(model, {**tensors, **further}, (x,), tie_weights=False)
