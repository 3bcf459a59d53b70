"""The results and their reports: results.json, report.md, report.html, and the table for the terminal.

All are made from one dictionary, so they cannot disagree, and the same dictionary gives the same bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from a2r_train.evaluate.cost import monolith_sentences, pareto
from a2r_train.evaluate.diagnostics import FLIP_KINDS
from a2r_train.evaluate.report import plots
from a2r_train.evaluate.report.browser import Shown
from a2r_train.evaluate.report.tables import is_told, points, sections, span
from a2r_train.evaluate.rows.row import Row
from a2r_train.evaluate.statistics import DRAWS, holm, interval, paired
from a2r_train.records import CORRECT, write_text

if TYPE_CHECKING:
    from rich.table import Table

Results = dict[str, Any]
TRAINED = (
    "synthesizer/sft+grpo",
    "synthesizer/grpo",
    "synthesizer/sft",
)  # the first that is there is "the trained one"
RIVALS = (  # beside every majority
    *("synthesizer/base", "synthesizer/sft", "synthesizer/alone", "synthesizer/no_references"),
    *(
        "universal-self-consistency",
        "genselect",
        "self-refine",
        "rounds",
        "adaptive",
        "explorer/grpo",
        "monolith",
    ),
)


def default_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """The comparisons that say whether training paid: the trained synthesizer, greedy and sampled, against
    its rivals.

    A sampled row (`name@T`) meets its rival's sampled row where there is one, else the plain row.
    """
    pairs = []
    rivals = [*RIVALS, *(name for name in names if name.startswith(("maj@", "best-of-")))]
    for suffix in dict.fromkeys(_split(name)[1] for name in names if _split(name)[0] in TRAINED):
        trained = next(name + suffix for name in TRAINED if name + suffix in names)
        for rival in rivals:
            other = rival + suffix if rival + suffix in names else rival
            if other in names and other != trained:
                pairs.append((trained, other))
    return pairs + _longer(names)


def _longer(names: Sequence[str]) -> list[tuple[str, str]]:
    """Does a synthesizer with more tokens to think in gain, and is it still above pass@1 with as many?"""
    pairs = []
    for name in names:
        head, _, factor = name.rpartition("/")
        if head.startswith("synthesizer/") and head in names:
            pairs += [(name, other) for other in (head, f"pass@1/{factor}") if other in names]
    return pairs


def build_results(
    rows: Sequence[Row],
    *,
    setup: Mapping[str, Any] | None = None,
    diagnostics: Mapping[str, Any] | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> Results:
    """Rows with their intervals and the Holm-corrected family of paired comparisons.

    The result is plain JSON: floats of 6 digits, None for what is not available.
    """
    scores = {row.name: row.scores for row in rows}
    chosen = default_pairs(list(scores))
    differences = holm([paired(scores[a], scores[b], seed=seed, draws=draws) for a, b in chosen])
    keys = ("difference", "low", "high", "p_value", "p_holm", "low_holm", "high_holm", "n")
    results = {
        "rows": [_row(row, seed, draws) for row in rows],
        "paired": [
            {"a": a, "b": b} | {key: getattr(one, key) for key in keys}
            for (a, b), one in zip(chosen, differences, strict=True)
        ],
        "diagnostics": diagnostics or {},
        "setup": setup or {},
    }
    return dict(_plain(results))


def write_results(folder: str | Path, results: Results) -> None:
    """Write results.json, atomically."""
    write_text(Path(folder) / "results.json", results_text(results))


def results_text(results: Results) -> str:
    """What results.json holds."""
    return json.dumps(_plain(results), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def write_report(folder: str | Path, results: Results, shown: Sequence[Shown] = ()) -> None:
    """Write report.md and report.html; `shown` are the problems of the browser in the latter."""
    write_text(Path(folder) / "report.md", markdown(results))
    write_text(Path(folder) / "report.html", html(results, shown))


def table(results: Results) -> Table:
    """The rows for the terminal."""
    from rich.markup import escape
    from rich.table import Table

    section = sections(results)[0]
    drawn = Table(title=section.title, caption=escape("\n".join(sentences(results))), caption_justify="left")
    for at, name in enumerate(section.header):
        drawn.add_column(name, justify="right" if 0 < at < 5 else "left", no_wrap=at < 5)
    for cells in section.rows:
        drawn.add_row(*map(escape, cells))
    return drawn


def sentences(results: Results) -> list[str]:
    """What the paired comparisons say, in words. Above and below are said only where `is_told`."""
    said = []
    for pair in results["paired"]:
        a, b = pair["a"], pair["b"]
        numbers = f"{points(pair['difference'])} points, Holm-corrected interval {span(pair, '_holm')}"
        above, below = is_told(pair) and pair["low_holm"] > 0, is_told(pair) and pair["high_holm"] < 0
        if _split(a)[0] == "synthesizer/sft+grpo" and _split(b)[0] == "synthesizer/sft":
            verb = "added to" if above else "took from" if below else "did not measurably add to"
            said.append(f"GRPO {verb} SFT ({a} against {b}): {numbers}.")
        else:
            verb = "is above" if above else "is below" if below else "cannot be told from"
            said.append(f"{a} {verb} {b}: {numbers}.")
    said += monolith_sentences(results)
    if (outside := results["diagnostics"].get("outside", {})).get("labelled"):
        agreed = outside["labelled"] - outside["differing"]
        said.append(
            f"Our verdicts agree with the given labels on {agreed} of {outside['labelled']} rollouts "
            f"({100 * agreed / outside['labelled']:.2f} %); of the "
            f"{outside['differing']} others the labels call "
            f"{outside['label_right']} right."
        )
    names = {row["name"] for row in results["rows"]}
    if "synthesizer/sft" in names and "synthesizer/sft+grpo" not in names:
        said.append("Whether GRPO adds to SFT is not known: there is no synthesizer/sft+grpo row.")
    return said


def markdown(results: Results) -> str:
    """report.md, for a pull request."""
    parts = ["# Evaluation", "\n".join(f"- {_cell(sentence)}" for sentence in sentences(results))]
    for section in sections(results):
        lines = [section.header, ["---"] * len(section.header), *section.rows]
        grid = "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)
        parts += [f"## {section.title}", *([section.intro] if section.intro else []), grid]
    return "\n\n".join(part for part in parts if part) + "\n"


def html(results: Results, shown: Sequence[Shown] = ()) -> str:
    """report.html: one file without any request to elsewhere; every text of a model is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    drawn = [("Accuracy", plots.accuracies(results["rows"]))]
    if cells := results["diagnostics"].get("by_correct"):
        drawn.append(
            (
                "Accuracy by number of correct references",
                plots.by_key(cells, "correct references in the bundle"),
            )
        )
    if cells := results["diagnostics"].get("by_majority"):
        drawn.append(("Accuracy by votes for the most frequent answer", plots.by_key(cells, "votes for it")))
    if len((found := pareto(results))["points"]) > 1:
        drawn.append(("Accuracy against cost", plots.pareto(found)))
    loader = FileSystemLoader(Path(__file__).parent)
    template = Environment(
        loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return template.get_template("report.html.j2").render(
        sentences=sentences(results),
        plots=[(title, Markup(svg)) for title, svg in drawn],  # the SVG writer has escaped its text
        sections=sections(results),
        shown=shown,
        flip_kinds=FLIP_KINDS,
        names=list(dict.fromkeys(text.label for one in shown for text in one.syntheses)),
        correct=CORRECT,
    )


def _row(row: Row, seed: int, draws: int) -> dict[str, Any]:
    accuracy, low, high = interval(row.scores, seed=seed, draws=draws)
    n = int(np.sum(~np.isnan(row.scores)))
    values = {"name": row.name, "accuracy": accuracy, "low": low, "high": high, "n": n}
    return values | {"tokens": row.tokens, "note": row.note}


def _split(name: str) -> tuple[str, str]:
    """A row's name and its sampling suffix, "" for greedy."""
    return (name.removesuffix("@T"), "@T") if name.endswith("@T") else (name, "")


def _plain(value: Any) -> Any:
    """Only what JSON knows, floats rounded to 6 digits, NaN as None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return round(float(value), 6) + 0.0 if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def _cell(text: str) -> str:
    """Text inside a Markdown table."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
