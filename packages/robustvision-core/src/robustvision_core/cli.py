"""The command line that every package shares: `<dist> VERB --options`.

A package gives a table of its verbs. Nothing heavy is imported before the verb is known, so that `--help` is
instant. A verb is a function of one frozen dataclass, which tyro turns into options; `PRESETS` on that dataclass
makes `--preset NAME` choose the defaults that the other options then change.
"""

from __future__ import annotations

import importlib
import logging
import os
import sys
import typing
from collections.abc import Mapping, Sequence
from typing import Any

from robustvision_core.errors import UserError, unknown_name

EXIT_USER_ERROR = 2
EXIT_INTERRUPTED = 130


def dispatch(package: str, commands: Mapping[str, tuple[str, str]], argv: Sequence[str] | None = None) -> int:
    """Run one verb and return the exit status: 0, 2 for an error of the user, 130 after Ctrl-C, 143 after SIGTERM of
    several processes.

    Args:
        package: The import name, as in `fdiv_noisy`.
        commands: Verb (one word or several) to (one-line help, `"module:function"`).
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
        verb, rest = split_verb(argv, commands)
        return _run(package, f"{program} {verb}", commands[verb][1], rest, argv)
    except UserError as error:
        if os.environ.get("ROBUSTVISION_TRACEBACK"):
            raise
        if os.environ.get("RANK", "0") == "0":
            sys.stderr.write(f"{program}: error: {error}\n")
        return EXIT_USER_ERROR
    except KeyboardInterrupt:
        if os.environ.get("RANK", "0") == "0":
            sys.stderr.write(f"{program}: stopped\n")
        return EXIT_INTERRUPTED


def usage(program: str, commands: Mapping[str, tuple[str, str]]) -> str:
    """The text of `<dist> --help`."""
    width = max(map(len, commands))
    lines = [f"  {verb:<{width}}  {text}" for verb, (text, _) in commands.items()]
    return f"usage: {program} VERB [options]\n\n" + "\n".join(lines) + f"\n\n{program} VERB --help shows its options.\n"


def split_verb(argv: Sequence[str], commands: Mapping[str, Any]) -> tuple[str, list[str]]:
    """The verb at the head of `argv`, the longest that matches, and what follows it."""
    for verb in sorted(commands, key=len, reverse=True):
        words = verb.split()
        if list(argv[: len(words)]) == words:
            return verb, list(argv[len(words) :])
    words = [word for word in argv[:2] if not word.startswith("-")]
    raise unknown_name("verb", " ".join(words), commands)


def parse(config_type: type, argv: Sequence[str], program: str) -> Any:
    """A configuration from options.

    Raises:
        UserError: The preset is unknown, or the dataclass refuses a value.
        SystemExit: An option is unknown or does not parse (status 2).
    """
    import tyro

    presets: Mapping[str, Any] = getattr(config_type, "PRESETS", {})
    keywords = {}
    if presets:
        name = _option(argv, "--preset") or next(iter(presets))
        if name not in presets:
            raise unknown_name("preset", name, presets)
        keywords["default"] = presets[name]
    args = _with_values(config_type, argv)
    return tyro.cli(config_type, args=args, prog=program, config=(tyro.conf.FlagConversionOff,), **keywords)


def _with_values(config_type: type, argv: Sequence[str]) -> list[str]:
    """`argv` with True behind every yes-or-no option that stands alone, so that `--resume` is `--resume True`."""
    switches = {
        f"--{name.replace('_', '-')}" for name, kind in typing.get_type_hints(config_type).items() if kind is bool
    }
    words: list[str] = []
    for place, word in enumerate(argv):
        words.append(word)
        alone = place + 1 == len(argv) or argv[place + 1].startswith("-")
        if alone and word.replace("_", "-") in switches:
            words.append("True")
    return words


def _run(package: str, program: str, target: str, rest: list[str], argv: list[str]) -> int:
    module, function_name = target.split(":")
    function = getattr(importlib.import_module(module), function_name)
    config_type = typing.get_type_hints(function)["config"]
    config = parse(config_type, rest, program)
    devices = getattr(config, "devices", 1)
    if devices > 1 and "RANK" not in os.environ:
        return launch(package, devices, argv)
    function(config)
    return 0


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


def _option(argv: Sequence[str], name: str) -> str | None:
    for place, word in enumerate(argv):
        if word == name and place + 1 < len(argv):
            return argv[place + 1]
        if word.startswith(f"{name}="):
            return word.split("=", 1)[1]
    return None
