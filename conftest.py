"""What every test shares: one thread, no network, a seed."""

from __future__ import annotations

import os
import pathlib

import pytest
import torch

torch.set_num_threads(1)  # on a loaded machine two threads were measured ten times slower than one


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """The folder of real data sets, or a skip that says how to get the test to run."""
    root = os.environ.get("ROBUSTVISION_DATA")
    if not root or not pathlib.Path(root).is_dir():
        pytest.skip("set ROBUSTVISION_DATA to a folder of real data sets to run this test")
    return pathlib.Path(root)
