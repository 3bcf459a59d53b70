"""Rationalised targets (STaR, arXiv 2203.14465, section 3.2): where no sampled answer to a bundle is right,
the gold answer is shown, and right answers that do not mention it are targets for the prompt without it.
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
RUN_WORDS = 5  # of a hint, which are no coincidence in a text
_TOLD = re.compile(
    r"\bhint|\b(?:given|provided|told|supplied|stated|known|expected)\s+(?:final\s+)?answer\b"
    r"|\banswer\s+(?:is|was|has been)\s+(?:already\s+)?(?:given|provided|told|supplied|stated|known)\b"
    r"|\btold\b[^.\n]{0,30}\banswer\b",
    re.IGNORECASE,
)


def check_hint(hint: str) -> None:
    """Raise InputError for a hint that does not show the answer, or cannot be filled."""
    try:
        shows = hint.format(answer="0") != hint.format(answer="1")
    except (LookupError, ValueError) as error:
        raise InputError(
            f"rationalised_hint cannot be filled ({error}); write a brace of the text twice: {{{{ }}}}"
        ) from None
    if not shows:
        raise InputError("rationalised_hint lacks the slot {answer}")


def mentions(text: str, hint: str) -> bool:
    """Whether a text says that it was told the answer: by common words for it, or by a run of the hint's."""
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
    """`samples` answers, marked, to each bundle of which no answer in `drawn` is right, under the hint.

    A program and an entry without a gold answer have nothing to show.
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
    """Those of the explained ones, at random, that are at most `share` of all and leave a problem `most`."""
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
