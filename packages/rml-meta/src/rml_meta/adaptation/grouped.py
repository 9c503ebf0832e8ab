r"""The inner loops of all tasks at once, the tasks side by side in the channels.

A batch of T tasks of M images each is one batch of M images with T C channels: `conv2d` with T groups, a batch norm of
T C channels, one batched product for linear layers. Activations and sums stay as they are. These are torch's own
kernels, but for the second derivative of batch norms; on a CPU they are the fastest.

What a model does between its layers cannot be known: the first time its outputs are compared with those of each task
by itself.
"""

from __future__ import annotations

import copy
import types
import weakref
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.modules.activation import MultiheadAttention
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.conv import _ConvNd, _ConvTransposeNd
from torch.nn.modules.instancenorm import _InstanceNorm
from torch.nn.modules.lazy import LazyModuleMixin

from rml_meta.adaptation.batch_norm import batch_norm
from rml_meta.adaptation.norms import batch_statistics, evaluation_mode
from rml_meta.adaptation.problem import InnerLoop, InnerProblem, Params, apply_loss, descend
from rml_meta.adaptation.second_order import twice_differentiable

SAME = (
    *(nn.ReLU, nn.LeakyReLU, nn.ELU, nn.CELU, nn.SELU, nn.GELU, nn.SiLU, nn.Mish, nn.Tanh, nn.Sigmoid, nn.Softplus),
    *(nn.ReLU6, nn.Hardtanh, nn.Hardswish, nn.Hardsigmoid, nn.LogSigmoid, nn.Softsign, nn.Identity),
    *(nn.MaxPool1d, nn.AvgPool1d, nn.AvgPool2d, nn.AdaptiveAvgPool1d, nn.AdaptiveAvgPool2d),
    *(nn.AdaptiveMaxPool1d, nn.AdaptiveMaxPool2d, nn.Dropout, nn.Dropout1d, nn.Dropout2d, nn.Upsample, nn.ZeroPad2d),
    *(nn.ReflectionPad2d, nn.ReplicationPad2d),
)
"""Layers that do with T C channels what they do with C."""

WIDE = 128
"""Channels above which a convolution is done task by task: the gradients of wide groups are slow on a CPU."""

LAST = "takes_channels_last"
"""What a grouped copy says where a view of its own wants its channels first."""

_CHECKED: weakref.WeakKeyDictionary[nn.Module, dict[Any, bool]] = weakref.WeakKeyDictionary()


def groupable(problem: InnerProblem, tasks: int) -> InnerProblem:
    """The problem on a copy of its model that takes parameters (T, ...) and inputs (M, T C, ...) of T tasks.

    Raises:
        ValueError: The model has a layer that cannot be grouped; the message names it.
    """
    return replace(problem, model=grouped_copy(problem.model, tasks))


def grouped_copy(model: nn.Module, tasks: int) -> nn.Module:
    """A copy of `model` with the forward passes of its layers grouped; parameters and buffers keep their names.

    Raises:
        ValueError: See `groupable`.
    """
    copied = copy.deepcopy(model)
    for name, module in copied.named_modules():
        forward = _forward_of(module, name or "the model")
        if forward is not None:
            module.__dict__["tasks"] = tasks
            module.forward = types.MethodType(forward, module)
    return copied


def _forward_of(module: nn.Module, name: str) -> Callable[..., Tensor] | None:
    """The grouped forward pass of a layer, None where its own will do."""
    for kinds, forward in FORWARDS:
        if isinstance(module, kinds):
            _check(module, name)
            return forward
    leaf = not any(True for _ in module.children())
    own = [*module.parameters(recurse=False), *module.buffers(recurse=False)]
    if isinstance(module, SAME) or (not leaf and not own and not isinstance(module, MultiheadAttention)):
        return None
    raise ValueError(f"{name} ({type(module).__name__}) cannot be grouped over tasks: use backend='loop'")


