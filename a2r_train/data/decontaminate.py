"""Drops training problems that an evaluation set contains, and lists them."""

from __future__ import annotations

import re
import unicodedata
from array import array
from collections.abc import Collection, Iterable, Sequence
from typing import Literal

import numpy as np

from a2r_train.data.spill import key_of
from a2r_train.data.wording import wordings
from a2r_train.errors import InputError
from a2r_train.records import Problem

Method = Literal["ngram", "template", "none"]
NGRAM_WORDS = 13  # the usual length for decontamination, since GPT-3 (arXiv 2005.14165, appendix C)
# Chinese and Japanese have no spaces between words: each character is one.
UNSPACED = (
    "\u3005-\u3007\u3041-\u3096\u309d-\u309f\u30a1-\u30fa\u30fc-\u30ff\u31f0-\u31ff\u3400-\u4dbf\u4e00-\u9fff"
    "\uf900-\ufaff\uff66-\uff9f\U00020000-\U0003ffff"
)
SIGNS = str.maketrans("×÷−⋅·", "*/-**")
WORD = rf"\d+(?:\.\d+)?|[{UNSPACED}]|[^\W\d_{UNSPACED}]+"


class Evaluation:
    """The problems that training must not contain, as sorted hashes of their words: a few bytes each.

    ngram: two problems match if they share 13 consecutive words. Text is lower-cased, without punctuation, in
    one form of Unicode (NFKC); numbers are kept, and each Chinese or Japanese character is a word. A problem
    of fewer words must match as a whole. template: the same `source` and the same numbers in the same order,
    for sets whose templates repeat, or the same text; if either problem has no source or no number, they are
    compared by ngram. Whatever the method, the same text but for punctuation matches, and so does a question
    whose options are in another order or, if it is long enough, are others. A name in `file_names` is no
    source of the problems whose ids begin with it: they were read from a file of that name, and have no
    other. Raises InputError for another method.
    """

    def __init__(self, problems: Iterable[Problem], method: Method, file_names: Collection[str] = ()) -> None:
        if method not in ("ngram", "template", "none"):
            raise InputError(f"decontamination {method!r}: expected ngram, template or none")
        self.method: Method = method
        self.file_names = frozenset(file_names)
        self.ids: list[str] = []
        words, alone, templates, texts = _Hashes(), _Hashes(), _Hashes(), _Hashes()
        for number, problem in enumerate(problems if method != "none" else ()):
            self.ids.append(problem.id)
            grams, template = _ngrams(problem), self._template_of(problem)
            words.add(grams, number)
            templates.add([template] if template else [], number)
            alone.add(grams if not template else [], number)
            texts.add(wordings(problem.problem), number)
        self.words, self.alone = words.sorted(), alone.sorted()
        self.templates, self.texts = templates.sorted(), texts.sorted()

    def _template_of(self, problem: Problem) -> str:
        named = problem.source in self.file_names and problem.id.startswith(f"{problem.source}/")
        return _template(problem) if self.method == "template" and not named else ""

    def met(self, problem: Problem) -> str:
        """The id of the evaluation problem that a problem matches, or ""."""
        if not self.ids:
            return ""
        template = self._template_of(problem)
        if template and (at := _find(self.templates, [template])) >= 0:
            return self.ids[at]
        if (at := _find(self.texts, wordings(problem.problem))) >= 0:
            return self.ids[at]
        at = _find(self.alone if template else self.words, _ngrams(problem))
        return self.ids[at] if at >= 0 else ""


class _Hashes:
    """Hashes of texts with their problem numbers, while they are collected."""

    def __init__(self) -> None:
        self.hashes, self.numbers = array("Q"), array("q")

    def add(self, texts: Sequence[str], number: int) -> None:
        self.hashes.extend(map(key_of, texts))
        self.numbers.extend([number] * len(texts))

    def sorted(self) -> tuple[np.ndarray, np.ndarray]:
        """Sorted by hash; of two problems with the same text, the last counts."""
        hashes, numbers = np.array(self.hashes, np.uint64), np.array(self.numbers, np.int64)
        order = np.lexsort((numbers, hashes))
        last = order[np.r_[np.diff(hashes[order]) != 0, True]] if len(order) else order
        return hashes[last], numbers[last]


def _find(known: tuple[np.ndarray, np.ndarray], texts: Sequence[str]) -> int:
    """The number of the problem that has the first known one of these texts, or -1."""
    hashes, numbers = known
    asked = np.array([key_of(text) for text in texts], dtype=np.uint64)
    at = np.minimum(np.searchsorted(hashes, asked), max(0, len(hashes) - 1))
    met = np.flatnonzero(hashes[at] == asked) if len(hashes) else at[:0]
    return int(numbers[at[met[0]]]) if len(met) else -1


def _ngrams(problem: Problem) -> list[str]:
    text = unicodedata.normalize("NFKC", problem.problem).lower().translate(SIGNS)
    words = re.findall(WORD, text)
    if len(words) < NGRAM_WORDS:  # compared whole, as short problems may differ only in a sign
        return [" ".join(re.findall(rf"{WORD}|[-+*/^=<>√]", text))]
    return [" ".join(words[at : at + NGRAM_WORDS]) for at in range(len(words) - NGRAM_WORDS + 1)]


def _template(problem: Problem) -> str:
    """Source and numbers, or "" if either is missing: the other alone would equate different problems."""
    numbers = re.findall(r"[0-9]+", problem.problem)
    return "|".join([problem.source, *numbers]) if problem.source and numbers else ""
