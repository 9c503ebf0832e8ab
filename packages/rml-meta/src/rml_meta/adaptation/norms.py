"""Normalisation layers in the inner loop: statistics of the batch, without touching a buffer.

An inner loop normalises by the statistics of the task at hand. The running statistics of the model must neither be
read (they are never updated in meta-training) nor written (each task would leak into the next).
"""

from __future__ import annotations

import contextlib
import copy
import types
from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.instancenorm import _InstanceNorm

from rml_meta.adaptation.stateless import stateless_call

AFFINE_NORMS = (_BatchNorm, _InstanceNorm, nn.LayerNorm)
"""Layers whose second derivatives torch gets wrong under `grad(vmap(...))` where they are affine."""


@contextlib.contextmanager
def batch_statistics(model: nn.Module) -> Iterator[None]:
    """Within, batch norms normalise by the statistics of their batch and leave their buffers alone.

    Every other layer stays in the mode it is in.
    """
    norms = [module for module in model.modules() if isinstance(module, _BatchNorm)]
    before = [(module.training, module.track_running_stats) for module in norms]
    for module in norms:
        module.training, module.track_running_stats = True, False
    try:
        yield
    finally:
        for module, (training, track) in zip(norms, before, strict=True):
            module.training, module.track_running_stats = training, track


@contextlib.contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Within, `model` is in evaluation mode; each layer's mode is restored afterwards."""
    before = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, training in before:
            module.training = training


@torch.no_grad()
def support_buffers(model: nn.Module, params: dict[str, Tensor], x: Tensor) -> dict[str, Tensor]:
    """Buffers of the batch norms of `model`, by name, holding the statistics of the batch `x` (M, ...).

    With them a query is classified by what the support set showed, one image at a time.

    Raises:
        ValueError: A batch norm keeps no running statistics, so that queries would be normalised together.
    """
    buffers = {}
    norms = [(name, module) for name, module in model.named_modules() if isinstance(module, _BatchNorm)]
    for name, module in norms:
        if module.running_mean is None or module.running_var is None:
            raise ValueError(
                f"{name or 'the model'} has track_running_stats=False and can only normalise queries together: "
                "set transductive=True, or let it track"
            )
        for key in ("running_mean", "running_var", "num_batches_tracked"):
            buffers[f"{name}.{key}" if name else key] = torch.zeros_like(getattr(module, key))
    before = [(module.training, module.momentum) for _, module in norms]
    for _, module in norms:
        module.training, module.momentum = True, 1.0  # what it sees last is all that it keeps
    try:
        stateless_call(model, {**params, **buffers}, x)
    finally:
        for (_, module), (training, momentum) in zip(norms, before, strict=True):
            module.training, module.momentum = training, momentum
    return buffers


def split_affine(model: nn.Module) -> nn.Module:
    """A copy of `model` whose norms scale and shift in a step of their own, safe under `grad(vmap(...))`.

    torch decomposes the backward pass of a batched norm with saved statistics that carry no history, so that a
    gradient through that gradient is silently wrong for affine batch, instance and layer norms. Without weight and
    bias the same layers are right. Parameters and buffers keep their names.

    Raises:
        ValueError: A batch norm synchronises over processes, which cannot be batched over tasks.
    """
    copied = copy.deepcopy(model)
    for module in copied.modules():
        if isinstance(module, nn.SyncBatchNorm):
            raise ValueError("SyncBatchNorm cannot be batched over tasks: use BatchNorm2d, or backend='loop'")
        if isinstance(module, AFFINE_NORMS):
            module.forward = types.MethodType(_forward_of(module), module)
    return copied


def _forward_of(module: nn.Module) -> Callable[..., Tensor]:
    if isinstance(module, _BatchNorm):
        return _batch_norm
    return _instance_norm if isinstance(module, _InstanceNorm) else _layer_norm


def _batch_norm(self: _BatchNorm, x: Tensor) -> Tensor:
    return _affine(self, F.batch_norm(x, None, None, training=True, eps=self.eps), 1)


def _instance_norm(self: _InstanceNorm, x: Tensor) -> Tensor:
    return _affine(self, F.instance_norm(x, eps=self.eps), 1)


def _layer_norm(self: nn.LayerNorm, x: Tensor) -> Tensor:
    return _affine(self, F.layer_norm(x, self.normalized_shape, eps=self.eps), x.dim() - len(self.normalized_shape))


def _affine(module: nn.Module, x: Tensor, first: int) -> Tensor:
    """`x` scaled and shifted by weight and bias, whose dimensions begin at dimension `first` of `x`."""
    weight, bias = getattr(module, "weight", None), getattr(module, "bias", None)
    if weight is not None:
        x = x * weight.reshape(weight.shape + (1,) * (x.dim() - first - weight.dim()))
    if bias is not None:
        x = x + bias.reshape(bias.shape + (1,) * (x.dim() - first - bias.dim()))
    return x
