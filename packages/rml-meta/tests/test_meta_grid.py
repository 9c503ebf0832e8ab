"""The paper's two tables: cells, resuming, and what is printed."""

from __future__ import annotations

import json
import pathlib

import pytest
from rml_meta.cli import main
from rml_meta.cli.grid import SMALLEST, cells, markdown
from rml_meta.cli.options import GridConfig
from rml_meta.cli.reported import PROTOCOLS, REPORTED


def test_grid_keeps_finished_cells(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "grid"
    arguments = ["grid", "--data", "glyphs", "--methods", "protonet", "maml", "--shots", "1", "--episodes", "4"]
    arguments += ["--epochs", "1", "--steps", "1", "--out", str(out), "--device", "cpu"]
    assert main([*arguments, "--dry-run", "True"]) == 0
    assert capsys.readouterr().out.count("to do  glyphs-1shot-") == 2
    assert not out.exists()
    assert main(arguments) == 0
    table = capsys.readouterr().out
    assert "| method | glyphs 1-shot | glyphs 1-shot, reported |" in table
    rows = json.loads((out / "table.json").read_text())
    assert [row["method"] for row in rows] == ["protonet", "maml"]
    summary = out / "glyphs-1shot-maml-seed0" / "summary.json"
    assert rows[1]["accuracy"] == pytest.approx(100 * json.loads(summary.read_text())["novel"]["accuracy"], abs=0.01)
    before = summary.stat().st_mtime_ns
    assert main([*arguments, "--dry-run", "True"]) == 0
    assert capsys.readouterr().out.count("done   glyphs-1shot-") == 2
    assert main(arguments) == 0
    assert summary.stat().st_mtime_ns == before


def test_a_failed_cell_does_not_end_the_grid(tmp_path: pathlib.Path, capsys: pytest.CaptureFixture[str]) -> None:
    out = tmp_path / "grid"
    # glyphs have twenty images a class: too few for two environments of 1 + 5 only where rml asks for more
    arguments = ["grid", "--data", "glyphs", "--methods", "rml", "protonet", "--shots", "6", "--episodes", "4"]
    arguments += ["--epochs", "1", "--steps", "1", "--out", str(out), "--device", "cpu"]
    assert main(arguments) == 2
    printed = capsys.readouterr()
    assert "1 of 2 cells failed. glyphs-6shot-rml-seed0: " in printed.err
    assert "cell 2 of 2: glyphs-6shot-protonet-seed0" in printed.err
    assert [row["method"] for row in json.loads((out / "table.json").read_text())] == ["protonet"]
    assert "| protonet |" in printed.out


def test_grid_fits_queries_to_the_smallest_class() -> None:
    for cell in cells(GridConfig()):
        base = PROTOCOLS[cell.protocol][0]
        environments = 2 if cell.method == "rml" else 1
        assert 1 <= cell.config.queries <= 16
        assert environments * (cell.shots + cell.config.queries) <= SMALLEST[base]
        assert cell.config.inner.steps == (5 if cell.method == "maml" else 1)


def test_grid_is_the_papers_two_tables() -> None:
    whole = cells(GridConfig())
    assert len(whole) == 9 * 6 * 2
    assert len({cell.name for cell in whole}) == len(whole)
    assert all(cell.reported is not None for cell in whole)
    cross = next(c for c in whole if (c.protocol, c.shots, c.method) == ("mini-cub", 5, "rml"))
    assert (cross.config.data, cross.config.target) == (GridConfig().mini, GridConfig().cub)
    assert cross.reported == 56.78
    # of the printed bold rows: RML leads every column
    for column in REPORTED.values():
        assert max(column, key=lambda method: column[method]) == "rml"
    row = {"protocol": "mini", "shots": 1, "method": "rml", "accuracy": 50.0, "interval": 0.5, "reported": 48.55}
    assert "| rml | 50.00 ± 0.50 | 48.55 |" in markdown([row])
    assert set(PROTOCOLS) == {protocol for protocol, _ in REPORTED}


@pytest.mark.parametrize("arguments", [["--methods", "mml"], ["--protocols", "mni"], ["--preset", "papr"]])
def test_grid_refuses_unknown_names(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["grid", *arguments, "--dry-run", "True"]) == 2
    assert "did you mean" in capsys.readouterr().err
