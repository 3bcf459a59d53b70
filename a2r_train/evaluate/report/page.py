"""report.html: one file that loads nothing from elsewhere; every text of a model is escaped."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from a2r_train.evaluate.cost import pareto
from a2r_train.evaluate.diagnostics import FLIP_KINDS
from a2r_train.evaluate.overlap import overlap_lines
from a2r_train.evaluate.report import plots
from a2r_train.evaluate.report.browser import Shown
from a2r_train.evaluate.report.tables import sections
from a2r_train.evaluate.report.words import headline, sentences, trained_pairs, unparsable_lines
from a2r_train.evaluate.rows.names import split
from a2r_train.records import CORRECT

BY_KEY = {
    "by_correct": ("Accuracy by number of correct references", "correct references in the bundle"),
    "by_majority": ("Accuracy by votes for the most frequent answer", "votes for it"),
}


@dataclass(frozen=True)
class Plot:
    """A figure of the page, drawn for wide windows and for narrow ones."""

    title: str
    wide: str
    narrow: str


def html(results: Mapping[str, Any], shown: Sequence[Shown] = ()) -> str:
    """The page: whether training paid, then accuracy and cost, all tables, and some problems to read."""
    return rendered(
        title="Evaluation",
        headline=headline(results),
        protocol=results["setup"].get("protocol", ""),
        overlap=overlap_lines(results),
        unparsable=unparsable_lines(results),
        said="What the comparisons say",
        sentences=sentences(results),
        plots=list(_plots(results)),
        sections=sections(results),
        shown=shown,
        flip_kinds=FLIP_KINDS,
        names=list(dict.fromkeys(text.label for one in shown for text in one.syntheses)),
        correct=CORRECT,
    )


def rendered(**parts: Any) -> str:
    """The template of all pages with its parts."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined

    template = Environment(
        loader=FileSystemLoader(Path(__file__).parent),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return template.get_template("report.html.j2").render(**parts)


def _plots(results: Mapping[str, Any]) -> Iterator[Plot]:
    if trained_pairs(results):
        yield plot(
            "The trained synthesizer against each rival, Holm-corrected intervals", plots.forest, results
        )
    yield plot("Accuracy", plots.accuracies, results["rows"])
    plain = [
        row for row in results["rows"] if not split(row["name"])[1]
    ]  # sampled rows cost as much as greedy ones
    if len((costs := pareto({**results, "rows": plain}))["points"]) > 1:
        yield plot("Accuracy against cost", plots.pareto, costs)
    for key, (title, label) in BY_KEY.items():
        if cells := results["diagnostics"].get(key):
            greedy = {name: row for name, row in cells.items() if not split(name)[1]}
            yield plot(title, plots.by_key, greedy, label)


def plot(title: str, draw: Any, *data: Any) -> Plot:
    from markupsafe import Markup

    wide, narrow = (Markup(draw(*data, width)) for width in (plots.WIDE, plots.NARROW))
    return Plot(title, wide, narrow)  # the SVG writer escapes all text
