"""The results and their reports: results.json, report.md and report.html.

All are made from one dictionary, so they cannot disagree, and the same dictionary gives the same bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from a2r_train.evaluate.overlap import overlap_lines
from a2r_train.evaluate.report.browser import Shown
from a2r_train.evaluate.report.page import html
from a2r_train.evaluate.report.pairs import default_pairs, family
from a2r_train.evaluate.report.tables import Section, sections
from a2r_train.evaluate.report.words import headline, sentences, unparsable_lines
from a2r_train.evaluate.rows.names import is_vote
from a2r_train.evaluate.rows.row import Row, is_short
from a2r_train.evaluate.statistics import DRAWS, holm, interval, paired
from a2r_train.records import write_text

Results = dict[str, Any]


def build_results(
    rows: Sequence[Row],
    *,
    setup: Mapping[str, Any] | None = None,
    diagnostics: Mapping[str, Any] | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> Results:
    """Rows with their intervals and the Holm-corrected family of paired comparisons.

    The result is plain JSON: floats with 6 digits, None for anything not available.
    """
    scores = {row.name: row.scores for row in rows}
    chosen = default_pairs([row.name for row in rows if not _repeats(row, rows)])
    differences = holm([paired(scores[a], scores[b], seed=seed, draws=draws) for a, b in chosen])
    keys = ("difference", "low", "high", "p_value", "p_holm", "low_holm", "high_holm", "n")
    results = {
        "rows": [_row(row, seed, draws) for row in rows],
        "paired": [
            {"a": a, "b": b} | {key: getattr(one, key) for key in keys}
            for (a, b), one in zip(chosen, differences, strict=True)
        ],
        "family": family(chosen),
        "diagnostics": diagnostics or {},
        "setup": setup or {},
    }
    return dict(plain(results))


def write_results(folder: str | Path, results: Results) -> None:
    """Write results.json, atomically."""
    write_text(Path(folder) / "results.json", results_text(results))


def is_written(folder: str | Path, results: Results) -> bool:
    """Whether the folder holds these results already."""
    path = Path(folder) / "results.json"
    return path.is_file() and path.read_text(encoding="utf-8") == results_text(results)


def results_text(results: Results) -> str:
    """The text of results.json."""
    return json.dumps(plain(results), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_report(folder: str | Path, results: Results, shown: Sequence[Shown] = ()) -> None:
    """Write report.md and report.html; `shown` are the problems of the browser in the latter."""
    write_text(Path(folder) / "report.md", markdown(results))
    write_text(Path(folder) / "report.html", html(results, shown))


def markdown(results: Results) -> str:
    """report.md, for a pull request."""
    first = [headline(results), *overlap_lines(results), *unparsable_lines(results)]
    parts = ["# Evaluation", *(f"**{cell(line)}**" for line in first)]
    parts.append("\n".join(f"- {cell(sentence)}" for sentence in sentences(results)))
    parts += map(markdown_section, sections(results))
    return "\n\n".join(part for part in parts if part) + "\n"


def markdown_section(section: Section, level: int = 2) -> str:
    """A table with its title and its introduction."""
    lines = [section.header, ["---"] * len(section.header), *section.rows]
    grid = "\n".join(f"| {' | '.join(map(cell, line))} |" for line in lines)
    return "\n\n".join(part for part in (f"{level * '#'} {section.title}", section.intro, grid) if part)


def _repeats(row: Row, rows: Sequence[Row]) -> bool:
    """Whether a vote found no further rollouts, so that it is maj@k again and no rival of its own."""
    return is_short(row.note) and any(
        is_vote(other.name)
        and not other.note
        and other.tokens == row.tokens
        and np.array_equal(other.scores, row.scores, equal_nan=True)
        for other in rows
    )


def _row(row: Row, seed: int, draws: int) -> dict[str, Any]:
    accuracy, low, high = interval(row.scores, seed=seed, draws=draws)
    n = int(np.sum(~np.isnan(row.scores)))
    values = {"name": row.name, "accuracy": accuracy, "low": low, "high": high, "n": n}
    return values | {"tokens": row.tokens, "unparsable": row.unparsable, "note": row.note}


def plain(value: Any) -> Any:
    """Only JSON types, with floats rounded to 6 digits and NaN as None."""
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return round(float(value), 6) + 0.0 if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def cell(text: str) -> str:
    """Text inside a Markdown table."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
