"""What every test of the packages shares, as a pytest plugin: `pytest -p robustvision_core.testing.plugin`.

One thread, a seed, warnings as errors, real data where it is, and a pool of two processes.
"""

from __future__ import annotations

import inspect
import os
import pathlib
import pickle
import socket
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from multiprocessing.connection import Listener
from typing import Any

import pytest
import torch

torch.set_num_threads(1)  # on a loaded machine two threads were measured ten times slower than one

MARKERS = (
    "realdata: needs real data sets; set ROBUSTVISION_DATA to their folder",
    "gpu: needs a CUDA device",
    "wheels: builds every wheel and installs each alone in a fresh environment",
    "nodes: starts the processes of two machines on the loopback",
)


def pytest_configure(config: pytest.Config) -> None:
    """Declare the markers, and make warnings errors."""
    for marker in MARKERS:
        config.addinivalue_line("markers", marker)
    config.addinivalue_line("filterwarnings", "error")


@pytest.fixture(autouse=True)
def _seed() -> None:
    torch.manual_seed(0)


def pytest_collect_file(file_path: pathlib.Path) -> None:
    """Let test files use what stands in others of their folder."""
    folder = str(file_path.parent)
    if file_path.suffix == ".py" and folder not in sys.path:
        sys.path.insert(0, folder)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that need a GPU where there is none, and say so."""
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="needs a CUDA device"))


@pytest.fixture(scope="session")
def real_data() -> pathlib.Path:
    """The folder of real data sets, or a skip that says how to get the test to run."""
    root = os.environ.get("ROBUSTVISION_DATA")
    if not root or not pathlib.Path(root).is_dir():
        pytest.skip("set ROBUSTVISION_DATA to a folder of real data sets to run this test")
    return pathlib.Path(root)


@pytest.fixture(scope="session")
def two_ranks() -> Iterator[Callable[..., list[Any]]]:
    """``two_ranks(function, *arguments)`` gives [rank 0's, rank 1's] ``function(runtime, *arguments)`` under gloo.

    The function must stand at the top of a file. Its processes live as long as the test session: starting them costs
    an import of torch each.
    """
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = str(probe.getsockname()[1])
    with tempfile.TemporaryDirectory() as folder, Listener(f"{folder}/ranks", family="AF_UNIX") as listener:
        workers = []
        for rank in ("0", "1"):
            environment = os.environ | {
                "RANK": rank,
                "LOCAL_RANK": rank,
                "WORLD_SIZE": "2",
                "MASTER_ADDR": "127.0.0.1",
                "MASTER_PORT": port,
            }
            command = [sys.executable, "-m", "robustvision_core.testing.rank_worker", f"{folder}/ranks"]
            workers.append(subprocess.Popen(command, env=environment))
        accepted = [listener.accept() for _ in workers]
        connections = dict(sorted((connection.recv(), connection) for connection in accepted))

        def call(function: Callable[..., Any], *arguments: Any) -> list[Any]:
            for connection in connections.values():
                connection.send_bytes(pickle.dumps((inspect.getfile(function), function.__name__, arguments)))
            answers = [pickle.loads(connection.recv_bytes()) for connection in connections.values()]  # noqa: S301 - ours
            for kind, value in answers:
                if kind == "error":
                    pytest.fail(value)
            return [value for _, value in answers]

        yield call
        for connection in connections.values():
            connection.send_bytes(pickle.dumps(None))
        for worker in workers:
            worker.wait(30)
