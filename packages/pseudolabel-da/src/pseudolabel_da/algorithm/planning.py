"""Which rows make the batches of an epoch: a pure function of the seed, the epoch and the pool.

An epoch can thus be entered at any batch, by any process, without a generator's state.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from pseudolabel_da.algorithm.settings import Oversample, Passes, Replay
from pseudolabel_da.reading.samples import split_batches
from pseudolabel_da.seeds import make_generator


class Rows(NamedTuple):
    """The rows of one optimizer step.

    Attributes:
        source: (B,) rows of the source (labelled target samples follow those of the source), or None.
        pseudo: (B',) rows of the target that have a pseudo-label, or None.
    """

    source: Tensor | None
    pseudo: Tensor | None


def draw_replay(
    count: int,
    source: int,
    labeled: int,
    generator: torch.Generator,
    *,
    replay: Replay = "union",
    oversample: Oversample = "clip",
) -> Tensor:
    """Draw the source rows R of an epoch, in random order (Algorithm 1, line 16).

    Args:
        count: |P|, how many are wanted.
        source: Number of source samples, rows 0 to source - 1.
        labeled: Number of labelled target samples, the rows after those.
        generator: On the CPU.
        replay: `union` draws from both alike, which dilutes a few labelled target samples to almost nothing.
            `source` leaves them out. `always_labeled_target` takes every one of them and fills up from the source.
        oversample: Where more are wanted than there are: `clip` takes all; `replacement` goes round again, so that
            no row comes up more than once more often than another.

    Returns:
        Rows (R,), int64.
    """
    if replay == "always_labeled_target" and count > 0:
        kept = torch.arange(source, source + labeled)
        rows = torch.cat([kept, _draw(max(count - labeled, 0), source, generator, oversample)])
        return rows[torch.randperm(rows.numel(), generator=generator)]
    return _draw(count, source + (labeled if replay == "union" else 0), generator, oversample)


def _draw(count: int, size: int, generator: torch.Generator, oversample: Oversample) -> Tensor:
    rounds = -(-count // size) if oversample == "replacement" and size else 1
    orders = [torch.randperm(size, generator=generator) for _ in range(max(rounds, 1))]
    return torch.cat(orders)[:count]


def plan_source(rows: Tensor, batch_size: int) -> list[Rows]:
    """Steps on source rows (R,) alone."""
    return [Rows(batch, None) for batch in split_batches(rows, batch_size)]


def plan_pseudo(rows: Tensor, batch_size: int, generator: torch.Generator) -> list[Rows]:
    """Steps on pseudo-labelled rows (P,) alone, in random order."""
    return [Rows(None, batch) for batch in split_batches(_shuffled(rows, generator), batch_size)]


def plan_joint(replay: Tensor, pseudo: Tensor, batch_size: int, generator: torch.Generator) -> list[Rows]:
    """Steps on source and pseudo-labelled rows at once: R spread evenly over the batches of P.

    Where R has fewer than two rows for a step, it is repeated until it has.
    """
    batches = split_batches(_shuffled(pseudo, generator), batch_size)
    if not batches:
        return []
    if not replay.numel():
        return [Rows(None, batch) for batch in batches]
    replay = replay.repeat(-(-2 * len(batches) // replay.numel()))
    return [Rows(s, p) for s, p in zip(replay.tensor_split(len(batches)), batches, strict=True)]


def plan_epoch(
    pseudo: Tensor,
    source: int,
    labeled: int = 0,
    *,
    seed: int,
    epoch: int,
    batch_size: int,
    passes: Passes = "separate",
    replay: Replay = "union",
    oversample: Oversample = "clip",
    replay_share: float = 1.0,
) -> list[Rows]:
    """The steps of one epoch on the pseudo-labelled rows and as many source rows.

    Args:
        pseudo: (P,) rows with a pseudo-label, on any device.
        source: Number of source samples.
        labeled: Number of labelled target samples, whose rows follow those of the source.
        seed: Of the run.
        epoch: Its number.
        batch_size: Rows of each kind in a step.
        passes: `separate`: all source steps, then all pseudo-labelled steps (the paper). `mixed` and `paired`: both in
            every step.
        replay: As `draw_replay` has it.
        oversample: As `draw_replay` has it.
        replay_share: Source rows in a step as a share of the pseudo-labelled ones, but no fewer than two, where both
            are in every step.

    Returns:
        The steps, none if there is no pseudo-label; their rows are on the device of `pseudo`.
    """
    order = make_generator(seed, "pseudo order", epoch)
    drawn = draw_replay(
        pseudo.numel(),
        source,
        labeled,
        make_generator(seed, "replay", epoch),
        replay=replay,
        oversample=oversample,
    ).to(pseudo.device)
    if passes == "separate":
        return plan_source(drawn, batch_size) + plan_pseudo(pseudo, batch_size, order)
    return [replay_less(step, replay_share) for step in plan_joint(drawn, pseudo, batch_size, order)]


def replay_less(rows: Rows, share: float) -> Rows:
    """The step with at most `share` source rows for every pseudo-labelled one, but no fewer than two."""
    if rows.source is None or rows.pseudo is None:
        return rows
    return Rows(rows.source[: max(round(share * rows.pseudo.numel()), 2)], rows.pseudo)


def _shuffled(rows: Tensor, generator: torch.Generator) -> Tensor:
    return rows[torch.randperm(rows.numel(), generator=generator).to(rows.device)]
