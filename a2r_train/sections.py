r"""A synthesizer's text in three parts: its own solution, a verdict on each reference, and the answer.

A prompt file names the headings:

    sections: {solution: My own solution, verdicts: Verdicts, answer: Final answer}

A heading stands on a line of its own, in any case, with or without `#`, `**` and a colon. With `#` or `**`
the line may go on: `**Final answer:** \boxed{5}`. A verdict is `Reference 2: wrong`. Its words are right,
correct, wrong and incorrect, and `not` reverses one. Everything here is linear in the length of the text.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache

from a2r_train.errors import InputError

NAMES = ("solution", "verdicts", "answer")
EXAMPLE = "{solution: My own solution, verdicts: Verdicts, answer: Final answer}"
MOST_HEADING_CHARS = 60

_HEADING = re.compile(r"[^\n{}]*[^\W_][^\n{}]*")
_VERDICT = re.compile(
    r"\breference[ \t]{0,3}#?(\d{1,3})(?:[’']s)?(?:[ \t]{1,3}(?:answer|solution))?[^\w\n]{0,12}"
    r"(?:(?:is|was|verdict|answer|solution)\b[^\w\n]{0,6}){0,3}"
    r"(not[ \t]{1,3})?(right|wrong|correct|incorrect)\b(?!\s{0,3}(?:or\b|/))",
    re.IGNORECASE,
)


@dataclass(frozen=True)
class Parts:
    """What stands below each heading; "" where a heading is missing, or nothing stands below it."""

    solution: str = ""
    verdicts: str = ""
    answer: str = ""

    def judged(self, references: int) -> list[bool | None]:
        """The verdict on each of so many references: True for right, None for none.

        Verdicts on other numbers are left out. Two that contradict each other count as none.
        """
        said: dict[int, set[bool]] = {}
        for number, turned, word in _VERDICT.findall(self.verdicts):
            said.setdefault(int(number), set()).add((word.lower() in ("right", "correct")) != bool(turned))
        found = (said.get(number, set()) for number in range(1, references + 1))
        return [next(iter(one)) if len(one) == 1 else None for one in found]

    def are_whole(self, references: int) -> bool:
        """Whether all sections are there, and every reference has a verdict."""
        return bool(self.solution and self.answer) and None not in self.judged(references)


def check_sections(headings: Mapping[str, str], synthesizer: str, explorer: str) -> None:
    """Raise InputError for headings that cannot be told apart, or that the prompts do not ask for.

    `synthesizer` and `explorer` are the two templates.
    """
    if sorted(headings) != sorted(NAMES) or not all(isinstance(h, str) for h in headings.values()):
        raise InputError(f"prompt: sections are {dict(headings)!r}; expected {EXAMPLE}")
    for heading in headings.values():
        if not _HEADING.fullmatch(heading) or len(heading) > MOST_HEADING_CHARS:
            raise InputError(
                f"prompt: sections: {heading!r} is not a heading of one short line without braces"
            )
    if len({_plain(heading) for heading in headings.values()}) < len(NAMES):
        raise InputError(f"prompt: sections: two of {list(headings.values())} are the same heading")
    pattern = _headings(tuple(headings[name] for name in NAMES))
    asked, elsewhere = (
        {str(match.lastgroup) for match in pattern.finditer(text)} for text in (synthesizer, explorer)
    )
    if missing := [headings[name] for name in NAMES if name not in asked]:
        raise InputError(f"prompt: sections: synthesizer_template has no line {missing[0]!r}")
    if both := elsewhere - {"answer"}:  # these distinguish a text in sections from an explorer's
        raise InputError(
            f"prompt: sections: explorer_template also has {headings[both.pop()]!r}; use another"
        )


def parts_of(text: str, headings: Mapping[str, str]) -> Parts | None:
    """The parts of a text without its thinking; None for a text without the headings of the first two.

    If there are several solutions or lists of verdicts, the first counts. Of several answers the last counts,
    but none before the verdicts: it only ends the solution.
    """
    spans = _spans(text, headings)
    parts = {name: text[start:end].strip() for name, (start, end) in spans.items()}
    return Parts(**parts) if parts.keys() & {"solution", "verdicts"} else None


def verdict_starts(text: str, headings: Mapping[str, str], references: int) -> list[int | None]:
    """Where the first verdict on each reference stands in a text without its thinking: at `wrong` or `not` of
    `Reference 2: wrong` or `Reference 2: not right`. None for a reference without a verdict that counts.
    """
    start, end = _spans(text, headings).get("verdicts", (0, 0))
    places: dict[int, int] = {}
    for match in _VERDICT.finditer(text, start, end):
        places.setdefault(int(match[1]), match.start(2) if match[2] else match.start(3))
    said = Parts(verdicts=text[start:end]).judged(references)
    return [None if one is None else places[number] for number, one in enumerate(said, 1)]


def _spans(text: str, headings: Mapping[str, str]) -> dict[str, tuple[int, int]]:
    """The start and the end of the text that counts below each heading."""
    found = list(_headings(tuple(headings[name] for name in NAMES)).finditer(text))
    ends = [*(match.start() for match in found), len(text)][1:]
    spans: dict[str, tuple[int, int]] = {}
    for match, end in zip(found, ends, strict=True):
        name = str(match.lastgroup)
        if name == "verdicts" and name not in spans:
            spans.pop("answer", None)
        if name == "answer" or name not in spans:
            spans[name] = (match.end(), end)
    return spans


def answer_in(text: str, headings: Mapping[str, str]) -> str:
    """Where the answer is: the last answer section, or the whole text if it has no sections."""
    parts = parts_of(text, headings)
    return text if parts is None else parts.answer


@lru_cache(maxsize=32)
def _headings(headings: tuple[str, ...]) -> re.Pattern[str]:
    """Any of the headings at the beginning of a line, each as a group of its name."""
    words = (r"[ \t]{1,3}".join(map(re.escape, heading.split())) for heading in headings)
    names = "|".join(f"(?P<{name}>{word})" for name, word in zip(NAMES, words, strict=True))
    numbered, end = r"(?:\d[.)][ \t]{0,3})?", r"[ \t:*_]{0,8}"
    marked = rf"(?:[#*_]{{1,6}}[ \t]{{0,3}}){{1,2}}{numbered}(?:\*\*)?"
    return re.compile(
        rf"^[ \t]{{0,8}}(?:(?P<marked>{marked})|{numbered})(?:{names})(?![^\W_])"
        rf"(?:{end}$|(?(marked){end}|(?!)))",
        re.IGNORECASE | re.MULTILINE,
    )


def _plain(heading: str) -> str:
    return " ".join(heading.lower().split())
