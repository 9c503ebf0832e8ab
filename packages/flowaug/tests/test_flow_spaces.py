"""Transform spaces and warps against scipy, torch, kornia and the per-sample loop; targets that follow."""

from __future__ import annotations

import math

import kornia
import pytest
import scipy.linalg
import torch
import torch.nn.functional as F
from flowaug import (
    AffineSpace,
    ColorSpace,
    CropSpace,
    mean_unwarped,
    motion_matrices,
    points_inside,
    unwarp,
    valid_region,
    warp_boxes,
    warp_masks,
    warp_points,
)
from flowaug.spaces import FREE_ENTRIES, ROTATION_DISCOVERY, affine_exponential
from flowaug.warp import compose, homogeneous, identity_matrices, invert, normalised, pixels, warp
from hypothesis import given, settings
from hypothesis import strategies as st
from kornia.geometry.boxes import Boxes

SIZE = (9, 12)


def test_exponential_agrees_with_scipy() -> None:
    generators = torch.randn(200, 2, 3, dtype=torch.float64) * torch.logspace(-3, 0.6, 200).double()[:, None, None]
    padded = F.pad(generators, (0, 0, 0, 1))
    expected = torch.stack([torch.from_numpy(scipy.linalg.expm(a.numpy()))[:2] for a in padded])
    torch.testing.assert_close(affine_exponential(generators), expected, rtol=1e-11, atol=1e-12)


def test_exponential_has_the_right_gradient() -> None:
    generators = (2 * torch.randn(3, 2, 3, dtype=torch.float64)).requires_grad_()
    assert torch.autograd.gradcheck(affine_exponential, generators)
    with torch.autocast("cpu", torch.bfloat16):
        assert affine_exponential(generators.bfloat16()).dtype == torch.float32


@pytest.mark.parametrize("dims", [("tx", "ty", "rot", "scale", "stretch", "shear"), FREE_ENTRIES, ("shear", "rot")])
def test_matrices_are_exponentials_of_the_sum_of_generators(dims: tuple[str, ...]) -> None:
    space = AffineSpace(dims, trans_scale=0.3)
    single = {
        "tx": [[0, 0, 0.3], [0, 0, 0]],
        "ty": [[0, 0, 0], [0, 0, 0.3]],
        "rot": [[0, -math.pi, 0], [math.pi, 0, 0]],
        "scale": [[1, 0, 0], [0, 1, 0]],
        "stretch": [[1, 0, 0], [0, -1, 0]],
        "shear": [[0, 1, 0], [1, 0, 0]],
        "a11": [[1, 0, 0], [0, 0, 0]],
        "a12": [[0, 1, 0], [0, 0, 0]],
        "a21": [[0, 0, 0], [1, 0, 0]],
        "a22": [[0, 0, 0], [0, 1, 0]],
    }
    w = 2 * torch.rand(4, len(dims), dtype=torch.float64) - 1
    summed = sum(w[:, k, None, None] * torch.tensor(single[name]).double() for k, name in enumerate(dims))
    expected = torch.linalg.matrix_exp(F.pad(summed, (0, 0, 0, 1)))[:, :2]
    torch.testing.assert_close(space.matrix(w, (16, 16)), expected)


def test_full_turns_and_quarter_turns() -> None:
    space, x = AffineSpace(("rot",)), torch.rand(1, 2, 8, 8, dtype=torch.float64)
    w = torch.tensor([[[0.5], [1.0], [-1.0], [0.0]]], dtype=torch.float64)
    views = space.warp(x, w)[0]
    for view, turns in zip(views, (1, 2, 2, 0), strict=True):
        torch.testing.assert_close(view[None], torch.rot90(x, turns, (2, 3)), rtol=0, atol=1e-10)


@pytest.mark.parametrize("align_corners", [True, False])
def test_rotations_keep_distances_in_oblong_images(align_corners: bool) -> None:
    space = AffineSpace(("rot", "tx"), align_corners=align_corners)
    moved = motion_matrices(space, torch.tensor([0.3, 0.7], dtype=torch.float64), SIZE)[:2, :2]
    torch.testing.assert_close(moved @ moved.T, torch.eye(2, dtype=torch.float64))
    angle = torch.atan2(moved[1, 0], moved[0, 0])  # y points down: counter-clockwise on the screen is negative
    assert float(angle) == pytest.approx(-0.3 * math.pi)


