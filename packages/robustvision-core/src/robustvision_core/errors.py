"""Errors of the user: one clear line, no traceback.

Every message says what was wrong, what was expected and what to do. The command line prints it and exits with 2.
"""

from __future__ import annotations

import difflib
import os
import signal
from collections.abc import Iterable

LONG = 16  # names in a list that an error still prints beside the nearest


class UserError(Exception):
    """Something the user gave is wrong: an option, a file, a folder.

    No ValueError: those are taken for mistakes of code, and the option parser swallows them.
    """


class DataError(UserError):
    """A data set is missing, truncated or holds what it must not."""


class MissingSplitError(DataError):
    """A data set is there, but not the split that was asked for."""


class CheckpointError(UserError):
    """A checkpoint is truncated, unreadable or belongs to another configuration."""


class Interrupted(KeyboardInterrupt):
    """The user stopped the program by a signal.

    Attributes:
        number: Of the signal, as `signal.SIGTERM`.
        folder: The run folder whose checkpoint is written; None where there is none.
    """

    def __init__(self, number: int = signal.SIGINT, folder: str | os.PathLike[str] | None = None) -> None:
        super().__init__(number)
        self.number, self.folder = number, folder


def unknown_name(kind: str, name: str, known: Iterable[str]) -> UserError:
    """The error for a name that is not registered, with the nearest known one.

    Args:
        kind: What the name names, as in `"data set"`.
        name: What the user wrote.
        known: Every name that would have been right.
    """
    known = sorted(known)
    near = difflib.get_close_matches(name, known, n=1, cutoff=0.5)
    if near and len(known) > LONG:  # one line stays one line
        return UserError(f"unknown {kind} {name!r}: did you mean {near[0]!r}?")
    hint = f"did you mean {near[0]!r}? " if near else ""
    return UserError(f"unknown {kind} {name!r}: {hint}known: {', '.join(known)}")
