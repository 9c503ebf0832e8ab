"""The training step: its losses by formula, the gradient through each solver, processes, data and scores."""

from __future__ import annotations

import pathlib
from dataclasses import replace

import pytest
import torch
from diffpnp_pose import epnp, gaussian_targets, project, projection_loss, solve_pnp, spatial_softmax
from diffpnp_pose.cli.crops.whole import resize
from diffpnp_pose.cli.data import load
from diffpnp_pose.cli.inference import Predictions, find_poses, keypoints_of, make_network, ordered_batches, predict
from diffpnp_pose.cli.recipes import TrainConfig
from diffpnp_pose.cli.scoring import by_distance, score
from diffpnp_pose.cli.train import Step, clip_where_posing
from robustvision_core.data import PoseBatch, PoseSet, load_poses
from robustvision_core.errors import DataError, UserError
from robustvision_core.run.folder import load_part, save_checkpoint
from robustvision_core.run.runtime import Runtime
from torch import Tensor, nn

CONFIG = replace(TrainConfig(), size="64x48", network_size="micro", train_size=4, distance=(0.7, 1.0), device="cpu")
CPU = Runtime(torch.device("cpu"))


def drones(count: int = 4, size: str = "64x48") -> PoseSet:
    return load_poses("drones", "train", count=count, size=size, distance=(0.7, 1.0), cache=False)


class FromTargets(nn.Module):
    """Logits near the targets of a batch, moved by parameters: a network whose poses are valid."""

    def __init__(self, targets: Tensor, scales: int = 1) -> None:
        super().__init__()
        noise = torch.randn(targets.shape, generator=torch.Generator().manual_seed(3))
        self.logits = nn.Parameter((targets + 1e-8).log() + 0.3 * noise)
        self.scales = scales

    def forward(self, images: Tensor) -> list[Tensor]:
        logits = self.logits[: len(images)]
        finer = nn.functional.interpolate(logits, scale_factor=2.0, mode="nearest")
        return [logits, finer][: self.scales]

    def pose_maps(self, outputs: list[Tensor]) -> Tensor:
        return outputs[0]


class Rounded(FromTargets):
    """The same logits, in the type that autocast gives a network's."""

    def forward(self, images: Tensor) -> list[Tensor]:
        short = super().forward(images)[0].bfloat16()
        return [short if torch.is_autocast_enabled("cpu") else short.float()]


def prepared(scales: int = 1, network: type[FromTargets] = FromTargets, **changes) -> tuple[Step, PoseBatch]:
    batch = next(ordered_batches(drones(), CPU).epoch(0))
    targets = gaussian_targets(batch.keypoints_2d, (16, 12), (64, 48), grid="half_pixel")
    return Step(network(targets, scales), replace(CONFIG, epochs=1).with_pose(**changes)), batch


@pytest.mark.parametrize("scales", [1, 2])
@pytest.mark.parametrize("loss", ["lh", "lm", "lp"])
def test_losses_are_their_formulas_and_change_with_the_epoch(loss: str, scales: int) -> None:
    step, batch = prepared(scales, loss=loss, beta=2e-4)
    heat = []
    for logits in step.network(batch.images):
        h, w = logits.shape[-2:]
        maps = logits.flatten(2).softmax(2).view_as(logits)
        x, y = (torch.arange(w) + 0.5) * 64 / w, (torch.arange(h) + 0.5) * 48 / h
        far = (x - batch.keypoints_2d[..., :1]) ** 2 / (2 * (0.035 * 64) ** 2)
        down = (y - batch.keypoints_2d[..., 1:]) ** 2 / (2 * (0.035 * 48) ** 2)
        target = torch.exp(-far[:, :, None] - down[:, :, :, None])
        heat.append((maps - target / target.sum((2, 3), keepdim=True)).abs().mean())
    l_h = sum(heat) / scales
    torch.testing.assert_close(step(batch)["loss"], l_h)
    step.set_epoch(1)
    points = keypoints_of(spatial_softmax(step.network(batch.images)[0]), batch.images)
    result = solve_pnp(points, batch.keypoints_3d, batch.K)
    seen = (batch.keypoints_3d @ result.R.mT + result.t[:, None]) @ batch.K.mT
    seen = seen[..., :2] / seen[..., 2:]
    l_proj, l_reg = (seen - batch.keypoints_2d).square().mean(), (points - seen).square().mean()
    expected = {"lh": l_h, "lm": l_h + 2e-4 * l_proj, "lp": 0.5 * (l_reg + l_proj)}[loss]
    torch.testing.assert_close(step(batch)["loss"], expected)
    step.set_epoch(0)
    torch.testing.assert_close(step(batch)["loss"], l_h)


def pose_gradient(solver: str) -> Tensor:
    """Of the projection loss alone, by the network's logits."""
    step, batch = prepared(loss="lm", solver=solver, beta=1.0)
    step.set_epoch(1)
    values = step(batch)
    assert float(values["valid"]) == 1
    (values["loss"] - values["heatmap"]).backward()
    logits = step.network.logits
    assert isinstance(logits, nn.Parameter)
    assert logits.grad is not None
    return logits.grad


