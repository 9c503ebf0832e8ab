"""Where a program runs: device, precision, processes and seeds.

The distributed engine is `torch.distributed` as torchrun starts it: `Runtime.from_env` reads torchrun's
variables and one process is the same code with a world of one.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from robustvision_core.errors import UserError

DeviceName = Literal["auto", "cpu", "cuda", "mps"]
Precision = Literal["auto", "fp32", "bf16"]
T = TypeVar("T")


@dataclass
class Runtime:
    """One process of a run.

    Attributes:
        device: The device of this process.
        autocast_dtype: The type that `autocast` computes in, or None for full precision.
        rank: Number of this process, 0 to `world_size - 1`.
        world_size: How many processes train together.
        seed: The run's seed, the same in every process.
    """

    device: torch.device
    autocast_dtype: torch.dtype | None = None
    rank: int = 0
    world_size: int = 1
    seed: int = 0
    _generators: dict[str, torch.Generator] = field(default_factory=dict, repr=False)
    _owns_group: bool = field(default=False, repr=False)

    @classmethod
    def from_env(cls, device: str = "auto", precision: str = "auto", seed: int = 0) -> Runtime:
        """The runtime that the environment describes.

        Args:
            device: `auto` takes cuda, then mps, then cpu; under torchrun each process takes its own GPU.
            precision: `auto` computes in bfloat16 on GPUs that have it and in float32 elsewhere; `fp32` in float32
                alone, without the shorter TF32 of GPUs.
            seed: Seeds every generator; torch's global one gets `seed + rank`, so that dropout differs by rank.

        Raises:
            UserError: The device or precision does not exist here.
        """
        rank, world = int(os.environ.get("RANK", 0)), int(os.environ.get("WORLD_SIZE", 1))
        chosen = _choose_device(device, int(os.environ.get("LOCAL_RANK", 0)))
        runtime = cls(chosen, _choose_dtype(precision, chosen), rank, world, seed)
        if chosen.type == "cuda":
            torch.cuda.set_device(chosen)
            torch.backends.cuda.matmul.allow_tf32 = precision != "fp32"
            torch.backends.cudnn.allow_tf32 = precision != "fp32"
        if world > 1 and not dist.is_initialized():
            dist.init_process_group("nccl" if chosen.type == "cuda" else "gloo")
            runtime._owns_group = True
        torch.manual_seed(seed + rank)
        return runtime

    @property
    def is_main(self) -> bool:
        """Whether this process writes the files and shows the progress."""
        return self.rank == 0

    def autocast(self) -> contextlib.AbstractContextManager[Any]:
        """The context to run a forward pass in."""
        if self.autocast_dtype is None:
            return contextlib.nullcontext()
        return torch.autocast(self.device.type, dtype=self.autocast_dtype)

    def generator(self, name: str, device: str | torch.device = "cpu") -> torch.Generator:
        """The generator of a named consumer, seeded by (seed, name) alone, so that adding one moves no other.

        The same in every process; its state travels in checkpoints.
        """
        if name not in self._generators:
            self._generators[name] = torch.Generator(device).manual_seed(derive_seed(self.seed, name))
        return self._generators[name]

    def wrap(self, step: nn.Module) -> nn.Module:
        """`step` on this device, under DistributedDataParallel where several processes train.

        Keep what this returns and call only that: forwarding the raw module beside it would leave its gradients
        unsynchronised. `static_graph` stays off: it gave wrong second-order gradients.
        """
        step = step.to(self.device)
        if self.world_size == 1:
            return step
        devices = [self.device.index] if self.device.type == "cuda" else None
        return nn.parallel.DistributedDataParallel(step, device_ids=devices)

    def all_reduce_sum(self, value: Tensor) -> Tensor:
        """The sum of `value` (any shape) over all processes."""
        if self.world_size > 1:
            value = value.clone()
            dist.all_reduce(value)
        return value

    def all_reduce_mean(self, value: Tensor) -> Tensor:
        """The mean of `value` (any shape) over all processes."""
        return self.all_reduce_sum(value) / self.world_size

    def gather(self, value: T) -> list[T]:
        """The `value` (what pickles) of every process, by rank; every process must call it."""
        if self.world_size == 1:
            return [value]
        held: list[Any] = [None] * self.world_size
        dist.all_gather_object(held, value)
        return held

    def any_rank(self, flag: bool) -> bool:
        """Whether `flag` is true in any process; every process must call it."""
        if self.world_size == 1:
            return flag
        return bool(self.all_reduce_sum(torch.tensor(float(flag), device=self.device)) > 0)

    def from_main(self, value: T) -> T:
        """The `value` (text, or what pickles) of the process of rank 0; every process must call it."""
        if self.world_size == 1:
            return value
        held = [value]
        dist.broadcast_object_list(held, src=0, device=self.device)
        return held[0]

    def barrier(self) -> None:
        """Wait for every process."""
        if self.world_size > 1:
            dist.barrier()

    def rng_state(self) -> dict[str, Tensor]:
        """The state of torch's generators and the named ones, as plain tensors."""
        state = {"torch": torch.get_rng_state()}
        if self.device.type == "cuda":
            state["cuda"] = torch.cuda.get_rng_state(self.device)
        return state | {f"named/{name}": g.get_state() for name, g in self._generators.items()}

    def set_rng_state(self, state: dict[str, Tensor]) -> None:
        """Restore what `rng_state` gave."""
        torch.set_rng_state(state["torch"].cpu())
        if self.device.type == "cuda" and "cuda" in state:
            torch.cuda.set_rng_state(state["cuda"].cpu(), self.device)
        for name, value in state.items():
            if name.startswith("named/"):
                self.generator(name.removeprefix("named/")).set_state(value.cpu())

    def reseed(self, name: str) -> None:
        """Seed torch's global generator of this process anew, by the run's seed, `name` and the rank."""
        torch.manual_seed(derive_seed(self.seed, name, self.rank))

    def close(self) -> None:
        """Leave the process group, if this runtime joined it."""
        if self._owns_group and dist.is_initialized():
            dist.destroy_process_group()
            self._owns_group = False

    @classmethod
    @contextlib.contextmanager
    def session(cls, device: str = "auto", precision: str = "auto", seed: int = 0) -> Iterator[Runtime]:
        """`from_env` that closes itself."""
        runtime = cls.from_env(device, precision, seed)
        try:
            yield runtime
        finally:
            runtime.close()


