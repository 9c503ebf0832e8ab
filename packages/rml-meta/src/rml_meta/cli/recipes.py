"""Configurations of training: few-shot methods, data, environments, and the settings that go together by name."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import ClassVar, Literal

from robustvision_core.errors import UserError, unknown_name
from robustvision_core.run.options import RunOptions

METHODS = ("rml", "maml", "reptile", "metalstm", "matchingnet", "protonet", "relationnet", "baseline", "baseline++")
"""What `--method` takes."""

METRIC_METHODS = ("matchingnet", "protonet", "relationnet")


@dataclass(frozen=True)
class TrainConfig(RunOptions):
    """Train a few-shot method on base classes; novel classes are looked at once, at the end."""

    preset: str = "quick"
    """Which defaults the other options change: see the README for the list."""
    method: str = "rml"
    """rml, maml, reptile, metalstm, matchingnet, protonet, relationnet, baseline or baseline++."""
    data: str = "glyphs"
    """Base classes: glyphs, omniglot, tiny-imagenet-few-shot, folder:PATH (with subfolders train, val and test of
    classes, as miniImageNet's; without them every second class is a base class, as CUB's) or any other set."""
    target: str = ""
    """Validation and novel classes from this set instead (cross-domain); empty takes those of --data."""
    download: bool = False
    """Fetch missing data where that can be done."""
    image_size: int = 28
    """Height and width in pixels."""
    rotations: bool = False
    """Base classes turned by 90, 180 and 270 degrees are classes of their own, as is usual on Omniglot."""
    augment: bool = False
    """Random shifts, flips and rotations by up to 15 degrees of the training images."""
    ways: int = 5
    """Classes a task, N."""
    train_ways: int = 0
    """matchingnet, protonet, relationnet: classes a task in training; more than in use make a harder task, and were
    found to help (Snell et al. 2017). 0 is as --ways."""
    shots: int = 1
    """Support images a class, K."""
    queries: int = 5
    """Query images a class in training. Every environment has images of its own."""
    test_queries: int = 15
    """Query images a class in validation and test."""
    environments: str = "auto"
    """How training tasks look: none; transforms by name, as identity,jitter; colour (a label-colour map drawn for each
    environment) or colour-shared (one for all). auto is identity,jitter for rml, else none."""
    correlations: tuple[float, ...] = (0.9, 0.8)
    """Of label and colour, one an environment."""
    test_environments: str = "none"
    """How validation and novel tasks look, as environments."""
    test_correlations: tuple[float, ...] = (0.1, 0.1)
    """Of label and colour in the test; validation has those of training."""
    backbone: Literal["conv4", "conv6", "resnet10", "resnet12", "resnet18"] = "conv4"
    """Network before the head; relationnet takes its feature maps."""
    hidden: int = 64
    """Channels of conv4 and conv6."""
    norm: Literal["batch", "group", "none"] = "batch"
    """Norm of the backbone."""
    zero_head: bool = True
    """rml, maml: the head starts at 0, so that no output is preferred."""
    transductive: bool | None = None
    """Normalise query images together; None is the method's own, True for rml, maml, reptile and metalstm."""
    inner_steps: int = 5
    """rml, maml: steps of the inner loop."""
    test_inner_steps: int = 0
    """rml, maml: steps in use; 0 is as in training."""
    inner_lr: float = 0.01
    """rml, maml: rate of the inner loop."""
    backend: Literal["loop", "vmap", "recompute", "higher", "compiled"] = "loop"
    """rml, maml: how the inner loop is computed."""
    first_order: bool = False
    """rml, maml: leave out second derivatives."""
    adapted: Literal["all", "head", "body"] = "all"
    """rml, maml: which parameters adapt; head is ANIL, body is BOIL."""
    learn_lr: Literal["none", "meta-sgd", "per-step"] = "none"
    """rml, maml: learn the rates of the inner loop."""
    per_step_norm: bool = False
    """rml, maml: batch norms of each inner step (MAML++)."""
    multi_step_epochs: int = 0
    """rml, maml: weigh the query losses of all inner steps for so many epochs (MAML++)."""
    pairing: Literal["cross_env", "within_env", "all_pairs", "diagonal"] = "cross_env"
    """rml: on which tasks an adapted model is judged."""
    include_self: bool = False
    """rml: on its own too."""
    class_alignment: Literal["same_classes", "reheaded", "literal"] = "same_classes"
    """rml: what the outputs mean for another task."""
    penalty: Literal["none", "irmv1", "vrex", "std"] = "none"
    """rml: penalty on the environments' risks."""
    penalty_weight: float = 1.0
    """rml: weight of the penalty."""
    anneal_steps: int = 0
    """rml: the penalty counts from this many steps on."""
    reduction: Literal["mean", "sum"] = "mean"
    """rml, maml: mean or sum over tasks."""
    reptile_steps: int = 8
    """reptile: steps on a task in training."""
    reptile_test_steps: int = 50
    """reptile: steps in use."""
    reptile_batch: int = 10
    """reptile: images of each step in training; 0 takes all."""
    reptile_lr: float = 1e-3
    """reptile: rate of the Adam of the inner loop."""
    lstm_steps: int = 12
    """metalstm: updates on a support set."""
    image_batch: int = 64
    """baseline, baseline++: images a step."""
    epochs: int = 10
    """Epochs; validation follows each and chooses the best."""
    steps: int = 100
    """Steps an epoch."""
    tasks: int = 4
    """Tasks a step, all processes together; of E environments tasks / E groups of E."""
    val_episodes: int = 100
    """Validation tasks."""
    test_episodes: int = 600
    """Test tasks, the same for every method and seed."""
    episode_seed: int = 0
    """Draws validation and test tasks."""
    optimizer: Literal["auto", "adam", "sgd"] = "auto"
    """Optimizer; auto is sgd for reptile, else adam."""
    lr: float | None = None
    """Learning rate; None is 1 for reptile, else 0.001."""
    schedule: Literal["auto", "constant", "cosine", "linear"] = "auto"
    """How the rate falls over the epochs; auto is linear for reptile, else constant."""
    clip_norm: float = 0.0
    """Largest norm of the gradient; 0 does not clip."""

    PRESETS: ClassVar[dict[str, TrainConfig]]

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in METHODS:
            raise unknown_name("method", self.method, METHODS)
        counts = ("ways", "shots", "queries", "test_queries", "inner_steps", "lstm_steps", "tasks", "hidden", "steps")
        self.at_least(1, *counts, "epochs", "image_batch", "reptile_steps", "reptile_test_steps", "image_size")
        self.at_least(2, "val_episodes", "test_episodes")
        self.at_least(0, "clip_norm", "anneal_steps", "penalty_weight", "reptile_batch", "multi_step_epochs")
        self.at_least(0, "test_inner_steps", "train_ways")
        self.positive("inner_lr", "reptile_lr")
        if self.lr is not None:
            self.positive("lr")
        if self.method.startswith("baseline") and self.environments not in ("auto", "none"):
            raise UserError(f"{self.method} trains on images, not on tasks: leave --environments away")

        if self.train_ways and self.method not in METRIC_METHODS:
            raise UserError(f"{self.method} cannot change its number of classes: leave --train-ways away")

    @property
    def training_environments(self) -> str:
        """`environments` with `auto` resolved."""
        if self.environments != "auto":
            return self.environments
        return "identity,jitter" if self.method == "rml" else "none"