def test_solvers_have_gradients_of_their_own() -> None:
    gradients = {solver: pose_gradient(solver) for solver in ("exact", "bpnp", "bpnp-fast", "epnp")}
    sizes = {solver: float(gradient.norm()) for solver, gradient in gradients.items()}
    assert min(sizes.values()) > 1e-3
    for solver in ("bpnp", "bpnp-fast", "epnp"):
        assert float((gradients[solver] - gradients["exact"]).norm()) > 1e-3 * sizes["exact"], solver


@pytest.mark.parametrize("solver", ["exact", "epnp"])
def test_gradient_belongs_to_the_solver_that_gave_the_pose(solver) -> None:
    _, batch = prepared()
    z, K, true = batch.keypoints_3d.double(), batch.K.double(), batch.keypoints_2d.double()
    generator = torch.Generator().manual_seed(5)
    x = true + 0.5 * torch.randn(true.shape, generator=generator, dtype=true.dtype)
    direction = torch.randn(true.shape, generator=generator, dtype=true.dtype)

    def loss(points: Tensor) -> Tensor:
        poses = find_poses(solver, points, z, K)
        assert poses.valid.all()
        return projection_loss(project(z, poses.R, poses.t, K), true)

    x.requires_grad_()
    (gradient,) = torch.autograd.grad(loss(x), x)
    with torch.no_grad():
        slope = (loss(x + 1e-5 * direction) - loss(x - 1e-5 * direction)) / 2e-5
    torch.testing.assert_close((gradient * direction).sum(), slope, rtol=1e-4, atol=1e-7)
    if solver == "epnp":  # the pose itself is EPnP's, not the minimum of the reprojection error
        torch.testing.assert_close(find_poses("epnp", x, z, K).t, epnp(x, z, K).t)
        assert not torch.allclose(find_poses("epnp", x, z, K).t, find_poses("exact", x, z, K).t, atol=1e-6)


def gradients(runtime: Runtime) -> list[Tensor]:
    batch = next(ordered_batches(drones(), CPU).epoch(0))
    targets = gaussian_targets(batch.keypoints_2d, (16, 12), (64, 48), grid="half_pixel")
    rows = torch.arange(4).chunk(runtime.world_size)[runtime.rank]

    class Shifted(FromTargets):
        """The same parameter for all items, so that every process has it whole."""

        def __init__(self) -> None:
            super().__init__(targets)
            self.constant = self.logits.detach()[rows]
            self.logits = nn.Parameter(torch.zeros(1, *targets.shape[1:]))

        def forward(self, images: Tensor) -> list[Tensor]:
            return [self.constant + self.logits]

    step = Step(Shifted(), replace(CONFIG, epochs=0).with_pose(loss="lm", beta=1e-2))
    wrapped = runtime.wrap(step)
    wrapped(PoseBatch(*(value[rows] for value in batch)))["loss"].backward()
    return [p.grad for p in step.parameters() if p.grad is not None]


def test_two_processes_give_one_process_gradients(two_ranks) -> None:
    (expected,) = gradients(CPU)
    assert float(expected.norm()) > 0
    for (actual,) in two_ranks(gradients):
        torch.testing.assert_close(actual, expected, rtol=1e-4, atol=1e-7)


def test_resized_sets_project_to_their_keypoints() -> None:
    poses = drones(size="128x96")
    small = resize(poses, (64, 40))
    assert small.images.shape == (4, 3, 40, 64)
    torch.testing.assert_close(project(small.keypoints_3d, small.R, small.t, small.K), small.keypoints_2d)
    torch.testing.assert_close(small.keypoints_2d, poses.keypoints_2d * torch.tensor([0.5, 40 / 96]))
    torch.testing.assert_close(small.images.float().mean(), poses.images.float().mean(), atol=0.5, rtol=0)
    assert resize(poses, (128, 96)) is poses


@pytest.mark.realdata
def test_lmo_is_cut_into_parts_without_common_images(real_data: pathlib.Path) -> None:
    config = replace(CONFIG, data="lmo", object=5, size="tiny", train_size=0, val_size=0, test_size=9)
    config = replace(config, data_root=str(real_data))
    parts = {split: load(config, split) for split in ("train", "val", "test")}
    assert len(parts["test"]) == 9
    assert len(parts["train"]) > 2 * len(parts["val"]) > 0
    ids = [set(part.ids.tolist()) for part in parts.values()]
    assert len(set.union(*ids)) == sum(map(len, ids))
    for part in parts.values():
        assert part.shape == (3, 96, 128)
        assert part.visible.all()
        seen = project(part.keypoints_3d, part.R, part.t, part.K)
        torch.testing.assert_close(seen, part.keypoints_2d, atol=1e-2, rtol=0)


def test_bop_without_its_folder_is_an_error(tmp_path: pathlib.Path) -> None:
    with pytest.raises(DataError, match="train"):
        load(replace(CONFIG, data=f"bop:{tmp_path}"), "train")


def predictions(poses: PoseSet) -> Predictions:
    return Predictions(poses.keypoints_2d, poses.R, poses.t, torch.ones(len(poses), dtype=torch.bool))


