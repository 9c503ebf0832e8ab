"""The same algorithm as it is usually written: a dataset of PIL images, data loaders and lists of indices."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from typing import Any

import torch
from PIL import Image
from pseudolabel_da.algorithm.planning import plan_epoch
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision import transforms


class Pictures(Dataset):
    """Images as torchvision's sets give them: an array each, to PIL, to a normalised tensor."""

    def __init__(self, images: Tensor, labels: Tensor) -> None:
        self.arrays = images.permute(0, 2, 3, 1).contiguous().numpy()
        self.labels = labels.tolist()
        self.transform = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,) * 3, (0.5,) * 3)])

    def __len__(self) -> int:
        return len(self.arrays)

    def __getitem__(self, index: int) -> tuple[Tensor, int, int]:
        image: Any = self.transform(Image.fromarray(self.arrays[index]))
        return image, self.labels[index], index


def label(model: nn.Module, data: Pictures, threshold: float, batch_size: int) -> dict[int, int]:
    """Index to pseudo-label of every image more confident than the threshold."""
    model.eval()
    found = {}
    with torch.no_grad():
        for images, _, index in DataLoader(data, batch_size):
            confidence, labels = model(images).softmax(1).max(1)
            for one, value, predicted in zip(index.tolist(), confidence.tolist(), labels.tolist(), strict=True):
                if value > threshold:
                    found[one] = predicted
    return found


def loop(
    model: nn.Module, source: Pictures, target: Pictures, threshold: float, *, epochs: int, period: int, batch: int
) -> dict[int, int]:
    """Algorithm 1 with the draws of `plan_epoch`; the pseudo-labels it ends with. The model is left as it is."""
    model = copy.deepcopy(model)
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-4, weight_decay=1e-3)
    criterion = nn.CrossEntropyLoss(label_smoothing=0.15)
    pseudo: dict[int, int] = {}
    remaining = list(range(len(target)))
    for epoch in range(epochs):
        if epoch % period == 0:
            found = label(model, target, threshold, 256)
            new = {index: found[index] for index in remaining if index in found}
            pseudo |= new
            remaining = [index for index in remaining if index not in new]
        steps = plan_epoch(torch.tensor(sorted(pseudo)), len(source), seed=0, epoch=epoch, batch_size=batch)
        model.train()
        for data, part in ((source, [s.source for s in steps]), (target, [s.pseudo for s in steps])):
            rows: Sequence[list[int]] = [row.tolist() for row in part if row is not None]
            for images, labels, index in DataLoader(data, batch_sampler=rows):  # pyright: ignore[reportArgumentType]
                given = torch.tensor([pseudo[one] for one in index.tolist()]) if data is target else labels
                optimizer.zero_grad()
                criterion(model(images), given).backward()
                optimizer.step()
    return pseudo
