"""Plots for the documentation, written by hand: horizontal bars on a logarithmic scale."""

import math
from collections.abc import Mapping, Sequence
from html import escape

COLOURS = ("#2a6fb0", "#d98032", "#5a9a5a")
WIDTH = 860
LEFT = 330
RIGHT = 90
BAR = 11
GAP = 10
TOP = 58
FONT = 'font-family="sans-serif" font-size="11"'


def bars(title: str, labels: Sequence[str], series: Mapping[str, Sequence[float | None]]) -> str:
    """One group of bars for each label, one bar in it for each series."""
    values = [value for found in series.values() for value in found if value]
    low = math.floor(math.log10(min(values))) if values else 0
    high = max(math.ceil(math.log10(max(values))), low + 1) if values else 1
    group = BAR * len(series) + GAP
    height = TOP + group * len(labels) + 10
    scale = (WIDTH - LEFT - RIGHT) / (high - low)
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" {FONT}>',
        f'<rect width="{WIDTH}" height="{height}" fill="#fff"/>',
        f'<text x="10" y="18" font-size="14">{escape(title)}</text>',
        *_legend(series),
        *_grid(low, high, scale, height),
    ]
    for row, label in enumerate(labels):
        y = TOP + row * group
        middle = y + BAR * len(series) / 2 + 4
        out.append(f'<text x="{LEFT - 8}" y="{middle:.0f}" text-anchor="end">{escape(label)}</text>')
        for i, found in enumerate(series.values()):
            value = found[row]
            if not value:
                continue
            length = (math.log10(value) - low) * scale
            at = y + i * BAR
            out.append(
                f'<rect x="{LEFT}" y="{at}" width="{length:.1f}" height="{BAR - 1}" '
                f'fill="{COLOURS[i % len(COLOURS)]}"/>'
                f'<text x="{LEFT + length + 4:.1f}" y="{at + 9}" font-size="10">{_short(value)}</text>'
            )
    return "\n".join([*out, "</svg>"]) + "\n"


def _legend(series: Mapping[str, Sequence[float | None]]) -> list[str]:
    out = []
    for i, name in enumerate(series):
        x = LEFT + 110 * i
        out.append(f'<rect x="{x}" y="9" width="10" height="10" fill="{COLOURS[i % len(COLOURS)]}"/>')
        out.append(f'<text x="{x + 15}" y="18">{escape(name)}</text>')
    return out


def _grid(low: int, high: int, scale: float, height: int) -> list[str]:
    out = []
    for power in range(low, high + 1):
        x = LEFT + (power - low) * scale
        out.append(f'<line x1="{x:.1f}" y1="{TOP - 8}" x2="{x:.1f}" y2="{height - 8}" stroke="#ddd"/>')
        out.append(
            f'<text x="{x:.1f}" y="{TOP - 13}" text-anchor="middle" fill="#777">{_short(10.0**power)}</text>'
        )
    return out


def _short(value: float) -> str:
    for limit, unit in ((1e6, "M"), (1e3, "k")):
        if value >= limit:
            return f"{value / limit:.3g}{unit}"
    return f"{value:.3g}"
