"""The comparisons in words: one sentence at the top, one for each comparison, and what is wrong."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from a2r_train.evaluate.cost import monolith_sentences
from a2r_train.evaluate.report.pairs import is_undone_by_p, significant_side
from a2r_train.evaluate.report.tables import percent, points, skip_agreement_of, span
from a2r_train.evaluate.rows.names import BASE, CONTROL, RANDOM, SFT, SFT_GRPO, TRAINED, is_vote, split
from a2r_train.evaluate.rows.row import is_short
from a2r_train.evaluate.statistics import detectable_difference, fewest_problems

MOST_NAMED = 4  # rivals in the sentence at the top; the plot shows all
MOST_UNREAD = 0.5  # with more texts without an answer, a row measures the format, as in `a2r probe`
MOST_SHOWN = 100  # characters of an unparsable text
OWN = (SFT, "rounds", "adaptive")  # the trained synthesizer itself, earlier or used otherwise


def headline(results: Mapping[str, Any]) -> str:
    """Did training pay? One sentence, from the corrected comparisons of the trained synthesizer."""
    rows = {row["name"]: row for row in results["rows"]}
    pairs = trained_pairs(results)
    trained = next((name + end for end in ("", "@T") for name in TRAINED if name + end in rows), "")
    if not trained:
        return "Whether training pays is not known: no trained synthesizer was evaluated."
    base = pairs.get(BASE) or pairs.get(f"{BASE}@T")
    share = skip_agreement_of(results)
    said = f"{trained} with skip_agreement {share:g}" if share else trained
    right = f"{said} is right in {percent(rows[trained]['accuracy'])} % of {rows[trained]['n']:,} problems"
    if not base:
        return f"Whether training paid is not known, as there is no {BASE} row: {right}."
    others = {name: pair for name, pair in pairs.items() if split(name)[0] not in (BASE, *OWN)}
    beaten = [rows[name] for name, pair in others.items() if significant_side(pair) == "above"]
    unread = [row["name"] for row in beaten if _is_unread(row)]
    short = [row["name"] for row in beaten if is_short(row["note"])]
    others = {name: pair for name, pair in others.items() if name not in (*unread, *short)}
    paid = _BY_FORMAT if _is_unread(rows[base["b"]]) else _paid(others, [*unread, *short])
    lead = {"above": paid, "below": "Training did harm", "": "No significant gain from training"}
    size = f"{abs(100 * base['difference']):.1f} points {'above' if base['difference'] >= 0 else 'below'}"
    untrained = f"the untrained one ({percent(rows[base['b']]['accuracy'])} %)"
    left_out = _of_unread(unread) + _of_short(short)
    return f"{lead[significant_side(base)]}: {right}, {size} {untrained}{_of_others(others)}{left_out}."


def power_lines(results: Mapping[str, Any]) -> list[str]:
    """Without a significant gain: the smallest that so many problems show, and how many this one needs."""
    pairs = trained_pairs(results)
    base = pairs.get(BASE) or pairs.get(f"{BASE}@T")
    if not base or significant_side(base):
        return []
    problems, gain, family = base["n"], base["difference"], len(results["paired"])
    least, smallest = fewest_problems(family), detectable_difference(base["low"], base["high"], family)
    if problems < least:
        said = (
            f"{problems} problems are too few: with {family} comparisons corrected together, it takes "
            f"{least} or more to show any difference"
        )
    elif smallest:
        said = (
            f"{problems:,} problems show a difference from the untrained one of about {100 * smallest:.0f} "
            f"points or more (power 80 %, {family} comparisons corrected together)"
        )
    else:
        return []
    if gain > 0 and smallest:
        needed = max(least, math.ceil(problems * (smallest / gain) ** 2))
        digits = 2 - len(str(needed))  # the spread is not known to more than two digits
        said += f"; a gain of {100 * gain:.1f} points takes about {round(needed, min(0, digits)):,} problems"
    return [f"{said}."]


_BY_FORMAT = "Training beats the untrained model, most of whose texts have no answer that can be read"


def _is_unread(row: Mapping[str, Any]) -> bool:
    """Whether most texts of a row have no answer, so that being above it only means keeping to the format."""
    return (row.get("unparsable") or 0.0) > MOST_UNREAD


def _of_unread(names: Sequence[str]) -> str:
    """Which rows do not count as beaten rivals."""
    if not names:
        return ""
    most = f"most {'of its' if len(names) == 1 else 'of their'} texts have no answer that can be read"
    return f"; {_named(names)} {'is' if len(names) == 1 else 'are'} not counted, as {most}"


def _of_short(names: Sequence[str]) -> str:
    """Which votes do not count as beaten, because they had fewer rollouts than their budget buys."""
    if not names:
        return ""
    its = "its" if len(names) == 1 else "their"
    are = "is" if len(names) == 1 else "are"
    return f"; {_named(names)} {are} not counted, as fewer rollouts exist than {its} budget buys"


def _paid(others: Mapping[str, Mapping[str, Any]], uncounted: Sequence[str]) -> str:
    """What it means to be above the untrained model. Training paid only if votes and control are beaten
    too.
    """
    if not others and uncounted:
        return "Training beats the untrained model, and no other rival counts"
    if not others:
        return "Training beats the untrained model, and nothing else was compared"
    if any(significant_side(pair) != "above" for pair in others.values()):
        return "Training beats the untrained model, but not every rival"
    needed = {
        "a vote": any(is_vote(name) or split(name)[0] == RANDOM for name in others),
        f"the control ({CONTROL})": any(split(name)[0] == CONTROL for name in others),
    }
    missing = [said for said, there in needed.items() if not there]
    if not missing:
        return "Training paid"
    return f"Training beats every rival, but without {' and '.join(missing)} it is not known whether it paid"


def _of_others(others: Mapping[str, Mapping[str, Any]]) -> str:
    """How it compares with the other rivals; those that it is not above are named."""
    if not others:
        return ""
    verdicts = {name: significant_side(pair) for name, pair in others.items()}
    above = sum(verdict == "above" for verdict in verdicts.values())
    if above == len(others):
        return f", and above all {above} other rivals" if above > 1 else f", and above {next(iter(others))}"
    said = f". It is above {above} of {len(others)} other rivals"
    same = [name for name, verdict in verdicts.items() if not verdict]
    below = [name for name, verdict in verdicts.items() if verdict == "below"]
    said += f", cannot be told apart from {_named(same)}" if same else ""
    return said + (f", and is below {_named(below)}" if below else "")


def _named(names: Sequence[str]) -> str:
    if len(names) > MOST_NAMED:
        return f"{', '.join(names[: MOST_NAMED - 1])} and {len(names) - MOST_NAMED + 1} more"
    return " and ".join([", ".join(names[:-1]), names[-1]] if len(names) > 1 else names)


def trained_pairs(results: Mapping[str, Any], suffix: str = "") -> dict[str, Mapping[str, Any]]:
    """The comparisons of the trained synthesizer by rival: greedy, or sampled with suffix `@T`. Without a
    greedy row, the sampled ones.
    """
    found: dict[str, Mapping[str, Any]] = {}
    for pair in results["paired"]:
        name, end = split(pair["a"])
        if name in TRAINED and end == suffix:
            found[pair["b"]] = pair
    return found or (trained_pairs(results, "@T") if not suffix else {})


def unparsable_lines(results: Mapping[str, Any]) -> list[str]:
    """One line if many texts have no readable answer: the rows, a sample, and what to do about it."""
    rows = results["diagnostics"].get("unparsable", {})
    if not rows:
        return []
    shares = ", ".join(f"{name} {percent(one['share'])} %" for name, one in rows.items())
    name, first = next(((name, one) for name, one in rows.items() if one["sample"]), next(iter(rows.items())))
    end = " ".join(first["sample"].split())[-MOST_SHOWN:]
    sample = f'. One text of {name} ends in "{end}"' if end else ""
    return [f"Texts without a readable answer: {shares}{sample}. To fix this: {first['remedy']}."]


def sentences(results: Mapping[str, Any]) -> list[str]:
    """What each comparison says; `above` and `below` only if `is_significant`."""
    said = []
    for pair in results["paired"]:
        a, b, verdict = pair["a"], pair["b"], significant_side(pair)
        numbers = f"{points(pair['difference'])} points, {_interval(pair)}"
        if split(a)[0] == SFT_GRPO and split(b)[0] == SFT:
            verb = {"above": "added to", "below": "took from", "": "did not measurably add to"}[verdict]
            said.append(f"GRPO {verb} SFT ({a} against {b}): {numbers}.")
        else:
            verb = {"above": "is above", "below": "is below", "": "cannot be told apart from"}[verdict]
            said.append(f"{a} {verb} {b}: {numbers}.")
    return said + power_lines(results) + other_sentences(results)


def _interval(pair: Mapping[str, Any]) -> str:
    said = span(pair, "_holm")
    if pair["low_holm"] == pair["high_holm"]:
        return said
    why = f", but p {pair['p_holm']:.3f}" if is_undone_by_p(pair) else ""
    return f"Holm-corrected interval {said}{why}"


def other_sentences(results: Mapping[str, Any]) -> list[str]:
    """What there is to say besides the comparisons."""
    said = monolith_sentences(results)
    outside = results["diagnostics"].get("outside", {})
    if without := outside.get("without_a_bundle"):
        of_all = f"{without} of {outside['problems']} problems"
        said.append(f"{of_all} have too few rollouts for a bundle and are left out.")
    if outside.get("labelled"):
        agreed = outside["labelled"] - outside["differing"]
        said.append(
            f"Our verdicts agree with the given labels on {agreed} of {outside['labelled']} rollouts "
            f"({100 * agreed / outside['labelled']:.2f} %); the labels call {outside['label_right']} of the "
            f"{outside['differing']} others right."
        )
    names = {row["name"] for row in results["rows"]}
    if SFT in names and SFT_GRPO not in names:
        said.append(f"Whether GRPO adds to SFT is not known: there is no {SFT_GRPO} row.")
    return said