def test_an_inference_call_leaves_nothing_that_training_cannot_use() -> None:
    space, w = AffineSpace(("rot", "tx"), trans_scale=0.123), torch.zeros(1, 1, 2, requires_grad=True)
    with torch.inference_mode():
        space.warp(torch.rand(1, 1, 8, 8), torch.zeros(1, 1, 2))
    space.warp(torch.rand(1, 1, 8, 8), w).square().sum().backward()
    assert w.grad is not None
    assert bool(w.grad.isfinite().all())


def test_coordinates_may_come_as_a_list() -> None:
    assert AffineSpace(["rot", "tx"]) == AffineSpace(("rot", "tx"))  # pyright: ignore[reportArgumentType]
    matrix = AffineSpace(["rot", "tx"]).matrix(torch.zeros(2), SIZE)  # pyright: ignore[reportArgumentType]
    torch.testing.assert_close(matrix, torch.eye(3)[:2])


@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("align_corners", [True, False])
@pytest.mark.parametrize("padding", ["zeros", "border", "reflection"])
def test_stacked_warp_equals_the_loop_bit_for_bit(padding: str, align_corners: bool, mode: str) -> None:
    x = torch.rand(3, 2, *SIZE)
    matrices = AffineSpace(trans_scale=0.4).matrix(2 * torch.rand(3, 5, 6) - 1, SIZE)
    stacked = warp(x, matrices, mode, padding, align_corners)
    for s in range(5):
        grid = F.affine_grid(matrices[:, s], [3, 2, *SIZE], align_corners=align_corners)
        assert torch.equal(stacked[:, s], F.grid_sample(x, grid, mode, padding, align_corners=align_corners))


def test_warps_and_motions_agree_with_kornia() -> None:
    x, w = torch.rand(4, 3, *SIZE, dtype=torch.float64), torch.rand(4, 1, 6, dtype=torch.float64) - 0.5
    space = AffineSpace(trans_scale=0.4)
    views = space.warp(x, w)[:, 0]
    sampling = homogeneous(space.matrix(w[:, 0], SIZE))
    theirs = kornia.geometry.homography_warp(x, sampling, SIZE, align_corners=True, normalized_coordinates=True)
    torch.testing.assert_close(views, theirs, rtol=0, atol=1e-10)
    motion = motion_matrices(space, w[:, 0], SIZE)
    by_pixels = kornia.geometry.warp_affine(x, motion[:, :2], SIZE, align_corners=True)
    torch.testing.assert_close(views, by_pixels, rtol=0, atol=1e-8)
    points = torch.rand(4, 7, 2, dtype=torch.float64) * 8
    expected = kornia.geometry.transform_points(motion, points)
    torch.testing.assert_close(warp_points(space, points, w, SIZE)[:, 0], expected, rtol=0, atol=1e-9)
    boxes = torch.tensor([[[2.0, 3.0, 6.0, 7.0]]], dtype=torch.float64).expand(4, 1, 4)
    theirs = Boxes.from_tensor(boxes, mode="xyxy_plus").transform_boxes(motion)
    ours = warp_boxes(space, boxes, w, SIZE, clip=False)[:, 0]
    torch.testing.assert_close(ours, theirs.to_tensor("xyxy_plus"), rtol=0, atol=1e-9)


@pytest.mark.parametrize("turns", [1, 2, 3])
def test_targets_follow_quarter_turns(turns: int) -> None:
    space, w = AffineSpace(("rot",)), torch.tensor([[[((turns + 1) % 4 - 1) / 2]]])
    mask = torch.zeros(1, 1, 8, 8, dtype=torch.int64)
    mask[0, 0, 1, 2] = 7
    mask[0, 0, 3, 4] = 5
    moved = warp_masks(space, mask, w)[:, 0]
    assert torch.equal(moved, torch.rot90(mask, turns, (2, 3)))
    point = warp_points(space, torch.tensor([[[2.0, 1.0]]]), w, (8, 8))[0, 0, 0]
    row, column = (moved[0, 0] == 7).nonzero()[0].tolist()
    torch.testing.assert_close(point, torch.tensor([float(column), float(row)]), rtol=0, atol=1e-4)
    box = warp_boxes(space, torch.tensor([[[2.0, 1.0, 4.0, 3.0]]]), w, (8, 8))[0, 0, 0]
    rows, columns = (moved[0, 0] > 0).nonzero().T
    extent = [columns.min(), rows.min(), columns.max(), rows.max()]
    torch.testing.assert_close(box, torch.stack(extent).float(), rtol=0, atol=1e-4)


