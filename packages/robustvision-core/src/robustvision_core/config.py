"""Configurations: frozen dataclasses, nested ones included, and their JSON.

The same checks hold whether a configuration comes from the command line or from a file: the types of the fields, and
what the dataclass itself refuses.
"""

from __future__ import annotations

import dataclasses
import functools
import json
import operator
import pathlib
import types
import typing
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Literal, TypeVar, Union

from robustvision_core.errors import CheckpointError, UserError, unknown_name

C = TypeVar("C")

# fields that say where and how a run runs, not what it computes: a resumed run may change them
RUN_FIELDS = frozenset(
    {"preset", "out", "resume", "device", "devices", "data_root", "download", "progress", "tensorboard"}
)


@functools.cache
def leaf_types(config_type: type) -> dict[str, Any]:
    """Dotted name to type of every field of a dataclass, through the dataclasses nested in it."""
    hints = typing.get_type_hints(config_type)
    leaves: dict[str, Any] = {}
    for field in dataclasses.fields(config_type):
        kind = hints[field.name]
        if dataclasses.is_dataclass(kind):
            leaves |= {f"{field.name}.{path}": of for path, of in leaf_types(typing.cast(type, kind)).items()}
        elif field.init:
            leaves[field.name] = kind
    return leaves


def former_names(config_type: type) -> dict[str, str]:
    """Former name to dotted name of the fields that were renamed: `ALIASES` of the dataclass."""
    return dict(getattr(config_type, "ALIASES", {}))


def plain(config: Any) -> dict[str, Any]:
    """A configuration as JSON would give it back: dataclasses become dicts, tuples lists, paths strings."""
    value = dataclasses.asdict(config) if dataclasses.is_dataclass(config) and not isinstance(config, type) else config
    return json.loads(json.dumps(value, default=str))


def from_plain(config_type: type[C], held: Mapping[str, Any], where: str, program: str) -> C:
    """The configuration that `plain` made, or an earlier version of the program.

    Args:
        config_type: The dataclass. Fields that `held` lacks take their defaults.
        held: What a file holds; former names of fields are understood.
        where: The file, for messages.
        program: What writes such files, for messages.

    Raises:
        UserError: `held` has fields that the dataclass has not, or the dataclass refuses a value.
        CheckpointError: A value is of another type than its field, or out of its range.
    """
    types = leaf_types(config_type)
    values = under_todays_names(config_type, held)
    if unknown := sorted(values.keys() - types.keys()):
        raise UserError(f"{where} is not of {program}: it has {', '.join(unknown)}")
    values = {name: _tuples(value) for name, value in values.items()}
    for name, value in values.items():
        if not fits(value, types[name]):
            raise CheckpointError(
                f"{where} is not of {program}: {name} is {value!r}, which is no {describe(types[name])}"
            )
    try:
        return _build(config_type, values)
    except UserError as error:
        raise type(error)(f"{where}: {error}") from error
    except (TypeError, ValueError, OverflowError) as error:
        raise CheckpointError(f"{where} is not of {program}: {error}") from error


def changed(config: C, **options: Any) -> C:
    """A configuration with other values, by the names of options: `inner_steps` is the field `inner.steps`.

    Raises:
        UserError: There is no such option, or a dataclass refuses its value.
    """
    types = leaf_types(type(config))
    values = under_todays_names(type(config), options)
    for name in values:
        if name not in types:
            raise unknown_name("option", name, types)
    return _build(type(config), values, default=config)


def under_todays_names(config_type: type, held: Mapping[str, Any]) -> dict[str, Any]:
    """The values of a plain configuration by the dotted names of today's fields, former names understood.

    A flat former name stands for the nested one that is spelled alike.
    """
    types = leaf_types(config_type)
    today = {path.replace(".", "_"): path for path in types} | former_names(config_type)
    return {name if name in types else today.get(name, name): value for name, value in flatten(held)}


def check_types(config: Any) -> None:
    """Raise UserError where a field of a dataclass instance holds what `from_plain` would refuse in a file."""
    for name, kind in leaf_types(type(config)).items():
        value = operator.attrgetter(name)(config)
        if not fits(value, kind):
            raise UserError(f"--{name.replace('_', '-')} is {value!r}, which is no {describe(kind)}")


