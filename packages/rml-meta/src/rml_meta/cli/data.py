"""Batches of tasks for training, validation and test, as a configuration asks for them."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from robustvision_core.data import Batch, DeviceBatches, EpisodeSampler, ImageSet, affine_augment
from robustvision_core.errors import UserError
from robustvision_core.run.runtime import Runtime, derive_seed

from rml_meta.cli.class_split import ClassSplit
from rml_meta.cli.learners import statistics
from rml_meta.cli.recipes import TrainConfig
from rml_meta.environments import ColourEnvironments, TransformEnvironments
from rml_meta.methods.robust import pairs

PIXELS = 40 * 28**2  # of the images of one class in a batch of test tasks: 40 tasks at 28 pixels, 4 at 84


class ImageSteps:
    """Batches of images cut into epochs of so many steps; each pass over the images has an order of its own."""

    def __init__(self, batches: DeviceBatches, steps: int) -> None:
        self.batches, self.steps = batches, steps

    def __len__(self) -> int:
        return self.steps

    def epoch(self, epoch: int, start: int = 0) -> Iterator[Batch]:
        """The batches of one epoch from number `start` on."""
        done, end = epoch * self.steps + start, (epoch + 1) * self.steps
        while done < end:
            number, first = divmod(done, len(self.batches))
            for batch in self.batches.epoch(number, first):
                yield batch
                done += 1
                if done == end:
                    return


def make_environments(
    look: str, correlations: Sequence[float], ways: int
) -> TransformEnvironments | ColourEnvironments | None:
    """The environments called `look`, as of `TrainConfig.environments.train`.

    Raises:
        UserError: There are none of that name, or the numbers do not fit.
    """
    try:
        if look == "none":
            return None
        if look in ("colour", "colour-shared"):
            made = ColourEnvironments(correlations, shared_map=look == "colour-shared")
            if ways > len(made.palette):
                raise UserError(f"colour environments have {len(made.palette)} colours: lower --ways from {ways}")
            return made
        return TransformEnvironments(look.split(","))
    except ValueError as error:
        raise UserError(f"environments {look!r}: {error}") from error


def training_batches(config: TrainConfig, base: ImageSet, runtime: Runtime) -> EpisodeSampler | ImageSteps:
    """Tasks of the base classes, or for the baselines images."""
    mean, std = statistics(config, base)
    options: dict[str, Any] = {
        "mean": mean,
        "std": std,
        "seed": derive_seed(config.seed, "training"),
        "rank": runtime.rank,
        "world_size": runtime.world_size,
        "augment": affine_augment() if config.image.augment else None,
        "device": runtime.device,
    }
    if config.method.startswith("baseline"):
        size = min(config.baseline.batch, len(base))
        return ImageSteps(DeviceBatches(base, size, shuffle=True, drop_last=True, **options), config.steps)
    ways = config.metric.train_ways or config.ways
    made = make_environments(config.training_environments, config.environments.correlations, ways)
    environments = 1 if made is None else len(made)
    groups, rest = divmod(config.tasks, environments)
    if rest or not groups:
        raise UserError(f"tasks is {config.tasks}: expected a multiple of the {environments} environments")
    if config.method == "rml":
        _check_pairs(config, config.tasks // runtime.world_size, environments)
    sizes = (ways, config.shots, config.queries, config.steps * groups)
    return EpisodeSampler(base, *sizes, batch_size=groups, environments=made, **options)


def _check_pairs(config: TrainConfig, tasks: int, environments: int) -> None:
    """Refuse a pairing without pairs before anything is trained."""
    rml = config.rml
    try:
        pairs(tasks, environments, rml.pairing, rml.include_self, rml.class_alignment == "same_classes")
    except ValueError as error:
        raise UserError(f"rml: {error}") from error


def held_out_tasks(
    config: TrainConfig,
    split: ClassSplit,
    part: str,
    runtime: Runtime,
    *,
    correlations: Sequence[float],
) -> EpisodeSampler:
    """The fixed tasks of a part (`val` or `novel`), normalised as the base classes are, the same for every method.

    With E environments each episode is E tasks, and the number of tasks is rounded up to a multiple of E.
    """
    made = make_environments(config.environments.test, correlations, config.ways)
    count = config.test.val_episodes if part == "val" else config.test.episodes
    count = -(-count // (1 if made is None else len(made)))
    mean, std = statistics(config, split.base)
    images: ImageSet = getattr(split, part)
    return EpisodeSampler(
        images,
        config.ways,
        config.shots,
        config.test.queries,
        count,
        batch_size=min(max(PIXELS // config.image.size**2, 1), count),
        seed=derive_seed(config.test.episode_seed, part),
        fixed=True,
        environments=made,
        mean=mean,
        std=std,
        device=runtime.device,
    )
