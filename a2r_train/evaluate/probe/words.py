"""The recommendation: one sentence at the top, then reasons with their figures.

They follow from the prediction and its error, as docs/probe.md shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from a2r_train.evaluate.probe.facts import next_k
from a2r_train.evaluate.report.tables import percent

Found = Mapping[str, Any]
NO_HEADROOM = 0.05  # between pass@k and maj@k: evaluations of docs/probe.md with less headroom gained nothing
MORE = 0.05  # pass@2k above pass@k, from which more references are worth their tokens
UNANIMOUS = 0.5  # share of the bundles
NONE_RIGHT = 0.5
HEADS = {
    "format": "Fix the format first",
    "weak": "Take a stronger explorer or easier problems",
    "alone": "Solve alone",
    "vote": "Vote",
    "unsure": "Vote, or train for a gain over the untrained synthesizer alone",
    "train": "Train here",
}


def recommendation(found: Found) -> tuple[str, list[str]]:
    """The key of HEADS, and the reasons, the decisive one first."""
    key, reason = _decided(found)
    return key, [reason, *_more(found)]


def headline(found: Found) -> str:
    """The recommendation in one sentence."""
    key, reasons = found["recommendation"]["what"], found["recommendation"]["reasons"]
    return f"{HEADS[key]}: {reasons[0]}"


def _decided(found: Found) -> tuple[str, str]:
    k, predicted = found["setup"]["k"], found["predicted"]
    row = found["by_k"][k - 1]
    headroom, oracle, vote = row["headroom"], row["pass"], row["maj"]
    error = predicted["error"]
    alone = found.get("model", {}).get("alone_over_pass")
    if found["unparsable"]["many"]:
        return "format", f"{found['unparsable']['says']}."
    if oracle["value"] == 0:
        return "weak", f"no reference is right anywhere (pass@{k} is 0), so no reward can be earned."
    if alone and alone["low"] > 0:
        return "alone", (
            f"the untrained synthesizer alone is right in {percent(found['model']['alone']['value'])} %, "
            f"{_points(alone)} above pass@{k} of the references, so it is better than all of them together."
        )
    if found.get("model") and found["model"]["alone"]["low"] > predicted["trained"]["value"] + error:
        return "alone", (
            f"the untrained synthesizer alone is right in {percent(found['model']['alone']['value'])} %, and "
            f"the prediction with references after training is {percent(predicted['trained']['value'])} % "
            f"(error {100 * error:.1f})."
        )
    if headroom["high"] < NO_HEADROOM or oracle["value"] == vote["value"]:
        return "vote", (
            f"there is no headroom: pass@{k} is {percent(oracle['value'])} %, maj@{k} "
            f"{percent(vote['value'])} %, a headroom of {_points(headroom)}."
        )
    over, rival = _hardest(found)
    key = word_of(over["value"], error)
    said = (
        f"{percent(predicted['trained']['value'])} % are predicted for a trained synthesizer, with an error "
        f"of {100 * error:.1f} points: {_points(over)} over {rival}"
    )
    base = f"{_points(predicted['over_base'])} over the untrained one"
    return key, f"{said}, and {base}; the headroom over maj@{k} is {_points(headroom)}."


def word_of(gain: float, error: float) -> str:
    """`train` or `vote` if the predicted gain over the harder vote is beyond the error, else `unsure`."""
    if gain > error:
        return "train"
    return "vote" if gain < -error else "unsure"


def _hardest(found: Found) -> tuple[Found, str]:
    """The predicted gain over the vote of k or the vote of equal tokens, whichever is the harder rival."""
    predicted, names = found["predicted"], {"over_vote": f"maj@{found['setup']['k']}"}
    if predicted.get("over_equal"):
        names["over_equal"] = f"a vote of as many tokens ({predicted['equal']} rollouts)"
    key = min(names, key=lambda name: predicted[name]["value"])
    return predicted[key], names[key]


def _more(found: Found) -> list[str]:
    """What could be changed, and what the untrained model shows, each with its figures."""
    k, shares, said = found["setup"]["k"], found["shares"], []
    row, more = found["by_k"][k - 1], next_k(found["by_k"], found["setup"]["k"])
    if shares["unanimous"]["value"] > UNANIMOUS:
        said.append(
            f"Raise the temperature: {percent(shares['unanimous']['value'])} % of the bundles are unanimous."
        )
    if more and more["over_k"] > MORE:
        fewer = f" (of the {more['problems']:,} problems with as many rollouts)"
        said.append(
            f"Raise k: pass@{more['k']} is {100 * more['over_k']:.1f} points above pass@{k}, the headroom "
            f"is {100 * more['headroom']['value']:.1f}{fewer if more['problems'] < row['problems'] else ''}."
        )
    if shares["none_right"]["value"] > NONE_RIGHT:
        said.append(
            f"Take a stronger explorer: in {percent(shares['none_right']['value'])} % of the bundles no "
            "reference is right, and a synthesizer learns to select, not to solve."
        )
    return said + _of_model(found) + [_of_training(found)]


def _of_model(found: Found) -> list[str]:
    model = found.get("model")
    if not model:
        return ["No model was asked: the untrained one is assumed to name a reference nearly at random."]
    said = []
    for way, told in model["two_orders"].items():
        if not told["pairs"]:
            continue
        line = (
            f"Two orders, {way}: consistent and right in {percent(told['right'])} % of {told['pairs']} "
            f"pairs, consistent and wrong in {percent(told['wrong'])}; it goes with the first solution in "
            f"{percent(told['first'])}, with the second in {percent(told['second'])}."
        )
        chance = " That is at chance: train verdicts first, by SFT on verified answers." * told["at_chance"]
        said.append(line + (chance if way == "answered" else ""))
    return said


def _of_training(found: Found) -> str:
    signal, power = found["signal"], found["power"]
    row = next(row for row in signal["rows"] if row["mixture"] == signal["mixture"])
    share = row["signal"][str(signal["group_size"])]
    return (
        f"Most groups with signal: mixture {signal['mixture']} in groups of {signal['group_size']}, "
        f"{percent(share)} % of them ({percent(row['kept'])} % of the bundles are kept). {power['says']}."
    )


def _points(told: Found) -> str:
    if told["low"] is None:
        return f"{100 * told['value']:.1f} points"
    return f"{100 * told['value']:.1f} points ({100 * told['low']:.1f} to {100 * told['high']:.1f})"
