"""Lengths of synthesizer prompts, many at a time: each distinct text is tokenised once, in batches.

A prompt's length is the sum of its parts, corrected where two parts meet. The characters on both sides of
such a seam decide which tokens are there, because tokenizers split texts before they merge. A sample of whole
prompts tests this assumption. If it fails, or if a prompt may be over its budget, prompts are rendered and
tokenised whole.
"""

from __future__ import annotations

import hashlib
import logging
import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from a2r_train.models import tokenizer_hash
from a2r_train.prompts import PromptConfig, Prompter
from a2r_train.records import Reference

log = logging.getLogger(__name__)
EDGE = 12  # characters on each side of a seam
HEAD = 96  # tokens at the beginning of a cut reference that the cut may change
ALIKE = 16  # tokens at the end of HEAD that must be unchanged
MOST_EDGES = 200_000  # kept
BATCH_CHARACTERS = 2**21  # tokenised at once
SAMPLE = 64  # prompts that are also measured whole
TEXTS_TRIED, AGREE = 512, 0.98  # recorded counts are trusted if this share is the tokenizer's
SLACK = 4  # tokens that a trusted count may be off
_SLOT = re.compile(r"0slot(\d+)slot0")

Asked = tuple[str, Sequence[Reference]]  # a problem's text, and the references that are shown with it


@dataclass(frozen=True)
class Length:
    """The tokens of a prompt, and how many references were cut for it."""

    tokens: int
    cut_references: int


