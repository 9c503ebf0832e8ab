"""What a loss depends on beside what it was given: tensors that it holds itself, and random numbers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator

import torch
from torch import Tensor
from torch.utils.checkpoint import get_device_states, set_device_states


class Rng:
    """State of torch's default generators, of the CPU and of the devices of some tensors, as it is now."""

    def __init__(self, *tensors: Tensor) -> None:
        self.cpu = torch.get_rng_state()
        self.devices, self.states = get_device_states(*tensors)
        self.kind = next((t.device.type for t in tensors if t.device.type != "cpu"), "cuda")

    def restore(self) -> None:
        """Make it the state again."""
        torch.set_rng_state(self.cpu)
        set_device_states(self.devices, self.states, device_type=self.kind)

    @contextlib.contextmanager
    def replayed(self) -> Iterator[None]:
        """Within, random numbers come as they did after this state; the generators are left as they were before."""
        with torch.random.fork_rng(self.devices, device_type=self.kind):
            self.restore()
            yield

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Rng):
            return NotImplemented
        pairs = zip((self.cpu, *self.states), (other.cpu, *other.states), strict=True)
        return all(torch.equal(one, two) for one, two in pairs)

    __hash__ = None  # type: ignore[assignment]  # compared by value


def graph_mark() -> int:
    """A number below that of every operation recorded from now on."""
    with torch.enable_grad():
        node = torch.ones((), requires_grad=True).clone().grad_fn
    assert node is not None
    return node._sequence_nr()


def foreign_leaves(loss: Tensor, known: Iterable[Tensor], mark: int) -> list[Tensor]:
    """Leaves of the graph of `loss` that are not among `known`: what the loss or the model holds for itself.

    Args:
        loss: Recorded after `mark`.
        known: Tensors that it was given.
        mark: Of `graph_mark`.

    Raises:
        ValueError: The graph reaches back to operations before `mark`: such a tensor is no leaf.
    """
    given = {id(tensor) for tensor in known}
    found: dict[int, Tensor] = {}
    seen, to_do = set(), [loss.grad_fn]
    while to_do:
        node = to_do.pop()
        if node is None or node in seen:
            continue
        seen.add(node)
        leaf = getattr(node, "variable", None)
        if leaf is not None:
            if id(leaf) not in given:
                found[id(leaf)] = leaf
        elif node._sequence_nr() < mark:
            raise ValueError(
                "the loss or the model holds a tensor that was computed from others and needs a gradient, "
                f"by {node.name()}: compute it within the loss, or use backend='loop'"
            )
        else:
            to_do.extend(further for further, _ in node.next_functions)
    return list(found.values())
