"""Row `adaptive`: how many tokens does stopping early save, and at what accuracy?"""

from __future__ import annotations

import logging
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from a2r_train.data.builder import with_references
from a2r_train.data.read import read
from a2r_train.data.rollouts import judged_bundles
from a2r_train.errors import InputError
from a2r_train.evaluate.answers import Answers, Task
from a2r_train.evaluate.config import EvaluateConfig
from a2r_train.evaluate.kept_bundles import NO_TEXT
from a2r_train.evaluate.rows.row import EXPLORER, Part, Row, asked_part, by_problem, mean_over_problems
from a2r_train.evaluate.rows.selected import no_vote
from a2r_train.evaluate.statistics import gain_ratio, paired
from a2r_train.inference.adaptive import Adaptive, chance_of_change
from a2r_train.records import CORRECT, Bundle, Synthesis

log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Stop:
    """The answer if exploring stops at n references. gain: the chance that another one changes the majority.

    If synthesis is skipped, `prompt` and `completion`, the synthesizer's tokens, are 0.
    """

    n: int
    gain: float
    score: float
    references: float
    prompt: int
    completion: int

    @property
    def tokens(self) -> float:
        return self.references + self.prompt + self.completion


def adaptive_row(
    config: EvaluateConfig, work: Answers, final: Task, bundles: Sequence[Bundle]
) -> tuple[Row, dict[str, Any]]:
    """The row at the price chosen on the validation bundles, and what it saves compared with a synthesis of
    all references of each bundle.

    Among the prices whose validation accuracy is at least that of the full answer, the one with the fewest
    tokens is chosen; 0 if there is none. Raises InputError for what `validation_bundles` refuses.
    """
    path = config.adaptive_validation
    stored = judged_bundles(validation_bundles(config, bundles), path, work.prompt_of_references)
    stops, full = _stops(config, work, replace(final, name="adaptive-validation"), stored)
    prices = sorted({stop.gain for path in stops for stop in path} | {0.0})
    curve = [{"price": price} | _means([_at(path, price) for path in stops]) for price in prices]
    whole = _means(full)
    good = [point for point in curve if point["accuracy"] >= whole["accuracy"] - 1e-12]
    price = min(good or curve[:1], key=lambda point: point["tokens"])["price"]
    test_stops, test_full = _stops(config, work, replace(final, name="adaptive"), bundles)
    chosen = [_at(path, price) for path in test_stops]
    tokens, all_tokens = (by_problem(bundles, [stop.tokens for stop in made]) for made in (chosen, test_full))
    left, low, high = gain_ratio(tokens, 0 * tokens, all_tokens, seed=config.seed, draws=config.draws)
    skipped = mean_over_problems(bundles, [float(not stop.prompt) for stop in chosen])
    found: dict[str, Any] = {
        "price": price,
        "references": mean_over_problems(bundles, [stop.n for stop in chosen]),
        "skipped": skipped,
    }
    found |= {"saved": 1 - left, "low": 1 - high, "high": 1 - low}
    scores = by_problem(bundles, [stop.score for stop in chosen])
    change = paired(
        scores, by_problem(bundles, [s.score for s in test_full]), seed=config.seed, draws=config.draws
    )
    found["change"] = {"difference": change.difference, "low": change.low, "high": change.high}
    note = f"{found['references']:.2f} references on average, {100 * skipped:.0f} % without synthesis"
    row = Row("adaptive", scores, float(np.mean(tokens)), note, _parts(final.model, bundles, chosen))
    return row, {**found, "validation": curve, "validation_full": whole}


def validation_bundles(config: EvaluateConfig, bundles: Sequence[Bundle]) -> list[Bundle]:
    """The bundles that choose the price. Test problems among them are a warning.

    Raises InputError if an answer has no vote, if a test or validation bundle has fewer references than
    `adaptive_first`, or for references without token counts, which would make every price look free.
    """
    validation = read(Bundle, config.adaptive_validation)
    if silent := no_vote(validation):
        raise InputError(f"adaptive_validation: needs votes. {silent} Leave the key out")
    validated = {b.problem for b in validation} - {NO_TEXT}
    if both := validated & {b.problem for b in bundles}:
        log.warning(
            "adaptive_validation: test problems choose the price of the row adaptive, %d of %d",
            len(both),
            len(validated),
        )
    k = min(len(bundle.references) for bundle in [*bundles, *validation])
    if k < config.adaptive_first:
        raise InputError(
            f"adaptive_first {config.adaptive_first}: a bundle has only {k} references; lower it"
        )
    for path, given in (config.bundles, bundles), (config.adaptive_validation, validation):
        if any(r.text and not r.tokens for bundle in given for r in bundle.references):
            raise InputError(
                f"adaptive_validation: {path}: references without token counts, by which the price is "
                "chosen; add them with `a2r bundle --tokenizer`"
            )
    return validation


def _stops(
    config: EvaluateConfig, work: Answers, asked: Task, bundles: Sequence[Bundle]
) -> tuple[list[list[Stop]], list[Stop]]:
    """By bundle: the stops at each number of references up to its own, and the full answer."""
    rule = Adaptive(0.0, config.adaptive_first, config.adaptive_skip_agreement)
    sizes = [len(bundle.references) for bundle in bundles]
    found: list[list[Stop]] = [[] for _ in bundles]
    full: dict[int, Stop] = {}
    for n in range(rule.first, max(sizes) + 1):
        places = [at for at, size in enumerate(sizes) if size >= n]
        shorter = [with_references(bundles[at], bundles[at].references[:n]) for at in places]
        made = work.syntheses(replace(asked, name=f"{asked.name}/{n}"), shorter)
        for at, bundle, synthesis in zip(places, shorter, made, strict=True):
            full[at] = _stop(bundle, synthesis)
            right = float(bundle.majority_verdict == CORRECT)
            skips = rule.skips([r.answer for r in bundle.references], bundle.verifier)
            stop = replace(full[at], score=right, prompt=0, completion=0) if skips else full[at]
            found[at].append(stop)
    return found, [full[at] for at in range(len(bundles))]


def _stop(bundle: Bundle, synthesis: Synthesis) -> Stop:
    references = float(sum(r.tokens for r in bundle.references))
    gain = chance_of_change([r.answer for r in bundle.references], bundle.verifier)
    right = float(synthesis.verdict == CORRECT)
    return Stop(
        len(bundle.references), gain, right, references, synthesis.prompt_tokens, synthesis.completion_tokens
    )


def _at(path: Sequence[Stop], price: float) -> Stop:
    """Where exploring stops at a price."""
    return next((stop for stop in path if stop.gain <= price), path[-1])


def _means(stops: Sequence[Stop]) -> dict[str, float]:
    return {
        "accuracy": float(np.mean([s.score for s in stops])),
        "tokens": float(np.mean([s.tokens for s in stops])),
    }


def _parts(model: str, bundles: Sequence[Bundle], stops: Sequence[Stop]) -> tuple[Part, Part]:
    n, references, prompt, completion = (
        mean_over_problems(bundles, [getattr(s, key) for s in stops])
        for key in ("n", "references", "prompt", "completion")
    )
    share = mean_over_problems(bundles, [float(s.prompt > 0) for s in stops])
    return Part(EXPLORER, 0.0, references / n, n), asked_part(model, prompt, completion, share)
