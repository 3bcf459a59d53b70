"""What an answer of each row costs: FLOPs from the model configs, dollars from a price table, measured
seconds.

It also answers the question of A2R-Efficient (arXiv 2509.22044): at what cost does a pair reach the accuracy
of one bigger model?
"""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from a2r_train.config import load_yaml
from a2r_train.errors import InputError
from a2r_train.evaluate.answers import Answers
from a2r_train.evaluate.rows.names import BASE, GRPO, SFT, SFT_GRPO
from a2r_train.evaluate.rows.row import EXPLORER, Part, Row, mean
from a2r_train.inference.price import Price
from a2r_train.models import Size
from a2r_train.records import Bundle, Rollout

PAIRS = (BASE, SFT, GRPO, SFT_GRPO)


def flops(size: Size, part: Part) -> float:
    """Forward FLOPs of a part: 2 for each parameter and token, and 4 x layers x attention width for each
    token and each earlier one (PaLM, arXiv 2204.02311, appendix B, a third of its count for training). The
    prompt is read once."""

    def between(first: float, last: float) -> float:
        return 2 * size.parameters * (last - first) + 2 * size.layers * size.attention_width * (
            last**2 - first**2
        )

    end, reads = part.prompt_tokens + part.completion_tokens, min(1.0, part.completions)
    return reads * between(0, part.prompt_tokens) + part.completions * between(part.prompt_tokens, end)


def load_prices(path: str) -> dict[str, Price]:
    """Read a YAML file: model -> {prompt, completion} in dollars per million tokens.

    Raises InputError for any other shape.
    """
    prices = {}
    for model, price in (load_yaml(path) if path else {}).items():
        if not isinstance(price, dict) or set(price) != {"prompt", "completion"}:
            raise InputError(f"{path}: {model}: {price!r}; expected {{prompt: 0.1, completion: 0.4}}")
        try:
            prices[str(model)] = Price(float(price["prompt"]), float(price["completion"]))
        except (TypeError, ValueError):
            raise InputError(f"{path}: {model}: {price!r}; expected two numbers") from None
    return prices


@dataclass(frozen=True)
class Writer:
    """One of the explorers: its share of the rollouts, their mean length relative to all, and the mean
    tokens of the prompts that it read.
    """

    model: str
    share: float
    length: float
    prompt_tokens: float


def writers_of(explorer: str, bundles: Sequence[Bundle], rollouts: Sequence[Rollout]) -> list[Writer]:
    """Who wrote the references: the recipe's explorer, or those that the references name if they are
    several.
    """
    prompt = mean(float(r.prompt_tokens) for r in rollouts) if rollouts else 0.0
    written = [reference for bundle in bundles for reference in bundle.references]
    if len(names := sorted({reference.model for reference in written})) < 2:
        return [Writer(explorer, 1.0, 1.0, prompt)]
    total = mean(float(reference.tokens) for reference in written)
    found = []
    for name in names:
        own = [float(reference.tokens) for reference in written if reference.model == name]
        read = [float(r.prompt_tokens) for r in rollouts if r.model == name]
        length = mean(own) / total if total else 1.0
        found.append(Writer(name, len(own) / len(written), length, mean(read) if read else prompt))
    return found


def _by_writer(part: Part, writers: Sequence[Writer]) -> list[Part]:
    """The explorer's share of an answer, as the parts of those who wrote the rollouts."""
    if part.model != EXPLORER:
        return [part]
    return [
        replace(
            part,
            model=one.model,
            prompt_tokens=one.prompt_tokens,
            completion_tokens=part.completion_tokens * one.length,
            completions=part.completions * one.share,
        )
        for one in writers
    ]


def costs(
    rows: Sequence[Row],
    writers: Sequence[Writer],
    prices: Mapping[str, Price],
    size_of: Callable[[str], Size | None],
) -> dict[str, dict[str, float | None]]:
    """By row, `flops` and `dollars` (for 1,000 answers); None if not known."""
    sizes: dict[str, Size | None] = {}
    found: dict[str, dict[str, float | None]] = {}
    for row in rows:
        parts = [part for p in row.parts for part in _by_writer(p, writers)]
        for part in parts:
            if part.model and part.model not in sizes:
                sizes[part.model] = size_of(part.model)
        known = [(sizes.get(p.model), p) for p in parts]
        found[row.name] = {
            "flops": sum(flops(size, p) for size, p in known if size)
            if parts and all(size for size, _ in known)
            else None,
            "dollars": _dollars(parts, prices),
        }
    return found


