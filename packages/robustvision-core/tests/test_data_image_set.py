from __future__ import annotations

import pytest
import torch
from robustvision_core.data import ImageSet
from robustvision_core.errors import DataError


def make(n: int = 6, classes: int = 3) -> ImageSet:
    images = torch.randint(0, 256, (n, 2, 4, 5), dtype=torch.uint8)
    return ImageSet(images, torch.arange(n) % classes, tuple("abcdefgh"[:classes]), name="made")


def test_defaults_and_properties() -> None:
    data = make()
    assert len(data) == 6
    assert data.num_classes == 3
    assert data.shape == (2, 4, 5)
    assert data.ids.tolist() == [0, 1, 2, 3, 4, 5]
    assert data.class_counts().tolist() == [2, 2, 2]


def test_class_counts_keep_empty_classes() -> None:
    assert make().take([0, 3]).class_counts().tolist() == [2, 0, 0]


@pytest.mark.parametrize(
    "indices", [[4, 1], torch.tensor([4, 1]), torch.tensor([False, True, False, False, True, False]), []]
)
def test_take_keeps_samples_together(indices: list[int] | torch.Tensor) -> None:
    data = make()
    part = data.take(indices)
    for image, label, identity in zip(part.images, part.labels, part.ids, strict=True):
        assert torch.equal(image, data.images[identity])
        assert label == data.labels[identity]
    assert part.take(list(range(len(part)))[::-1]).ids.tolist() == part.ids.tolist()[::-1]


def test_take_gives_the_asked_order() -> None:
    assert make().take([4, 1]).ids.tolist() == [4, 1]


def test_with_labels_is_checked() -> None:
    data = make()
    assert data.with_labels(torch.zeros(6, dtype=torch.int64)).class_counts().tolist() == [6, 0, 0]
    with pytest.raises(DataError, match="label 3 names no class"):
        data.with_labels(torch.full((6,), 3))
    with pytest.raises(DataError, match=r"labels must be \(N,\) int64, got \(6,\) float32"):
        data.with_labels(torch.zeros(6))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"images": torch.zeros(6, 2, 4, 5)}, r"made: images must be \(N, C, H, W\) uint8, got \(6, 2, 4, 5\) float32"),
        ({"images": torch.zeros(6, 4, 5, dtype=torch.uint8)}, r"got \(6, 4, 5\) uint8"),
        ({"labels": torch.zeros(6, 1, dtype=torch.int64)}, r"labels must be .* got \(6, 1\) int64"),
        ({"labels": torch.zeros(5, dtype=torch.int64)}, "6 images but 5 labels"),
        ({"labels": torch.tensor([0, 1, 2, 0, 1, -1])}, "label -1 names no class, 3 classes need 0..2"),
        ({"labels": torch.zeros(6, dtype=torch.int64, device="meta")}, "images are on cpu but labels on meta"),
        ({"ids": torch.arange(7)}, "6 images but 7 ids"),
        ({"ids": torch.arange(6).int()}, r"ids must be .* got \(6,\) int32"),
    ],
)
def test_wrong_parts_are_refused_in_one_line(change: dict[str, torch.Tensor], message: str) -> None:
    data = make()
    parts = {"images": data.images, "labels": data.labels, "ids": data.ids} | change
    with pytest.raises(DataError, match=message) as caught:
        ImageSet(**parts, classes=data.classes, name="made")
    assert "\n" not in str(caught.value)


def test_extras_stay_with_their_samples() -> None:
    data = make()
    angle = torch.rand(6)
    extra = ImageSet(data.images, data.labels, data.classes, extras={"angle": angle, "place": torch.rand(6, 2)})
    part = extra.take([4, 1]).to("cpu").with_labels(torch.tensor([0, 0]))
    assert torch.equal(part.extras["angle"], angle[[4, 1]])
    assert part.extras["place"].shape == (2, 2)
    for wrong in (torch.rand(5), torch.tensor(1.0)):
        with pytest.raises(DataError, match=r"6 images but (5|a single) angle"):
            ImageSet(data.images, data.labels, data.classes, extras={"angle": wrong})
