"""Where the answer stands in a text. Everything here is linear in the length of the text."""

from __future__ import annotations

import re
from collections.abc import Sequence

from a2r_train.prompts import visible

MAX_ANSWER_CHARS = 2000  # longer ones are never an answer, and would only cost parsing time

_BRACES = re.compile(r"\\\\(?!boxed)|\\boxed\s*\{|\\[{}]|[{}]")
_PROSE = re.compile(r"the\s+(?:final\s+)?answer\s+is\s*:?\s*", re.IGNORECASE)
_SENTENCE_END = re.compile(r"\n|\.(?:\s|$)")
_OPENS, _CLOSES = re.compile(r"(?<!\\)\\[(\[]"), re.compile(r"(?<!\\)\\[)\]]")
_NUMBER = re.compile(r"(?:(?<![\w)])-)?(?:[0-9]{1,3}(?:,[0-9]{3})+(?![0-9])|[0-9]+)(?:\.[0-9]+)?")
_LETTER = re.compile(r"\W*(?:\\(?:text|textbf|mathrm|mathbf)\s*\{)?\W*([A-J])(?:[).:,}*\]]|\s*$)", re.IGNORECASE)
_LETTERS_ALONE, _WORD = re.compile(r"(?:\W|\b(?:[A-J]|or|and)\b)*"), re.compile(r"\w+")
_WRAPPINGS = (("$$", "$$"), ("$", "$"), (r"\(", r"\)"), (r"\[", r"\]"), ("**", "**"))


def extract(text: str, verifier: str = "math") -> str:
    r"""The answer in the text after the last `</think>`, or "" if there is none.

    The last complete, non-empty `\boxed{...}`, else the line after `####`, else the last complete sentence after "the
    answer is"; `math_last_number` falls back to the last number, unless a box was opened. For `multiple_choice` it is the
    letter, in upper case.
    """
    return candidates(text, verifier)[-1]


def candidates(text: str, verifier: str) -> list[str]:
    """All distinct boxed answers in order of their last appearance, or the one answer given otherwise; never empty.

    No answer, one that is too long, and one without a letter where `multiple_choice` wants one, stand as "".
    """
    text = visible(text)
    found = [clean(answer) for answer in _boxes(text) if answer.strip()] or [clean(_unboxed(text, verifier))]
    found = [answer if len(answer) <= MAX_ANSWER_CHARS else "" for answer in found]
    if verifier == "multiple_choice":
        found = [letter(answer) for answer in found]
    return list(dict.fromkeys(reversed(found)))[::-1]


def clean(answer: str) -> str:
    """The answer without outer math or bold delimiters, closing punctuation and repeated white space; idempotent."""
    text, before = " ".join(answer.split()), None
    while text != before:
        before = text
        text = text.strip()
        bare = text.rstrip(".,;:")
        text = text[: len(bare) + 1] if bare.endswith("\\") else bare  # `\,` is a space
        for left, right in _WRAPPINGS:
            inner = text[len(left) : len(text) - len(right)]
            if text.startswith(left) and text.endswith(right) and inner and left not in inner:
                text = inner
    return text


def letter(answer: str) -> str:
    r"""The choice A to J of `B`, `(B)`, `B.`, `\text{B}` or `B) text`, or "", also for several choices as in `A, B`."""
    match = _LETTER.match(answer[:MAX_ANSWER_CHARS])
    if not match:
        return ""
    others = set((_LETTERS_ALONE.fullmatch(answer, match.end(1)) and _WORD.findall(answer, match.end(1))) or [])
    return match.group(1).upper() if others <= {match.group(1)} else ""


def _boxes(text: str) -> list[str]:
    r"""The contents of the complete `\boxed{...}`, outermost ones only, in order."""
    found: list[tuple[int, int]] = []
    open_at: list[int | None] = []
    for match in _BRACES.finditer(text, max(0, text.find(r"\boxed"))):
        token = match.group()
        if token.endswith("{") and token != r"\{":
            open_at.append(match.end() if len(token) > 1 else None)
        elif token == "}" and open_at and (start := open_at.pop()) is not None:
            while found and found[-1][0] > start:
                found.pop()
            found.append((start, match.start()))
    return [text[start:end] for start, end in found]


def _sentence(text: str, prose: Sequence[re.Match[str]]) -> str:
    r"""What follows the last "the answer is" up to the end of its sentence, left out where its `\(` is never closed."""
    until = len(text)
    for match in reversed(prose):
        end = _SENTENCE_END.search(text, match.end(), until)
        answer = text[match.end() : end.start() if end else until]
        until = match.start()
        if len(_OPENS.findall(answer)) <= len(_CLOSES.findall(answer)):
            return answer
    return ""


def _unboxed(text: str, verifier: str) -> str:
    if "####" in text:
        return text.rpartition("####")[2].strip().partition("\n")[0]
    if prose := list(_PROSE.finditer(text)):
        return _sentence(text, prose)
    cut = r"\boxed{" in text  # within its answer: what stands there is not all of it
    numbers = _NUMBER.findall(text) if verifier == "math_last_number" and not cut else []
    return numbers[-1] if numbers else ""
