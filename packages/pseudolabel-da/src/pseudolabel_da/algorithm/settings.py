"""The options of the algorithm, by part. Imports no torch, so that a command can list them at once.

Every default is what the paper's text says, where it says anything; whole recipes stand in
`pseudolabel_da.algorithm.presets`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, fields, replace
from typing import Any, Literal, get_args, get_type_hints

from pseudolabel_da.diagnosis.limits import CollapseLimits
from pseudolabel_da.selection.checks import (
    GROWING,
    check_floor,
    check_rho,
    check_shares,
    check_threshold,
    parse_prior,
)

Method = Literal["source", "target", "coral", "dann", "lee", "pseudo", "ican"]
SelectorName = Literal["adaptive", "fixed", "flex", "balanced", "top"]
AugmentName = Literal["none", "strong", "recolor", "jitter", "photo", "auto"]
CheckName = Literal["jitter", "means", "two"]
Order = Literal["paper", "official"]
OnEmpty = Literal["noop", "source_epoch", "stop", "relax"]
OnCollapse = Literal["warn", "stop", "rebalance"]
BatchNorm = Literal["shared", "freeze_on_pseudo", "target"]
Passes = Literal["separate", "mixed", "paired"]
Replay = Literal["union", "source", "always_labeled_target"]
Oversample = Literal["clip", "replacement"]
Checkpoint = Literal[
    "last",
    "source_accuracy",
    "information_maximization",
    "soft_neighborhood_density",
    "negative_entropy",
    "source",
    "im",
    "snd",
    "entropy",
]
ALONE = ("source", "target")
"""Methods that train on labelled samples alone."""

TRANSFER = ("coral", "dann", "lee")
"""The methods that train on unlabelled batches of the target, without a pool of pseudo-labels."""

VALIDATORS: dict[str, Checkpoint] = {
    "last": "last",
    "source": "source_accuracy",
    "im": "information_maximization",
    "snd": "soft_neighborhood_density",
    "entropy": "negative_entropy",
}
"""Short names of `checkpoint` and the validators they stand for; none of them sees a target label."""


@dataclass(frozen=True)
class SelectionOptions:
    """Which target samples receive a pseudo-label, and when."""

    selector: SelectorName = "adaptive"
    """The paper's adaptive threshold, a fixed one, FlexMatch's by class, a class-balanced growing share, or the top
    growing share without balance."""
    period: int = 20
    """Epochs between selections; the first is at epoch 0 of the adaptation."""
    shares: tuple[float, ...] = GROWING
    """Of balanced and top: share of the target that holds a label after each period; the last one stays."""
    prior: str = "even"
    """Of balanced: even classes, predicted (the same share of each predicted class, for when nothing is known),
    estimate (by maximum likelihood from the predictions, anew in each period, and nearer to even the more doubtful they
    are), or the shares of the classes, with commas."""
    rho: float = 3.0
    """Of the adaptive threshold, and of method ican."""
    ceiling_aware: bool = False
    """Multiply the adaptive threshold by the ceiling that label smoothing puts on confidence."""
    threshold: float = 0.95
    """Of fixed and flex."""
    relabel: bool = False
    """Build the set anew in each period; the paper never takes a label back."""
    calibrate: bool = False
    """Divide logits by the temperature that fits source validation data before they are selected by."""
    check: CheckName = "jitter"
    """How wrong pseudo-labels are estimated without true ones. means compares classes, at no cost; jitter also asks the
    model for its answers to slightly changed images, one more pass over the target a period; two also compares with a
    second network adapted from another seed, which costs as much as the first. All
    take source validation data."""
    on_empty: OnEmpty = "noop"
    """While nothing has a pseudo-label: noop trains nothing (the paper, |R| = |P| = 0), source_epoch trains on all
    source rows, stop ends. relax selects the most confident samples in any period that would find none."""
    relax_share: float = 0.01
    """Share of the pool that relax takes."""
    patience_periods: int | None = None
    """End after this many periods in a row that add nothing; None never does."""
    on_collapse: OnCollapse = "warn"
    """After a verdict other than healthy: warn, warn and stop, or warn and rebalance: where few classes hold the
    labels, as many samples as the selector chose, the most confident of each class evenly. No other failure is mended
    by it."""


@dataclass(frozen=True)
class TrainingOptions:
    """The steps of an epoch, and the optimizer."""

    batch_size: int = 16
    """Samples of each domain in a step, all processes together; 16 is that of the published code for MNIST."""
    lr: float = 5e-4
    """Learning rate of AdamW."""
    anneal: bool = False
    """Let the learning rate fall along a cosine within each period, and within the first phase, so that labels are
    given by a network that has settled."""
    weight_decay: float = 1e-3
    """Of AdamW."""
    pretrain_label_smoothing: float = 0.05
    """Of the first phase."""
    label_smoothing: float = 0.15
    """Of the adaptation; it caps confidence."""
    order: Order = "paper"
    """paper: select, train on the source rows, train on the pseudo-labels. official, the published code: train on the
    source rows, then measure the accuracy and select, then train on the pseudo-labels."""
    passes: Passes = "separate"
    """separate: two passes an epoch, source first (the paper); running statistics then follow the pseudo-labels.
    paired: both in every step, each with its own forward pass. mixed: both in one forward pass."""
    replay: Replay = "union"
    """Where source rows come from when there are labelled target samples: the union of both, source alone, or
    always_labeled_target, all of these in every epoch."""
    oversample: Oversample = "clip"
    """Where there are more pseudo-labels than source rows: clip takes all of these once, replacement goes round."""
    replay_share: float = 1.0
    """Source samples in a step as a share of the pseudo-labelled ones, for passes paired and mixed; fewer cost less."""
    reset_optimizer: bool = True
    """A new optimizer for the adaptation."""
    batch_norm: BatchNorm = "shared"
    """shared as in any network; freeze_on_pseudo: pseudo-labelled samples do not move the running statistics; target:
    these are estimated anew on the pool before each selection and at the end. Method source always has shared, or it
    would have seen the target."""
    statistics_batches: int = 20
    """Large batches, at most, to estimate statistics on."""
    augment: AugmentName = "none"
    """Of pseudo-labelled samples, of methods pseudo and ican. strong, for digits and drawings, shifts, inverts,
    recolours and blends; recolor inverts and jitters contrast and brightness, jitter does not invert; photo takes
    parts, mirrors, turns and recolours, in proportion to the image's size; auto tries all on a part of the data and
    chooses by reverse validation and diversity (in the library: `choose_augment`)."""
    source_augment: AugmentName = "none"
    """Of labelled samples, in both phases; of both domains in coral, dann and lee."""


@dataclass(frozen=True)
class CoralOptions:
    """Method coral: Deep CORAL."""

    weight: float = 1.0
    """Of the CORAL distance."""
    features: Literal["logits", "penultimate"] = "logits"
    """What the distance compares."""
    form: Literal["exact", "published"] = "exact"
    """published is that of the code published with the paper, far too weak."""


@dataclass(frozen=True)
class LeeOptions:
    """Method lee: pseudo-labels of every sample whose weight grows (2013)."""

    start: float = 0.1
    """Share of the adaptation until which the weight is 0."""
    end: float = 0.6
    """Share from which it is the final one."""
    final: float = 3.0
    """Last weight of the pseudo-labels."""


@dataclass(frozen=True)
class Settings(TrainingOptions, SelectionOptions):
    """Everything that says how to adapt: the options of both parts, by their own names, and those below.

    Raises:
        ValueError: A value is out of range, or two do not go together.
    """

    method: Method = "pseudo"
    """`pseudo` (this paper's algorithm), `ican` (its selection), or a rival: `coral`, `dann` or `lee` (2013). `source`
    and `target` train on labelled samples alone, and have no adaptation."""
    coral: CoralOptions = field(default_factory=CoralOptions)
    """Of method coral."""
    lee: LeeOptions = field(default_factory=LeeOptions)
    """Of method lee."""
    limits: CollapseLimits = field(default_factory=CollapseLimits)
    """Where the verdicts begin."""
    pseudo_weight: float | Callable[[int], float] = 1.0
    """Factor of the pseudo-labelled loss: a number, or a function of the epoch such as `LeeSchedule`."""
    checkpoint: Checkpoint = "last"
    """The model that is kept: of the last epoch, or of the best by a validator without target labels (`source`, `im`,
    `snd` and `entropy` for short). The published code goes by source accuracy, which favours the least adapted
    model."""
    eval_batch: int = 256
    """Samples in a batch without gradients."""
    seed: int = 0
    """Of every draw."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self)).items():
            if getattr(hint, "__origin__", None) is Literal and getattr(self, name) not in get_args(hint):
                raise ValueError(f"{name} must be one of {', '.join(get_args(hint))}, got {getattr(self, name)!r}")
        self._check_numbers()
        self._check_selection()
        self._check_pairs()

    @property
    def validator(self) -> Checkpoint:
        """`checkpoint` by its long name."""
        return VALIDATORS.get(self.checkpoint, self.checkpoint)

    @property
    def in_use(self) -> Settings:
        """What the method makes of these: the rivals have one kind of pass, and the source alone sees no target."""
        if self.method in TRANSFER:
            return replace(self, passes="paired", order="paper", oversample="replacement")
        return replace(self, batch_norm="shared") if self.method == "source" else self

    def changed(self, **options: Any) -> Settings:
        """These with other options. Those of the rivals are named `coral_weight`, `lee_start` and so on, too.

        Raises:
            TypeError: There is no option of that name.
            ValueError: A value is out of range, or two do not go together.
        """
        for group in ("coral", "lee"):
            held = getattr(self, group)
            own = {f.name: options.pop(f"{group}_{f.name}") for f in fields(held) if f"{group}_{f.name}" in options}
            options |= {group: replace(options.get(group, held), **own)} if own else {}
        return replace(self, **options)

    def weight_at(self, epoch: int) -> float:
        """The factor of the pseudo-labelled loss in an epoch."""
        return self.pseudo_weight(epoch) if callable(self.pseudo_weight) else self.pseudo_weight

    def _check_numbers(self) -> None:
        for name in ("period", "batch_size", "statistics_batches", "eval_batch"):
            if getattr(self, name) < 1:
                raise ValueError(f"{name} must be at least 1, got {getattr(self, name)}")
        if self.patience_periods is not None and self.patience_periods < 1:
            raise ValueError(f"patience_periods must be None or at least 1, got {self.patience_periods}")
        for name in ("label_smoothing", "pretrain_label_smoothing", "relax_share"):
            if not 0 <= getattr(self, name) <= 1:
                raise ValueError(f"{name} must be in [0, 1], got {getattr(self, name)}")
        for name in ("lr", "replay_share"):
            if not getattr(self, name) > 0:
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

    def _check_selection(self) -> None:
        checks = {
            "adaptive": lambda: check_rho(self.rho),
            "fixed": lambda: check_threshold(self.threshold),
            "flex": lambda: check_floor(self.threshold, 0.0),
            "balanced": lambda: (check_shares(self.shares), parse_prior(self.prior)),
            "top": lambda: check_shares(self.shares),
        }
        check_rho(self.rho) if self.method == "ican" else checks[self.selector]()

    def _check_pairs(self) -> None:
        if self.order == "official" and self.passes != "separate":
            raise ValueError(f"order='official' needs passes='separate', got {self.passes!r}")
        if self.source_augment == "auto":
            raise ValueError("source_augment cannot be auto: name one")
        if self.passes == "mixed" and self.batch_norm == "freeze_on_pseudo":
            raise ValueError("one mixed forward pass cannot freeze batch norm for a part: take passes='paired'")
        if self.method in TRANSFER and self.batch_norm == "freeze_on_pseudo":
            raise ValueError(f"method {self.method} has no pseudo-labelled samples: take batch_norm shared or target")
        if not 0 <= self.lee.start <= self.lee.end <= 1:
            raise ValueError(f"lee_end must be from lee_start to 1, got {self.lee.start} to {self.lee.end}")
        if self.coral.weight < 0:
            raise ValueError(f"coral_weight must be 0 or more, got {self.coral.weight}")