class PromptLengths:
    """Measures prompts of one prompter. `recorded` says whether the recorded counts of completions are those
    of its tokenizer; None until tested.
    """

    def __init__(self, prompter: Prompter) -> None:
        self.prompter = prompter
        self.recorded: bool | None = None
        self.in_parts: bool | None = None
        self._end = 0  # tokens in a recorded count beyond its text: the end of the turn, or none
        self._frames: dict[int, tuple[list[str], list[int], int]] = {}
        self._edges: dict[tuple[str, str], int] = {}
        self._counted: dict[str, int] = {}  # of the last prompts, and the ends of those over the cap
        self._ends: dict[str, list[int]] = {}

    def of(self, asked: Sequence[Asked]) -> list[Length]:
        """The lengths of prompts, in order. Raises InputError for one that cannot be made to fit."""
        if self.in_parts is None:
            self._try(asked)
        if not self.in_parts:
            return [self._whole(one) for one in asked]
        found, doubtful = self._by_parts(asked)
        return [self._whole(one) if i in doubtful else found[i] for i, one in enumerate(asked)]

    def counts(self, texts: Sequence[str]) -> list[int]:
        """Tokens of each text; each distinct text is tokenised once, and none of the last prompts again."""
        known = self._counted
        different = [text for text in dict.fromkeys(texts) if text not in known]
        known = known | dict(zip(different, count_all(self.prompter.tokenizer, different), strict=True))
        return [known[text] for text in texts]

    def _whole(self, asked: Asked) -> Length:
        rendered = self.prompter.synthesizer(*asked)
        return Length(rendered.prompt_tokens, rendered.cut_references)

    def _try(self, asked: Sequence[Asked]) -> None:
        """Test on a sample whether recorded counts are the tokenizer's, and whether lengths add up."""
        some = asked[:: max(1, len(asked) // SAMPLE)][:SAMPLE]
        self._try_recorded([reference for _, references in asked for reference in references])
        believed, self.recorded = self.recorded, False
        found, doubtful = self._by_parts(some)
        exact = [self._whole(one) for one in some]
        self.in_parts = all(i in doubtful or found[i] == one for i, one in enumerate(exact))
        self.recorded = believed
        if not self.in_parts:
            log.info("prompts are tokenised whole: with this tokenizer, the lengths of parts do not add up")

    def _try_recorded(self, references: Sequence[Reference]) -> None:
        plain = [one for one in references if one.tokens and self._is_plain(one)]
        some = plain[:: max(1, len(plain) // TEXTS_TRIED)][:TEXTS_TRIED]
        counts = self.counts([one.text for one in some])
        off = [one.tokens - count for one, count in zip(some, counts, strict=True)]
        self._end = max(set(off), key=off.count, default=0)
        agreeing = sum(abs(more - self._end) <= SLACK for more in off)
        usual = sum(more == self._end for more in off)
        self.recorded = bool(off) and self._end in (0, 1) and min(agreeing, usual / AGREE) >= AGREE * len(off)
        if self.recorded:
            log.info("using the token counts of the rollouts: they match this tokenizer")

    def _is_plain(self, reference: Reference) -> bool:
        """Whether the whole text is shown, as it was counted."""
        return self.prompter.shown(reference.text, reference.answer) == reference.text

    def _by_parts(self, asked: Sequence[Asked]) -> tuple[list[Length], set[int]]:
        """Lengths as sums, and the numbers of those that have to be measured whole."""
        config = self.prompter.config
        shown = [[self.prompter.shown(r.text, r.answer) for r in references] for _, references in asked]
        problems = [self.prompter.neutralise(problem) for problem, _ in asked]
        sizes = self._sizes(problems, asked, shown)
        cut = self._cut(sizes, {text for texts in shown for text in texts})
        whole, shown = shown, [[cut.get(text, text) for text in texts] for texts in shown]
        seams: list[list[tuple[str, str]]] = []
        sums: list[int] = []
        for problem, texts in zip(problems, shown, strict=True):
            pieces, order, fixed = self._frame(len(texts))
            slots = [problem, *texts]
            inner = [slots[i] for i in order]
            seams.append(list(_seams(pieces, inner)))
            sums.append(fixed + sum(sizes[text] for text in inner))
        at_seams = self._at_seams({seam for some in seams for seam in some})
        found, doubtful = [], set[int]()
        for i, (texts, some) in enumerate(zip(whole, seams, strict=True)):
            tokens = sums[i] + sum(at_seams[seam] for seam in some)
            slack = SLACK * len(texts) if self.recorded else 0
            if tokens + slack > config.max_prompt_tokens:
                doubtful.add(i)
            found.append(Length(tokens, sum(text in cut for text in texts)))
        return found, doubtful

    def _cut(self, sizes: dict[str, int], texts: set[str]) -> dict[str, str]:
        """For each text over the reference cap, a stand-in: the two ends of what is shown of it. `sizes` gets
        the tokens of the whole cut text: the cap, corrected where the text begins.
        """
        cap = self.prompter.config.max_reference_tokens
        long = [text for text in texts if sizes[text] > cap - (SLACK if self.recorded else 0)]
        asked = [text for text in long if text not in self._ends]
        exact, ends = count_with_ends(self.prompter.tokenizer, asked, cap)
        sizes |= dict(zip(asked, exact, strict=True))
        ends |= self._ends
        cut = [text for text in long if sizes[text] > cap]
        heads = [ends[text][-cap:][:HEAD] for text in cut]
        shown = [self.prompter.after_cut(ids) for ids in heads]
        more = dict(zip(cut, self._more_tokens(heads, shown), strict=True))
        short = {text: head + text[-EDGE:] for text, head in zip(cut, shown, strict=True)}
        sizes |= {short[text]: cap + by for text, by in more.items() if by is not None}
        whole = {text: self.prompter.cut(text, ends[text], cap) for text, by in more.items() if by is None}
        sizes |= dict(
            zip(whole.values(), count_all(self.prompter.tokenizer, list(whole.values())), strict=True)
        )
        return short | whole

    def _more_tokens(self, heads: Sequence[list[int]], shown: Sequence[str]) -> list[int | None]:
        """How many more tokens (fewer if negative) there are where a cut reference begins: `heads` are its
        tokens there, `shown` their text as shown. None if the two tokenisations do not converge.
        """
        tokenizer = self.prompter.tokenizer
        if self.prompter.config.max_reference_tokens <= HEAD:  # the heads are all that is shown
            return [n - len(ids) for n, ids in zip(count_all(tokenizer, shown), heads, strict=True)]
        plain = ids_of(tokenizer, [str(tokenizer.decode(ids)) for ids in heads])
        return [
            len(now) - len(before)
            if before[:-ALIKE] == ids[: len(before) - ALIKE] and now[-ALIKE:] == before[-ALIKE:]
            else None
            for ids, before, now in zip(heads, plain, ids_of(tokenizer, shown), strict=True)
        ]

    def _sizes(
        self, problems: Sequence[str], asked: Sequence[Asked], shown: Sequence[Sequence[str]]
    ) -> dict[str, int]:
        """Tokens of every text that is shown, as recorded or else counted."""
        known: dict[str, int] = {}
        if self.recorded:
            pairs = zip((r for _, references in asked for r in references), _flat(shown), strict=True)
            known = {text: r.tokens - self._end for r, text in pairs if r.tokens and text == r.text}
        left = list(dict.fromkeys(text for text in (*problems, *_flat(shown)) if text not in known))
        cap = self.prompter.config.max_reference_tokens
        counts, self._ends = count_with_ends(self.prompter.tokenizer, left, cap)
        self._counted = dict(zip(left, counts, strict=True))
        return known | self._counted

    def _frame(self, k: int) -> tuple[list[str], list[int], int]:
        """A prompt over k references without its slots: the pieces, which slot follows each (0: the problem),
        and the tokens of the pieces.
        """
        if k not in self._frames:
            slots = [f"0slot{i}slot0" for i in range(k + 1)]
            text = self.prompter.text(self.prompter.synthesizer_chat(slots[0], slots[1:]))
            pieces = _SLOT.split(text)
            order = [int(number) for number in pieces[1::2]]
            fixed = sum(count_all(self.prompter.tokenizer, pieces[::2]))
            self._frames[k] = pieces[::2], order, fixed
        return self._frames[k]

    def _at_seams(self, seams: set[tuple[str, str]]) -> dict[tuple[str, str], int]:
        """How many more tokens (fewer if negative) a text has than its two sides."""
        if len(self._edges) > MOST_EDGES:
            self._edges.clear()
        new = [seam for seam in seams if seam not in self._edges]
        sides = self.counts([side for seam in new for side in seam])
        whole = self.counts([left + right for left, right in new])
        for i, seam in enumerate(new):
            self._edges[seam] = whole[i] - sides[2 * i] - sides[2 * i + 1]
        return {seam: self._edges[seam] for seam in seams}


def _flat(lists: Iterable[Iterable[str]]) -> list[str]:
    return [text for texts in lists for text in texts]


def _seams(pieces: Sequence[str], slots: Sequence[str]) -> Iterable[tuple[str, str]]:
    """The characters on both sides of each seam."""
    for i, text in enumerate(slots):
        yield pieces[i][-EDGE:], text[:EDGE]
        yield text[-EDGE:], pieces[i + 1][:EDGE]


def fingerprint(model: str, prompt: PromptConfig) -> str:
    """A fingerprint of what lengths are measured with: a model's tokenizer and a prompt."""
    return hashlib.sha256(f"{tokenizer_hash(model)}\n{prompt.dump()}".encode()).hexdigest()[:16]


def count_all(tokenizer: Any, texts: Sequence[str]) -> list[int]:
    """Tokens of each text without special ones, over all cores where the tokenizer can."""
    return count_with_ends(tokenizer, texts, cap=0)[0]


def count_with_ends(tokenizer: Any, texts: Sequence[str], cap: int) -> tuple[list[int], dict[str, list[int]]]:
    """Tokens of each text, and the last `cap` + 1 tokens of those that are longer; with cap 0, of none."""
    counts: list[int] = []
    ends: dict[str, list[int]] = {}
    for some in _batches(texts):
        encodings = _encoded(tokenizer, some)
        counts += map(len, encodings)
        if cap:
            long = ((text, one) for text, one in zip(some, encodings, strict=True) if len(one) > cap)
            ends |= {text: list(getattr(one, "ids", one))[-cap - 1 :] for text, one in long}
    return counts, ends


def ids_of(tokenizer: Any, texts: Sequence[str]) -> list[list[int]]:
    """The tokens of each text without special ones."""
    return [list(getattr(one, "ids", one)) for some in _batches(texts) for one in _encoded(tokenizer, some)]


def _encoded(tokenizer: Any, texts: list[str]) -> Sequence[Any]:
    """Encodings whose length is that of the text in tokens; the tokens are `ids`, or the encoding itself."""
    backend = getattr(tokenizer, "backend_tokenizer", None)
    if backend is None:
        return list(tokenizer(texts, add_special_tokens=False)["input_ids"])
    backend.no_truncation()
    backend.no_padding()
    return list(backend.encode_batch_fast(texts, add_special_tokens=False))


def _batches(texts: Sequence[str]) -> Iterator[list[str]]:
    """Batches of texts, small enough that their tokens (a hundred bytes each) take little memory."""
    some: list[str] = []
    characters = 0
    for text in texts:
        some.append(text)
        characters += len(text)
        if characters > BATCH_CHARACTERS:
            yield some
            some, characters = [], 0
    if some:
        yield some
