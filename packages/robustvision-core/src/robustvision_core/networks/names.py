"""Names of networks as commands take them. Imports no torch."""

from __future__ import annotations

from collections.abc import Sequence

from robustvision_core.errors import UserError, unknown_name

LIBRARIES = ("timm", "torchvision")


def is_external(name: str) -> bool:
    """Whether a network's name is of another library, as `timm:resnet18`."""
    return name.partition(":")[0] in LIBRARIES and ":" in name


def check_network(name: str, own: Sequence[str], weights: str = "", otherwise: str = "starts at random") -> None:
    """Raise UserError where a network is neither one of `own` nor another library's, or `weights` are not for it.

    Args:
        name: As the command takes it.
        own: Names of the package's networks.
        weights: The file that it is to start from; empty for none.
        otherwise: How a network of the package starts.
    """
    if not is_external(name) and name not in own:
        raise unknown_name("network", name, (*own, *(f"{library}:NAME" for library in LIBRARIES)))
    if weights and not is_external(name):
        raise UserError(f"--weights is for networks of timm and torchvision; {name} {otherwise}")
