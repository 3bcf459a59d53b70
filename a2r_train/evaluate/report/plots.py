"""Plots of a report as SVG text: the same results give the same bytes, and text takes the page's colour."""

from __future__ import annotations

import io
import math
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a2r_train.atomic import replacing
from a2r_train.evaluate.report.pairs import KINDS, kind
from a2r_train.evaluate.report.words import trained_pairs
from a2r_train.evaluate.rows.names import GREEDY, split

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_INK = "#010203"  # stands for the page's text colour, which only the browser knows
_GRID = "#8888883c"
COLOURS = ("#4c8fd0", "#e07b39", "#3fa66b", "#b56bc4", "#c9a227", "#d0525f", "#4fb3b3", "#8a8a8a")
KIND_COLOURS = dict(zip(KINDS, ("#8a8a8a", "#4c8fd0", "#e07b39"), strict=True))
WIDE, NARROW = 9.6, 3.9  # inches, for a page and for a phone; text has the same size on both
ROW = 0.27  # inches of height per row with its name
LABEL_GAP = 0.16  # inches of height per name beside a point
Rows = Sequence[Mapping[str, Any]]


def forest(results: Mapping[str, Any], width: float = WIDE) -> str:
    """Paired differences of the trained synthesizer to each rival, with corrected intervals; greedy and
    sampled on one line.
    """
    greedy, sampled = trained_pairs(results), trained_pairs(results, "@T")
    lines = [(_line_name(name, sampled), pair, _sampled_of(name, sampled)) for name, pair in greedy.items()]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        axes.axvline(0, color=_INK, linewidth=1)
        for at, (_, *pairs) in enumerate(reversed(lines)):
            for pair, up, filled in zip(pairs, (0.14, -0.14), (True, False), strict=True):
                if pair:
                    _mark(axes, at + up, _in_points(pair), KIND_COLOURS[kind(pair["b"])], filled)
        axes.set_yticks(range(len(lines)), [line[0] for line in reversed(lines)])
        axes.set(xlabel="points above the rival", ylim=(-0.6, len(lines) - 0.4))
        axes.grid(axis="x", color=_GRID)
        _legend(figure, [pair["b"] for _, pair, _ in lines], any(line[2] for line in lines))

    return _svg("forest", (width, 1.25 + 1.25 * ROW * len(lines)), draw)


def _line_name(name: str, sampled: Mapping[str, Any]) -> str:
    return f"{name}, pass@1" if name == GREEDY and "pass@1" in sampled else name


def _sampled_of(name: str, sampled: Mapping[str, Any]) -> Mapping[str, Any] | None:
    other = "pass@1" if name == GREEDY else name
    return sampled.get(f"{other}@T") or sampled.get(other)


def _in_points(pair: Mapping[str, Any]) -> tuple[float, float, float]:
    low, high = (pair["low_holm"], pair["high_holm"]) if pair["low_holm"] is not None else (0.0, 0.0)
    return 100 * pair["difference"], 100 * low, 100 * high


def accuracies(rows: Rows, width: float = WIDE) -> str:
    """A line for each row of the table, with its greedy value, its sampled one, and their intervals."""
    known = {row["name"]: row for row in rows if row["accuracy"] is not None}
    names = list(dict.fromkeys(split(name)[0] for name in known))[::-1]

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for at, name in enumerate(names):
            for row, up, filled in (
                (known.get(name), 0.14, True),
                (known.get(f"{name}@T"), -0.14, False),
            ):
                if row:
                    values = 100 * row["accuracy"], 100 * row["low"], 100 * row["high"]
                    _mark(axes, at + up, values, KIND_COLOURS[kind(name)], filled)
        axes.set_yticks(range(len(names)), names)
        axes.set(xlabel="accuracy in %, 95 % intervals", ylim=(-0.6, len(names) - 0.4))
        axes.grid(axis="x", color=_GRID)
        _legend(figure, names[::-1], any(name.endswith("@T") for name in known))

    return _svg("accuracies", (width, 1.25 + 1.15 * ROW * len(names)), draw)