def test_boxes_are_cut_at_the_image() -> None:
    space = AffineSpace(("tx",), trans_scale=2.0)
    boxes = torch.tensor([[[6.0, 2.0, 11.0, 5.0], [0.0, 0.0, 3.0, 4.0]]])
    cut = warp_boxes(space, boxes, torch.tensor([[[0.5]]]), (8, 12))[0, 0]  # content moves 5.5 pixels to the left
    torch.testing.assert_close(cut, torch.tensor([[0.5, 2.0, 5.5, 5.0], [0.0, 0.0, 0.0, 4.0]]), rtol=0, atol=1e-4)


def test_dense_predictions_come_back() -> None:
    line = torch.linspace(-1, 1, 33)
    x = torch.exp(-4 * (line[:, None] ** 2 + (line[None] - 0.2) ** 2))[None, None]  # smooth, gone at the walls
    space, w = AffineSpace(("tx", "ty", "rot")), 0.3 * torch.randn(1, 4, 3)
    back = unwarp(space, space.warp(x, w), w)
    assert float((back - x[:, None]).abs()[..., 8:-8, 8:-8].max()) < 0.02


@settings(max_examples=60, deadline=None)
@given(st.lists(st.floats(-1, 1), min_size=4, max_size=4), st.floats(0.05, 0.95))
def test_crops_stay_inside(values: list[float], smallest: float) -> None:
    space, w = CropSpace(smallest), torch.tensor(values, dtype=torch.float64)
    matrix = space.matrix(w)
    corners = torch.tensor([[-1.0, -1.0], [1.0, 1.0]], dtype=torch.float64)
    read = corners @ matrix[:, :2].T + matrix[:, 2]
    assert float(read.abs().max()) <= 1 + 1e-12
    sides = matrix[:, :2].diagonal()
    assert float(sides.min()) >= smallest - 1e-12
    torch.testing.assert_close(space.matrix(space.parameters(matrix[:, 2], sides)), matrix)


def test_crop_reads_the_part_it_names() -> None:
    x = torch.rand(1, 1, 9, 9)
    w = CropSpace(0.25).parameters(torch.tensor([[0.5, -0.5]]), torch.tensor([[0.5, 0.5]]))[None]
    expected = F.interpolate(x[..., :5, 4:], (9, 9), mode="bilinear", align_corners=True)
    torch.testing.assert_close(CropSpace(0.25).warp(x, w)[:, 0], expected, rtol=0, atol=1e-5)
    whole = CropSpace(0.25).warp(x, torch.tensor([[[0.4, -0.9, 1.0, 1.0]]]))
    torch.testing.assert_close(whole[:, 0], x, rtol=0, atol=1e-5)


def test_colors_agree_with_kornia_one_by_one_and_pass_gradients() -> None:
    x, w = torch.rand(2, 3, 6, 6) * 0.6 + 0.2, (2 * torch.rand(2, 3, 4) - 1).requires_grad_()
    space = ColorSpace()
    views = space.warp(x, w)
    for b in range(2):
        for s in range(3):
            brightness, contrast, saturation, hue = w[b, s].tolist()
            one = kornia.enhance.adjust_brightness(x[b : b + 1], 0.5 * brightness)
            one = kornia.enhance.adjust_contrast_with_mean_subtraction(one, math.exp(0.5 * contrast))
            one = kornia.enhance.adjust_saturation_with_gray_subtraction(one, math.exp(0.5 * saturation))
            one = kornia.enhance.adjust_hue(one, 0.2 * math.pi * hue)
            torch.testing.assert_close(views[b, s], one[0], rtol=0, atol=1e-5)
    views.square().sum().backward()
    assert w.grad is not None
    assert bool((w.grad.abs().sum((0, 1)) > 0).all())
    same = ColorSpace(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.4))
    standard = (x - torch.tensor([0.5, 0.4, 0.3])[:, None, None]) / torch.tensor([0.2, 0.3, 0.4])[:, None, None]
    torch.testing.assert_close(same.warp(standard, torch.zeros(2, 1, 4))[:, 0], standard, rtol=0, atol=1e-4)


