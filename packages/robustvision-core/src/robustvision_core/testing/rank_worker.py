"""One of the two gloo processes that the distributed tests share: runs functions of test files until told to stop.

Started by the ``two_ranks`` fixture with torchrun's variables set; the first argument is the fixture's socket.
"""

from __future__ import annotations

import pickle
import sys
import traceback
from multiprocessing.connection import Client

import torch

from robustvision_core.run.runtime import Runtime
from robustvision_core.testing.modules import load_module


def main() -> None:
    """Serve calls of ``function(runtime, *arguments)``."""
    torch.set_num_threads(1)
    runtime = Runtime.from_env("cpu")
    with Client(sys.argv[1]) as connection:
        connection.send(runtime.rank)
        while (call := pickle.loads(connection.recv_bytes())) is not None:  # noqa: S301 - the test session's
            path, name, arguments = call
            try:
                module = load_module(path, "rank_test")
                torch.manual_seed(runtime.rank)
                answer = ("value", getattr(module, name)(runtime, *arguments))
            except BaseException:
                answer = ("error", traceback.format_exc())
            connection.send_bytes(pickle.dumps(answer))  # plain bytes: tensors are copied, not shared
    runtime.close()


if __name__ == "__main__":
    main()
