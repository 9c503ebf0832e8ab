"""Count what the built site documents: public names, verbs and their options; the status is 1 where one lacks.

`make docs` runs it. The wanted names come from the stubs and the parsers, the found ones from the index that the site
publishes, `site/objects.inv`.
"""

from __future__ import annotations

import pathlib
import sys

from sphinx.util.inventory import InventoryFile

KINDS = ("std:label", "std:cmdoption")
ROOT = pathlib.Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "docs" / "_ext"))


def wanted() -> dict[str, set[str]]:
    """What must be documented: kind to names."""
    import inventory

    names = {
        f"{library}.{name}"
        for library in inventory.LIBRARIES
        for room in inventory.public_names(library).values()
        for name in room
    }
    verbs = [verb for package in inventory.PACKAGES for verb in inventory.verbs(package)]
    options = {
        f"{verb.program.replace(' ', '-')}.{option.flag}" for verb in verbs for option in inventory.options(verb.config)
    }
    labels = {"cli-" + verb.program.replace(" ", "-") for verb in verbs}
    return {"public names": names, "verbs": labels, "options": options}


def found(index: pathlib.Path) -> set[str]:
    """Every name in the index of a built site."""
    held = InventoryFile.loads(index.read_bytes(), uri="").data
    return {name for kind in held if kind.startswith("py:") or kind in KINDS for name in held[kind]}


def missing(index: pathlib.Path) -> dict[str, list[str]]:
    """Kind to the names that the site lacks."""
    held = found(index)
    return {kind: sorted(names - held) for kind, names in wanted().items()}


def main() -> int:
    """Print the counts and what lacks."""
    lacks = missing(ROOT / "site" / "objects.inv")
    for kind, names in wanted().items():
        print(f"{kind}: {len(names) - len(lacks[kind])} of {len(names)} documented")
    for kind, names in lacks.items():
        if names:
            print(f"no entry for these {kind}: {', '.join(names)}", file=sys.stderr)
    return 1 if any(lacks.values()) else 0


if __name__ == "__main__":
    sys.exit(main())
