"""Normal forms of a problem's text, by which two problems are found to be the same."""

from __future__ import annotations

import re
import unicodedata

from a2r_train.data.options import options_below, without_options

# What only introduces a problem: `Q:`, `Question 3:`, `Problem 12.`
_LEAD = re.compile(r"[*#]*\s*(?:q|question|problem|exercise|task)\s*\d*\s*\**[.:)]\**\s*(?=\S)")
# Numbers, words, and each other sign: a sign between them, as in 2-3, may be all that differs.
_TOKEN = re.compile(r"\d+(?:[.,:]\d+)*|[^\W\d_]+|[^\w\s]|_")
_PUNCTUATION = frozenset('.,;:?"“”„«»…。，、；：？')
_OPEN = re.compile(
    r"\b(?:following|these|below|statements?|options?)\b"
)  # a question for many lists of options
FEWEST_WORDS = 8  # of a question that is the same whatever its options are


def plain(problem: str) -> str:
    """The text without case, repeated spaces, and differences in how a character is encoded."""
    return " ".join(unicodedata.normalize("NFKC", problem).casefold().split())


def bare(problem: str) -> str:
    """The plain text without punctuation and without a short lead such as `Q:`; signs of mathematics stay."""
    text = plain(problem)
    lead = _LEAD.match(text)
    tokens = _TOKEN.findall(text[lead.end() :] if lead else text)
    return " ".join(token for token in tokens if token not in _PUNCTUATION) or text


def wordings(problem: str) -> list[str]:
    """All texts by which a problem is known: its own, and if it has options, the question with these in any
    order, and the question alone if it says enough.
    """
    found, options = [bare(problem)], options_below(problem)
    if options:
        question = bare(without_options(problem))
        found.append("\n".join([question, *sorted(map(bare, options))]))
        if len(re.findall(r"\w+", question)) >= FEWEST_WORDS and not _OPEN.search(question):
            found.append(question)
    return found
