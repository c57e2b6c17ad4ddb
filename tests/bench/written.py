"""The tables and the plot of docs/performance.md, from the JSON of a run. `python -m tests.bench --write FILE`.

Only what stands between the markers is written; the words around it are people's.
"""

from __future__ import annotations

import math
from html import escape
from pathlib import Path
from typing import Any, Final

from tests.bench.figures import told

ROOT: Final = Path(__file__).resolve().parents[2]
DOCUMENT: Final = ROOT / "docs" / "performance.md"
PLOT: Final = ROOT / "docs" / "diagrams" / "performance.svg"
NAMES: Final = ("machine", "targets", "figures")
MACHINE: Final = ("cpu", "cores", "memory_gib", "system", "python", "sqlite", "commit", "load_before")


def write(found: dict[str, Any], document: Path = DOCUMENT, plot: Path = PLOT) -> None:
    """Replaces the tables and the plot: what stands there afterwards is of one run, on one machine."""
    text = document.read_text()
    for name in NAMES:
        text = _between(text, name, globals()[f"_{name}"](found))
    document.write_text(text)
    plot.write_text(svg(found))


def _between(text: str, name: str, new: str) -> str:
    """Raises ValueError when the markers are not there."""
    begin, end = f"<!-- {name} -->", f"<!-- /{name} -->"
    before, found, rest = text.partition(begin)
    _, closed, after = rest.partition(end)
    if not (found and closed):
        raise ValueError(f"{begin} … {end} are not in it")
    return f"{before}{begin}\n\n{new}\n\n{end}{after}"


def _machine(found: dict[str, Any]) -> str:
    facts = ", ".join(f"{name.replace('_', ' ')} {found['machine'][name]}" for name in MACHINE)
    kind = "a quick look, not to be quoted" if found["quick"] else f"{found['runs']} runs of each"
    return f"Measured {found['at']}, {kind}: {facts}."


def _targets(found: dict[str, Any]) -> str:
    lines = ["| | work | target | measured | |", "|---|---|---|---|---|"]
    for b in found["benchmarks"]:
        for t in b["targets"]:
            met = "met" if t["met"] else "**missed**"
            lines.append(f"| {b['name']} | {b['work']} | {t['says']} | {told(t['value'])} | {met} |")
    return "\n".join(lines)


def _figures(found: dict[str, Any]) -> str:
    lines = ["| | figure | median | min … max |", "|---|---|---|---|"]
    for b in found["benchmarks"]:
        for name, f in b["figures"].items():
            lines.append(f"| {b['name']} | {name} | {told(f['median'])} | {told(f['min'])} … {told(f['max'])} |")
    grows = [f"- **{b['name']}** grows {b['grows']}." for b in found["benchmarks"] if b["grows"]]
    return "\n".join([*lines, "", *grows])


def svg(found: dict[str, Any]) -> str:
    """A bar for each target, on a logarithmic scale: right of the line it is met, and by how much."""
    rows = [(b["name"], t) for b in found["benchmarks"] for t in b["targets"]]
    left, width, high, decades = 330, 560, 22, 2.0
    middle = left + width / 2

    def x(reach: float) -> float:
        return middle + width / 2 * max(-1.0, min(1.0, math.log10(max(reach, 1e-9)) / decades))

    height = high * len(rows) + 50
    out = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {left + width + 90} {height}" '
        'font-family="sans-serif" font-size="12">',
        "<title>How far each target is met, as a ratio: 1 is just met</title>",
        '<rect width="100%" height="100%" fill="#fff"/>',
    ]
    for decade in range(-2, 3):
        at = x(10.0**decade)
        label = f"{10.0**decade:g}×"
        colour = "#444" if decade == 0 else "#ddd"
        out.append(f'<line x1="{at:.1f}" x2="{at:.1f}" y1="24" y2="{height - 16}" stroke="{colour}"/>')
        out.append(f'<text x="{at:.1f}" y="16" text-anchor="middle" fill="#444">{label}</text>')
    for k, (name, t) in enumerate(rows):
        y, end = 30 + k * high, x(t["reach"])
        colour = "#3a7d44" if t["met"] else "#b3392f"
        out.append(f'<text x="{left - 8}" y="{y + 12}" text-anchor="end">{escape(name)}  {escape(t["says"])}</text>')
        out.append(
            f'<rect x="{min(middle, end):.1f}" y="{y}" width="{max(1.0, abs(end - middle)):.1f}" height="15" '
            f'fill="{colour}"/>'
        )
        out.append(f'<text x="{left + width + 8}" y="{y + 12}" fill="{colour}">{escape(told(t["value"]))}</text>')
    return "\n".join([*out, "</svg>", ""])
