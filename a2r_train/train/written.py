"""Texts from which a prompt's own rules extract a given answer: the preflight tests the reward with them."""

from __future__ import annotations

import re

from a2r_train.prompts import PromptConfig
from a2r_train.verify.extract import written

_GROUP = re.compile(r"(?<!\\)\((?!\?)")
_SPACE = re.compile(r"\\s[*+?]?|\\n")
_OPTIONAL = re.compile(r"(?:\(\?:[^()]*\)|\\[^sbAZn]|[^\\()\[\]])[?*]\??")
_ANCHOR = re.compile(r"(?<!\\)[\^$]|\\[bAZ]|\(\?[a-z]+\)")


def as_asked(prompt: PromptConfig, answer: str, verifier: str) -> str | None:
    """The answer in the form the prompt asks for; None if no text could be made for its `answer_pattern`.

    Without a pattern the answer is where its verifier looks for it.
    """
    boxed = written(answer, verifier)
    if not prompt.answer_pattern:
        return boxed
    text = _around(prompt.answer_pattern, answer)
    return text if prompt.judged_text(text) == rf"\boxed{{{answer.strip()}}}" else None


def _around(pattern: str, answer: str) -> str:
    """The pattern with the answer in place of its group, as far as its text is literal."""
    begin = _GROUP.search(pattern)
    if begin is None:
        return answer
    before, after = pattern[: begin.start()], pattern[_closes(pattern, begin.end()) :]
    return f"{_plain(before)}{answer}{_plain(after)}"


def _closes(pattern: str, at: int) -> int:
    """The position after the parenthesis that closes the group opened before `at`."""
    depth = 1
    while depth and at < len(pattern):
        depth += {"(": 1, ")": -1}.get(pattern[at], 0)
        at += 2 if pattern[at] == "\\" else 1
    return at


def _plain(pattern: str) -> str:
    return re.sub(r"\\(.)", r"\1", _OPTIONAL.sub("", _SPACE.sub(" ", _ANCHOR.sub("", pattern))))
