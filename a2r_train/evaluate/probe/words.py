"""The recommendation: one sentence on top, and a reason each with its figure. They follow from the prediction and
its error, as docs/probe.md shows.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from a2r_train.evaluate.probe.facts import next_k
from a2r_train.evaluate.report.tables import percent, points

Found = Mapping[str, Any]
NO_ROOM = 0.05  # between pass@k and maj@k: the evaluations of docs/probe.md below it gained nothing
MORE = 0.05  # pass@2k above pass@k, from which more references are worth their tokens
UNANIMOUS = 0.5  # share of the bundles
NONE_RIGHT = 0.5
HEADS = {
    "format": "Mend the format first",
    "weak": "Take a stronger explorer or easier problems",
    "alone": "Solve alone",
    "vote": "Vote",
    "unsure": "Vote, or train for a gain over the untrained synthesizer alone",
    "train": "Train here",
}


def recommendation(found: Found) -> tuple[str, list[str]]:
    """The key of HEADS, and the reasons, the deciding one first."""
    key, reason = _decided(found)
    return key, [reason, *_more(found)]


def headline(found: Found) -> str:
    """The recommendation in one sentence."""
    key, reasons = found["recommendation"]["what"], found["recommendation"]["reasons"]
    return f"{HEADS[key]}: {reasons[0]}"


def _decided(found: Found) -> tuple[str, str]:
    k, predicted = found["setup"]["k"], found["predicted"]
    row = found["by_k"][k - 1]
    room, oracle, vote = row["room"], row["pass"], row["maj"]
    error, gain = predicted["error"], predicted["over_vote"]
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
            f"with references {percent(predicted['trained']['value'])} % are predicted after training "
            f"(error {points(error)[1:]})."
        )
    if room["high"] < NO_ROOM or oracle["value"] == vote["value"]:
        return "vote", (
            f"there is no room: pass@{k} is {percent(oracle['value'])} %, maj@{k} {percent(vote['value'])} %, "
            f"a room of {_points(room)}."
        )
    said = (
        f"{percent(predicted['trained']['value'])} % are predicted for a trained synthesizer, "
        f"{_points(gain)} over maj@{k}"
    )
    if gain["value"] <= error:
        return "unsure", (
            f"{said}, which is within the prediction's error of {100 * error:.1f} points; over the untrained "
            f"one it is {_points(predicted['over_base'])}."
        )
    return "train", f"{said}, with an error of {100 * error:.1f} points; the room is {_points(room)}."


def _more(found: Found) -> list[str]:
    """What could be changed, and what the untrained model says, each with its figure."""
    k, shares, said = found["setup"]["k"], found["shares"], []
    row, more = found["by_k"][k - 1], next_k(found["by_k"], found["setup"]["k"])
    if shares["unanimous"]["value"] > UNANIMOUS:
        said.append(
            f"Raise the temperature: {percent(shares['unanimous']['value'])} % of the bundles are unanimous."
        )
    if more and more["pass"]["value"] - row["pass"]["value"] > MORE:
        above = more["pass"]["value"] - row["pass"]["value"]
        said.append(
            f"Raise k: pass@{more['k']} is {100 * above:.1f} points above pass@{k}, the room there "
            f"{100 * more['room']['value']:.1f}."
        )
    if shares["none_right"]["value"] > NONE_RIGHT:
        said.append(
            f"Take a stronger explorer: in {percent(shares['none_right']['value'])} % of the bundles no "
            "reference is right, and a synthesizer learns to select, not to solve."
        )
    if over := found["predicted"].get("over_equal"):
        beats = "above" if over["value"] > 0 else "below"
        said.append(
            f"A vote of as many tokens ({found['predicted']['equal']} rollouts) is the harder rival: "
            f"{_points(over)} predicted, {beats} it."
        )
    return said + _of_model(found) + [_of_training(found)]


def _of_model(found: Found) -> list[str]:
    model = found.get("model")
    if not model:
        return ["No model was asked: the untrained one is taken to name a reference nearly at random."]
    said = []
    for way, told in model["two_orders"].items():
        if not told["pairs"]:
            continue
        line = (
            f"Two orders, {way}: consistent and right in {percent(told['right'])} % of {told['pairs']} pairs, "
            f"consistent and wrong in {percent(told['wrong'])}; it goes with the first solution in "
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


def probe_line(found: Found) -> str:
    """What an evaluation prints beside its table."""
    predicted = found["predicted"]
    return (
        f"a2r probe: {100 * found['room']:.1f} points of room over the vote; predicted for a trained synthesizer "
        f"{percent(predicted['trained']['value'])} % (error {100 * predicted['error']:.1f} points), "
        f"{points(predicted['over_vote']['value'])} over the vote"
    )


def _points(told: Found) -> str:
    if told["low"] is None:
        return f"{100 * told['value']:.1f} points"
    return f"{100 * told['value']:.1f} points ({100 * told['low']:.1f} to {100 * told['high']:.1f})"
