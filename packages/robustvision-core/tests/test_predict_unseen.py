"""How a demonstration ends, and predicting on a pile of images of every kind."""

from __future__ import annotations

import csv
import pathlib

import numpy as np
import pytest
import torch
from PIL import Image
from robustvision_core.data import ImageSet
from robustvision_core.errors import DataError, UserError
from robustvision_core.predict import (
    PredictOptions,
    Predictor,
    Preprocessing,
    export_network,
    predict_unseen,
    write_predictions,
)
from torch import Tensor, nn


class Brightness(nn.Module):
    """Dark or bright."""

    def forward(self, images: Tensor) -> Tensor:
        bright = images.mean((1, 2, 3))
        return torch.stack([-bright, bright], 1)


@pytest.fixture
def predictor() -> Predictor:
    return Predictor(Brightness(), Preprocessing(8, 3, (0.5,) * 3, (0.1,) * 3), ("dark", "bright"))


@pytest.mark.parametrize("channels", [1, 3])
def test_unseen_images_are_written_and_told_apart(
    predictor: Predictor, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str], channels: int
) -> None:
    labels = torch.arange(40) % 2
    images = (200 * labels + 20).byte()[:, None, None, None].expand(-1, channels, 8, 8).contiguous()
    labels[0] = 1  # a wrong one
    data = ImageSet(images, labels, ("dark", "bright"))
    predict_unseen(predictor, data, tmp_path, 12)  # an earlier demonstration's images are replaced
    said = predict_unseen(predictor, data, tmp_path, 10)
    assert said == f"predictions for 10 images not trained on, 9 of them right: {tmp_path}/predictions/predictions.png"
    assert len(list((tmp_path / "new").iterdir())) == 10
    assert (tmp_path / "predictions" / "predictions.png").is_file()
    assert capsys.readouterr().out == ""


def every_kind(folder: pathlib.Path) -> list[str]:
    """Images of every mode and format, bright on the left, and files that are none; the names of these."""
    folder.mkdir()
    pixels = np.full((20, 33, 3), 240, dtype=np.uint8)
    rgb = Image.fromarray(pixels)
    for mode, suffix in (("CMYK", "jpg"), ("LA", "png"), ("RGBA", "png"), ("1", "png"), ("P", "png"), ("L", "tif")):
        rgb.convert(mode).save(folder / f"{mode}.{suffix}")
    for suffix in ("bmp", "webp", "ppm", "jpg"):
        rgb.save(folder / f"rgb.{suffix}")
    Image.fromarray(np.full((9, 50), 61000, dtype=np.uint16)).save(folder / "sixteen.png")
    frames = [Image.fromarray(pixels * 0).convert("P")] * 2
    rgb.convert("P").save(folder / "animated.gif", save_all=True, append_images=frames)
    turned = Image.Exif()
    turned[0x0112] = 6
    rgb.save(folder / "turned.jpg", exif=turned)
    Image.fromarray(np.full((1, 900, 3), 250, dtype=np.uint8)).save(folder / "thin.png")
    (folder / "half.bmp").write_bytes((folder / "rgb.bmp").read_bytes()[:200])
    (folder / "empty.png").touch()
    return ["empty.png", "half.bmp"]


def test_every_kind_of_image_is_read_in_small_batches(
    predictor: Predictor, tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]
) -> None:
    broken = every_kind(tmp_path / "all")
    options = {"run": "", "images": str(tmp_path / "all"), "out": str(tmp_path / "out"), "batch_size": 3}
    write_predictions(predictor, PredictOptions(**options))
    with open(tmp_path / "out" / "predictions.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["label"] for row in rows} == {"bright"}
    assert len(rows) + len(broken) == len(list((tmp_path / "all").iterdir()))
    said = capsys.readouterr().err
    assert all(name in said for name in broken)
    with pytest.raises(DataError, match=r"empty\.png is truncated or no image"):
        write_predictions(predictor, PredictOptions(**options, strict=True))


def test_export_network_takes_rectangles_and_compares(tmp_path: pathlib.Path) -> None:
    network = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1))
    path = export_network(network, torch.zeros(2, 3, 6, 9), tmp_path)
    images = torch.randn(5, 3, 6, 9)
    torch.testing.assert_close(torch.export.load(path).module()(images), network(images))

    class Random(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            return images + torch.rand_like(images)

    with pytest.raises(UserError, match=r"gives values that differ by .* from the network's: it is not to be used"):
        export_network(Random(), torch.zeros(2, 3, 6, 9), tmp_path)
