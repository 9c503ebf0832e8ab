"""What there is to document, read from the packages themselves: public names, verbs, options."""

from __future__ import annotations

import ast
import dataclasses
import functools
import importlib
import inspect
import itertools
import pathlib
import textwrap
from collections.abc import Iterator
from typing import Any

from robustvision_core.config import former_names, leaf_types

ROOT = pathlib.Path(__file__).resolve().parents[2]
PACKAGES = ["fdiv_noisy", "diffpnp_pose", "pseudolabel_da", "flowaug", "rml_meta"]
CORE = ROOT / "packages" / "robustvision-core" / "src"
LIBRARIES = [*PACKAGES, *(".".join(p.parent.relative_to(CORE).parts) for p in sorted(CORE.glob("*/*/__init__.pyi")))]


def source(module: str) -> pathlib.Path:
    """The folder of a package or room."""
    root, *rooms = module.split(".")
    return ROOT / "packages" / root.replace("_", "-") / "src" / root / pathlib.Path(*rooms)


def public_names(library: str) -> dict[str, list[str]]:
    """Room (dotted, below the library) to the public names that it gives, as the stub lists them."""
    stub = ast.parse((source(library) / "__init__.pyi").read_text(encoding="utf-8"))
    rooms: dict[str, list[str]] = {}
    for node in stub.body:
        if isinstance(node, ast.ImportFrom):
            rooms.setdefault(node.module or "", []).extend(alias.asname or alias.name for alias in node.names)
    return rooms


def summary(module: str) -> str:
    """The first line of a module's docstring, without its full stop."""
    folder = source(module)
    path = folder / "__init__.py" if folder.is_dir() else folder.with_suffix(".py")
    text = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
    return " ".join(text.split("\n\n")[0].split()).rstrip(".")


def text_of(library: str, room: str, name: str) -> str:
    """The docstring of a public name; that of a value is the string that follows it in its file."""
    value = getattr(importlib.import_module(library), name)
    if inspect.isclass(value) or inspect.isfunction(value):
        return inspect.getdoc(value) or ""
    path = source(f"{library}.{room}").with_suffix(".py")
    body = ast.parse(path.read_text(encoding="utf-8")).body
    for node, said in itertools.pairwise(body):
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if any(isinstance(target, ast.Name) and target.id == name for target in targets) and _is_text(said):
            return inspect.cleandoc(said.value.value)  # type: ignore[attr-defined]
    return ""


@dataclasses.dataclass(frozen=True)
class Verb:
    """One verb of a command."""

    package: str
    name: str
    help: str
    config: type

    @property
    def program(self) -> str:
        """What is typed, as in `fdiv-noisy noise make`."""
        return f"{self.package.replace('_', '-')} {self.name}"


def verbs(package: str) -> Iterator[Verb]:
    """The verbs in the order of the package's table."""
    room = f"{package}.cli"
    for name, (text, _, target) in importlib.import_module(room).COMMANDS.items():
        module, _, config = target.partition(":")
        yield Verb(package, name, text, getattr(importlib.import_module(module, room), config))


@dataclasses.dataclass(frozen=True)
class Option:
    """One option of a verb."""

    path: str  # dotted, as in `inner.steps`
    kind: Any
    text: str
    default: Any  # MISSING where it must be given
    presets: dict[str, Any]  # the presets with another default
    former: list[str]

    @property
    def flag(self) -> str:
        """As it is typed."""
        return "--" + self.path.replace("_", "-")

    @property
    def group(self) -> str:
        """The dotted path of its group; empty at the top."""
        return self.path.rpartition(".")[0]


def options(config: type) -> list[Option]:
    """Every option of a configuration, groups included."""
    presets = getattr(config, "PRESETS", {})
    texts, defaults = _texts(config), dict(_defaults(config))
    if presets:
        defaults |= dict(_values(next(iter(presets.values()))))
    former: dict[str, list[str]] = {}
    for old, new in former_names(config).items():
        former.setdefault(new, []).append(old)
    found = []
    for path, kind in leaf_types(config).items():
        others = {name: value for name, one in presets.items() if (value := dict(_values(one))[path]) != defaults[path]}
        found.append(Option(path, kind, texts.get(path, ""), defaults[path], others, former.get(path, [])))
    return found


def groups(config: type) -> dict[str, str]:
    """Dotted path of each group to what its docstring says; the top is the empty path."""
    found = {"": inspect.cleandoc(config.__doc__ or "")}
    for name, kind in _nested(config):
        said = _own_texts(config).get(name, "") or inspect.cleandoc(kind.__doc__ or "")
        inner = groups(kind)
        found |= {name: said} | {f"{name}.{path}": text for path, text in inner.items() if path}
    return found


def _nested(config: type) -> Iterator[tuple[str, type]]:
    hints = _hints(config)
    for field in dataclasses.fields(config):
        if dataclasses.is_dataclass(hints[field.name]):
            yield field.name, hints[field.name]


@functools.cache
def _hints(config: type) -> dict[str, Any]:
    import typing

    return typing.get_type_hints(config)


def _texts(config: type) -> dict[str, str]:
    texts = _own_texts(config)
    for name, kind in _nested(config):
        texts |= {f"{name}.{path}": text for path, text in _texts(kind).items()}
    return texts


@functools.cache
def _own_texts(config: type) -> dict[str, str]:
    """Field to the string that follows it in the class or in a class that it derives from."""
    texts: dict[str, str] = {}
    for of in reversed(config.__mro__):
        if not dataclasses.is_dataclass(of):
            continue
        body = ast.parse(textwrap.dedent(inspect.getsource(of))).body[0]
        assert isinstance(body, ast.ClassDef)
        for field, said in itertools.pairwise(body.body):
            if isinstance(field, ast.AnnAssign) and isinstance(field.target, ast.Name) and _is_text(said):
                texts[field.target.id] = inspect.cleandoc(said.value.value)  # type: ignore[attr-defined]
    return texts


def _is_text(node: ast.stmt) -> bool:
    return isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str)


def _defaults(config: type, prefix: str = "") -> Iterator[tuple[str, Any]]:
    nested = dict(_nested(config))
    for field in dataclasses.fields(config):
        default = field.default
        if field.default_factory is not dataclasses.MISSING:
            default = field.default_factory()
        if field.name in nested:
            if default is dataclasses.MISSING:
                yield from _defaults(nested[field.name], f"{prefix}{field.name}.")
            else:
                yield from _values(default, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", default


def _values(instance: Any, prefix: str = "") -> Iterator[tuple[str, Any]]:
    for field in dataclasses.fields(instance):
        value = getattr(instance, field.name)
        if dataclasses.is_dataclass(value):
            yield from _values(value, f"{prefix}{field.name}.")
        else:
            yield f"{prefix}{field.name}", value
