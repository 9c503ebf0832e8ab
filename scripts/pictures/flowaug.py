"""How far each of five digits may be rotated, as a flow has learned it."""

from __future__ import annotations

import math
import pathlib
import statistics

from robustvision_core.data import load

from benchmarks.drawing import Drawing
from scripts.pictures import sheet as page

DIGITS = "01569"
SIDE, RADIUS, CENTRE = 152, 66, 112


def write(folder: pathlib.Path = page.FOLDER) -> None:
    """Draw the measured shares of rotations, a circle a digit."""
    data = load("digits", "train")
    means = {name: data.images[data.labels == int(name), 0].float().mean(0) for name in DIGITS}
    shapes = {name: mean / mean.max() for name, mean in means.items()}
    cells = [cell for cell in page.results("flowaug", "selective")["cells"] if cell["side"] == 14]

    def draw(sheet: Drawing) -> None:
        sheet.text((0, 22), "rotations of MNIST digits, learned with the classifier", 13, colour=sheet.palette.faint)
        for place, name in enumerate(DIGITS):
            x = SIDE * place + SIDE / 2
            shares = [statistics.mean(bins) for bins in zip(*(cell["shares"][name] for cell in cells), strict=True)]
            polar(sheet, x, shares, sheet.palette.series[1 if name in "69" else 0])
            sheet.pixels((x - 16, CENTRE - 16), 32, page.inked(shapes[name], sheet.palette))
            width = statistics.mean(cell["widths"][name] for cell in cells)
            sheet.text((x, 206), f"\u00b1{width:.0f}\u00b0", 15, "middle", bold=True)

    page.write("flowaug", "Rotations that a flow has learned for the digits 0, 1, 5, 6 and 9", draw, folder)


def polar(sheet: Drawing, x: float, shares: list[float], colour: str) -> None:
    """Share of each direction as the radius; no rotation points upwards."""
    for radius in (RADIUS, RADIUS * 0.4):
        circle = f"M{x - radius:.1f} {CENTRE}a{radius:.1f} {radius:.1f} 0 1 0 {2 * radius:.1f} 0"
        sheet.path(
            f"{circle}a{radius:.1f} {radius:.1f} 0 1 0 {-2 * radius:.1f} 0", stroke=sheet.palette.faint, width=0.6
        )
    most, count, points = max(shares), len(shares), []
    for place in range(count):
        radius = RADIUS * (0.4 + 0.6 * math.sqrt(shares[place] / most))
        for edge in (place, place + 1):
            angle = 2 * math.pi * edge / count + math.pi  # the first share is that of minus 180 degrees
            points.append((x + radius * math.sin(angle), CENTRE - radius * math.cos(angle)))
    inner = [
        (x + RADIUS * 0.4 * math.sin(2 * math.pi * k / 72), CENTRE - RADIUS * 0.4 * math.cos(2 * math.pi * k / 72))
        for k in range(72)
    ]
    ring = "".join("M" + "L".join(f"{a:.1f} {b:.1f}" for a, b in part) + "Z" for part in (points, inner))
    sheet.path(ring, fill=colour, more=' fill-rule="evenodd" fill-opacity="0.85"')


if __name__ == "__main__":
    page.main(write)
