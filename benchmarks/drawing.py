"""Small drawings as SVG text: the same input gives the same bytes, and nothing but Python is needed."""

from __future__ import annotations

import html
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

FONT = "system-ui, -apple-system, 'Segoe UI', Helvetica, Arial, sans-serif"
Point = tuple[float, float]


@dataclass(frozen=True)
class Palette:
    """Colours that stand out on one ground; those of series hold for readers who cannot tell red from green."""

    ground: str
    ink: str
    faint: str
    series: tuple[str, ...]
    wrong: str

    @property
    def main(self) -> str:
        """What a drawing is about."""
        return self.series[0]


LIGHT = Palette(
    "#ffffff", "#1f2328", "#6e7781", ("#0a5ec2", "#b3530a", "#7a3e9d", "#1a7340", "#8a6d00", "#5c6670"), "#c0262d"
)
DARK = Palette(
    "#14181e", "#e6edf3", "#9da7b3", ("#6cb2ff", "#f0a35e", "#c99bea", "#5fc98a", "#e0c04c", "#a9b4c0"), "#ff7b72"
)
PALETTES = {"": LIGHT, "-dark": DARK}
"""By what follows the name of a file."""


@dataclass
class Drawing:
    """A sheet of `width` by `height` units; y grows downwards.

    Args:
        title: What is seen, for readers who do not see it.
        ground: Whether the sheet has the palette's ground; without, it is clear.
    """

    width: float
    height: float
    title: str
    palette: Palette = LIGHT
    ground: bool = False
    parts: list[str] = field(default_factory=list)

    def text(
        self, at: Point, said: str, size: float = 13, anchor: str = "start", colour: str = "", bold: bool = False
    ) -> None:
        """Words whose base line is at a point."""
        weight = ' font-weight="600"' if bold else ""
        place = f'x="{number(at[0])}" y="{number(at[1])}"'
        look = f'font-size="{number(size)}" text-anchor="{anchor}" fill="{colour or self.palette.ink}"'
        self.parts.append(f"<text {place} {look}{weight}>{html.escape(said, quote=False)}</text>")

    def path(self, commands: str, fill: str = "none", stroke: str = "none", width: float = 1.0, more: str = "") -> None:
        """Any path."""
        line = f' stroke="{stroke}" stroke-width="{number(width)}"' if stroke != "none" else ""
        self.parts.append(f'<path d="{commands}" fill="{fill}"{line}{more}/>')

    def line(self, points: Sequence[Point], colour: str = "", width: float = 1.0, dashes: str = "") -> None:
        """Straight from point to point."""
        more = f' stroke-dasharray="{dashes}"' if dashes else ""
        self.path(_through(points), stroke=colour or self.palette.faint, width=width, more=more)

    def area(self, points: Sequence[Point], fill: str, stroke: str = "none", opacity: float = 1.0) -> None:
        """What lies between points."""
        more = f' fill-opacity="{number(opacity)}"' if opacity < 1 else ""
        self.path(f"{_through(points)}Z", fill, stroke, more=more)

    def box(self, at: Point, width: float, height: float, fill: str, radius: float = 0, stroke: str = "none") -> None:
        """A rectangle by its upper left corner."""
        size = f'width="{number(width)}" height="{number(height)}"'
        corner = f' rx="{number(radius)}"' if radius else ""
        line = f' stroke="{stroke}"' if stroke != "none" else ""
        self.parts.append(f'<rect x="{number(at[0])}" y="{number(at[1])}" {size}{corner} fill="{fill}"{line}/>')

    def dot(self, at: Point, radius: float, fill: str, stroke: str = "none") -> None:
        """A disc."""
        line = f' stroke="{stroke}"' if stroke != "none" else ""
        self.parts.append(
            f'<circle cx="{number(at[0])}" cy="{number(at[1])}" r="{number(radius)}" fill="{fill}"{line}/>'
        )

    def pixels(self, at: Point, side: float, colours: Sequence[Sequence[str]]) -> None:
        """An image as rows of colours; an empty colour is clear. Pixels of one colour are one path."""
        runs: dict[str, list[str]] = {}
        for row, line in enumerate(colours):
            start = 0
            for end in range(1, len(line) + 1):
                if end < len(line) and line[end] == line[start]:
                    continue
                if line[start]:
                    runs.setdefault(line[start], []).append(f"M{start} {row}h{end - start}v1H{start}z")
                start = end
        scale = number(side / len(colours[0]))
        move = f'transform="translate({number(at[0])} {number(at[1])}) scale({scale})" shape-rendering="crispEdges"'
        found = "".join(f'<path d="{"".join(part)}" fill="{colour}"/>' for colour, part in runs.items())
        self.parts.append(f"<g {move}>{found}</g>")

    def svg(self) -> str:
        """The file's text."""
        size = f"{number(self.width)} {number(self.height)}"
        head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {size}" width="{number(self.width)}"'
        ground = f'<rect width="100%" height="100%" rx="6" fill="{self.palette.ground}"/>' if self.ground else ""
        name = f'role="img" font-family="{FONT}"><title>{html.escape(self.title, quote=False)}</title>'
        return "\n".join([f'{head} height="{number(self.height)}" {name}{ground}', *self.parts, "</svg>\n"])


@dataclass(frozen=True)
class Scale:
    """From values to places on the sheet."""

    values: Point
    places: Point

    def __call__(self, value: float) -> float:
        """The place of a value."""
        (low, high), (first, last) = self.values, self.places
        return first + (value - low) / (high - low) * (last - first)


def ticks(low: float, high: float, most: int = 5) -> list[float]:
    """Round values between two, `most` at the most."""
    step = 10.0**-9
    while True:
        for factor in (1, 2, 5):
            first, last = -(-low // (step * factor)), high // (step * factor)
            if last - first + 1 <= most:
                return [round(step * factor * k, 10) for k in range(int(first), int(last) + 1)]
        step *= 10


def number(value: float) -> str:
    """As short as a tenth of a unit allows."""
    return f"{value:.1f}".removesuffix(".0") if abs(value) >= 0.05 else ("0" if abs(value) < 0.0005 else f"{value:.3f}")


def grey(value: float, palette: Palette) -> str:
    """Ink of a strength in [0, 1], in eight steps; no ink is clear."""
    step = round(min(max(value, 0.0), 1.0) * 7)
    return mixed(palette.ground, palette.ink, step / 7) if step else ""


def mixed(first: str, second: str, share: float) -> str:
    """A colour between two."""
    pairs = zip(_rgb(first), _rgb(second), strict=True)
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in pairs)


def colour(rgb: Iterable[float]) -> str:
    """From red, green and blue in [0, 1], in eight steps each."""
    return "#" + "".join(f"{round(round(min(max(value, 0.0), 1.0) * 7) / 7 * 255):02x}" for value in rgb)


def _rgb(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)


def _through(points: Sequence[Point]) -> str:
    return "M" + "L".join(f"{number(x)} {number(y)}" for x, y in points)