def _mark(axes: Axes, at: float, values: tuple[float, float, float], color: str, filled: bool) -> None:
    """A value with its interval: a full circle is greedy, an open one sampled."""
    value, low, high = values
    axes.plot([low, high], [at, at], color=color, linewidth=1.6 if filled else 1.0)
    face = color if filled else "none"
    axes.plot([value], [at], marker="o", markersize=6, color=color, markerfacecolor=face, linestyle="")


def _legend(figure: Figure, names: Sequence[str], sampled: bool) -> None:
    """Only what the plot shows: the kinds of rows by colour, and the meaning of the two circles."""
    from matplotlib.lines import Line2D

    def circle(color: str, filled: bool, label: str) -> Line2D:
        face = color if filled else "none"
        return Line2D([], [], marker="o", linestyle="", color=color, markerfacecolor=face, label=label)

    present = {kind(name) for name in names}
    handles = [circle(KIND_COLOURS[one], True, one) for one in KINDS if one in present]
    handles += [circle(_INK, True, "greedy"), circle(_INK, False, "sampled")] if sampled else []
    columns = len(handles) if figure.get_figwidth() > 5 else 3
    figure.legend(
        handles=handles, loc="outside upper left", ncols=columns, frameon=False, fontsize=9, handletextpad=0.1
    )


def by_key(cells: Mapping[str, Mapping[str, Mapping[str, Any]]], label: str, width: float = WIDE) -> str:
    """Accuracy by a number, such as that of correct references; one line for each row of the table."""
    counts = sorted({int(count) for row in cells.values() for count in row})
    sizes = {c: max(row[str(c)]["n"] for row in cells.values() if str(c) in row) for c in counts}

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        seen = dict.fromkeys(KINDS, 0)
        for name, row in cells.items():
            shown = [c for c in counts if str(c) in row]
            values = [100 * row[str(c)]["accuracy"] for c in shown]
            style = ("-", "--", ":", "-.")[seen[kind(name)] % 4]
            seen[kind(name)] += 1
            color = KIND_COLOURS[kind(name)]
            axes.plot(shown, values, marker="o", markersize=4, linestyle=style, color=color, label=name)
        axes.set_xticks(counts, [f"{c}\nn={sizes[c]}" for c in counts])
        axes.set(xlabel=label, ylabel="accuracy in %", ylim=(-3, 103))
        axes.grid(axis="y", color=_GRID)
        columns = 3 if width > 5 else 1
        figure.legend(loc="outside lower left", ncols=columns, frameon=False, fontsize=9)

    return _svg(label, (min(width, 6.4), 3.9), draw)


