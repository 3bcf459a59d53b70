"""The results for a terminal of 80 columns: one sentence, accuracy, comparisons, and notes below."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from a2r_train.evaluate.overlap import overlap_lines
from a2r_train.evaluate.report.pairs import P_DECIDES, is_undone_by_p, significant_side
from a2r_train.evaluate.report.tables import Section, number, percent, points, span
from a2r_train.evaluate.report.words import headline, other_sentences, power_lines, unparsable_lines

if TYPE_CHECKING:
    from rich.console import Group, RenderableType
    from rich.table import Table


def table(results: Mapping[str, Any]) -> Group:
    """What a run of `a2r evaluate` prints at its end."""
    from rich.console import Group
    from rich.text import Text

    notes = [f"{row['name']}: {row['note']}" for row in results["rows"] if row["note"]]
    parts: list[RenderableType] = [Text(headline(results), style="bold")]
    parts += [Text(line) for line in power_lines(results)]
    parts += [Text(line, style="bold red") for line in overlap_lines(results)]
    parts += [Text(line, style="yellow") for line in unparsable_lines(results)]
    parts += ["", _accuracy(results), *map(_note, notes)]
    if results["paired"]:
        parts += ["", _paired(results), _note(results.get("family", {}).get("statement", ""))]
        parts += [_note(P_DECIDES)] if any(map(is_undone_by_p, results["paired"])) else []
    return Group(*parts, *map(_note, other_sentences(results)))


def drawn(section: Section) -> Table:
    """A table of a report."""
    made = _table(f"{section.title}. {section.intro}", *section.header)
    for row in section.rows:
        _add(made, *row)
    return made


def _accuracy(results: Mapping[str, Any]) -> Table:
    drawn = _table(
        "Accuracy and unparsable texts in %", "row", "%", "95 %", "problems", "tokens", "unparsable"
    )
    for row in results["rows"]:
        counted = [str(row["n"]), number(row["tokens"]), percent(row.get("unparsable"))]
        _add(drawn, row["name"], percent(row["accuracy"]), span(row, signed=False), *counted)
    return drawn


def _paired(results: Mapping[str, Any]) -> Table:
    drawn = _table("Differences in points, Holm-corrected", "", "points", "corrected interval", "")
    first = ""
    for pair in results["paired"]:
        if pair["a"] != first:
            first = pair["a"]
            _add(drawn, f"{first} against")
        verdict = significant_side(pair) or "not told apart"
        if is_undone_by_p(pair):  # else the word would contradict the interval beside it
            verdict = f"no, p {pair['p_holm']:.3f}"
        _add(drawn, f"  {pair['b']}", points(pair["difference"]), span(pair, "_holm"), verdict)
    return drawn


def _table(title: str, *header: str) -> Table:
    from rich import box
    from rich.table import Table

    drawn = Table(
        title=title,
        title_justify="left",
        box=box.SIMPLE_HEAD,
        show_edge=False,
        pad_edge=False,
        padding=(0, 1, 0, 0),
    )
    for at, name in enumerate(header):
        fold = {"overflow": "fold", "max_width": 30} if not at else {}
        drawn.add_column(name, justify="right" if at else "left", **fold)  # type: ignore[arg-type]
    return drawn


def _add(drawn: Table, *cells: str) -> None:
    from rich.text import Text

    drawn.add_row(*map(Text, cells))


def _note(text: str) -> RenderableType:
    from rich.text import Text

    return Text(text, style="dim")
