"""The results and their reports: results.json, report.md, report.html, and the table for the terminal.

All are made from one dictionary, so they cannot disagree, and the same dictionary gives the same bytes.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from a2r_train.evaluate import plots
from a2r_train.evaluate.diagnostics import FLIP_KINDS, flip_kind
from a2r_train.evaluate.rows import Row
from a2r_train.evaluate.statistics import DRAWS, Scores, holm, interval, paired
from a2r_train.records import CORRECT, Bundle, Synthesis, write_text

if TYPE_CHECKING:
    from rich.table import Table

Results = dict[str, Any]
TRAINED = ("synthesizer/sft+grpo", "synthesizer/grpo", "synthesizer/sft")  # the first that is there is "the trained one"
RIVALS = ("synthesizer/base", "synthesizer/sft", "synthesizer/alone", "synthesizer/no_references")  # and every majority
MAX_SHOWN_CHARACTERS = 4000


def default_pairs(names: Sequence[str]) -> list[tuple[str, str]]:
    """The comparisons that say whether training paid: the trained synthesizer, greedy and sampled, against its rivals.

    A sampled row (`name@T`) meets its rival's sampled row where there is one, else the plain row.
    """
    pairs = []
    rivals = [*RIVALS, *(name for name in names if name.startswith("maj@"))]
    for suffix in dict.fromkeys(_split(name)[1] for name in names if _split(name)[0] in TRAINED):
        trained = next(name + suffix for name in TRAINED if name + suffix in names)
        for rival in rivals:
            other = rival + suffix if rival + suffix in names else rival
            if other in names and other != trained:
                pairs.append((trained, other))
    return pairs


def build_results(
    rows: Sequence[Row],
    pairs: Sequence[tuple[str, str]] | None = None,
    *,
    setup: Mapping[str, Any] | None = None,
    diagnostics: Mapping[str, Any] | None = None,
    seed: int = 0,
    draws: int = DRAWS,
) -> Results:
    """Rows with their intervals and the Holm-corrected family of paired comparisons (`default_pairs` unless given).

    The result is plain JSON: floats of 6 digits, None for what is not available.
    """
    scores = {row.name: row.scores for row in rows}
    chosen = default_pairs(list(scores)) if pairs is None else pairs
    differences = holm([paired(scores[a], scores[b], seed=seed, draws=draws) for a, b in chosen])
    keys = ("difference", "low", "high", "p_value", "p_holm", "low_holm", "high_holm", "n")
    results = {
        "rows": [_row(row, seed, draws) for row in rows],
        "paired": [
            {"a": a, "b": b} | {key: getattr(one, key) for key in keys} for (a, b), one in zip(chosen, differences, strict=True)
        ],
        "diagnostics": diagnostics or {},
        "setup": setup or {},
    }
    return dict(_plain(results))


def write_results(folder: str | Path, results: Results) -> None:
    """Write results.json, atomically."""
    text = json.dumps(_plain(results), indent=2, ensure_ascii=False, allow_nan=False)
    write_text(Path(folder) / "results.json", text + "\n")


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
    """What the paired comparisons say, in words. Above and below are said only where the corrected interval excludes 0."""
    said = []
    for pair in results["paired"]:
        a, b = pair["a"], pair["b"]
        numbers = f"{_points(pair['difference'])} points, Holm-corrected interval {_range(pair, '_holm')}"
        above, below = pair["low_holm"] > 0, pair["high_holm"] < 0
        if _split(a)[0] == "synthesizer/sft+grpo" and _split(b)[0] == "synthesizer/sft":
            verb = "added to" if above else "took from" if below else "did not measurably add to"
            said.append(f"GRPO {verb} SFT ({a} against {b}): {numbers}.")
        else:
            verb = "is above" if above else "is below" if below else "cannot be told from"
            said.append(f"{a} {verb} {b}: {numbers}.")
    if not any("sft+grpo" in row["name"] for row in results["rows"]):
        said.append("Whether GRPO adds to SFT is not known: there is no synthesizer/sft+grpo row.")
    return said


@dataclass(frozen=True)
class Section:
    """A table of the report, its cells as text."""

    title: str
    intro: str
    header: list[str]
    rows: list[list[str]]


def sections(results: Results) -> list[Section]:
    """The tables of the report; those without data are left out, the first is always there."""
    diagnostics = results["diagnostics"]
    found = [
        Section(
            "Accuracy",
            "In %, with 95 % bootstrap intervals over problems. Tokens are the mean of one answer: completions of the "
            "explorer, and all that the synthesizer reads and writes.",
            ["row", "accuracy", "interval", "problems", "tokens", "note"],
            [
                [r["name"], _percent(r["accuracy"]), _range(r, signed=False), str(r["n"]), _number(r["tokens"]), r["note"]]
                for r in results["rows"]
            ],
        ),
        Section(
            "Paired differences",
            "In points, resampled over problems. Interval and p: 95 %, for one comparison by itself. Corrected (Holm 1979): "
            "the i-th smallest of m p-values times m - i + 1, and the interval of level 1 - 0.05 / (m - i + 1), so that the "
            "chance of any wrong claim of a difference in this table is about 5 % at most. The intervals answer whether each "
            "excludes 0; that all of them cover their true differences at once is not promised at 95 %.",
            ["a", "b", "a - b", "interval", "p", "corrected interval", "excludes 0", "corrected p"],
            [_paired_cells(pair) for pair in results["paired"]],
        ),
        _by_correct_section(diagnostics.get("by_correct", {})),
        _synthesizer_section(diagnostics),
        Section(
            "Tokens by stage",
            "Means over problems, as the engines count them.",
            ["row", "references", "synthesizer prompt", "synthesis"],
            [[name, *map(_number, stages.values())] for name, stages in diagnostics.get("tokens_by_stage", {}).items()],
        ),
        Section("Setup", "", ["", ""], [[str(key), str(value)] for key, value in results["setup"].items()]),
    ]
    return found[:1] + [section for section in found[1:] if section.rows]


def markdown(results: Results) -> str:
    """report.md, for a pull request."""
    parts = ["# Evaluation", "\n".join(f"- {_cell(sentence)}" for sentence in sentences(results))]
    for section in sections(results):
        lines = [section.header, ["---"] * len(section.header), *section.rows]
        grid = "\n".join(f"| {' | '.join(map(_cell, line))} |" for line in lines)
        parts += [f"## {section.title}", *([section.intro] if section.intro else []), grid]
    return "\n\n".join(part for part in parts if part) + "\n"


@dataclass(frozen=True)
class Text:
    """A reference or a synthesis in the browser; `flip` is empty for references."""

    label: str
    text: str
    answer: str
    verdict: str
    flip: str = ""


@dataclass(frozen=True)
class Shown:
    """One problem of the browser."""

    id: str
    problem: str
    answer: str
    vote: float
    references: list[Text]
    syntheses: list[Text]


def browser(
    bundles: Sequence[Bundle], votes: Scores, syntheses: Mapping[str, Sequence[Synthesis]], limit: int = 60
) -> list[Shown]:
    """Up to `limit` problems, one bundle each, drawn in turn from the flip kinds of the last row of `syntheses`."""
    firsts: dict[str, dict[str, Synthesis]] = {}
    for name, given in syntheses.items():
        for synthesis in given:
            firsts.setdefault(synthesis.bundle_id, {}).setdefault(name, synthesis)
    kinds: dict[str, list[Shown]] = {kind: [] for kind in (*FLIP_KINDS, "")}
    seen: set[str] = set()
    for bundle, vote in zip(bundles, votes, strict=True):
        if bundle.problem_id not in seen:
            seen.add(bundle.problem_id)
            one = _shown(bundle, float(vote), firsts.get(bundle.id, {}))
            kinds[one.syntheses[-1].flip if one.syntheses else ""].append(one)
    order = sorted((place, at) for at, group in enumerate(kinds.values()) for place in range(len(group)))
    return [list(kinds.values())[at][place] for place, at in order[:limit]]


def html(results: Results, shown: Sequence[Shown] = ()) -> str:
    """report.html: one file without any request to elsewhere; every text of a model is escaped."""
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    drawn = [("Accuracy", plots.accuracies(results["rows"]))]
    if cells := results["diagnostics"].get("by_correct"):
        drawn.append(("Accuracy by number of correct references", plots.by_correct(cells)))
    loader = FileSystemLoader(Path(__file__).parent)
    template = Environment(loader=loader, autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True)
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
    """A row's name and its sampling suffix ("" for greedy); the @ of `maj@4` is none."""
    base, at, temperature = name.partition("@")
    return (base, at + temperature) if "/" in base else (name, "")


