from __future__ import annotations

import pytest
import torch
from robustvision_core.data import Batch, DeviceBatches, ImageSet, channel_stats, normalise
from robustvision_core.errors import DataError, UserError
from torch import Tensor


def make(n: int = 23) -> ImageSet:
    images = torch.randint(0, 256, (n, 3, 4, 5), dtype=torch.uint8)
    return ImageSet(images, torch.arange(n) % 4, ("a", "b", "c", "d"))


def jitter(images: Tensor, generator: torch.Generator) -> Tensor:
    return images * torch.rand(len(images), 1, 1, 1, generator=generator, device=images.device)


def join(batches: list[Batch]) -> Batch:
    return Batch(*(torch.cat(part) for part in zip(*batches, strict=True)))


@pytest.mark.parametrize("drop_last", [False, True])
def test_one_epoch_is_every_sample_once(drop_last: bool) -> None:
    data = make()
    batches = DeviceBatches(data, 5, shuffle=True, drop_last=drop_last)
    seen = list(batches.epoch(0))
    assert len(seen) == len(batches) == (4 if drop_last else 5)
    whole = join(seen)
    assert len(whole.index.unique()) == len(whole.index) == (20 if drop_last else 23)
    assert torch.equal(whole.labels, data.labels[whole.index])


def test_a_standard_deviation_that_is_not_given_is_computed() -> None:
    data = make()
    own = DeviceBatches(data, 4)
    assert torch.equal(DeviceBatches(data, 4, mean=0.0).std, own.std)
    assert torch.equal(DeviceBatches(data, 4, std=1.0).mean, own.mean)


def test_images_are_normalised_by_channel() -> None:
    data = make()
    mean, std = torch.tensor([0.1, 0.2, 0.3]), torch.tensor([0.5, 0.6, 0.7])
    whole = join(list(DeviceBatches(data, 4, mean=mean, std=std).epoch(0)))
    expected = torch.empty(23, 3, 4, 5)
    for c in range(3):
        expected[:, c] = (data.images[:, c].double() / 255 - mean[c]) / std[c]
    torch.testing.assert_close(whole.images, expected, rtol=1e-5, atol=1e-6)
    assert whole.images.dtype == torch.float32
    assert whole.index.tolist() == list(range(23))


def test_data_is_left_as_it_was() -> None:
    data = make()
    before = data.images.clone()
    list(DeviceBatches(data, 4, augment=lambda x, _: x.mul_(0)).epoch(0))
    assert torch.equal(before, data.images)


def test_default_statistics_whiten_the_set() -> None:
    whole = join(list(DeviceBatches(make(), 23).epoch(0))).images.double()
    torch.testing.assert_close(whole.mean((0, 2, 3)), torch.zeros(3).double(), rtol=0, atol=1e-5)
    torch.testing.assert_close(whole.std((0, 2, 3), correction=0), torch.ones(3).double(), rtol=0, atol=1e-5)


def test_channel_stats_agree_with_torch() -> None:
    data = make()
    pixels = data.images.double() / 255
    mean, std = channel_stats(data)
    torch.testing.assert_close(mean.double(), pixels.mean((0, 2, 3)), rtol=1e-6, atol=1e-7)
    torch.testing.assert_close(std.double(), pixels.std((0, 2, 3), correction=0), rtol=1e-6, atol=1e-7)


def test_a_constant_channel_has_deviation_one() -> None:
    data = ImageSet(torch.full((2, 1, 2, 2), 51, dtype=torch.uint8), torch.zeros(2).long(), ("a",))
    mean, std = channel_stats(data)
    assert mean.tolist() == pytest.approx([0.2])
    assert std.tolist() == [1]


@pytest.mark.parametrize("augment", [None, jitter])
@pytest.mark.parametrize("start", [0, 1, 3, 5])
def test_resuming_gives_the_same_batches(augment: object, start: int) -> None:
    data = make()
    options = {"shuffle": True, "seed": 3, "augment": augment, "mean": 0.5, "std": 0.5}
    whole = list(DeviceBatches(data, 5, **options).epoch(2))  # type: ignore[arg-type]
    torch.rand(7)
    again = list(DeviceBatches(data, 5, **options).epoch(2, start))  # type: ignore[arg-type]
    assert len(again) == 5 - start
    for one, two in zip(whole[start:], again, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(one, two, strict=True))