def by_size(rows: Rows, names: Mapping[str, str], width: float = WIDE) -> str:
    """Values with their intervals by k, in %; `names` maps keys of a row to labels."""

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        for color, (key, label) in zip(COLOURS, names.items(), strict=False):
            shown = [row for row in rows if row[key]["value"] is not None]
            at = [row["k"] for row in shown]
            low, value, high = ([100 * row[key][end] for row in shown] for end in ("low", "value", "high"))
            axes.fill_between(at, low, high, color=color, alpha=0.2, linewidth=0)
            axes.plot(at, value, marker="o", markersize=4, color=color, label=label)
        axes.set_xticks([row["k"] for row in rows][:: max(1, len(rows) // 12)])
        axes.set(xlabel="k rollouts", ylabel="%")
        axes.grid(axis="y", color=_GRID)
        figure.legend(loc="outside lower left", ncols=3 if width > 5 else 1, frameon=False, fontsize=9)

    return _svg("by size", (min(width, 6.4), 3.9), draw)


def pareto(found: Mapping[str, Any], width: float = WIDE) -> str:
    """Accuracy against cost: each row is a point with its name at the right. The line joins the rows that no
    cheaper row equals.
    """
    points = {point["name"]: point for point in found["points"]}
    unit = {"flops": "FLOPs an answer", "dollars": "dollars for 1,000 answers"}[found["unit"]]
    places: dict[tuple[float, float], list[str]] = {}
    for name, point in points.items():
        places.setdefault((point["cost"], 100 * point["accuracy"]), []).append(name)
    height = max(3.4, 0.9 + LABEL_GAP * len(places))

    def draw(figure: Figure) -> None:
        axes = figure.add_subplot()
        front = [points[name] for name in found["front"]]
        steps = [p["cost"] for p in front], [100 * p["accuracy"] for p in front]
        axes.plot(*steps, color=_INK, linewidth=0.8, drawstyle="steps-post")
        for place, here in places.items():
            axes.plot(*place, marker="D" if "monolith" in here else "o", color=KIND_COLOURS[kind(here[0])])
        axes.set_xscale("log")
        _log_ticks(axes, [point["cost"] for point in points.values()], 3 if width > 5 else 2)
        axes.set(xlabel=unit, ylabel="accuracy in %")
        axes.grid(color=_GRID)
        labels = {place: _label(here, 120 if width > 5 else 48) for place, here in places.items()}
        _names_at_the_right(axes, labels, height)
        _legend(figure, list(points), False)

    return _svg("pareto", (width, height + 0.4), draw)


def _log_ticks(axes: Axes, costs: Sequence[float], fewest: int) -> None:
    """Ticks at as few digits of each power of ten as give `fewest` ticks, written without formulas."""
    axes.set_xlim(min(costs) / 1.4, max(costs) * 1.4)
    low, high = axes.get_xlim()
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    for digits in ((1,), (1, 3), (1, 2, 5), range(1, 10)):
        ticks = {f"{digit}e{power}": digit * 10.0**power for power in powers for digit in digits}
        shown = {text: tick for text, tick in ticks.items() if low <= tick <= high}
        if len(shown) >= fewest:
            break
    axes.set_xticks(list(shown.values()), list(shown))
    axes.set_xticks([], minor=True)


def _label(names: Sequence[str], characters: int) -> str:
    """The names of one point; of many, those that leave room for the plot."""
    shown = 1
    while shown < len(names) and len(", ".join(names[: shown + 1])) <= characters:
        shown += 1
    more = f" and {len(names) - shown} more" if shown < len(names) else ""
    return ", ".join(names[:shown]) + more


def _names_at_the_right(axes: Axes, places: Mapping[tuple[float, float], str], height: float) -> None:
    """Names in a column in the order of their points, with enough space, each with a line to its point."""
    low, high = axes.get_ylim()
    apart = (high - low) * LABEL_GAP / (height - 0.9)
    ordered = sorted(places, key=lambda place: place[1])
    heights = spread([place[1] for place in ordered], apart, low, high)
    for place, at in zip(ordered, heights, strict=True):
        axes.annotate(
            places[place],
            xy=place,
            xytext=(1.03, (at - low) / (high - low)),
            textcoords="axes fraction",
            fontsize=7,
            va="center",
            annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": _GRID, "linewidth": 0.7, "shrinkA": 0, "shrinkB": 3},
        )
    axes.set_ylim(low, high)


def spread(values: Sequence[float], apart: float, low: float, high: float) -> list[float]:
    """Rising values, moved as little as needed to be `apart`, and within low and high if they fit."""
    placed: list[float] = []
    for value in values:
        placed.append(max(value, placed[-1] + apart) if placed else max(value, low))
    limit = high
    for at in range(len(placed) - 1, -1, -1):
        placed[at] = min(placed[at], limit)
        limit = placed[at] - apart
    return placed


def save_png(path: Path, size_inches: tuple[float, float], draw: Callable[[Figure], None]) -> None:
    """Draw a figure into a PNG file, atomically."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size_inches, layout="constrained")
    draw(figure)
    with replacing(path) as part:
        figure.savefig(part, format="png", dpi=120)


def _svg(name: str, size_inches: tuple[float, float], draw: Any) -> str:
    import matplotlib
    from matplotlib.figure import Figure

    ink = ("text.color", "axes.labelcolor", "axes.edgecolor", "xtick.color", "ytick.color")
    # The salt and the missing date keep the bytes the same; names of rows are text, never formulas.
    style: dict[Any, Any] = {
        "svg.fonttype": "none",
        "svg.hashsalt": f"{name} {size_inches[0]}",  # so that the ids of two drawings of one figure differ
        "text.parse_math": False,
        "font.size": 9,
        "axes.axisbelow": True,
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
