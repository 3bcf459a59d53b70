"""Training problems that an evaluation set holds already are dropped, and listed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Literal

from a2r_train.errors import InputError
from a2r_train.records import Problem

Method = Literal["ngram", "template", "none"]
NGRAM_WORDS = 13  # the usual length for decontamination, since GPT-3 (arXiv 2005.14165, appendix C)


def contaminated(
    problems: Sequence[Problem], evaluation: Iterable[Problem], method: Method
) -> dict[str, str]:
    """Map the id of each problem that must go to the evaluation problem that it meets.

    ngram: they share 13 words in a row, on lower-case text without punctuation, numbers kept; a problem of
    fewer words must be equal as a whole. template: equal `source` and equal numbers in equal order, for sets
    whose templates repeat; where one of two problems has no source or no number, they are compared as by
    ngram.
    """
    if method == "none":
        return {}
    if method not in ("ngram", "template"):
        raise InputError(f"decontamination {method!r}: expected ngram, template or none")
    others = list(evaluation)
    template_of = _template if method == "template" else lambda _: ""
    templates = {template: other.id for other in others if (template := template_of(other))}
    words = {gram: other.id for other in others for gram in _ngrams(other)}
    words_alone = {gram: other.id for other in others if not template_of(other) for gram in _ngrams(other)}
    found: dict[str, str] = {}
    for problem in problems:
        template = template_of(problem)
        by_words = words_alone if template else words
        met = (by_words[gram] for gram in _ngrams(problem) if gram in by_words)
        found[problem.id] = templates.get(template) or next(met, "")
    return {identity: other for identity, other in found.items() if other}


def _ngrams(problem: Problem) -> list[str]:
    text = problem.problem.lower()
    words = re.findall(r"\d+(?:\.\d+)?|[^\W\d_]+", text)
    if len(words) < NGRAM_WORDS:  # whole problems, which may differ in a sign alone
        return [" ".join(re.findall(r"\d+(?:\.\d+)?|[^\W\d_]+|[-+*/^=<>]", text))]
    return [" ".join(words[at : at + NGRAM_WORDS]) for at in range(len(words) - NGRAM_WORDS + 1)]


def _template(problem: Problem) -> str:
    """Source and numbers, or "" where either is missing: by the other alone, problems that differ would be
    equal.
    """
    numbers = re.findall(r"[0-9]+", problem.problem)
    return "|".join([problem.source, *numbers]) if problem.source and numbers else ""
