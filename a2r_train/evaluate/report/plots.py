"""Plots of a report as SVG text: the same results give the same bytes, and text takes the colour of the page
around it.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from matplotlib.figure import Figure

_INK = "#010203"  # stands for the page's text colour, which only the browser knows
COLOURS = ("#4c8fd0", "#e07b39", "#3fa66b", "#b56bc4", "#c9a227", "#d0525f", "#4fb3b3", "#8a8a8a")


def accuracies(rows: Sequence[dict[str, Any]]) -> str:
    """Bars of the rows of results.json, with their intervals."""
    rows = [row for row in rows if row["accuracy"] is not None][::-1]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        values = [100 * row["accuracy"] for row in rows]
        errors = [
            [max(0.0, 100 * (row["accuracy"] - row["low"])) for row in rows],
            [max(0.0, 100 * (row["high"] - row["accuracy"])) for row in rows],
        ]
        axes.barh(
            [row["name"] for row in rows], values, xerr=errors, color=COLOURS[0], ecolor=_INK, capsize=2
        )
        axes.set(xlabel="accuracy in %, 95 % intervals", xlim=(0, 100))

    return _svg("accuracies", (7.0, 0.9 + 0.3 * len(rows)), draw)


def by_key(cells: dict[str, dict[str, dict[str, Any]]], label: str) -> str:
    """Accuracy by a number, such as that of correct references; one line a row of the table."""
    counts = sorted({int(count) for row in cells.values() for count in row})
    sizes = {c: max(row[str(c)]["n"] for row in cells.values() if str(c) in row) for c in counts}

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for at, (name, row) in enumerate(cells.items()):
            shown = [c for c in counts if str(c) in row]
            values = [100 * row[str(c)]["accuracy"] for c in shown]
            axes.plot(shown, values, marker="o", color=COLOURS[at % len(COLOURS)], label=name)
        axes.set_xticks(counts, [f"{c}\nn={sizes[c]}" for c in counts])
        axes.set(xlabel=label, ylabel="accuracy in %", ylim=(-3, 103))
        axes.legend(fontsize="small", framealpha=0.0)

    return _svg(label, (7.0, 4.0), draw)


def pareto(found: dict[str, Any]) -> str:
    """Accuracy against cost, each row a point with its name; the line joins those that no cheaper row
    equals.
    """
    points = {point["name"]: point for point in found["points"]}
    unit = {"flops": "FLOPs an answer", "dollars": "dollars for 1,000 answers"}[found["unit"]]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        front = [points[name] for name in found["front"]]
        axes.plot(
            [p["cost"] for p in front], [100 * p["accuracy"] for p in front], color=COLOURS[2], linewidth=1
        )
        names: dict[tuple[float, float], list[str]] = {}
        for name, point in points.items():
            names.setdefault((point["cost"], 100 * point["accuracy"]), []).append(name)
        for place, here in names.items():
            color = (
                COLOURS[5]
                if "monolith" in here
                else COLOURS[1]
                if any(" k=" in name for name in here)
                else COLOURS[0]
            )
            axes.plot(*place, marker="D" if "monolith" in here else "o", color=color)
            axes.annotate(", ".join(here), place, (3, 3), textcoords="offset points", fontsize=6)
        axes.set_xscale("log")
        axes.xaxis.set_major_formatter(lambda value, _: f"{value:.0e}")  # the usual one writes formulas
        axes.xaxis.set_minor_formatter(lambda *_: "")
        axes.set(xlabel=unit, ylabel="accuracy in %")

    return _svg("pareto", (7.0, 5.0), draw)


def save_png(path: Path, size_inches: tuple[float, float], draw: Callable[[Figure], None]) -> None:
    """Draw a figure into a PNG file; it appears whole or not at all."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size_inches, layout="constrained")
    draw(figure)
    part = path.with_name(f".{path.name}.part")
    figure.savefig(part, format="png", dpi=120)
    part.replace(path)


def _svg(name: str, size_inches: tuple[float, float], draw: Any) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    ink = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    # The salt and the missing date keep the bytes equal; names of rows are text, never formulas.
    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": name,
        "text.parse_math": False,
    } | dict.fromkeys(ink, _INK)
    with matplotlib.rc_context(style):
        figure = Figure(figsize=size_inches, layout="constrained")
        draw(figure)
        for axes in figure.axes:
            axes.patch.set_visible(False)
            axes.spines[["top", "right"]].set_visible(False)
        file = io.StringIO()
        figure.savefig(file, format="svg", transparent=True, metadata={"Date": None})
    svg = file.getvalue()[file.getvalue().index("<svg") :]
    svg = re.sub(r"\s*<metadata>.*?</metadata>", "", svg, flags=re.DOTALL)
    return svg.replace(_INK, "currentColor")
