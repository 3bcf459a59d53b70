"""`a2r probe`: what rollouts say, what the untrained synthesizer answers, and whether to train."""

from __future__ import annotations

import json
import logging
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from a2r_train import output
from a2r_train.data.probe import load_pools, pools_of
from a2r_train.data.read import Columns
from a2r_train.data.unparsable import unparsable
from a2r_train.engines import ENGINE_MAY_DIFFER, settled
from a2r_train.errors import InputError
from a2r_train.evaluate.probe import facts as of_rollouts
from a2r_train.evaluate.probe.asked import (
    ANSWER,
    NAME,
    Asked,
    answers,
    base_of,
    bundles_to_ask,
    check_enough,
    generator,
    likeness,
    tasks,
    two_orders,
)
from a2r_train.evaluate.probe.config import ProbeConfig, check
from a2r_train.evaluate.probe.facts import Facts
from a2r_train.evaluate.probe.page import write_pages
from a2r_train.evaluate.probe.power import line, spread_against_vote
from a2r_train.evaluate.probe.predict import is_at_chance, power, predict
from a2r_train.evaluate.probe.selector import Selector
from a2r_train.evaluate.probe.signal import signal
from a2r_train.evaluate.probe.words import recommendation
from a2r_train.evaluate.report.write import plain
from a2r_train.evaluate.rows.row import mean
from a2r_train.evaluate.statistics import interval
from a2r_train.models import Size, size_of
from a2r_train.records import Problem, Rollout, Synthesis, write_text

log = logging.getLogger(__name__)
FILE = "probe.json"
INPUTS = ("rollouts", "problems", "prompt")
MAY_DIFFER = (
    "max_bundles",
    "max_pairs",
    "draws",
    *ENGINE_MAY_DIFFER,
    "monolith",
    "accuracy",
    "bundles_per_problem",
)
Found = dict[str, Any]


@dataclass(frozen=True)
class Prepared:
    """The judged inputs; `work` generates the answers, None without a model."""

    problems: list[Problem]
    rollouts: list[Rollout]
    verifier: str
    asked: Asked
    work: Any


def probe(config: ProbeConfig) -> Found:
    """Run the stage and return the content of probe.json.

    Raises InputError for wrong input; then nothing is written.
    """
    given = prepared(config)
    if given.work:
        config = settled(config, config.model, folder=config.output_dir)
        given.work.config = replace(given.work.config, engine=config.engine)
    folder = Path(config.output_dir)
    output.prepare(folder, asdict(config), ignore=MAY_DIFFER, inputs=INPUTS)
    made = answers(config, given.work, given.asked) if given.work else {}
    found: Found = plain(summarise(config, given, made))
    output.write_config(folder, asdict(config))
    write_text(folder / FILE, json.dumps(found, indent=1, ensure_ascii=False) + "\n")
    write_pages(folder, found)
    output.finish(folder)
    return found


def prepared(config: ProbeConfig) -> Prepared:
    """Raises InputError for a mistake in the recipe, the rollouts or the model; loads no weights."""
    check(config)
    columns = Columns.parse(config.columns)
    problems, rollouts, verifier = load_pools(
        config.rollouts, config.problems, columns, config.verifier, config.leave_out_bad_golds
    )
    sizes = dict.fromkeys((r.problem_id for r in rollouts), 0)
    for rollout in rollouts:
        sizes[rollout.problem_id] += 1
    check_enough(config, sizes)
    if not config.model:
        return Prepared(problems, rollouts, verifier, Asked([], []), None)
    if not problems:
        raise InputError(
            f"{config.rollouts}: these rollouts have no problem texts, which the model has to read; "
            "name the problems with `problems:`"
        )
    asked = bundles_to_ask(config, problems, rollouts)
    return Prepared(problems, rollouts, verifier, asked, generator(config, asked))