def _check(module: nn.Module, name: str) -> None:
    refused = {
        "SyncBatchNorm": isinstance(module, nn.SyncBatchNorm),
        "a transposed convolution": isinstance(module, _ConvTransposeNd),
        "a lazy layer": isinstance(module, LazyModuleMixin),
        "Flatten that does not begin at dimension 1": isinstance(module, nn.Flatten) and module.start_dim != 1,
    }
    for what, found in refused.items():
        if found:
            raise ValueError(f"{name} is {what}, which cannot be grouped over tasks: use backend='loop'")
    if getattr(module, "parametrizations", None) is not None or module._forward_pre_hooks or module._forward_hooks:
        raise ValueError(f"{name} has hooks or parametrizations: use backend='loop'")


def _flat(value: Tensor | None) -> Tensor | None:
    return None if value is None else value.flatten(0, 1)


def _conv(self: Any, x: Tensor) -> Tensor:
    padding, function = self.padding, {1: F.conv1d, 2: F.conv2d, 3: F.conv3d}[self.weight.dim() - 3]
    if self.padding_mode != "zeros":
        x, padding = F.pad(x, self._reversed_padding_repeated_twice, self.padding_mode), 0
    if self.groups == 1 and max(self.weight.shape[1:3]) > WIDE:
        biases = [None] * self.tasks if self.bias is None else self.bias
        parts = zip(x.chunk(self.tasks, 1), self.weight, biases, strict=True)
        return torch.cat([function(*part, self.stride, padding, self.dilation) for part in parts], 1)
    groups = self.groups * self.tasks
    return function(x, self.weight.flatten(0, 1), _flat(self.bias), self.stride, padding, self.dilation, groups)


def _linear(self: Any, x: Tensor) -> Tensor:
    x = _by_task(x, self.tasks)
    weight = self.weight.transpose(1, 2)
    out = torch.bmm(x, weight) if self.bias is None else torch.baddbmm(self.bias[:, None], x, weight)
    return out.transpose(0, 1).flatten(1)


def _by_task(x: Tensor, tasks: int) -> Tensor:
    """Features (T, M, D) of (M, T D)."""
    if x.dim() != 2:
        raise ValueError(f"a linear layer got {tuple(x.shape)}, and only (M, D) can be grouped: use backend='loop'")
    return x.unflatten(1, (tasks, -1)).transpose(0, 1)


def _batch_norm(self: Any, x: Tensor) -> Tensor:
    return batch_norm(x, _flat(self.weight), _flat(self.bias), self.eps)


def _instance_norm(self: Any, x: Tensor) -> Tensor:
    return F.instance_norm(x, None, None, _flat(self.weight), _flat(self.bias), True, 0.0, self.eps)


def _group_norm(self: Any, x: Tensor) -> Tensor:
    return F.group_norm(x, self.num_groups * self.tasks, _flat(self.weight), _flat(self.bias), self.eps)


def _flatten(self: Any, x: Tensor) -> Tensor:
    return x.flatten(1)


def _max_pool(self: Any, x: Tensor) -> Tensor:
    """By the places of the maxima, which are found many times faster with the channels last."""
    kind = (self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode)
    if x.dim() != 4 or not x.is_cpu or not x.is_contiguous() or self.return_indices:
        return F.max_pool2d(x, *kind, return_indices=self.return_indices)
    last = x.detach().contiguous(memory_format=torch.channels_last)
    places = F.max_pool2d(last, *kind, return_indices=True)[1]
    return x.flatten(2).gather(2, places.flatten(2)).unflatten(2, places.shape[2:])


FORWARDS: list[tuple[Any, Callable[..., Tensor]]] = [
    (_ConvNd, _conv),
    (nn.Linear, _linear),
    (_BatchNorm, _batch_norm),
    (_InstanceNorm, _instance_norm),
    (nn.GroupNorm, _group_norm),
    (nn.Flatten, _flatten),
    (nn.MaxPool2d, _max_pool),
]