def _plain(value: Any) -> Any:
    """Only what JSON knows, floats rounded to 6 digits, NaN as None."""
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple | np.ndarray):
        return [_plain(item) for item in value]
    if isinstance(value, float | np.floating):
        return round(float(value), 6) + 0.0 if math.isfinite(value) else None
    return int(value) if isinstance(value, np.integer) else value


def _paired_cells(pair: Mapping[str, Any]) -> list[str]:
    excludes = "yes" if pair["low_holm"] > 0 or pair["high_holm"] < 0 else "no"
    plain = [pair["a"], pair["b"], _points(pair["difference"]), _range(pair), _p(pair["p_value"])]
    return [*plain, _range(pair, "_holm"), excludes, _p(pair["p_holm"])]


def _by_correct_section(cells: dict[str, dict[str, dict[str, Any]]]) -> Section:
    counts = sorted({int(count) for row in cells.values() for count in row})
    nothing = {"accuracy": None, "n": 0}
    rows = []
    for name, row in cells.items():
        found = [row.get(str(count), nothing) for count in counts]
        rows.append([name, *[f"{_percent(cell['accuracy'])} (n={cell['n']})" for cell in found]])
    intro = "In %, over bundles; n is the number of bundles."
    return Section("Accuracy by number of correct references", intro, ["row", *map(str, counts)], rows)


