"""Texts without a readable answer: tells a wrong format from a weak model, with a sample and the fix."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from a2r_train.markers import THINK_CLOSE, THINK_OPEN
from a2r_train.records import UNPARSABLE, VOTED, Reference, Rollout, Synthesis
from a2r_train.verify import extract
from a2r_train.verify.slips import BACKSPACED

MANY = 0.05  # share of the texts above which one of them is shown
MAX_SHOWN_CHARACTERS = 300
PROMPT_REMEDY = (
    "say in the prompt file how the answer is to be written, or set `answer_pattern` in it to how it is"
)
MARKED_REMEDY = (
    "the answers are there, but none is what the verifier reads; ask for that in the prompt (multiple_choice "
    "reads the letter or the text of an option: ask for the letter)"
)
ESCAPED_REMEDY = (
    "the backslashes of the file were read as escapes: in JSON and Python, write `\\\\boxed` with two of them"
)
CUT_REMEDY = "raise max_completion_tokens, as most of them were cut"


@dataclass(frozen=True)
class Unparsable:
    """How many texts have no readable answer; `cut`: those that ran out of tokens, as a
    thought that never ends has, whoever sampled it; `marked`: those with an
    answer that their verifier does not accept, such as a number instead of a letter.
    """

    count: int
    total: int
    cut: int = 0
    sample: str = ""
    marked: int = 0

    @property
    def share(self) -> float:
        return self.count / self.total if self.total else float("nan")

    @property
    def many(self) -> bool:
        return self.share > MANY

    @property
    def remedy(self) -> str:
        if 2 * self.cut > self.count:
            return CUT_REMEDY
        if BACKSPACED.search(self.sample):
            return ESCAPED_REMEDY
        return MARKED_REMEDY if 2 * self.marked > self.count else PROMPT_REMEDY

    def __add__(self, other: Unparsable) -> Unparsable:
        """The sum of both; the first sample is kept."""
        counts = self.count + other.count, self.total + other.total, self.cut + other.cut
        return Unparsable(*counts, self.sample or other.sample, self.marked + other.marked)

    def __str__(self) -> str:
        shown = f"such as {self.sample!r}" if self.sample else "and they are empty"
        return (
            f"{self.share:.1%} of {self.total} texts have no answer that can be read, {shown}; {self.remedy}"
        )


def unparsable(texts: Iterable[Rollout | Reference | Synthesis]) -> Unparsable:
    """Count the texts without a readable answer; the sample is the end of one, where answers usually are.

    An answer that is the vote's is no text of a model: it would hide how many of the model's are unreadable.
    """
    judged = [text for text in texts if getattr(text, "finish_reason", "") != VOTED]
    without = [text for text in judged if text.verdict == UNPARSABLE]
    cut = sum(getattr(text, "finish_reason", "") == "length" or _only_thinks(text.text) for text in without)
    sample = next((text.text.strip()[-MAX_SHOWN_CHARACTERS:] for text in without if text.text.strip()), "")
    marked = sum(bool(extract(text.text, "exact")) for text in without)
    return Unparsable(len(without), len(judged), cut, sample, marked)


def _only_thinks(text: str) -> bool:
    return text.lstrip().startswith(THINK_OPEN) and THINK_CLOSE not in text
