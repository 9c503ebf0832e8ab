"""From the words of a command line to the verb that runs.

A package gives a table of its verbs. Nothing heavy is imported before a verb runs: its configuration is parsed first,
so that `--help` and a refused option answer at once.
"""

from __future__ import annotations

import contextlib
import importlib
import os
import shlex
import signal
import sys
import warnings
from collections.abc import Iterator, Mapping, Sequence
from types import FrameType
from typing import Any

from robustvision_core.cli.launch import launch
from robustvision_core.cli.parsing import parse
from robustvision_core.errors import Interrupted, UserError, unknown_name

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130
EXIT_BROKEN_PIPE = 141

Verbs = Mapping[str, tuple[str, str, str]]
"""Verb (one word or several) to (one-line help, `"module:function"`, `"module:Configuration"`); a module with a dot
before it is of the package's `cli`. The function takes the configuration, a frozen dataclass, whose module must import
nothing heavy."""


def dispatch(package: str, commands: Verbs, argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status: 0, 2 for an error of the user or of the file system, 130 after Ctrl-C,
    143 after SIGTERM.

    Args:
        package: The import name, as in `fdiv_noisy`.
        commands: The table of verbs.
        argv: The arguments; those of the process by default.
    """
    argv = list(sys.argv[1:] if argv is None else argv)
    program = package.replace("_", "-")
    if not argv or argv[0] in ("-h", "--help"):
        sys.stdout.write(usage(program, commands))
        return 0 if argv else EXIT_USER_ERROR
    if argv[0] == "--version":
        sys.stdout.write(f"{program} {importlib.import_module(package).__version__}\n")
        return 0
    try:
        with _sigterm_raises():
            _quiet_on_large_images()
            status = _run(package, program, commands, argv)
            sys.stdout.flush()
            return status
    except (UserError, OSError, MemoryError) as error:
        if os.environ.get("ROBUSTVISION_TRACEBACK"):
            raise
        return _refuse(program, error)
    except KeyboardInterrupt as stop:
        number = getattr(stop, "number", signal.SIGINT)
        _say(f"{program}: stopped{_how_to_go_on(program, argv, getattr(stop, 'folder', None))}")
        return 128 + number


def usage(program: str, commands: Verbs) -> str:
    """The text of `<dist> --help`."""
    width = max(map(len, commands))
    lines = [f"  {verb:<{width}}  {row[0]}" for verb, row in commands.items()]
    return f"usage: {program} VERB [options]\n\n" + "\n".join(lines) + f"\n\n{program} VERB --help shows its options.\n"


def split_verb(argv: Sequence[str], commands: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The verb at the head of `argv`, the longest that matches, and what follows it."""
    for verb in sorted(commands, key=len, reverse=True):
        words = verb.split()
        if list(argv[: len(words)]) == words:
            return verb, list(argv[len(words) :])
    words = [word for word in argv[:2] if not word.startswith("-")]
    raise unknown_name("verb", " ".join(words), commands)


def _quiet_on_large_images() -> None:
    """Images up to twice Pillow's limit are read; it refuses larger ones, and would warn of these."""
    warnings.filterwarnings("ignore", r"Image size \(\d+ pixels\) exceeds limit")


def _run(package: str, program: str, commands: Verbs, argv: list[str]) -> int:
    verb, rest = split_verb(argv, commands)
    _, function, config_type = commands[verb]
    room = f"{package}.cli"
    config = parse(_load(config_type, room), rest, f"{program} {verb}")
    devices = getattr(config, "devices", 1)
    if devices > 1 and "RANK" not in os.environ:
        return launch(package, devices, argv)
    _load(function, room)(config)
    return 0


def _load(target: str, room: str) -> Any:
    module, _, name = target.partition(":")
    return getattr(importlib.import_module(module, room), name)


@contextlib.contextmanager
def _sigterm_raises() -> Iterator[None]:
    """SIGTERM stops a verb as Ctrl-C does."""

    def stop(number: int, frame: FrameType | None) -> None:
        raise Interrupted(number)

    try:
        before = signal.signal(signal.SIGTERM, stop)
    except ValueError:  # not the main thread: signals are the caller's
        yield
        return
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def _refuse(program: str, error: Exception) -> int:
    if isinstance(error, BrokenPipeError):  # whoever read the output has gone, as in `| head`
        _drop_stdout()
        return EXIT_BROKEN_PIPE
    if isinstance(error, OSError):
        _say(f"{program}: error: {_cause(error)}")
        _drop_stdout()
    elif isinstance(error, MemoryError):
        _say(f"{program}: error: not enough memory: {' '.join(str(error).split()) or 'load fewer, or smaller, images'}")
    else:
        _say(f"{program}: error: {error}")
    return EXIT_USER_ERROR


def _cause(error: OSError) -> str:
    """Path and cause of an error of the operating system, in one line."""
    cause = error.strerror or str(error).partition("\n")[0] or type(error).__name__
    names = [str(name) for name in (error.filename, error.filename2) if name is not None]
    return f"{' and '.join(names)}: {cause}" if names else cause


def _drop_stdout() -> None:
    """Forget what could not be written, else the interpreter tries again when it ends."""
    with contextlib.suppress(OSError, ValueError):
        sys.stdout.flush()
        return
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _how_to_go_on(program: str, argv: list[str], folder: Any) -> str:
    if folder is None:
        return ""
    words = [word for word in argv if word != "--resume"]
    if not any(word.partition("=")[0] == "--out" for word in words):
        words += ["--out", str(folder)]
    return f"; the run is in {folder}, go on with: {shlex.join([program, *words, '--resume'])}"


def _say(line: str) -> None:
    if os.environ.get("RANK", "0") == "0":
        sys.stderr.write(line.encode(errors="backslashreplace").decode() + "\n")
