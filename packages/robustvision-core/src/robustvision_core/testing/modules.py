"""Modules by their file, as scripts and test files that are in no package."""

from __future__ import annotations

import importlib.util
import pathlib
import sys
from types import ModuleType


def load_module(path: str | pathlib.Path, name: str = "") -> ModuleType:
    """The module in a file, run anew and known as `name`, by default that of the file.

    What stands in other files of its folder can be imported by it.
    """
    path = pathlib.Path(path)
    name = name or path.stem
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ImportError(f"{path} is no module")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # dataclasses look their module up by name
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec.loader.exec_module(module)
    return module
