"""Two answers to outliers: Huber's loss, and sample consensus."""

from __future__ import annotations

from dataclasses import dataclass

MINIMAL = 3  # points that leave a few poses


@dataclass(frozen=True)
class Huber:
    """Minimise Huber's function of every residual length instead of half its square.

    Attributes:
        delta: residual in pixels from which the loss grows linearly.
    """

    delta: float = 2.0

    def __post_init__(self) -> None:
        if not self.delta > 0:
            raise ValueError(f"Huber needs a positive delta in pixels, got {self.delta}")


@dataclass(frozen=True)
class SampleConsensus:
    """Find the inliers first, from the poses of many small samples, then minimise over the inliers alone.

    Three points have up to four poses (`p3p`). Those of every sample are ranked by the truncated squared residuals of
    all points (MSAC); the best is fitted to its inliers, and sampling ends once another sample of inliers is unlikely
    to be missing. The samples are the same for every item and every call, so that the result is deterministic and no
    item depends on another. The choice of inliers is constant for the gradient.

    Attributes:
        threshold: largest residual of an inlier, in pixels.
        hypotheses: most samples per item; off the CPU all of them are taken, since ending early means waiting.
        sample: points per sample; from the fourth on they choose among the poses of the first three.
        confidence: probability of having drawn a sample without outliers at which sampling ends.
        least_inliers: number of inliers from which an item can be `valid`. 0 asks for so many that points spread over
            the image by chance would hardly agree as well, or for all.

    Raises:
        ValueError: a value is out of its range.
    """

    threshold: float = 3.0
    hypotheses: int = 256
    sample: int = MINIMAL
    confidence: float = 0.9999
    least_inliers: int = 0

    def __post_init__(self) -> None:
        if not self.threshold > 0:
            raise ValueError(f"SampleConsensus needs a positive threshold in pixels, got {self.threshold}")
        if self.hypotheses < 1 or self.sample < MINIMAL:
            raise ValueError(f"SampleConsensus needs hypotheses >= 1 and sample >= {MINIMAL}, got {self}")
        if not 0 < self.confidence < 1 or self.least_inliers < 0:
            raise ValueError(f"SampleConsensus needs 0 < confidence < 1 and least_inliers >= 0, got {self}")