def timings(rows: Sequence[Row], work: Answers) -> dict[str, Any]:
    """By row, the `seconds` of an answer and the hardware. The seconds are its share of the measured time of
    whole batches, not its latency.
    """
    second, device = _explorer_time(work.config.rollouts)
    seconds = {row.name: sum(_seconds(p, work, second) for p in row.parts) for row in rows if row.parts}
    places = {f"{t['device']}, batch size {t['batch_size']}" for t in work.seconds.values() if t["device"]}
    known = {name: round(value, 5) for name, value in seconds.items() if not math.isnan(value)}
    return {"seconds": known, "hardware": sorted(places), "explorer_hardware": device}


def _dollars(parts: Sequence[Part], prices: Mapping[str, Price]) -> float | None:
    if not parts or any(p.model not in prices for p in parts):
        return None
    priced = [(p, prices[p.model]) for p in parts]
    return (
        sum(
            min(1.0, p.completions) * p.prompt_tokens * at.prompt
            + p.completions * p.completion_tokens * at.completion
            for p, at in priced
        )
        / 1e3
    )


def _seconds(part: Part, work: Answers, explorer_second: float) -> float:
    if part.model == EXPLORER:
        return part.completions * explorer_second
    if not part.completions:
        return 0.0  # it was not asked at all
    timing = work.seconds.get(part.task)
    return part.completions * timing["seconds"] / timing["answers"] if timing else math.nan


def _explorer_time(rollouts: str) -> tuple[float, str]:
    """Seconds per rollout, from the timings that `a2r explore` wrote beside the rollouts; NaN without any."""
    timings = (
        [json.loads(path.read_text()) for path in Path(rollouts).parent.glob("timing-*.json")]
        if rollouts
        else []
    )
    made = sum(t["rollouts"] for t in timings)
    if not made:
        return math.nan, ""
    return sum(t["seconds"] for t in timings) / made, ", ".join(sorted({t["device"] for t in timings}))


def pareto(results: Mapping[str, Any]) -> dict[str, Any]:
    """Cost and accuracy of each row that has both, and the rows that no cheaper row equals.

    Oracles are left out, and numbers of references that some problems lack.
    """
    cost = results["diagnostics"].get("cost", {})
    unit = "dollars" if any(one["dollars"] is not None for one in cost.values()) else "flops"
    points = [
        {"name": row["name"], "cost": cost[row["name"]][unit], "accuracy": row["accuracy"]}
        for row in [*results["rows"], *_sweep(results)[0]]
        if row["accuracy"] is not None
        and (cost.get(row["name"]) or {}).get(unit)
        and "oracle" not in row["note"]
    ]
    best, front = -1.0, []
    for point in sorted(points, key=lambda p: (p["cost"], -p["accuracy"])):
        if point["accuracy"] > best:
            best = point["accuracy"]
            front.append(point["name"])
    return {"unit": unit, "points": points, "front": front}


def _sweep(results: Mapping[str, Any]) -> tuple[list[dict[str, Any]], list[str]]:
    """The numbers of references that all problems have, and the names of the others, whose accuracies over
    fewer problems do not compare.
    """
    problems = max((row["n"] for row in results["rows"]), default=0)
    sweep = results["diagnostics"].get("k_sweep") or []
    whole = [one for one in sweep if one["n"] == problems]
    points = [{"name": one["name"], "accuracy": one["accuracy"], "note": ""} for one in whole]
    return points, [one["name"] for one in sweep if one["n"] != problems]


def monolith_sentences(results: Mapping[str, Any]) -> list[str]:
    """For each synthesizer, the cheapest measured setting in which the pair is as accurate as the monolith,
    if there is one.
    """
    found = pareto(results)
    points = {point["name"]: point for point in found["points"]}
    if not (monolith := points.get("monolith")):
        return []
    unit = {"flops": "FLOPs", "dollars": "price"}[found["unit"]]
    said, present = [], [name for name in PAIRS if name in points]
    for name in present:
        ours = [
            p
            for p in points.values()
            if p["name"].startswith((f"{name} k=", f"{name}/")) or p["name"] == name
        ]
        if name == present[-1]:
            ours += [points[extra] for extra in ("adaptive", "rounds") if extra in points]
        reached = [p for p in ours if p["accuracy"] >= monolith["accuracy"]]
        one = min(reached, key=lambda p: p["cost"]) if reached else max(ours, key=lambda p: p["accuracy"])
        share = f"{100 * one['cost'] / monolith['cost']:.0f} % of its {unit}"
        target = f"the monolith's accuracy ({100 * monolith['accuracy']:.1f} %)"
        if reached:
            said.append(
                f"The pair with {name} reaches {target} at {share}: "
                f"{one['name']}, {100 * one['accuracy']:.1f} %."
            )
        else:
            best = f"{one['name']} has {100 * one['accuracy']:.1f} % at {share}"
            said.append(f"The pair with {name} does not reach {target} at any measured cost; {best}.")
    if present and (fewer := _sweep(results)[1]):
        said.append(f"Left out there, as not all problems have as many references: {', '.join(fewer)}.")
    return said