def summarise(config: ProbeConfig, given: Prepared, made: dict[str, list[Synthesis]]) -> Found:
    """The content of probe.json."""
    verifiers = {problem.id: problem.verifier for problem in given.problems}
    facts = Facts(config, pools_of(given.rollouts, verifiers, given.verifier))
    base, model, lengths, alike = _of_model(config, given, made)
    found: Found = {"setup": _setup(config, facts, given)}
    found["by_k"] = of_rollouts.by_k(facts)
    found["shares"] = of_rollouts.shares(facts)
    found["by_correct"] = of_rollouts.by_correct(facts)
    found["by_agreement"] = of_rollouts.by_agreement(facts)
    problem_tokens = float(np.mean([r.prompt_tokens for r in given.rollouts]))
    found["tokens"] = of_rollouts.tokens(facts, lengths, problem_tokens)
    equal = found["tokens"]["equal"]
    found["cost"] = of_rollouts.cost(found["tokens"], config.k, *_sizes(config, given.rollouts))
    found["gains"] = of_rollouts.gains(facts, equal)
    found["headroom"] = found["by_k"][config.k - 1]["headroom"]["value"]
    if model:
        found["model"] = model
    greedy = model["base"]["value"] if model else None
    found["predicted"] = predict(facts, base, greedy, equal)
    found["signal"] = signal(facts, base, alike)
    found["power"] = power(facts, base, found["predicted"], config.bundles_per_problem)
    found["power"]["says"] = line(
        spread_against_vote(facts.patterns, facts.shares, base.trained()),
        len(facts.shares), config.bundles_per_problem, found["predicted"]["over_vote"]["value"],
    )  # fmt: skip
    unread = unparsable(given.rollouts)
    found["unparsable"] = {"share": unread.share, "many": unread.share > 0.5, "says": str(unread)}
    what, reasons = recommendation(found)
    return found | {"recommendation": {"what": what, "reasons": reasons}}


def _setup(config: ProbeConfig, facts: Facts, given: Prepared) -> Found:
    left_out = ("dry_run", "output_dir")
    return {
        "k": config.k,
        "problems": len(facts.pools.ids),
        "problems_with_k": len(facts.shares),
        "rollouts": len(given.rollouts),
        "verdicts": "judged here" if given.problems else "those of the file",
        "config": {key: value for key, value in asdict(config).items() if key not in left_out},
    }


def _sizes(config: ProbeConfig, rollouts: Sequence[Rollout]) -> list[Size | None]:
    """Sizes of the explorer, the synthesizer and the larger model, if they are named or on this disk."""
    seen = config.explorer or rollouts[0].model
    explorer = seen if config.explorer or Path(seen).is_dir() else ""
    synthesizer = config.model or explorer
    named = (explorer, synthesizer, config.monolith or synthesizer)
    return [size_of(name) if name and config.engine != "openai" else None for name in named]


def _of_model(
    config: ProbeConfig, given: Prepared, made: dict[str, list[Synthesis]]
) -> tuple[Selector, Found, dict[str, float], float]:
    """The untrained synthesizer as a selector, what it answered, its mean tokens, and how alike its answers
    are.
    """
    if not made:
        return Selector(), {}, {}, float("nan")
    base, greedy, alone = base_of(given.asked, made)
    how = {"seed": config.seed, "draws": config.draws}
    oracle = np.array([float(b.n_correct > 0) for b in given.asked.bundles])
    told = {
        name: dict(zip(("value", "low", "high"), interval(scores, **how), strict=True))
        for name, scores in (("base", greedy), ("alone", alone), ("alone_over_pass", alone - oracle))
    }
    orders = {}
    for way, name in (("answered", ANSWER), ("named", NAME)):
        one = two_orders(given.asked, made[name], tasks(config)[name])
        scores = [score for score in one.pop("scores") if score != 0.5]
        value, low, high = interval(np.array(scores), **how)
        one |= {"right_of_consistent": {"value": value, "low": low, "high": high}}
        orders[way] = one | {"at_chance": is_at_chance(one, low, high)}
    lengths = {
        "prompt": mean(s.prompt_tokens for s in made["base"]),
        "answer": mean(s.completion_tokens for s in made["base"]),
        "alone": mean(s.completion_tokens for s in made["alone"]),
    }
    alike = likeness(given.asked, made["base@T"]) if "base@T" in made else float("nan")
    model: Found = {"name": config.model, "bundles": len(greedy), **told, "two_orders": orders}
    return base, model | {"likeness": alike}, lengths, alike
