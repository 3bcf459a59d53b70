"""Splits a normal form at its top level: outside all brackets of any kind."""

from __future__ import annotations

import re

from a2r_train.verify.expression import Unreadable

OPENING, CLOSING = "([{", ")]}"


def split(text: str, pattern: str = r'[,;]|"and"|"or"') -> tuple[list[str], list[str]]:
    """The parts between top-level separators, and the separators; `, and` is one."""
    separator = re.compile(pattern)
    parts, separators, depth, start, at = [], [], 0, 0, 0
    while at < len(text):
        char = text[at]
        if char in OPENING or char in CLOSING:
            depth += 1 if char in OPENING else -1
        elif depth == 0 and (match := separator.match(text, at)):
            part, start, at = text[start:at].strip(), match.end(), match.end() - 1
            if part:
                parts.append(part)
                separators.append(match.group())
            elif separators and '"' in match.group():
                separators[-1] = match.group()
            else:
                raise Unreadable(text)
        at += 1
    if depth or not text[start:].strip():
        raise Unreadable(text)
    return [*parts, text[start:].strip()], separators


def top_level(pattern: re.Pattern[str], text: str) -> list[re.Match[str]]:
    depth, depths = 0, []
    for char in text:
        depth += (char in OPENING) - (char in CLOSING)
        depths.append(depth)
    return [match for match in pattern.finditer(text) if depths[match.start()] == 0]


def split_at(text: str, command: str) -> list[str]:
    return split(text, re.escape(command) + r"(?![A-Za-z])")[0]


def bracket_parts(inner: str) -> tuple[list[str], list[str]]:
    try:
        return split(inner, "[,;]")
    except Unreadable:
        return [inner], []
