"""Rationalised targets (STaR, arXiv 2203.14465, section 3.2): if no sampled answer to a bundle is right, it
is asked again with the gold answer shown, and right answers that do not mention it become targets for the
prompt without it.
"""

from __future__ import annotations

import random
import re
from collections import Counter
from collections.abc import Container, Sequence
from dataclasses import replace

from a2r_train.data.gym import FREE
from a2r_train.engines import Engine, Sampling
from a2r_train.errors import InputError
from a2r_train.inference.synthesise import syntheses_of
from a2r_train.prompts import Prompter
from a2r_train.records import CORRECT, Bundle, Synthesis, seed_of
from a2r_train.verify import programs

HINT = (
    "Hint: the answer is {answer}. Derive it step by step, as you would if nobody had told you, "
    "and do not mention this hint."
)
RUN_WORDS = 5  # a text that repeats this many words of the hint does so by no coincidence
_TOLD = re.compile(
    r"\bhint|\b(?:given|provided|told|supplied|stated|known|expected)\s+(?:final\s+)?answer\b"
    r"|\banswer\s+(?:is|was|has been)\s+(?:already\s+)?(?:given|provided|told|supplied|stated|known)\b"
    r"|\btold\b[^.\n]{0,30}\banswer\b",
    re.IGNORECASE,
)


def check_hint(hint: str) -> None:
    """Raise InputError for a hint that does not show the answer, or cannot be filled in."""
    try:
        shows = hint.format(answer="0") != hint.format(answer="1")
    except (LookupError, ValueError) as error:
        raise InputError(
            f"rationalised_hint cannot be filled in ({error}); double the braces of the text: {{{{ }}}}"
        ) from None
    if not shows:
        raise InputError("rationalised_hint lacks {answer}; add it where the gold answer belongs")


def mentions(text: str, hint: str) -> bool:
    """Whether a text gives away that it was told the answer: by a common phrase, or by repeating words of the
    hint.
    """
    words = _words(text)
    runs = {words[at : at + RUN_WORDS] for at in range(len(words) - RUN_WORDS + 1)}
    parts = [_words(part) for part in hint.split("{answer}")]
    told = {part[at : at + RUN_WORDS] for part in parts for at in range(len(part) - RUN_WORDS + 1)}
    return bool(_TOLD.search(text)) or not runs.isdisjoint(told)


def _words(text: str) -> tuple[str, ...]:
    return tuple(re.findall(r"\w+", text.lower()))


def rationalised(
    engine: Engine,
    prompter: Prompter,
    bundles: Sequence[Bundle],
    drawn: Sequence[Synthesis],
    sampling: Sampling,
    *,
    hint: str,
    samples: int,
    seed: int,
    plain: Container[str] = (),
) -> list[Synthesis]:
    """`samples` answers under the hint, marked as rationalised, to each bundle without a right answer in
    `drawn`.

    Programs, and entries without a gold answer, are left out: they have no answer to show.
    """
    solved = {synthesis.bundle_id for synthesis in drawn if synthesis.verdict == CORRECT}
    left = [b for b in bundles if b.id not in solved and b.verifier != programs.NAME and b.answer != FREE]
    if not left:
        return []
    made = syntheses_of(
        engine, prompter, left, sampling, samples=samples, seed=seed_of(seed, "hint"), plain=plain, hint=hint
    )
    return [replace(synthesis, rationalised=True) for synthesis in made]


def within_share(
    targets: Sequence[Synthesis],
    explained: Sequence[Synthesis],
    bundles: Sequence[Bundle],
    *,
    share: float,
    most: int,
    seed: int,
) -> list[Synthesis]:
    """A random part of `explained`: at most `share` of all targets, and at most `most` targets per
    problem.
    """
    problem = {bundle.id: bundle.problem_id for bundle in bundles}
    taken = Counter(problem[target.bundle_id] for target in targets)
    order = list(explained)
    random.Random(seed_of(seed, "rationalised")).shuffle(order)
    fitting = []
    for one in order:
        if taken[problem[one.bundle_id]] < most:
            taken[problem[one.bundle_id]] += 1
            fitting.append(one)
    return fitting[: int(share * len(targets) / (1 - share) + 1e-9)]