def test_epochs_and_seeds_differ() -> None:
    data = make()
    orders = [join(list(DeviceBatches(data, 5, shuffle=True, seed=s).epoch(e))).index for s in (0, 1) for e in (0, 1)]
    assert len({tuple(order.tolist()) for order in orders}) == 4


def test_augmentation_differs_by_batch_and_epoch() -> None:
    data = ImageSet(torch.full((8, 1, 2, 2), 255, dtype=torch.uint8), torch.zeros(8).long(), ("a",))
    batches = DeviceBatches(data, 4, augment=jitter, mean=0, std=1)
    drawn = torch.cat([b.images[:, 0, 0, 0] for e in (0, 1) for b in batches.epoch(e)])
    assert len(drawn.unique()) == 16


def test_augmentation_sees_images_from_0_to_1() -> None:
    seen = []

    def keep(images: Tensor, _: torch.Generator) -> Tensor:
        seen.append(images.clone())
        return images

    data = make()
    batches = DeviceBatches(data, 23, augment=keep)
    (batch,) = batches.epoch(0)
    torch.testing.assert_close(seen[0], data.images / 255)
    torch.testing.assert_close(batch.images, normalise(data.images, batches.mean, batches.std), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("world", [1, 2, 4])
@pytest.mark.parametrize("n", [16, 19, 23, 2])
@pytest.mark.parametrize("drop_last", [False, True])
def test_ranks_together_see_the_batches_of_one_process(world: int, n: int, drop_last: bool) -> None:
    data = make(n)
    options = {"shuffle": True, "seed": 1, "augment": jitter, "mean": 0.5, "std": 0.5, "drop_last": drop_last}
    alone = list(DeviceBatches(data, 8, **options).epoch(1))  # type: ignore[arg-type]
    ranks = [DeviceBatches(data, 8, rank=r, world_size=world, **options) for r in range(world)]  # type: ignore[arg-type]
    seen = [list(rank.epoch(1)) for rank in ranks]
    assert [len(s) for s in seen] == [len(rank) for rank in ranks]
    assert len({len(s) for s in seen}) == 1
    for number, parts in enumerate(zip(*seen, strict=True)):
        assert len({len(part.labels) for part in parts}) == 1
        both, one = join(list(parts)), alone[number]
        size = len(both.labels)
        assert size == len(one.labels) // world * world > 0
        assert torch.equal(both.index, one.index[:size])
        assert torch.equal(both.images, one.images[:size])
    left_out = len(join(alone).labels) - sum(len(p.labels) for s in seen for p in s) if alone else 0
    assert left_out < world


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": 0}, "expected a positive multiple of the 1 processes"),
        ({"batch_size": 5, "world_size": 2}, "batch_size is 5: expected a positive multiple of the 2 processes"),
        ({"batch_size": 4, "world_size": 2, "rank": 2}, "there is no rank 2 among 2 processes"),
        ({"batch_size": 4, "mean": [0.1, 0.2]}, "need 1 or 3 values, one a channel, got 2"),
        ({"batch_size": 4, "std": 0.0}, "std must be positive"),
    ],
)
def test_wrong_arguments(options: dict[str, object], message: str) -> None:
    with pytest.raises(UserError, match=message):
        DeviceBatches(make(), **options)  # type: ignore[arg-type]


def test_an_empty_set_has_no_statistics() -> None:
    with pytest.raises(DataError, match="is empty"):
        DeviceBatches(make().take([]), 4)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_the_gpu_the_order_is_that_of_the_cpu() -> None:
    data = make()
    cpu = join(list(DeviceBatches(data, 5, shuffle=True).epoch(0)))
    gpu = join(list(DeviceBatches(data, 5, shuffle=True, device="cuda").epoch(0)))
    assert gpu.images.is_cuda
    assert torch.equal(cpu.index, gpu.index.cpu())
    torch.testing.assert_close(cpu.images, gpu.images.cpu())