def grouped_outputs(
    problem: InnerProblem, fast: Params, slow: Params, x: Tensor, step: int, *, once: bool = False
) -> Tensor:
    """Outputs (T, M, N) of parameters (T, ...) on inputs (T, M, ...), by a problem that `groupable` made.

    Those that are differentiated `once` at most are computed with the channels last in memory, where pooling on a CPU
    is ten times faster and second derivatives slower.
    """
    tasks = len(x)
    merged = x.transpose(0, 1).flatten(1, 2)
    if once and merged.dim() == 4 and vars(problem.model).get(LAST, True):
        merged = merged.contiguous(memory_format=torch.channels_last)
    shared = {n: p.expand(tasks, *p.shape) for n, p in problem.at_step(slow, step).items()}
    out = replace(problem, per_step=frozenset()).logits(fast, shared, merged, step)
    return out.unflatten(1, (tasks, -1)).transpose(0, 1)


def adapt_grouped(loop: InnerLoop, x: Tensor, y: Tensor) -> Params:
    """Parameters (T, ...) after the inner loop of each task, from inputs (T, S, ...) and labels (T, S).

    Give the loop a problem that `groupable` made. Under `torch.no_grad` no graph outlives a step.
    """
    tasks, keep = len(x), torch.is_grad_enabled()
    second = keep and not loop.first_order
    fast = {n: p.expand(tasks, *p.shape) for n, p in loop.fast.items()}
    for step, rate in enumerate(loop.step_rates):
        with torch.enable_grad(), twice_differentiable(loop.problem.model, second):
            source = {n: p if keep and p.requires_grad else p.detach().requires_grad_() for n, p in fast.items()}
            outputs = grouped_outputs(loop.problem, source, loop.slow, x, step, once=not second)
            losses = summed_loss(loop.problem, outputs, y)
            grads = torch.autograd.grad(losses, list(source.values()), create_graph=second, allow_unused=True)
        fast = descend(source if keep else fast, rate, grads)
    return fast


def summed_loss(problem: InnerProblem, outputs: Tensor, y: Tensor) -> Tensor:
    """Sum (0-dim) of the tasks' losses: the gradient of each is that of its own."""
    if problem.loss_fn is F.cross_entropy and not y.is_floating_point():
        return F.cross_entropy(outputs.flatten(0, 1), y.flatten()) * len(y)
    return torch.stack([apply_loss(problem.loss_fn, o, t) for o, t in zip(outputs, y, strict=True)]).sum()


@torch.no_grad()
def check_grouped(plain: InnerProblem, grouped: InnerProblem, fast: Params, slow: Params, x: Tensor) -> None:
    """Compare the grouped model's outputs with those of each task by itself, the first time for this shape.

    Parameters are disturbed for every task in its own way, so that tasks that mix do show.

    Raises:
        ValueError: They differ: the model does something between its layers that mixes tasks, as joining channels.
    """
    done = _CHECKED.setdefault(plain.model, {})
    key = (x.shape, x.dtype, tuple(fast))
    if key in done:
        vars(grouped.model)[LAST] = done[key]
        return
    generator = torch.Generator().manual_seed(0)
    noisy = {}
    for n, p in fast.items():
        noise = torch.randn(len(x), *p.shape, generator=generator, dtype=p.dtype if p.dtype.is_floating_point else None)
        noisy[n] = p + 0.1 * noise.to(p) * p.abs().mean().clamp_min(0.01)
    with evaluation_mode(plain.model), evaluation_mode(grouped.model), batch_statistics(plain.model):
        found = _in_its_layout(grouped, noisy, slow, x)
        for task, of_task in enumerate(x):
            expected = plain.logits({n: p[task] for n, p in noisy.items()}, slow, of_task, 0)
            size = expected.abs().max().clamp_min(1e-6)
            if expected.shape != found[task].shape or float((expected - found[task]).abs().max() / size) > 1e-2:
                raise ValueError(
                    f"{type(plain.model).__name__} does something between its layers that mixes the tasks when they "
                    "are grouped, as joining channels: use backend='loop'"
                )
    done[key] = vars(grouped.model).get(LAST, True)


def _in_its_layout(grouped: InnerProblem, fast: Params, slow: Params, x: Tensor) -> Tensor:
    """Outputs with the channels last, or where the model cannot take them so first; it keeps which."""
    try:
        return grouped_outputs(grouped, fast, slow, x, 0, once=True)
    except RuntimeError:
        vars(grouped.model)[LAST] = False
        return grouped_outputs(grouped, fast, slow, x, 0)
