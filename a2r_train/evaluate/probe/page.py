"""probe.md and report.html of a probe, made from probe.json in the style of an evaluation's report."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a2r_train.evaluate.probe.signal import GROUP_SIZES
from a2r_train.evaluate.probe.words import headline
from a2r_train.evaluate.report import plots
from a2r_train.evaluate.report.page import plot, rendered
from a2r_train.evaluate.report.tables import Section, number, percent, points, span
from a2r_train.evaluate.report.write import markdown_section
from a2r_train.records import write_text

if TYPE_CHECKING:
    from rich.console import Group

Found = Mapping[str, Any]
TITLE, SAID = "Will training pay?", "What the probe says"
CURVES = {"pass": "pass@k", "maj": "maj@k", "headroom": "headroom"}
SHARES = {
    "unanimous": "all references agree",
    "unanimous_wrong": "all agree, and are wrong",
    "all_right": "all references are right",
    "none_right": "no reference is right",
    "minority_right": "the majority is wrong, a minority right",
    "tied": "a tie with the right answer in it",
}


def write_pages(folder: Path, found: Found) -> None:
    """Write probe.md and report.html."""
    write_text(folder / "probe.md", markdown(found))
    write_text(folder / "report.html", html(found))


def markdown(found: Found) -> str:
    lines = "\n".join(f"- {line}" for line in found["recommendation"]["reasons"][1:])
    parts = [f"# {TITLE}", f"**{headline(found)}**", lines, *map(markdown_section, sections(found))]
    return "\n\n".join(part for part in parts if part) + "\n"


def html(found: Found) -> str:
    nothing: dict[str, Any] = {"overlap": [], "unparsable": [], "shown": [], "flip_kinds": [], "names": []}
    return rendered(
        title=TITLE,
        headline=headline(found),
        protocol=protocol(found),
        said=SAID,
        sentences=found["recommendation"]["reasons"][1:],
        plots=[plot("pass@k, maj@k and the headroom between them", plots.by_size, found["by_k"], CURVES)],
        sections=sections(found),
        correct="",
        **nothing,
    )


def protocol(found: Found) -> str:
    setup = found["setup"]
    return (
        f"{setup['rollouts']:,} rollouts of {setup['problems']:,} problems, {setup['problems_with_k']:,} of "
        f"them with k = {setup['k']} or more; verdicts {setup['verdicts']}; intervals resample problems"
    )


def sections(found: Found) -> list[Section]:
    """The tables of the probe; those without data are left out."""
    made = [
        _by_k(found),
        Section(
            "How bundles come",
            f"In %, of bundles of {found['setup']['k']} references.",
            ["bundles", "share", "interval"],
            [[label, *_cells(found["shares"][key])] for key, label in SHARES.items()],
        ),
        Section(
            "By number of right references",
            "In %. P(vote right): ties count their expected accuracy.",
            ["right references", "share of bundles", "interval", "P(vote right)"],
            [
                [str(row["correct"]), *_cells(row["share"]), percent(row["vote"])]
                for row in found["by_correct"]
            ],
        ),
        Section(
            "By agreement",
            "In %. 2-1-1: two references agree, and each of the other two has an answer of its own. Some "
            "right: bundles with a right reference.",
            ["agreement", "share of bundles", "interval", "P(vote right)", "some right"],
            [
                [row["pattern"], *_cells(row["share"]), percent(row["vote"]), percent(row["some"])]
                for row in found["by_agreement"]
            ],
        ),
        _gains(found),
        _predicted(found),
        _tokens(found),
        _orders(found),
        _signal(found),
        _power(found),
        Section("Setup", "", ["", ""], [[str(key), str(value)] for key, value in found["setup"].items()]),
    ]
    return [section for section in made if section.rows]


def _cells(found: Found) -> list[str]:
    return [percent(found["value"]), span(found, signed=False)]


def _by_k(found: Found) -> Section:
    rows = [
        [str(row["k"]), *(cell for key in CURVES for cell in _cells(row[key])), str(row["problems"])]
        for row in found["by_k"]
    ]
    header = ["k", *(cell for name in CURVES.values() for cell in (name, "interval")), "problems"]
    intro = "In %, with 95 % bootstrap intervals over problems. The headroom is pass@k - maj@k."
    return Section("Room", intro, header, rows)


def _gains(found: Found) -> Section:
    setup, equal = found["setup"], found["tokens"]["equal"]
    accuracy = setup["config"]["accuracy"]
    names = {
        "perfect": f"a perfect selector over maj@{setup['k']}",
        "selector": f"a selector of accuracy {accuracy:g} over it",
        "perfect_equal": f"a perfect selector over a vote of equal tokens ({equal})",
        "selector_equal": f"a selector of accuracy {accuracy:g} over that",
    }
    rows = [
        [names[key], points(told["value"]), span(told)]
        for key, told in found["gains"].items()
        if key in names
    ]
    intro = (
        "In points. The accuracy of a selector is how often it picks the right one of a right and a wrong "
        "reference. A vote of more rollouts than exist is the vote of all."
    )
    return Section("The largest gain", intro, ["selector", "points", "interval"], rows)


def _predicted(found: Found) -> Section:
    predicted = found["predicted"]
    names = {
        "trained": "trained synthesizer, %",
        "base": "untrained synthesizer, %",
        "over_base": "gain over the untrained",
        "over_vote": "gain over the vote",
        "over_equal": "gain over a vote of equal tokens",
    }
    selector = predicted["selector"]
    intro = (
        f"As a selector of accuracy {selector['accuracy']:.2f} and weight {selector['weight']:.1f}; "
        f"accuracies in %, gains in points. "
        f"Add the prediction's own error, {100 * predicted['error']:.1f} points."
    )
    rows = [
        [name, points(told["value"]) if key.startswith("over") else percent(told["value"]),
         span(told, signed=key.startswith("over"))]
        for key, name in names.items() if (told := predicted.get(key))
    ]  # fmt: skip
    return Section("Prediction", intro, ["", "value", "interval over problems"], rows)


def _tokens(found: Found) -> Section:
    tokens, cost = found["tokens"], found["cost"]
    kind = "measured" if tokens["measured"] else "estimated, as no model was asked"
    names = {
        "reference": "one reference", "references": "all references",
        "prompt": f"synthesizer's prompt ({kind})", "synthesis": f"synthesis ({kind})",
        "two_stages": "two-stage answer", "alone": "one answer alone",
    }  # fmt: skip
    rows = [[name, number(tokens[key])] for key, name in names.items()]
    if cost:
        rows.append(["FLOPs of a two-stage answer", f"{cost['two_stages']:.3g}"])
        rows.append(["FLOPs of one answer of the larger model", f"{cost['alone']:.3g}"])
        rows.append(["times as many", f"{cost['ratio']:.1f}"])
    return Section("Tokens and cost", "Means of an answer.", ["", "value"], rows)


def _orders(found: Found) -> Section:
    model = found.get("model")
    rows = []
    for way, told in model["two_orders"].items() if model else ():
        consistent = told["right_of_consistent"]
        shares = [percent(told[kind]) for kind in ("right", "wrong", "first", "second", "neither")]
        of_them = f"{percent(consistent['value'])} ({span(consistent, signed=False)})"
        rows += [[way, str(told["pairs"]), *shares, of_them]] if told["pairs"] else []
    header = ["asked", "pairs", "right", "wrong", "the first", "the second", "neither", "right of consistent"]
    intro = (
        "The model sees a right and a wrong solution in both orders. In % of the pairs. Answered: with the "
        "usual prompt, whose answer it gives. Named: whose number it gives. Right and wrong: it chooses that "
        "solution in both orders. The first and the second: it chooses that place in both orders."
    )
    return Section("Two orders", intro, header, rows)


def _signal(found: Found) -> Section:
    rows = [
        [row["mixture"], percent(row["kept"]), *(percent(row["signal"][str(size)]) for size in GROUP_SIZES)]
        for row in found["signal"]["rows"]
    ]
    header = ["mixture", "bundles kept", *(f"groups of {size}" for size in GROUP_SIZES)]
    intro = (
        "Share of groups that are neither all right nor all wrong, in %, with the untrained synthesizer. Two "
        f"answers to one bundle have an intraclass correlation of {found['signal']['likeness']:.2f}."
    )
    return Section("Groups with signal", intro, header, rows)


def _power(found: Found) -> Section:
    power = found["power"]
    rows = [
        [rival, points(one["smallest"])[1:], points(one["gain"]),
         "-" if one["needed_problems"] is None else f"{one['needed_problems']:,}",
         "-" if one["needed_bundles"] is None else f"{one['needed_bundles']:,}"]
        for rival, one in (("the vote", power["vote"]), ("the untrained", power["base"]))
    ]  # fmt: skip
    header = ["against", "told apart from", "predicted gain", "problems for it", "bundles for it"]
    intro = (
        f"In points, with a power of 80 %, by problem, for {power['problems']:,} problems with "
        f"{power['bundles_per_problem']} bundle{'s' * (power['bundles_per_problem'] > 1)} each."
    )
    return Section("What an evaluation can tell", intro, header, rows)


def table(found: Found) -> Group:
    """What a run prints to the terminal at its end."""
    from rich.console import Group
    from rich.text import Text

    from a2r_train.evaluate.report.terminal import drawn

    rooms, shares = _by_k(found), sections(found)[1]
    return Group(
        Text(headline(found), style="bold"),
        Text(protocol(found), style="dim"),
        "",
        drawn(rooms),
        "",
        drawn(shares),
        "",
        *(Text(f"- {line}") for line in found["recommendation"]["reasons"][1:]),
    )
