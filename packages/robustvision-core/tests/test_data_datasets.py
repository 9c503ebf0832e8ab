"""Datasets of others in the sampler of few-shot episodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from robustvision_core.data import EpisodeSampler, from_dataset
from robustvision_core.errors import DataError
from torch.utils.data import ConcatDataset, Dataset, IterableDataset, Subset, TensorDataset

LABELS = [10, 20, 20, 30, 10, 30] * 4  # with gaps


class Items(Dataset[Any]):
    """Items as they are given."""

    def __init__(self, items: list[Any], classes: list[str] | None = None) -> None:
        self.items, self.classes = items, classes

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, i: int) -> Any:
        return self.items[i]


def pixels(i: int, channels: int = 3) -> np.ndarray:
    return np.random.default_rng(i).integers(0, 256, (6, 5, channels), dtype=np.uint8)


def tensor(i: int, channels: int = 3) -> torch.Tensor:
    return torch.from_numpy(pixels(i, channels)).permute(2, 0, 1)


KINDS = {
    "PIL and int": lambda i: (Image.fromarray(pixels(i)), LABELS[i]),
    "array and numpy label": lambda i: (pixels(i), np.int64(LABELS[i])),
    "uint8 tensor and tensor label": lambda i: (tensor(i), torch.tensor(LABELS[i])),
    "tensor of ToTensor": lambda i: (tensor(i).float() / 255, LABELS[i]),
    "float64, label of one element": lambda i: [tensor(i).double() / 255, torch.tensor([LABELS[i]])],
    "dict": lambda i: {"image": Image.fromarray(pixels(i)), "label": LABELS[i]},
    "three entries": lambda i: (tensor(i), LABELS[i], i),
}


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_gives_the_same_set(kind: str) -> None:
    read = from_dataset(Items([KINDS[kind](i) for i in range(len(LABELS))]))
    assert read.classes == ("10", "20", "30")
    assert [int(read.classes[k]) for k in read.labels] == LABELS
    assert torch.equal(read.images, torch.stack([tensor(i) for i in range(len(LABELS))]))


def test_grey_images_and_names() -> None:
    grey = [
        Image.fromarray(pixels(0, 1)[..., 0]),
        pixels(1, 1)[..., 0],
        torch.from_numpy(pixels(2, 1)[..., 0]),
        pixels(3, 1),
    ]
    read = from_dataset(Items([(image, i) for i, image in enumerate(grey)], ["a", "b", "c", "d"]))
    assert read.shape == (1, 6, 5)
    assert read.classes == ("a", "b", "c", "d")
    mixed = from_dataset(Items([(grey[0], "cat"), (pixels(1), "ant")]))
    assert mixed.shape == (3, 6, 5)
    assert mixed.classes == ("ant", "cat")
    assert torch.equal(mixed.images[0], tensor(0, 1).expand(3, -1, -1))


def test_parts_and_joined_sets_give_right_episodes() -> None:
    whole = Items([KINDS["PIL and int"](i) for i in range(24)], [f"n{k}" for k in range(31)])
    part = Subset(whole, [i for i in range(24) if LABELS[i] != 20])
    assert from_dataset(part).classes == ("n10", "n30")
    joined: Any = ConcatDataset(
        [part, TensorDataset(torch.stack([tensor(i) for i in range(24)]), torch.tensor(LABELS) + 5)]
    )
    sampler = EpisodeSampler(joined, ways=4, shots=2, queries=3, episodes=3, mean=0.0, std=1.0)
    for batch in sampler.epoch(0):
        for index, labels, shown in (
            (batch.support_index, batch.support_y, batch.support_x),
            (batch.query_index, batch.query_y, batch.query_x),
        ):
            truth = [int(joined[i][1]) for i in index[0].tolist()]
            classes = dict(zip(labels[0].tolist(), truth, strict=True))
            assert [classes[y] for y in labels[0].tolist()] == truth
            assert len(set(classes.values())) == 4
            first = joined[int(index[0, 0])][0]
            expected = first if isinstance(first, torch.Tensor) else torch.from_numpy(np.array(first)).permute(2, 0, 1)
            torch.testing.assert_close(shown[0, 0], expected / 255)


def test_torchvision() -> None:
    datasets = pytest.importorskip("torchvision.datasets", reason="torchvision is not installed")
    fake = datasets.FakeData(size=40, image_size=(3, 8, 8), num_classes=2)
    batch = next(EpisodeSampler(fake, ways=2, shots=1, queries=2, episodes=1).epoch(0))
    assert batch.query_x.shape == (1, 4, 3, 8, 8)


class Stream(IterableDataset[Any]):
    def __iter__(self) -> Any:
        yield tensor(0), 0


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([], "Items is empty"),
        ([5], r"item 0 of Items is a int: expected \(image, label\)"),
        ([{"pixels": 1}], "has the keys pixels: expected image and label"),
        ([(tensor(0), 1), (tensor(1)[:, :4], 1)], "item 1 of Items has 4x5 pixels, item 0 6x5"),
        ([(tensor(0).long(), 1)], "int64 pixels: expected uint8"),
        ([(tensor(0) / 100, 1)], r"expected \[0, 1\]; leave out Normalize"),
        ([(torch.full((3, 6, 5), float("nan")), 1)], r"pixels from nan to nan"),
        ([(tensor(0)[:2], 1)], r"shape \(2, 6, 5\)"),
        ([("photo.jpg", 1)], "image of type str"),
        ([(tensor(0), 1.5)], "label 1.5: expected an integer"),
        ([(tensor(0), torch.tensor([0, 1]))], r"the label tensor\(\[0, 1\]\)"),
        ([(tensor(0), True)], "label True"),
        ([(tensor(0), None)], "label None"),
        ([(tensor(0), 1), (tensor(1), "cat")], "numbers and labels that are names"),
    ],
)
def test_refusals_say_which_item(items: list[Any], message: str) -> None:
    with pytest.raises(DataError, match=message):
        from_dataset(Items(items))


def test_streams_and_too_large_sets_are_refused() -> None:
    with pytest.raises(DataError, match="Stream has no length"):
        EpisodeSampler(Stream(), ways=2, shots=1, queries=2, episodes=1)
    with pytest.raises(DataError, match="more than 1e-09"):
        from_dataset(Items([(tensor(0), 1)]), max_gib=1e-9)
