"""Several processes on this machine, under torch's own launcher."""

from __future__ import annotations

import logging
from collections.abc import Sequence


def launch(package: str, devices: int, argv: Sequence[str]) -> int:
    """Run `python -m package argv` in `devices` processes of this machine under torch's elastic launcher.

    Returns:
        The exit status: that of the first process that failed, or 128 and the number of the signal that ended all.
    """
    from torch.distributed.elastic.multiprocessing.api import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.run import main as torchrun

    for part in ("agent.server.api", "multiprocessing.api"):  # they warn of the signals that the user sends
        logging.getLogger(f"torch.distributed.elastic.{part}").setLevel(logging.ERROR)
    try:
        torchrun(["--standalone", f"--nproc-per-node={devices}", "-m", package, *argv])
    except ChildFailedError as error:
        _, failure = error.get_first_failure()
        return failure.exitcode if failure.exitcode > 0 else 128 - failure.exitcode
    except SignalException as error:  # rank 0 has said that it stopped
        return 128 + int(error.sigval)
    return 0
