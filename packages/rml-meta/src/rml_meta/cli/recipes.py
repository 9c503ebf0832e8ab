"""Configurations of training: few-shot methods, data, environments, and the settings that go together by name.

What belongs to one method, or to one part of a run, is a group of options of its own. Nothing here imports torch, so
that the help answers at once.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from robustvision_core.config import from_plain, plain
from robustvision_core.errors import UserError, unknown_name
from robustvision_core.networks.names import check_network, is_external
from robustvision_core.run.options import RunOptions

METHODS = ("rml", "maml", "reptile", "metalstm", "matchingnet", "protonet", "relationnet", "baseline", "baseline++")
"""What `--method` takes."""

METRIC_METHODS = ("matchingnet", "protonet", "relationnet")
HEADED = ("rml", "maml", "reptile", "metalstm")
"""Methods whose network ends in one output a class of a task."""

NETWORKS = ("conv4", "conv4_strided", "conv6", "resnet10", "resnet12", "resnet18")
"""What `--network` takes, beside timm:NAME and torchvision:NAME."""

Backend = Literal["loop", "grouped", "vmap", "higher", "recompute", "compiled", "auto"]


@dataclass(frozen=True)
class ImageOptions:
    """Images: their size, and what is done to those of base classes."""

    size: int = 28
    """Height and width in pixels."""
    rotations: bool = False
    """Base classes rotated by 90, 180 and 270 degrees are classes of their own, as is usual on Omniglot."""
    augment: bool = False
    """Random shifts, flips and rotations by up to 15 degrees of the training images."""


@dataclass(frozen=True)
class EnvironmentOptions:
    """Environments: how the same classes look elsewhere."""

    train: str = "auto"
    """How training tasks look: none; transforms by name, as identity,jitter; colour (a label-colour map drawn for each
    environment) or colour-shared (one for all). auto is identity,jitter for rml, else none."""
    correlations: tuple[float, ...] = (0.9, 0.8)
    """Of label and colour, one an environment."""
    test: str = "none"
    """How validation and novel tasks look, as in training."""
    test_correlations: tuple[float, ...] = (0.1, 0.1)
    """Of label and colour in the test; validation has those of training."""


@dataclass(frozen=True)
class TestOptions:
    """Tasks of validation and test, the same for every method and seed."""

    queries: int = 15
    """Query images a class."""
    val_episodes: int = 100
    """Validation tasks."""
    episodes: int = 600
    """Test tasks."""
    episode_seed: int = 0
    """Draws the tasks of both."""
    transductive: bool | None = None
    """Normalise query images together; None is the method's own, True for rml, maml, reptile and metalstm."""


@dataclass(frozen=True)
class InnerOptions:
    """Inner loop of rml and maml: how parameters are adapted to a support set."""

    steps: int = 5
    """Steps in training."""
    test_steps: int = 0
    """Steps in use; 0 is as in training."""
    lr: float = 0.01
    """Learning rate."""
    backend: Backend = "loop"
    """How it is computed."""
    first_order: bool = False
    """Leave out second derivatives."""
    adapted: Literal["all", "head", "body"] = "all"
    """Which parameters adapt; head is ANIL, body is BOIL."""
    learn_lr: Literal["none", "meta-sgd", "per-step"] = "none"
    """Learn the rates."""
    zero_head: bool = True
    """The head starts at 0, so that no output is preferred."""
    per_step_norm: bool = False
    """Batch norms of each step (MAML++)."""
    multi_step_epochs: int = 0
    """Weigh the query losses of all steps for so many epochs (MAML++)."""
    reduction: Literal["mean", "sum"] = "mean"
    """Mean or sum over tasks."""


@dataclass(frozen=True)
class RmlOptions:
    """Method rml: on which tasks an adapted model is judged, and the penalty."""

    pairing: Literal["cross_env", "within_env", "all_pairs", "diagonal"] = "cross_env"
    """On which tasks an adapted model is judged."""
    include_self: bool = False
    """On its own too."""
    class_alignment: Literal["same_classes", "reheaded", "literal"] = "same_classes"
    """What the outputs mean for another task."""
    penalty: Literal["none", "irmv1", "vrex", "std"] = "none"
    """Penalty on the environments' risks."""
    penalty_weight: float = 1.0
    """Weight of the penalty."""
    anneal_steps: int = 0
    """The penalty counts from this many steps on."""