def parse_json(text: str | bytes, where: str, error: type[UserError] = CheckpointError) -> Any:
    """The value of a JSON text.

    Args:
        text: The text.
        where: The file, for messages.
        error: What to raise.

    Raises:
        UserError: Of the type `error`: the text is no JSON, or nested deeper than a program writes it.
    """
    try:
        return json.loads(text)
    except RecursionError:
        raise error(f"{where} is no JSON of ours: it is nested too deeply") from None
    except ValueError as cause:
        raise error(f"{where} is no JSON: {cause}; it was cut short or changed") from cause


def read_object(path: pathlib.Path, error: type[UserError] = CheckpointError) -> dict[str, Any]:
    """The JSON object in a file.

    Raises:
        UserError: Of the type `error`: it holds something else; see `parse_json`.
    """
    held = parse_json(path.read_bytes(), str(path), error)
    if not isinstance(held, dict):
        raise error(f"{path} holds a {type(held).__name__}, expected an object")
    return held


def check_same_config(
    held: Mapping[str, Any], asked: Mapping[str, Any], where: str, free: Iterable[str] = RUN_FIELDS
) -> None:
    """Raise CheckpointError naming every field in which two configurations differ, but for the `free` ones.

    A field counts as free by its dotted name, or by that of a group around it.
    """
    free = set(free)
    held, asked = dict(flatten(held)), dict(flatten(asked))
    differing = [
        f"{name} is {held.get(name)!r} there and {asked.get(name)!r} here"
        for name in sorted(held.keys() | asked.keys())
        if not free & {name, name.split(".")[0]} and held.get(name) != asked.get(name)
    ]
    if differing:
        raise CheckpointError(f"{where} is of another configuration: {'; '.join(differing)}")


def flatten(config: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """(dotted name, value) of every entry of nested mappings."""
    for name, value in config.items():
        if isinstance(value, Mapping):
            yield from flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def fits(value: Any, kind: Any) -> bool:
    """Whether a value may stand in a field of type `kind`; a whole number, of up to 64 bits, may where a float may."""
    origin, args = typing.get_origin(kind), typing.get_args(kind)
    if kind is Any:
        return True
    if origin is Literal:
        return any(value == choice and type(value) is type(choice) for choice in args)
    if origin in (Union, types.UnionType):
        return any(fits(value, one) for one in args)
    if origin is tuple:
        return isinstance(value, tuple) and _items_fit(value, args)
    if kind is float and isinstance(value, float):
        return True
    if kind in (float, int):
        return isinstance(value, int) and not isinstance(value, bool) and -(2**63) <= value < 2**64
    return isinstance(value, origin or kind)


def describe(kind: Any) -> str:
    """A type as a person would write it."""
    if typing.get_origin(kind) is Literal:
        return "one of " + ", ".join(map(str, typing.get_args(kind)))
    return {int: "whole number of 64 bits", float: "number", str: "text", bool: "true or false"}.get(kind, str(kind))


def _items_fit(value: tuple[Any, ...], args: tuple[Any, ...]) -> bool:
    if len(args) == 2 and args[1] is Ellipsis:
        return all(fits(item, args[0]) for item in value)
    return len(value) == len(args) and all(map(fits, value, args))


def _build(config_type: type[C], values: Mapping[str, Any], prefix: str = "", default: Any = None) -> C:
    """The dataclass with `values`, by dotted name, in place of its defaults or those of the instance `default`."""
    hints = typing.get_type_hints(config_type)
    arguments = {} if default is None else {f.name: getattr(default, f.name) for f in dataclasses.fields(default)}
    for field in dataclasses.fields(config_type):  # type: ignore[arg-type]  # a dataclass
        name, kind = f"{prefix}{field.name}", hints[field.name]
        if dataclasses.is_dataclass(kind):
            own = arguments.get(field.name, field.default)
            own = None if own is dataclasses.MISSING else own
            arguments[field.name] = _build(typing.cast(type, kind), values, f"{name}.", own)
        elif name in values:
            arguments[field.name] = values[name]
    return config_type(**arguments)


def _tuples(value: Any) -> Any:
    return tuple(_tuples(item) for item in value) if isinstance(value, list) else value