def unwrap(step: nn.Module) -> nn.Module:
    """The module inside `Runtime.wrap`'s result."""
    return step.module if isinstance(step, nn.parallel.DistributedDataParallel) else step


def channels_last(network: nn.Module) -> None:
    """Lay out the convolutions of `network` with channels innermost, in place.

    Tensor cores take that layout, and small convolutions with pooling are often faster so on a processor too. What the
    network computes differs by rounding alone.
    """
    network.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue]  # missing in its stubs


def to_device(value: T, device: torch.device) -> T:
    """`value` with every tensor in it (in tuples, named tuples, lists and dicts) moved to `device`."""
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)  # type: ignore[return-value]
    if isinstance(value, tuple):
        items = [to_device(item, device) for item in value]
        return type(value)(*items) if hasattr(value, "_fields") else type(value)(items)  # type: ignore[return-value]
    if isinstance(value, list):
        return [to_device(item, device) for item in value]  # type: ignore[return-value]
    if isinstance(value, dict):
        return {key: to_device(item, device) for key, item in value.items()}  # type: ignore[return-value]
    return value


def derive_seed(seed: int, *names: str | int) -> int:
    """A seed for a named consumer: the same on every machine and in every process, unrelated to its neighbours."""
    digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def _choose_device(name: str, local_rank: int) -> torch.device:
    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(kind for kind in ("cuda", "mps", "cpu") if available[kind])
    if name not in available:
        raise UserError(f"unknown device {name!r}: expected auto, cpu, cuda or mps")
    if not available[name]:
        raise UserError(f"device {name!r} is not available here: use --device cpu, or auto")
    if name != "cuda":
        return torch.device(name)
    count = torch.cuda.device_count()
    if local_rank >= count:
        raise UserError(f"{local_rank + 1} processes were asked for on a machine with {count} GPUs: lower --devices")
    return torch.device("cuda", local_rank)


def _choose_dtype(precision: str, device: torch.device) -> torch.dtype | None:
    if precision not in ("auto", "fp32", "bf16"):
        raise UserError(f"unknown precision {precision!r}: expected auto, fp32 or bf16")
    if precision == "bf16":
        return torch.bfloat16
    if precision == "auto" and device.type == "cuda" and torch.cuda.is_bf16_supported():
        return torch.bfloat16
    return None