@dataclass(frozen=True)
class ReptileOptions:
    """Method reptile: training on one task."""

    steps: int = 8
    """Steps on a task in training."""
    test_steps: int = 50
    """Steps in use."""
    batch: int = 10
    """Images of each step in training; 0 takes all."""
    lr: float = 1e-3
    """Learning rate of the Adam of the inner loop."""
    carry: bool = True
    """Adam's moments go on from task to task and into use, as published."""


@dataclass(frozen=True)
class MetaLstmOptions:
    """Method metalstm."""

    steps: int = 12
    """Updates on a support set."""


@dataclass(frozen=True)
class MetricOptions:
    """Methods that compare embeddings: matchingnet, protonet and relationnet."""

    train_ways: int = 0
    """Classes a task in training; more than in use make a harder task, and were found to help (Snell et al. 2017). 0 is
    as --ways."""


@dataclass(frozen=True)
class BaselineOptions:
    """Methods baseline and baseline++."""

    batch: int = 64
    """Images a step."""


@dataclass(frozen=True)
class TrainConfig(RunOptions):
    """Train a few-shot method on base classes; novel classes are looked at once, at the end."""

    preset: str = "quick"
    """Which defaults the other options change: see the README for the list."""
    method: str = "rml"
    """rml, maml, reptile, metalstm, matchingnet, protonet, relationnet, baseline or baseline++."""
    data: str = "glyphs"
    """Base classes: glyphs, omniglot, tiny-imagenet-few-shot, folder:PATH (with subfolders, CSV files or pickled
    caches train, val and test, as miniImageNet's; without them every second class is a base class, as CUB's) or any
    other set."""
    target: str = ""
    """Validation and novel classes from this set instead (cross-domain); empty takes those of --data."""
    ways: int = 5
    """Classes a task, N."""
    shots: int = 1
    """Support images a class, K."""
    queries: int = 5
    """Query images a class in training. Every environment has images of its own."""
    network: str = "conv4"
    """Network before the head: conv4, conv4_strided (as on Omniglot in work on MAML and Reptile), conv6, resnet10,
    resnet12 or resnet18, or timm:NAME and torchvision:NAME. relationnet takes feature maps, of the former alone."""
    weights: str = ""
    """A file of weights that the network of timm or torchvision starts from, with that network's normalisation."""
    hidden: int = 64
    """Channels of conv4 and conv6."""
    norm: Literal["batch", "group", "none"] = "batch"
    """Norm of the network."""
    epochs: int = 10
    """Epochs; validation follows each and chooses the best. A resumed run may have more; its rate falls over all."""
    steps: int = 100
    """Steps an epoch."""
    tasks: int = 4
    """Tasks a step, all processes together; of E environments tasks / E groups of E."""
    optimizer: Literal["auto", "adam", "sgd"] = "auto"
    """Optimizer; auto is sgd for reptile, else adam."""
    lr: float | None = None
    """Learning rate; None is 1 for reptile, else 0.001."""
    schedule: Literal["auto", "constant", "cosine", "linear"] = "auto"
    """How the rate falls over the epochs; auto is linear for reptile, else constant."""
    clip_norm: float = 0.0
    """Largest norm of the gradient; 0 does not clip."""
    image: ImageOptions = field(default_factory=ImageOptions)
    environments: EnvironmentOptions = field(default_factory=EnvironmentOptions)
    test: TestOptions = field(default_factory=TestOptions)
    inner: InnerOptions = field(default_factory=InnerOptions)
    rml: RmlOptions = field(default_factory=RmlOptions)
    reptile: ReptileOptions = field(default_factory=ReptileOptions)
    metalstm: MetaLstmOptions = field(default_factory=MetaLstmOptions)
    metric: MetricOptions = field(default_factory=MetricOptions)
    baseline: BaselineOptions = field(default_factory=BaselineOptions)

    PRESETS: ClassVar[dict[str, TrainConfig]]
    ALIASES: ClassVar[dict[str, str]] = {
        "backbone": "network",
        "rotations": "image.rotations",
        "augment": "image.augment",
        "environments": "environments.train",
        "correlations": "environments.correlations",
        "test_environments": "environments.test",
        "test_correlations": "environments.test_correlations",
        "val_episodes": "test.val_episodes",
        "episode_seed": "test.episode_seed",
        "transductive": "test.transductive",
        "test_inner_steps": "inner.test_steps",
        **{
            name: f"inner.{name}"
            for name in (
                "backend",
                "first_order",
                "adapted",
                "learn_lr",
                "zero_head",
                "per_step_norm",
                "multi_step_epochs",
                "reduction",
            )
        },
        **{
            name: f"rml.{name}"
            for name in ("pairing", "include_self", "class_alignment", "penalty", "penalty_weight", "anneal_steps")
        },
        "lstm_steps": "metalstm.steps",
        "train_ways": "metric.train_ways",
        "image_batch": "baseline.batch",
    }

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.method not in METHODS:
            raise unknown_name("method", self.method, METHODS)
        self._check_network()
        self.at_least(1, "ways", "shots", "queries", "test.queries", "inner.steps", "metalstm.steps", "tasks", "hidden")
        self.at_least(1, "steps", "epochs", "baseline.batch", "reptile.steps", "reptile.test_steps", "image.size")
        self.at_least(2, "test.val_episodes", "test.episodes")
        self.at_least(0, "clip_norm", "rml.anneal_steps", "rml.penalty_weight", "reptile.batch")
        self.at_least(0, "inner.multi_step_epochs", "inner.test_steps", "metric.train_ways")
        self.positive("inner.lr", "reptile.lr")
        if self.lr is not None:
            self.positive("lr")
        if self.method.startswith("baseline") and self.environments.train not in ("auto", "none"):
            raise UserError(f"{self.method} trains on images, not on tasks: leave --environments away")
        if self.metric.train_ways and self.method not in METRIC_METHODS:
            raise UserError(f"{self.method} cannot change its number of classes: leave --train-ways away")

    def _check_network(self) -> None:
        check_network(self.network, NETWORKS, self.weights)
        if is_external(self.network) and self.method == "relationnet":
            raise UserError(f"relationnet compares feature maps: choose --network of {', '.join(NETWORKS)}")

    @property
    def training_environments(self) -> str:
        """`environments.train` with `auto` resolved."""
        if self.environments.train != "auto":
            return self.environments.train
        return "identity,jitter" if self.method == "rml" else "none"

    def changed(self, **values: Any) -> TrainConfig:
        """This configuration with other values, under the spellings of the options: `inner_steps` is `inner.steps`.

        Raises:
            UserError: There is no such option, or its value is refused.
        """
        return from_plain(TrainConfig, plain(self) | values, "the change", "rml-meta train")


