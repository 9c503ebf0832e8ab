"""The pages of the report as Markdown, and their drawings."""

from __future__ import annotations

from collections.abc import Iterator

from benchmarks.report.charts import drawings
from benchmarks.report.claims import OUTCOMES, Claim, Paper, papers
from benchmarks.report.figures import read

HEAD = """# Reproduction report

What the five papers claim, what was run here, and what came out. Every figure is read from the JSON files in
`benchmarks/*/results`, which hold the machine, the versions and the command; `python -m benchmarks report` writes these
pages from them and from `benchmarks/*/claims.toml`. The page of a paper says what is missing where a claim is
reproduced in part or not. Figures with ± are mean and standard deviation over seeds, or the 95 %
interval where it is said.
"""
TABLE = "| claim | here | paper | difference | outcome |\n| --- | --- | --- | --- | --- |"


def written() -> dict[str, str]:
    """Every file by its path below docs/report."""
    held = papers()
    made = {"index.md": index(held)}
    for paper in held:
        made[f"{paper.dist}.md"] = page(paper)
        for claim in paper.claims:
            made |= {f"{paper.dist}/{name}": text for name, text in _drawn(claim)}
    return made


def index(held: list[Paper]) -> str:
    """The summary: how many of which outcome, then a row a claim."""
    counts = ["| paper | " + " | ".join(OUTCOMES) + " |", "| --- |" + " --- |" * len(OUTCOMES)]
    for paper in held:
        found = [one.outcome for one in paper.claims]
        numbers = " | ".join(str(found.count(outcome)) for outcome in OUTCOMES)
        counts.append(f"| [{paper.dist}]({paper.dist}.md) | {numbers} |")
    parts = [HEAD, "\n".join(counts), ""]
    for paper in held:
        parts += [f"## {paper.dist}\n", f"{paper.paper}\n", TABLE]
        parts += [_summary(paper, claim) for claim in paper.claims] + [""]
    names = "\n".join(paper.dist for paper in held)
    return "\n".join([*parts, f"```{{toctree}}\n:hidden:\n\n{names}\n```\n"])


def _summary(paper: Paper, claim: Claim) -> str:
    """A row: the first figure that has the paper's number beside it, else the first."""
    figures = sorted(claim.figures, key=lambda one: one.paper is None)
    link = f"[{_cell(claim.claim)}]({paper.dist}.md#{claim.anchor})"
    if not figures or claim.outcome == "not run":
        return f"| {link} | | | | {_outcome(claim)} |"
    first = figures[0]
    stated = "" if first.paper is None else f"{first.paper:g}"
    said = f"{_cell(first.label)}: {first.text} {first.unit}".strip()
    return f"| {link} | {said} | {stated} | {first.away} | {_outcome(claim)} |"


def page(paper: Paper) -> str:
    """A paper's page, a heading a claim."""
    parts = [f"# {paper.dist}: report\n", f"{paper.paper}\n", f"{paper.about}\n"]
    for section in dict.fromkeys(claim.section for claim in paper.claims):
        parts.append(f"## {section}\n")
        parts += [_told(claim) for claim in paper.claims if claim.section == section]
    return "\n".join(parts)


def _told(claim: Claim) -> str:
    parts = [f"### {claim.claim}\n"]
    head = f"**{_outcome(claim).capitalize()}.** {claim.filled(claim.note)}".strip()
    parts.append(f"{head}\n")
    told = {"The paper": claim.says, "Run": claim.filled(claim.run), "Cost": claim.filled(claim.cost)}
    parts += [f"*{name}:* {text}\n" for name, text in told.items() if text]
    if claim.figures:
        parts.append(_table(claim))
    parts += [f"![{claim.claim}]({claim.package.replace('_', '-')}/{name})\n" for name, _ in _drawn(claim)]
    return "\n".join([*parts, _source(claim)])


def _table(claim: Claim) -> str:
    head = ["", "here", "unit"]
    has_paper, has_aim = (any(getattr(one, name) is not None for one in claim.figures) for name in ("paper", "aim"))
    head += ["paper", "difference"] * has_paper + ["aim"] * has_aim
    rows = ["| " + " | ".join(head) + " |", "| --- |" + " --- |" * (len(head) - 1)]
    for one in claim.figures:
        cells = [_cell(one.label), one.text + " (95 %)" * (one.interval and one.spread is not None), one.unit]
        cells += ["" if one.paper is None else f"{one.paper:g}", one.away] * has_paper
        cells += ["" if one.aim is None else f"{one.aim:g}"] * has_aim
        rows.append("| " + " | ".join(cells) + " |")
    return "\n".join([*rows, ""])


def _drawn(claim: Claim) -> Iterator[tuple[str, str]]:
    """Name and text of each drawing."""
    for place, text in enumerate(drawings(claim)):
        yield f"{claim.slug}{f'-{place + 1}' if place else ''}.svg", text


def _source(claim: Claim) -> str:
    lines = [
        f"- `benchmarks/{claim.package}/results/{name}.json`: `{read(claim.package, name)['command']}`"
        for name in claim.files
    ]
    lines += [f"- `{test}`" for test in claim.tests]
    return "\n".join([*lines, ""]) if lines else ""


def _outcome(claim: Claim) -> str:
    return {"in part": "reproduced in part"}.get(claim.outcome, claim.outcome)


def _cell(text: str) -> str:
    return text.replace("|", "\\|")
