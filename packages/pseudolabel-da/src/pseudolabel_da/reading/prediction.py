"""Logits and probabilities of whole sets, without gradients and without changing the model."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, nn

from pseudolabel_da.reading.batch_norm import preserved_modes

LogitsFn = Callable[[Any], Tensor]


def binary_logits(logits: Tensor) -> Tensor:
    """Two-class logits (B, 2) of the one logit (B, 1) or (B,) of a binary model, for `logits_fn`.

    The softmax of (0, z) is the sigmoid of z.
    """
    logits = logits.reshape(-1, 1)
    return torch.cat([torch.zeros_like(logits), logits], 1)


def check_logits(output: Any) -> Tensor:
    """`output` if it is logits (B, K) of at least two classes.

    Raises:
        ValueError: It is not, with what to give as `logits_fn`.
    """
    if not isinstance(output, Tensor):
        raise ValueError(
            f"the model returned {type(output).__name__}, expected logits (B, K): "
            "give logits_fn, as in logits_fn=lambda output: output[0]"
        )
    if output.ndim != 2 or output.shape[1] < 2:
        raise ValueError(
            f"the model returned shape {tuple(output.shape)}, expected logits (B, K) with K of at least 2: "
            "for one logit of a binary model, give logits_fn=pseudolabel_da.binary_logits"
        )
    return output


def predict_logits(model: nn.Module, batches: Iterable[Tensor], logits_fn: LogitsFn | None = None) -> Tensor:
    """Logits (N, K) of all batches, in evaluation mode; float32, or float64 where the model gives that.

    Args:
        model: Its modes are as before afterwards.
        batches: Of inputs, on the model's device.
        logits_fn: From what the model returns to logits (B, K).

    Returns:
        Logits (N, K) on the model's device; (0, 0) without a batch.

    Raises:
        ValueError: The model does not return logits.
    """
    parts = []
    # not inference_mode: what a model caches of it could not be trained with
    with torch.no_grad(), preserved_modes(model):
        model.eval()
        for batch in batches:
            output = model(batch)
            logits = check_logits(output if logits_fn is None else logits_fn(output))
            parts.append(logits.float() if logits.dtype in (torch.float16, torch.bfloat16) else logits)
    return torch.cat(parts) if parts else torch.zeros(0, 0, device=next(model.parameters(), torch.zeros(0)).device)


def probabilities(logits: Tensor, temperature: float | Tensor = 1.0) -> Tensor:
    """Softmax (..., K) of `logits / temperature`, at least in float32: bfloat16 would move thresholds."""
    if logits.dtype in (torch.float16, torch.bfloat16):
        logits = logits.float()
    return (logits / temperature).softmax(-1)