_QUICK = TrainConfig(hidden=32, epochs=4, steps=40).changed(
    inner_steps=2, inner_lr=0.1, val_episodes=25, test_queries=5
)
_OMNIGLOT = TrainConfig(preset="omniglot", data="omniglot", tasks=8).changed(
    inner_steps=1, inner_lr=0.4, test_inner_steps=3
)

TrainConfig.PRESETS = {
    "quick": _QUICK,
    # everything once, in a few seconds: to see that it runs
    "smoke": _QUICK.changed(
        preset="smoke",
        image_size=14,
        hidden=8,
        inner_steps=1,
        epochs=2,
        steps=4,
        val_episodes=4,
        test_episodes=8,
        metalstm_steps=2,
        reptile_steps=2,
        reptile_test_steps=2,
    ),
    "omniglot": _OMNIGLOT,
    # by validation classes more inner steps than in training help at 1 shot, and do harm at 5
    "omniglot-5shot": _OMNIGLOT.changed(preset="omniglot-5shot", shots=5, test_inner_steps=0),
    "tiny-imagenet": TrainConfig(
        preset="tiny-imagenet", data="tiny-imagenet-few-shot", hidden=32, queries=15, epochs=20
    ).changed(image_size=64, augment=True),
    # the test of the README: colours that say the label, each environment in its own way, and in the test do not
    "colour": TrainConfig(
        preset="colour", data="omniglot", hidden=16, norm="group", lr=5e-3, clip_norm=10.0, epochs=4, steps=50, tasks=8
    ).changed(
        image_size=32, environments="colour", test_environments="colour", test_queries=5, inner_steps=3, inner_lr=0.1
    ),
    # equations 4 to 7 by the letter; what the paper leaves unsaid is that of Chen et al. 2019, whose set-up it shares
    "paper": TrainConfig(preset="paper", data="folder:mini-imagenet", queries=16, epochs=600).changed(
        image_size=84,
        augment=True,
        zero_head=False,
        inner_steps=1,
        pairing="within_env",
        include_self=True,
        class_alignment="literal",
        reduction="sum",
        image_batch=16,
    ),
}
