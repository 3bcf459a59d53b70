"""How sure a synthesizer was of its verdicts: the probability of `right` where it wrote the word."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from a2r_train.engines import Engine
from a2r_train.prompts import Chat, Prompter
from a2r_train.records import Bundle, Synthesis

UNSAID = 0.5  # for a reference without a verdict, between wrong (0) and right (1)
RIGHT, WRONG = ("right", "correct"), ("wrong", "incorrect")


def with_probabilities(
    engine: Engine,
    prompter: Prompter,
    bundles: Sequence[Bundle],
    chats: Mapping[str, Chat],
    made: Sequence[Synthesis],
) -> list[Synthesis]:
    """The syntheses with `verdict_probabilities`; for them the engine reads each text up to its verdicts."""
    sizes = {bundle.id: len(bundle.references) for bundle in bundles}
    starts = [prompter.config.verdict_starts(one.text, sizes[one.bundle_id]) for one in made]
    places = [
        (i, at, start) for i, row in enumerate(starts) for at, start in enumerate(row) if start is not None
    ]
    prompts = [
        # the space before a word is part of its token
        prompter.begun(chats[made[i].bundle_id], made[i].text[:start].rstrip(" \t"))
        for i, _, start in places
    ]
    told = engine.next_tokens(prompts)
    if told and not any(told):
        return list(made)
    values = [[UNSAID] * len(row) for row in starts]
    for (i, at, start), tokens in zip(places, told, strict=True):
        values[i][at] = round(right_share(tokens, made[i].text[start:]), 6)
    return [replace(one, verdict_probabilities=row) for one, row in zip(made, values, strict=True)]


def right_share(tokens: Mapping[str, float], said: str) -> float:
    """The share of `right` in the probability that the tokens give to the words of both verdicts. If they
    give none, 1 or 0 as the text says.

    said: the text from the verdict on. A `not` that was not written would have begun `not right`.
    """
    said = said.lower()
    turned = said.startswith("not")
    says_right = said.removeprefix("not").lstrip().startswith(RIGHT) != turned
    of_right = (*RIGHT, "not") if turned and says_right else RIGHT
    of_wrong = WRONG if turned and says_right else (*WRONG, "not")
    right, wrong = (_given(tokens, words) for words in (of_right, of_wrong))
    return right / (right + wrong) if right + wrong else float(says_right)


def _given(tokens: Mapping[str, float], words: Sequence[str]) -> float:
    """The sum over the tokens that begin one of the words."""
    begun = ((text.strip().lower(), value) for text, value in tokens.items())
    return sum(value for text, value in begun if text and any(word.startswith(text) for word in words))
