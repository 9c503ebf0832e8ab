"""Batch norm between two domains: statistics estimated anew on one, or held still."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterable, Iterator

import torch
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm


def batch_norms(model: nn.Module) -> list[_BatchNorm]:
    """The batch norm layers of `model` that keep running statistics."""
    return [m for m in model.modules() if isinstance(m, _BatchNorm) and m.track_running_stats]


def frozen_modules(model: nn.Module) -> list[nn.Module]:
    """What is in evaluation mode within a model in training mode: the modules that a user froze.

    A model that is in evaluation mode as a whole has none: it is one that was loaded, not one that was frozen.
    """
    return [module for module in model.modules() if not module.training] if model.training else []


def train_but(module: nn.Module, frozen: Iterable[nn.Module], mode: bool = True) -> None:
    """Training mode `mode` for `module`, and evaluation mode for what is frozen in it."""
    nn.Module.train(module, mode)
    for part in frozen:
        part.training = False


@contextlib.contextmanager
def preserved_modes(model: nn.Module) -> Iterator[None]:
    """On leaving, every module of `model` is in training or evaluation mode as before, after errors too."""
    modes = [(module, module.training) for module in model.modules()]
    try:
        yield
    finally:
        for module, training in modes:
            module.training = training


@contextlib.contextmanager
def frozen_batch_norm(model: nn.Module, frozen: bool = True) -> Iterator[None]:
    """Inside, batch norm normalizes by its running statistics and leaves them; its weights still learn."""
    layers = batch_norms(model) if frozen else []
    modes = [layer.training for layer in layers]
    for layer in layers:
        layer.training = False
    try:
        yield
    finally:
        for layer, training in zip(layers, modes, strict=True):
            layer.training = training


@torch.no_grad()
def reestimate_batch_norm(
    model: nn.Module,
    batches: Iterable[Tensor],
    forward: Callable[[Tensor], object],
    frozen: Collection[nn.Module] = (),
) -> None:
    """Set the running statistics to the means over `batches`, each batch counting the same (AdaBN).

    They are reset first. Only batch norm is in training mode meanwhile, so dropout rests; every mode and momentum is
    as before afterwards. Nothing happens where there is no batch norm or no batch. By itself this is little adaptation.

    Args:
        model: Whose layers to set.
        batches: Of images, (B, ...), each of at least two values a channel.
        forward: Runs the model on one batch, in full precision.
        frozen: Layers to leave as they are.
    """
    layers = [layer for layer in batch_norms(model) if not any(layer is one for one in frozen)]
    if not layers:
        return
    momenta = [layer.momentum for layer in layers]
    with preserved_modes(model):
        model.eval()
        try:
            for number, batch in enumerate(batches):
                if number == 0:
                    _begin(layers)
                forward(batch)
        finally:
            for layer, momentum in zip(layers, momenta, strict=True):
                layer.momentum = momentum


def _begin(layers: list[_BatchNorm]) -> None:
    for layer in layers:
        layer.reset_running_stats()
        layer.momentum = None  # the mean over all batches
        layer.training = True
