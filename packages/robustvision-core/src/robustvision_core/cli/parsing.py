"""From options to a configuration: a frozen dataclass that tyro turns into options.

Dataclasses nested in it are titled groups: the field `steps` of the group `inner` is the option `--inner.steps`, and
`--inner-steps` means the same. `PRESETS` on the dataclass, a table of name to configuration, makes `--preset NAME`
choose the defaults that the other options then change. `ALIASES`, a table of former names to dotted ones, keeps
options that were renamed, and configurations written under the former names.
"""

from __future__ import annotations

import contextlib
import io
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal, get_args, get_origin

from robustvision_core.config import check_types, former_names, leaf_types
from robustvision_core.errors import UserError, unknown_name


def parse(config_type: type, argv: Sequence[str], program: str) -> Any:
    """A configuration from options.

    Raises:
        UserError: An option, a value or the preset is unknown or does not parse, or the dataclass refuses a value.
        SystemExit: After the help was printed (status 0).
    """
    import tyro

    args = canonical(config_type, argv)
    keywords = {}
    presets: Mapping[str, Any] = getattr(config_type, "PRESETS", {})
    if presets:
        name = _value_of(args, "--preset") or next(iter(presets))
        if name not in presets:
            raise unknown_name("preset", name, presets)
        keywords["default"] = presets[name]
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            config = tyro.cli(config_type, args=args, prog=program, **keywords)
    except SystemExit as stopped:
        if not stopped.code:
            raise
        raise UserError(f"{_first_message(said.getvalue())} (see {program} --help)") from None
    check_types(config)
    return config


def canonical(config_type: type, argv: Sequence[str]) -> list[str]:
    """`argv` in tyro's spelling: dotted names, and yes-or-no options as `--x` and `--no-x`, without a value.

    Raises:
        UserError: An option does not exist, or its value is not one of its choices.
    """
    kinds = {_option(path): kind for path, kind in leaf_types(config_type).items()}
    spelled = _spellings(config_type, kinds)
    words: list[str] = []
    given = list(argv)
    while given:
        word = given.pop(0)
        if not word.startswith("--") or word in ("--", "--help"):
            words.append(word)
            continue
        name, equals, value = word.partition("=")
        option = spelled.get(name.replace("_", "-"))
        if option is None:
            raise unknown_name("option", name, [name for name in spelled if name in kinds])
        follows = [value] if equals else given[:1]
        if kinds.get(option) is bool and follows and follows[0].lower() in ("true", "false"):
            words.append(option if follows[0].lower() == "true" else _negated(option))
            given = given if equals else given[1:]
            continue
        _check_choice(option, kinds.get(option), follows)
        words.append(option + equals + value)
    return words


def _spellings(config_type: type, kinds: Mapping[str, Any]) -> dict[str, str]:
    """Every way to write an option, to tyro's."""
    spelled = {_option(old): _option(new) for old, new in former_names(config_type).items()}
    for option in kinds:
        spelled["--" + option[2:].replace(".", "-")] = option
    spelled |= {option: option for option in kinds}
    switches = {old: new for old, new in spelled.items() if kinds.get(new) is bool}
    return spelled | {_negated(old): _negated(new) for old, new in switches.items()}


def _option(path: str) -> str:
    return f"--{path.replace('_', '-')}"


def _negated(option: str) -> str:
    head, dot, leaf = option[2:].rpartition(".")
    return f"--{head}{dot}no-{leaf}"


def _check_choice(option: str, kind: Any, follows: list[str]) -> None:
    if get_origin(kind) is Literal and follows:
        choices = [str(choice) for choice in get_args(kind)]
        if follows[0] not in choices:
            raise unknown_name(f"value of {option}", follows[0], choices)


def _value_of(args: Sequence[str], option: str) -> str | None:
    for place, word in enumerate(args):
        if word == option and place + 1 < len(args):
            return args[place + 1]
        if word.startswith(f"{option}="):
            return word.split("=", 1)[1]
    return None


def _first_message(panel: str) -> str:
    """The first paragraph in the box that tyro draws, in one line."""
    lines = [line.strip("│╭╮╰╯ ") for line in panel.splitlines()[1:]]
    paragraph = []
    for line in lines:
        if re.fullmatch("─*", line):
            break
        paragraph.append(line)
    return " ".join(paragraph) or "these options cannot be read"