_OMNIGLOT = TrainConfig(
    preset="omniglot", data="omniglot", inner_steps=1, inner_lr=0.4, test_inner_steps=3, epochs=10, steps=100, tasks=8
)
_TINY = TrainConfig(
    preset="tiny-imagenet",
    data="tiny-imagenet-few-shot",
    image_size=64,
    hidden=32,
    queries=15,
    augment=True,
    epochs=20,
)

TrainConfig.PRESETS = {
    "quick": TrainConfig(hidden=32, inner_steps=2, inner_lr=0.1, epochs=4, steps=40, val_episodes=25, test_queries=5),
    "omniglot": _OMNIGLOT,
    # by validation classes more inner steps than in training help at 1 shot, and do harm at 5
    "omniglot-5shot": replace(_OMNIGLOT, preset="omniglot-5shot", shots=5, test_inner_steps=0),
    "tiny-imagenet": _TINY,
    # the test of the README: colours that say the label, each environment in its own way, and in the test do not
    "colour": TrainConfig(
        preset="colour",
        data="omniglot",
        image_size=32,
        hidden=16,
        norm="group",
        environments="colour",
        test_environments="colour",
        test_queries=5,
        inner_steps=3,
        inner_lr=0.1,
        lr=5e-3,
        clip_norm=10.0,
        epochs=4,
        steps=50,
        tasks=8,
    ),
    # equations 4 to 7 by the letter; what the paper leaves unsaid is that of Chen et al. 2019, whose set-up it shares
    "paper": TrainConfig(
        preset="paper",
        data="folder:mini-imagenet",
        image_size=84,
        queries=16,
        augment=True,
        zero_head=False,
        inner_steps=1,
        pairing="within_env",
        include_self=True,
        class_alignment="literal",
        reduction="sum",
        image_batch=16,
        epochs=600,
    ),
}
