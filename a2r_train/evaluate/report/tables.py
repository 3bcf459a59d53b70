"""The tables of the report, their cells as text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from a2r_train.evaluate.diagnostics import FLIP_KINDS
from a2r_train.evaluate.report.pairs import is_significant


@dataclass(frozen=True)
class Section:
    """A table of the report, its cells as text."""

    title: str
    intro: str
    header: list[str]
    rows: list[list[str]]


def sections(results: Mapping[str, Any]) -> list[Section]:
    """The tables of the report. Those without data are left out, except the first."""
    diagnostics = results["diagnostics"]
    found = [
        Section(
            "Accuracy",
            "In %, with 95 % bootstrap intervals over problems. Tokens are "
            "the mean of one answer: completions of the "
            "explorer, and all that the synthesizer reads and writes. Unparsable: % of the row's texts that "
            f"no answer could be read from. {diagnostics.get('no_vote', '')}".rstrip(),
            ["row", "accuracy", "interval", "problems", "tokens", "unparsable", "note"],
            [
                [
                    r["name"],
                    percent(r["accuracy"]),
                    span(r, signed=False),
                    str(r["n"]),
                    number(r["tokens"]),
                    percent(r.get("unparsable")),
                    r["note"],
                ]
                for r in results["rows"]
            ],
        ),
        Section(
            "Paired differences",
            _family_intro(results.get("family", {})),
            ["a", "b", "a - b", "interval", "p", "corrected interval", "excludes 0", "corrected p"],
            [_paired_cells(pair) for pair in results["paired"]],
        ),
        _gain_section(diagnostics.get("gain", {})),
        _cells_section("number of correct references", diagnostics.get("by_correct", {})),
        _cells_section("votes for the most frequent answer", diagnostics.get("by_majority", {})),
        _cells_section("source", diagnostics.get("by_source", {})),
        _explorer_section(diagnostics.get("by_explorer", {})),
        _synthesizer_section(diagnostics, skip_agreement_of(results) > 0),
        _verdicts_section(diagnostics.get("verdicts", {})),
        _perturbed_section(diagnostics.get("probes", {})),
        _sweep_section(diagnostics.get("k_sweep", [])),
        _adaptive_section(diagnostics.get("adaptive", {})),
        Section(
            "Tokens by stage",
            "Means over problems, as the engines count them.",
            ["row", "references", "synthesizer prompt", "synthesis"],
            [
                [name, *map(number, stages.values())]
                for name, stages in diagnostics.get("tokens_by_stage", {}).items()
            ],
        ),
        _cost_section(diagnostics.get("cost", {})),
        *_outside_sections(diagnostics.get("outside", {})),
        Section("Setup", "", ["", ""], [[str(key), str(value)] for key, value in results["setup"].items()]),
    ]
    return found[:1] + [section for section in found[1:] if section.rows]


def _family_intro(family: Mapping[str, Any]) -> str:
    return (
        "In points, resampled over problems. Interval and p: 95 %, for one comparison by itself. Corrected "
        "(Holm 1979): the i-th smallest of m p-values times m - i + 1, and the interval of level "
        "1 - 0.05 / (m - i + 1). So the chance of any wrong claim of a difference in this table is at most "
        "about 5 %. The intervals answer whether each excludes 0. That all of them cover their true "
        f"differences at once is not promised at 95 %. {family.get('statement', '')}".rstrip()
    )


def _paired_cells(pair: Mapping[str, Any]) -> list[str]:
    excludes = (
        "yes"
        if is_significant(pair)
        else "no"
        if pair["low_holm"] <= 0 <= pair["high_holm"]
        else "by the interval alone"
    )
    plain = [pair["a"], pair["b"], points(pair["difference"]), span(pair), p_text(pair["p_value"])]
    return [*plain, span(pair, "_holm"), excludes, p_text(pair["p_holm"])]


def _cells_section(key: str, cells: dict[str, dict[str, dict[str, Any]]]) -> Section:
    counts = sorted(
        {count for row in cells.values() for count in row},
        key=lambda count: (len(count) * count.isdigit(), count),
    )
    nothing = {"accuracy": None, "n": 0}
    rows = []
    for name, row in cells.items():
        found = [row.get(count, nothing) for count in counts]
        rows.append([name, *[f"{percent(cell['accuracy'])} (n={cell['n']})" for cell in found]])
    intro = "In %, over bundles; n is the number of bundles."
    return Section(f"Accuracy by {key}", intro, ["row", *counts], rows)


def _gain_section(gain: dict[str, dict[str, Any]]) -> Section:
    rows = [
        [name, _ratio(g["ratio"]), f"{_ratio(g['low'])} to {_ratio(g['high'])}"] for name, g in gain.items()
    ]
    intro = (
        "The gain over pass@1 as a ratio of the majority's gain, with 95 % "
        "intervals: 1.75 is 75 % more than the majority "
        "gains. No ratio where the majority's own gain cannot be told apart from 0."
    )
    known = [row for row in rows if row[1] != "-"]
    return Section("Gain over pass@1, in gains of the majority", intro, ["row", "ratio", "interval"], known)


def _explorer_section(explorers: dict[str, dict[str, Any]]) -> Section:
    rows = [
        [name or "(not named)", str(one["references"]), percent(one["accuracy"]), percent(one["unparsable"])]
        for name, one in explorers.items()
    ]
    intro = "The references of each explorer, in %: the bundles have those of several."
    header = ["explorer", "references", "accuracy", "unparsable"]
    return Section("Accuracy by explorer", intro, header, rows)


def _cost_section(cost: dict[str, Any]) -> Section:
    def cell(value: float | None, form: str) -> str:
        return "-" if value is None else format(value, form)

    rows = [[name, cell(one["flops"], ".3g"), cell(one["dollars"], ",.4f")] for name, one in cost.items()]
    intro = (
        "FLOPs from the model configs, dollars from the recipe's price table. The measured seconds of each "
        "row, with hardware and batch size, are in timing.json beside this report, so that the report is the "
        "same each time."
    )
    return Section("Cost of an answer", intro, ["row", "FLOPs", "dollars for 1,000"], rows)


def _outside_sections(outside: dict[str, Any]) -> list[Section]:
    models = [
        [name or "(not named)", str(one["rollouts"]), percent(one["accuracy"]), percent(one["agreement"])]
        for name, one in outside.get("models", {}).items()
    ]
    columns = ["problem", "gold", "answer", "verdict", "label", "model"]
    listed = [[str(one[key]) for key in columns] for one in outside.get("disagreements", [])]
    return [
        Section("Rollouts by model", "Accuracy by our verdicts, agreement with the given labels, in %.",
                ["model", "rollouts", "accuracy", "agreement"], models),
        Section("Where our verdict and the given label differ", "The first of them.", columns, listed),
    ]  # fmt: skip


def _perturbed_section(probes: dict[str, dict[str, Any]]) -> Section:
    rows = []
    for name, one in probes.items():
        change = f"{points(one['change']['difference'])} ({span(one['change'])})"
        followed = (
            f"{percent(one['followed_before'])} to {percent(one['followed'])}" if "followed" in one else "-"
        )
        rows.append(
            [name, percent(one["accuracy"]), change, percent(one["agreement"]), followed, str(one["n"])]
        )
    header = [
        "bundle",
        "accuracy",
        "change in points (95 %)",
        "same answer",
        "gives the wrong one's answer",
        "problems",
    ]
    intro = (
        "The most trained synthesizer, greedy, on changed bundles, "
        "against the same bundles as they are. In %."
    )
    return Section("Changed bundles", intro, header, rows)


def _sweep_section(sweep: list[dict[str, Any]]) -> Section:
    rows = [
        [
            str(one["k"]),
            *_accuracy_cells(one),
            percent(one["majority"]),
            percent(one["oracle"]),
            number(one["tokens"]),
        ]
        for one in sweep
    ]
    intro = "The most trained synthesizer, greedy; majority and oracle (pass@k) of the same rollouts. In %."
    header = ["k", "accuracy", "interval", "problems", "majority", "oracle", "tokens"]
    return Section("Accuracy by number of references", intro, header, rows)


def _adaptive_section(found: dict[str, Any]) -> Section:
    if not found:
        return Section("", "", [], [])
    rows = [
        [
            f"{p['price']:.3f}",
            percent(p["accuracy"]),
            number(p["tokens"]),
            "chosen" if p["price"] == found["price"] else "",
        ]
        for p in found["validation"]
    ]
    full = found["validation_full"]
    rows.append(["all references", percent(full["accuracy"]), number(full["tokens"]), ""])
    intro = (
        f"Stopping at the price {found['price']:.3f}, which the validation bundles "
        f"chose, saves {percent(found['saved'])} % of "
        f"the tokens on the test bundles (95 %: {span(found, signed=False)} %) and changes accuracy by "
        f"{points(found['change']['difference'])} points ({span(found['change'])}). "
        "Below: the validation bundles."
    )
    return Section("Adaptive exploring", intro, ["price of a rollout", "accuracy", "tokens", ""], rows)


def _accuracy_cells(one: Mapping[str, Any]) -> list[str]:
    return [percent(one["accuracy"]), span(one, signed=False), str(one["n"])]


def _ratio(value: float | None) -> str:
    return "-" if value is None else f"{value:.2f}"


def skip_agreement_of(results: Mapping[str, Any]) -> float:
    """The share of agreeing references from which on their vote answers, so that the synthesizers' rows are
    of systems; 0 if it never does.
    """
    return float((results.get("setup", {}).get("config") or {}).get("skip_agreement") or 0)


def _synthesizer_section(diagnostics: Mapping[str, Any], by_vote: bool) -> Section:
    rows = []
    for name, flips in diagnostics.get("flips", {}).items():
        new = diagnostics["new_correct"][name]
        counted = [str(flips[kind]) for kind in FLIP_KINDS]
        rows.append(
            [
                name,
                *counted,
                f"{percent(new['accuracy'])} (n={new['n']})",
                percent(diagnostics["copy_rate"][name]),
            ]
        )
    header = ["row", *(kind.replace("_", " ") for kind in FLIP_KINDS), "new correct", "copy rate"]
    intro = (
        "Counts of syntheses, from the majority (right if its expected accuracy "
        "is at least one half) to the synthesis. "
        "New correct: % right where every reference is wrong. Copy "
        "rate: % of answers that are the majority's."
    )
    if by_vote:
        intro += " Answers that are votes, because the references agree, count in all but the copy rate."
    return Section("Flips against the majority", intro, header, rows)


def _verdicts_section(verdicts: Mapping[str, Mapping[str, Any]]) -> Section:
    shares = ("complete", "own_solution", "right_called_right", "wrong_called_wrong", "unsaid")
    rows = [
        [
            name,
            *(percent(one[key]) for key in shares),
            f"{percent(one['auc'])} (n={one['pairs']})",
            percent(one.get("sure_auc")),
        ]
        for name, one in verdicts.items()
    ]
    header = ["row", "complete", "own solution", "right called right", "wrong called wrong", "unsaid"]
    intro = (
        "In %: texts with all sections and a verdict on each reference; own solutions that are right; right "
        "and wrong references that are called so; and references without a verdict. AUC: of the n pairs of a "
        "right and a wrong reference of one bundle, those in which the right one has the better verdict, "
        "ties half; 50 is chance. With several samples, the mean verdict counts. Sure AUC: the same by the "
        "probability that the model gave `right` where it wrote the verdict, if the engine reports it."
    )
    return Section("Verdicts on the references", intro, [*header, "AUC", "sure AUC"], rows)


def percent(value: float | None) -> str:
    return "-" if value is None else f"{100 * value:.1f}"


def points(value: float) -> str:
    return f"{100 * value:+.1f}"


def span(values: Mapping[str, Any], suffix: str = "", signed: bool = True) -> str:
    """An interval. If all scores or differences are equal, the bootstrap has nothing to resample, and an
    interval without width would look exact. So it is replaced by words, with the number of problems.
    """
    low, high = values["low" + suffix], values["high" + suffix]
    if low is None or high is None:
        return "-"
    if low == high and (problems := values.get("n")):
        said = f"{'the same' if low else 'no difference'} in {problems} problems"
        return said if signed else "all the same"  # the number of problems is in the next column
    return f"{points(low)} to {points(high)}" if signed else f"{percent(low)} to {percent(high)}"


def p_text(value: float) -> str:
    return f"{value:.4f}"


def number(value: float | None) -> str:
    return "-" if value is None else f"{value:,.0f}"
