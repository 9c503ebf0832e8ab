"""Two machines train what one machine trains: two launchers on the loopback, two processes each, against one with four.

`make test-nodes` runs this; it starts eight processes a package.
"""

from __future__ import annotations

import os
import pathlib
import socket
import subprocess
import sys

import pytest
import torch

PACKAGES = {
    "fdiv_noisy": ["--loss", "tv"],
    "rml_meta": ["--tasks", "8"],
    "pseudolabel_da": [],
    "flowaug": [],
    "diffpnp_pose": [],
}

pytestmark = pytest.mark.nodes


def launch(package: str, out: pathlib.Path, *launcher: str) -> subprocess.Popen[str]:
    """`torchrun ... -m PACKAGE train --preset smoke` in the background."""
    command = [sys.executable, "-m", "torch.distributed.run", *launcher, "-m", package, "train", "--preset", "smoke"]
    options = ["--device", "cpu", "--out", str(out), "--no-progress", *PACKAGES[package]]
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    return subprocess.Popen(
        [*command, *options], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment
    )


def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.mark.parametrize("package", PACKAGES)
def test_two_nodes_train_the_weights_of_one(package: str, tmp_path: pathlib.Path) -> None:
    port = free_port()
    where = ["--nnodes=2", "--nproc-per-node=2", "--master-addr=127.0.0.1", f"--master-port={port}"]
    nodes = [launch(package, tmp_path / "two", *where, f"--node-rank={rank}") for rank in (0, 1)]
    said = [node.communicate(timeout=300)[0] for node in nodes]
    assert [node.returncode for node in nodes] == [0, 0], said
    one = launch(package, tmp_path / "one", "--standalone", "--nproc-per-node=4")
    output = one.communicate(timeout=300)[0]
    assert one.returncode == 0, output
    states = [torch.load(tmp_path / name / "checkpoint.pt", weights_only=True)["step"] for name in ("one", "two")]
    assert states[0].keys() == states[1].keys()
    for name, value in states[0].items():
        if isinstance(value, torch.Tensor):  # the state beside the weights is not one
            assert torch.equal(value, states[1][name]), name
