"""`python -m scripts.pictures`: all of them."""

from __future__ import annotations

import importlib

from scripts.pictures import sheet

NAMES = ("fdiv_noisy", "pseudolabel_da", "flowaug", "rml_meta", "diffpnp_pose")


def write_all() -> None:
    """One after another."""
    for name in NAMES:
        importlib.import_module(f"scripts.pictures.{name}").write()


if __name__ == "__main__":
    sheet.main(write_all)