def test_scores_of_right_and_missing_poses() -> None:
    poses = drones(8)
    perfect = score(poses, predictions(poses))
    assert perfect["NPE"] == 0
    assert [perfect[name] for name in ("ACC2", "ADD2", "Proj2", "valid")] == [100] * 4
    found = predictions(poses)
    missed = torch.arange(8) < 2
    R = torch.where(missed[:, None, None], torch.eye(3), found.R)
    t = torch.where(missed[:, None], 0.0, found.t)
    values = score(poses, Predictions(found.points, R, t, ~missed))
    assert values["NPE"] == pytest.approx(2 / 8)
    assert [values[name] for name in ("ACC5", "ADD5", "Proj5", "valid")] == [75] * 4


def test_distance_bins_hold_every_item_from_near_to_far() -> None:
    poses = drones(10)
    found = predictions(poses)
    far = poses.t.norm(dim=1) > poses.t.norm(dim=1).median()
    moved = torch.where(far[:, None], found.t * 1.5, found.t)
    bins = by_distance(poses, Predictions(found.points, found.R, moved, found.valid), 2)
    assert [values["ADD5"] for _, values in bins] == [100, 0]
    assert bins[0][0] < bins[1][0]
    assert sum(values["samples"] for _, values in bins) == 10
    mean = sum(place * values["samples"] for place, values in bins) / 10
    assert mean == pytest.approx(float(poses.t.norm(dim=1).mean()), rel=1e-5)


def test_items_without_a_pose_are_missed_and_the_mode_is_restored() -> None:
    class Flat(nn.Module):
        """Keypoints all in one place."""

        def forward(self, images: Tensor) -> list[Tensor]:
            return [torch.full((len(images), 9, 12, 16), torch.nan)]

        def pose_maps(self, outputs: list[Tensor]) -> Tensor:
            return outputs[0]

    network = Flat().train()
    found = predict(network, drones(), CPU, "exact")
    assert network.training
    assert not found.valid.any()
    torch.testing.assert_close(found.R, torch.eye(3).expand(4, 3, 3))
    assert score(drones(), found)["NPE"] == 1


def test_networks_are_loaded_from_checkpoints_of_their_kind(tmp_path: pathlib.Path) -> None:
    poses = drones(1)
    network = make_network(CONFIG, poses)
    step = Step(network, CONFIG)
    save_checkpoint(tmp_path / "a.pt", {"step": step.state_dict()})
    again = make_network(replace(CONFIG, init=str(tmp_path / "a.pt")), poses)
    assert all(torch.equal(a, b) for a, b in zip(network.parameters(), again.parameters(), strict=True))
    with pytest.raises(UserError, match="holds another network"):
        load_part(make_network(replace(CONFIG, network_size="tiny"), poses), tmp_path / "a.pt")
    save_checkpoint(tmp_path / "b.pt", {"weights": {}})
    with pytest.raises(UserError, match="holds no network"):
        load_part(network, tmp_path / "b.pt")


@pytest.mark.parametrize("loss", ["lh", "lp"])
def test_the_gradient_is_clipped_where_a_pose_is_in_the_loss(loss: str) -> None:
    step, batch = prepared(loss=loss)
    optimizer = torch.optim.SGD(step.parameters(), 1.0)
    clip_where_posing(optimizer, step, 1e-6)
    for epoch in range(2):
        step.set_epoch(epoch)
        optimizer.zero_grad()
        step(batch)["loss"].backward()
        gradient = next(step.parameters()).grad
        assert gradient is not None
        length = gradient.norm()
        assert length > 2e-6
        optimizer.step()
        expected = torch.tensor(1e-6) if loss == "lp" and epoch else length
        torch.testing.assert_close(gradient.norm(), expected, rtol=1e-2, atol=0)


@pytest.mark.parametrize("loss", ["lm", "lp"])
def test_autocast_ends_with_the_network(loss: str) -> None:
    step, batch = prepared(network=Rounded, loss=loss, beta=1e-2)
    step.set_epoch(1)
    found = {}
    for cast in (False, True):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=cast):
            values = step(batch)
        step.zero_grad()
        values["loss"].backward()
        gradient = next(step.parameters()).grad
        assert gradient is not None
        found[cast] = values["loss"].detach(), gradient.clone()
    assert found[True][0].dtype == torch.float32
    torch.testing.assert_close(found[True], found[False])


@pytest.mark.parametrize(
    ("network", "loss"),
    [("hrnet", "lm"), ("hrnet", "lp"), ("hourglass", "lm"), ("hourglass", "lp"), ("higher_hrnet", "lm")],
)
def test_every_parameter_is_trained_in_the_pose_phase(network, loss) -> None:
    """A parameter without a gradient stays as it was, and stops training on several processes."""
    size = "tiny" if network == "hourglass" else "micro"
    config = replace(CONFIG, network=network, network_size=size, epochs=0).with_pose(loss=loss)
    poses = drones(2)
    step = Step(make_network(config, poses), config)
    step(next(ordered_batches(poses, CPU).epoch(0)))["loss"].backward()
    assert [name for name, value in step.named_parameters() if value.grad is None] == []
