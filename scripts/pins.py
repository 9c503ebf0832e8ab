"""Rewrite the pins in the root pyproject.toml: the full closure of every package, extra and group, markers kept."""

from __future__ import annotations

import os
import pathlib
import re
import subprocess

ROOT = pathlib.Path(__file__).resolve().parent.parent
EXPORT = "export --all-packages --all-extras --all-groups --no-emit-workspace --no-hashes --no-annotate --no-header"
BLOCK = re.compile(r"constraint-dependencies = \[.*?^\]", re.DOTALL | re.MULTILINE)


def main() -> None:
    """Resolve without the old pins, then write the new ones."""
    manifest = ROOT / "pyproject.toml"
    text = BLOCK.sub("constraint-dependencies = [\n]", manifest.read_text(encoding="utf-8"))
    manifest.write_text(text, encoding="utf-8")
    (ROOT / "uv.lock").unlink(missing_ok=True)
    command = [os.environ.get("UV", "uv"), *EXPORT.split(), "--quiet"]
    closure = subprocess.run(command, cwd=ROOT, check=True, capture_output=True, text=True).stdout.splitlines()
    pins = "".join(f'    "{line.strip()}",\n' for line in closure if "==" in line)
    text = BLOCK.sub(lambda _: f"constraint-dependencies = [\n{pins}]", text)
    manifest.write_text(text, encoding="utf-8")
    print(f"{pins.count('==')} pins written to {manifest.name}")


if __name__ == "__main__":
    main()