def test_matrices_compose_and_invert() -> None:
    first, second = AffineSpace().matrix(torch.rand(2, 5, 6, dtype=torch.float64) - 0.5, SIZE)
    expected = homogeneous(first) @ homogeneous(second)
    torch.testing.assert_close(compose(first, second), expected[..., :2, :])
    eye = identity_matrices(first, 5)
    torch.testing.assert_close(compose(first, invert(first)), eye, rtol=0, atol=1e-10)
    points = torch.rand(3, 2, dtype=torch.float64)
    for align_corners in (True, False):
        torch.testing.assert_close(pixels(normalised(points, SIZE, align_corners), SIZE, align_corners), points)


def test_rotation_discovery_finds_rotations_on_its_diagonal() -> None:
    matrix = AffineSpace(ROTATION_DISCOVERY).matrix(torch.tensor([-0.7, 0.7], dtype=torch.float64), (8, 8))
    rotation = torch.tensor([[math.cos(0.7), -math.sin(0.7)], [math.sin(0.7), math.cos(0.7)]], dtype=torch.float64)
    torch.testing.assert_close(matrix[:, :2], rotation)


def test_half_precision_images_are_read_in_float32() -> None:
    x, w = torch.rand(1, 1, 8, 8), 0.2 * torch.randn(1, 2, 6)
    views = AffineSpace().warp(x.bfloat16(), w)
    assert views.dtype == torch.bfloat16
    torch.testing.assert_close(views.float(), AffineSpace().warp(x, w), rtol=0, atol=0.01)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: AffineSpace(("tx", "tx")), "different names"),
        (lambda: AffineSpace(("spin",)), "different names"),
        (lambda: AffineSpace(rot_max=4.0), "rot_max"),
        (lambda: AffineSpace(trans_scale=0.0), "positive"),
        (lambda: CropSpace(1.0), "smallest"),
        (lambda: ColorSpace(("gamma",)), "different names"),
        (lambda: ColorSpace(mean=(0.5,)), "go together"),
        (lambda: ColorSpace().warp(torch.rand(1, 1, 4, 4), torch.zeros(1, 1, 4)), "RGB"),
        (lambda: AffineSpace().matrix(torch.zeros(3), (4, 4)), r"expected parameters \(\.\.\., 6\)"),
        (lambda: warp(torch.rand(1, 1, 4, 4), torch.zeros(1, 2, 3)), "expected images"),
        (lambda: warp_points(AffineSpace(), torch.zeros(1, 2), torch.zeros(1, 1, 6), (4, 4)), "expected points"),
        (lambda: warp_boxes(AffineSpace(), torch.zeros(1, 4), torch.zeros(1, 1, 6), (4, 4)), "expected boxes"),
    ],
)
def test_wrong_use_is_refused(make, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        make()


def test_whole_numbers_are_rounded_and_stay_in_range() -> None:
    """A warp of bytes is the rounded warp of their values, in every mode; a constant image stays constant inside."""
    x, w = torch.randint(256, (2, 3, 24, 24), dtype=torch.uint8), 0.4 * torch.randn(2, 3, 6)
    for mode in ("bilinear", "bicubic", "nearest"):
        space = AffineSpace(mode=mode)
        exact, found = space.warp(x.double(), w).clamp(0, 255), space.warp(x, w).double()
        assert float((found - exact).abs().max()) < 0.51  # float32 may round a half either way
    constant = torch.full((1, 1, 33, 33), 200, dtype=torch.uint8)
    for degrees in (7.0, 30.0, 45.0):
        inside = AffineSpace(("rot",)).warp(constant, torch.tensor([[[degrees / 180]]]))[0, 0, 0, 8:25, 8:25]
        assert inside.unique().tolist() == [200]
    large = torch.full((1, 1, 5, 5), 2**40 + 1)
    assert warp_masks(AffineSpace(("rot",)), large, torch.zeros(1, 1, 1)).unique().tolist() == [2**40 + 1]


def test_fill_is_what_stands_outside() -> None:
    """As a plain loop over a padded image has it, per channel, and the image itself is not touched."""
    space = AffineSpace(("tx",), trans_scale=1.0, fill=(0.2, 0.5, 0.9))
    x = torch.rand(1, 3, 4, 9)
    half = space.warp(x, torch.tensor([[[1.0], [0.0]]]))[0]  # four pixels to the left, and not at all
    torch.testing.assert_close(half[0, :, :, :5], x[0, :, :, 4:])
    torch.testing.assert_close(half[0, :, :, 5:], torch.tensor([0.2, 0.5, 0.9])[:, None, None].expand(3, 4, 4))
    torch.testing.assert_close(half[1], x[0])
    between = space.warp(x, torch.tensor([[[0.125]]]))[0, 0]  # half a pixel: half image, half colour at the wall
    expected = (x[0, :, :, -1] + torch.tensor([0.2, 0.5, 0.9])[:, None]) / 2
    torch.testing.assert_close(between[:, :, -1], expected, rtol=0, atol=1e-5)
    grey = AffineSpace(("tx",), trans_scale=1.0, fill=128)
    bytes_ = torch.full((1, 1, 2, 9), 7, dtype=torch.uint8)
    assert grey.warp(bytes_, torch.tensor([[[1.0]]]))[0, 0, 0, 0].tolist() == [7] * 5 + [128] * 4


@pytest.mark.parametrize(("kind", "fill"), [(torch.uint8, 255), (torch.int64, -100), (torch.float32, -1.0)])
def test_masks_are_filled_where_no_image_is(kind: torch.dtype, fill: float) -> None:
    space, w = AffineSpace(("tx",), trans_scale=1.0), torch.tensor([[[0.9]]])
    mask = torch.tensor([[[[1, 2, 3, 1, 2, 3, 1, 2]]]]).to(kind)
    moved = warp_masks(space, mask, w, fill=fill)[0, 0, 0, 0].tolist()
    assert moved == [1, 2, 3, 1, 2, fill, fill, fill]  # three pixels to the left
    assert valid_region(space, w, (1, 8))[0, 0, 0, 0].tolist() == [value != fill for value in moved]


def test_a_fill_that_masks_cannot_hold_is_refused() -> None:
    for kind, fill in ((torch.uint8, -100), (torch.uint8, 256), (torch.bool, 255), (torch.int8, 200)):
        with pytest.raises(ValueError, match="cannot hold the fill"):
            warp_masks(AffineSpace(), torch.ones(1, 1, 4, 4).to(kind), torch.zeros(1, 1, 6), fill)


@pytest.mark.parametrize("mode", ["bilinear", "nearest", "bicubic"])
def test_dense_predictions_keep_their_values_at_the_walls(mode: str) -> None:
    """A constant comes back as that constant wherever it was seen, and the mean over views is a mean of the seen."""
    space = AffineSpace(("rot", "tx"), trans_scale=0.5, mode=mode)
    w = torch.tensor([[[0.1, 0.6], [0.4, -0.8]]])
    back = unwarp(space, torch.full((1, 2, 3, 9, 9), 0.7), w)
    seen = back[0, :, 0] > 0
    assert 0.3 < float(seen.float().mean()) < 1
    torch.testing.assert_close(back[0, :, 0][seen], torch.full((int(seen.sum()),), 0.7))
    mean = mean_unwarped(space, torch.full((1, 2, 3, 9, 9), 0.7), w, fill=-1.0)
    covered = seen.any(0)
    torch.testing.assert_close(mean[0, 0][covered], torch.full((int(covered.sum()),), 0.7))
    assert bool((mean[0, 0][~covered] == -1).all())
    parts = torch.stack([torch.zeros(3, 9, 9), torch.ones(3, 9, 9)])[None]
    both = mean_unwarped(space, parts, torch.zeros(1, 2, 2))
    torch.testing.assert_close(both, torch.full_like(both, 0.5))


@pytest.mark.parametrize("align_corners", [True, False])
def test_visible_points_are_those_on_pixels_that_show_the_image(align_corners: bool) -> None:
    """Against the valid region of the inverse motion: a point is visible where its pixel comes back."""
    space = AffineSpace(("rot", "tx"), trans_scale=0.7, align_corners=align_corners)
    w = torch.tensor([[[0.15, 0.8], [-0.6, -0.5]]])
    y, x = torch.meshgrid(torch.arange(7.0), torch.arange(9.0), indexing="ij")
    points = torch.stack([x, y], -1).view(1, -1, 2)
    visible = points_inside(warp_points(space, points, w, (7, 9)), (7, 9))
    moved = motion_matrices(space, w[0], (7, 9))
    for view in range(2):
        for k, point in enumerate(points[0]):
            u, v, _ = (moved[view] @ torch.tensor([*point.tolist(), 1.0])).tolist()
            assert bool(visible[0, view, k]) == (-0.5 <= u <= 8.5 and -0.5 <= v <= 6.5)
    assert points_inside(torch.tensor([[0.0, 0.0], [8.4, 6.4], [8.6, 3.0], [3.0, -0.6]]), (7, 9)).tolist() == [
        True,
        True,
        False,
        False,
    ]
