"""The traits of a verifier: how its answers vote, where they are in a text, and what it has to see.

| verifier | its answers vote | they are in |
|---|---|---|
| `math`, `math_last_number`, `exact`, `multiple_choice` | by equivalence | a box, or after "the answer is" |
| `python_tests` | not at all: two programs are never one answer | the last fenced block that is a program |
| `reasoning_gym` | by a canonical form: the text without spaces at its ends | `<answer>` tags |

A custom function sets them as attributes, each of which has a default:

    def solved(answer, gold, row): ...
    solved.vote = "none"         # or "equivalence", or a function that gives an answer's canonical form
    solved.answer_in = "code"    # or "box", or "tags"
    solved.deadline_s = 60       # for one answer, such as with a sandbox on another machine; 5 by default
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache
from typing import Literal, cast, get_args

from a2r_train.verify import pool

Vote = Literal["equivalence", "canonical", "none"]
Place = Literal["box", "code", "tags"]
VOTES, PLACES = get_args(Vote), get_args(Place)


@dataclass(frozen=True)
class Traits:
    """vote: how answers are grouped. answer_in: where they are. asks: which of `text` and `row` it sees."""

    vote: Vote = "equivalence"
    answer_in: Place = "box"
    asks: frozenset[str] = frozenset()


COMPARING = ("math", "math_last_number", "exact", "multiple_choice")  # they see answer and gold alone
SHIPPED = {
    **dict.fromkeys(COMPARING, Traits()),
    "python_tests": Traits("none", "code", frozenset({"row"})),
    "reasoning_gym": Traits("canonical", "tags", frozenset({"row"})),
}
# What a prompt has to ask for, as in the templates; SIGNS has the words that show that it does.
ASKED = {
    "box": r"put the final answer in \boxed{{}}",
    "code": "write the whole program, with all imports, in one fenced block that begins with ```python",
    "tags": "put the final answer, and nothing else, between <answer> and </answer>",
}
LETTER = r"put the letter of the right option in \boxed{{}}"  # for multiple_choice, in place of ASKED["box"]
SIGNS = {"box": ("boxed",), "code": ("```", "block", "fence"), "tags": ("<answer>",)}
PROMPT_FILES = {"code": "recipes/prompts/prompt-code.yaml", "tags": "recipes/prompts/prompt-tagged.yaml"}


def traits_of(verifier: str) -> Traits:
    """Raises InputError for a custom function that cannot be imported, or whose attributes are not valid."""
    return SHIPPED.get(verifier) or _own(verifier)


@cache
def _own(verifier: str) -> Traits:
    said = pool.traits(verifier)
    asks = frozenset(said.get("asks", "").split(",")) - {""}
    vote, place = said.get("vote", "equivalence"), said.get("answer_in", "box")
    return Traits(cast(Vote, vote), cast(Place, place), asks)


def has_vote(verifier: str) -> bool:
    """Whether answers of a verifier can be counted. Raises InputError as `traits_of`."""
    return traits_of(verifier).vote != "none"