def _synthesizer_section(diagnostics: Mapping[str, Any]) -> Section:
    rows = []
    for name, flips in diagnostics.get("flips", {}).items():
        new = diagnostics["new_correct"][name]
        counted = [str(flips[kind]) for kind in FLIP_KINDS]
        rows.append([name, *counted, f"{_percent(new['accuracy'])} (n={new['n']})", _percent(diagnostics["copy_rate"][name])])
    header = ["row", *(kind.replace("_", " ") for kind in FLIP_KINDS), "new correct", "copy rate"]
    intro = (
        "Counts of syntheses, from the majority (right if its expected accuracy is at least one half) to the synthesis. "
        "New correct: % right where every reference is wrong. Copy rate: % of answers that are the majority's."
    )
    return Section("Flips against the majority", intro, header, rows)


def _shown(bundle: Bundle, vote: float, syntheses: Mapping[str, Synthesis]) -> Shown:
    columns = zip(bundle.references, bundle.reference_answers, bundle.reference_verdicts, strict=True)
    references = [Text(f"Reference {i}", _clip(t), a, v) for i, (t, a, v) in enumerate(columns, 1)]
    written = [Text(name, _clip(s.text), s.answer, s.verdict, flip_kind(vote, s)) for name, s in syntheses.items()]
    return Shown(bundle.problem_id, bundle.problem, bundle.answer, vote, references, written)


def _clip(text: str) -> str:
    """The end of a long text, where its answer stands."""
    cut = len(text) - MAX_SHOWN_CHARACTERS
    return text if cut <= 0 else f"[{cut} characters left out]\n{text[cut:]}"


def _percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def _points(value: float) -> str:
    return f"{100 * value:+.1f}"


def _range(values: Mapping[str, Any], suffix: str = "", signed: bool = True) -> str:
    low, high = values["low" + suffix], values["high" + suffix]
    if low is None or high is None:
        return "-"
    return f"{_points(low)} to {_points(high)}" if signed else f"{_percent(low)} to {_percent(high)}"


def _p(value: float) -> str:
    return f"{value:.4f}"


def _number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"


def _cell(text: str) -> str:
    """Text inside a Markdown table."""
    return " ".join(text.replace("|", "\\|").replace("<", "&lt;").split())
