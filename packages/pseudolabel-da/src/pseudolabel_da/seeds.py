"""Random numbers as a pure function of a seed and a name: what makes every epoch repeatable by itself."""

from __future__ import annotations

import contextlib
import hashlib
from collections.abc import Iterator

import torch


def derive_seed(seed: int, *names: str | int) -> int:
    """A seed in [0, 2^63) for a named consumer, the same on every machine and unrelated to its neighbours."""
    digest = hashlib.sha256(repr((seed, *names)).encode()).digest()
    return int.from_bytes(digest[:8], "little") >> 1


def make_generator(seed: int, *names: str | int, device: torch.device | str = "cpu") -> torch.Generator:
    """A generator on `device`, seeded by (seed, names) alone."""
    return torch.Generator(device).manual_seed(derive_seed(seed, *names))


@contextlib.contextmanager
def forked_rng(device: torch.device, seed: int, *names: str | int) -> Iterator[None]:
    """Torch's global generators seeded by (seed, names) inside, by `seed` itself without names, as before outside.

    Dropout then depends on the epoch alone, and a resumed run needs no state of a generator.
    """
    cuda = device.type == "cuda"
    with torch.random.fork_rng([device] if cuda else [], device_type="cuda"):
        torch.manual_seed(derive_seed(seed, *names) if names else seed)
        yield
