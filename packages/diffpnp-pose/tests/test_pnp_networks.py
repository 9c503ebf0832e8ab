from __future__ import annotations

import pytest
import torch
from diffpnp_pose import higher_hrnet, hourglass, hrnet
from diffpnp_pose.networks import HourglassSize, HRNetSize, aggregate
from torch import nn


def parameters(network: nn.Module) -> int:
    return sum(p.numel() for p in network.parameters())


def basic(c: int) -> int:
    return 2 * (9 * c * c + 2 * c)


def normalised(inputs: int, outputs: int, size: int) -> int:
    return size * size * inputs * outputs + 2 * outputs


def exchange(widths: list[int], blocks: int, outputs: int) -> int:
    """Parameters of one module, counted from the published structure (Sun et al. 2019, figure 3)."""
    total = sum(blocks * basic(c) for c in widths)
    for j in range(outputs):
        for i, c in enumerate(widths):
            if i > j:
                total += normalised(c, widths[j], 1)
            elif i < j:
                total += (j - i - 1) * normalised(c, c, 3) + normalised(c, widths[j], 3)
    return total


def hrnet_count(width: int, keypoints: int) -> int:
    a, b, c = width, 2 * width, 4 * width
    stem = normalised(3, 64, 3) + normalised(64, 64, 3)
    neck = [normalised(i, 64, 1) + normalised(64, 64, 3) + normalised(64, 256, 1) for i in (64, 256, 256, 256)]
    first = sum(neck) + normalised(64, 256, 1)
    transitions = normalised(256, a, 3) + normalised(256, b, 3) + normalised(b, c, 3)
    stages = exchange([a, b], 4, 2) + 3 * exchange([a, b, c], 4, 3) + exchange([a, b, c], 4, 1)
    return stem + first + transitions + stages + keypoints * (a + 1)


@pytest.mark.parametrize(("size", "width"), [("w48", 48), ("w32", 32)])
def test_hrnet_has_the_published_parameters(size: str, width: int) -> None:
    with torch.device("meta"):
        network = hrnet(9, size)
    assert parameters(network) == hrnet_count(width, 9)
    if size == "w48":
        # the paper's network fuses to all three branches at its end: 17.0 M; two of them feed nothing
        unused = exchange([48, 96, 192], 4, 3) - exchange([48, 96, 192], 4, 1)
        assert (parameters(network) + unused) / 1e6 == pytest.approx(17.0, abs=0.05)


def test_higher_hrnet_adds_the_published_module() -> None:
    with torch.device("meta"):
        network = higher_hrnet(9)
    added = 16 * (48 + 9) * 48 + 2 * 48 + 4 * basic(48) + 9 * 49
    assert parameters(network) == hrnet_count(48, 9) + added


def test_hourglass_has_the_published_structure() -> None:
    with torch.device("meta"):
        network = hourglass(9)
    assert len(network.heads) == 4
    assert sum(isinstance(m, nn.MaxPool2d) for m in network.modules()) == 1  # in the stem; the others are functions

    def block(i: int, o: int) -> int:
        m = o // 2
        shortcut = 0 if i == o else i * o + o
        return 2 * i + (i * m + m) + 2 * m + (9 * m * m + m) + 2 * m + (m * o + o) + shortcut

    w = 128
    stem = normalised(3, 64, 7) + block(64, w) + 2 * block(w, w)
    one = (2 * 3 + 1) * block(w, w) + block(w, w) + normalised(w, w, 1) + 9 * (w + 1)
    assert parameters(network) == stem + 4 * one + 3 * ((w + 9) * w + w)


@pytest.mark.parametrize("shape", [(64, 96), (60, 84)])
def test_output_shapes(shape: tuple[int, int]) -> None:
    images = torch.randn(2, 3, *shape)
    h, w = shape
    for network, scales in (
        (hrnet(5, "micro"), [4]),
        (higher_hrnet(5, "micro"), [4, 2]),
        (hourglass(5, "tiny"), [4, 4]),
    ):
        outputs = network(images)
        assert [tuple(o.shape) for o in outputs] == [(2, 5, h // s, w // s) for s in scales]
        assert tuple(network.pose_maps(outputs).shape) == (2, 5, h // 4, w // 4)
        network.eval()
        fine = min(scales)
        assert tuple(network.pose_maps(outputs).shape) == (2, 5, h // fine, w // fine)


@pytest.mark.parametrize("build", [hrnet, higher_hrnet, hourglass])
def test_every_output_trains_every_parameter(build: object) -> None:
    network = build(3, "tiny")  # type: ignore[operator]
    outputs = network(torch.randn(2, 3, 64, 64))
    torch.stack([o.square().mean() + o.mean() for o in outputs]).sum().backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in network.parameters())
    for output in outputs:
        assert output.std() > 0  # in particular no rectified, dead stack


def test_aggregation_is_the_mean_of_resized_logits() -> None:
    coarse, fine = torch.randn(1, 2, 4, 6), torch.randn(1, 2, 8, 12)
    up = nn.functional.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
    torch.testing.assert_close(aggregate([coarse, fine]), (up + fine) / 2)
    assert aggregate([coarse, fine], (16, 24)).shape == (1, 2, 16, 24)


def test_sizes_by_name_or_value() -> None:
    assert hrnet(2, HRNetSize(8, (1,), 1, 8, 1))(torch.zeros(1, 3, 32, 32))[0].shape == (1, 2, 8, 8)
    assert len(hourglass(2, HourglassSize(16, 1, 3))(torch.zeros(1, 3, 32, 32))) == 3
    for build in (hrnet, higher_hrnet, hourglass):
        with pytest.raises(ValueError, match="size must be one of"):
            build(9, "w99")


def test_a_network_learns_a_keypoint() -> None:
    from diffpnp_pose import centre_of_mass, gaussian_targets, heatmap_loss, spatial_softmax

    place = torch.randint(2, 14, (32, 2)) * 4
    images = torch.zeros(32, 3, 64, 64)
    for image, (x, y) in zip(images, place.tolist(), strict=True):
        image[:, y - 2 : y + 3, x - 2 : x + 3] = 1
    points = place[:, None].float()
    targets = gaussian_targets(points, (16, 16), (64, 64), border_corrected=True)
    network = hrnet(1, "micro")
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(40):
        maps = spatial_softmax(network(images)[0])
        optimizer.zero_grad()
        heatmap_loss(maps, targets).backward()
        optimizer.step()
    with torch.no_grad():
        found = centre_of_mass(spatial_softmax(network(images)[0]), (64, 64))
    assert (found - points).norm(dim=-1).median() < 4
