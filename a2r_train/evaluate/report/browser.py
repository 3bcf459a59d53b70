"""The problems that report.html shows one by one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from a2r_train.evaluate.diagnostics import FLIP_KINDS, flip_kind
from a2r_train.evaluate.statistics import Scores
from a2r_train.records import VOTED, Bundle, Synthesis

MAX_SHOWN_CHARACTERS = 4000
OF_THE_VOTE = "[the vote of the references, which agree; no synthesis was made]"


@dataclass(frozen=True)
class Text:
    """A reference or a synthesis in the browser; `flip` is empty for references."""

    label: str
    text: str
    answer: str
    verdict: str
    flip: str = ""


@dataclass(frozen=True)
class Shown:
    """One problem of the browser."""

    id: str
    problem: str
    answer: str
    vote: float
    references: list[Text]
    syntheses: list[Text]


def browser(
    bundles: Sequence[Bundle], votes: Scores, syntheses: Mapping[str, Sequence[Synthesis]], limit: int = 60
) -> list[Shown]:
    """Up to `limit` problems, one bundle each, taken in turn from the flip kinds of the last row of
    `syntheses`.
    """
    firsts: dict[str, dict[str, Synthesis]] = {}
    for name, given in syntheses.items():
        for synthesis in given:
            firsts.setdefault(synthesis.bundle_id, {}).setdefault(name, synthesis)
    kinds: dict[str, list[Shown]] = {kind: [] for kind in (*FLIP_KINDS, "wrong", "right", "")}
    seen: set[str] = set()
    for bundle, vote in zip(bundles, votes, strict=True):
        if bundle.problem_id not in seen:
            seen.add(bundle.problem_id)
            one = _shown(bundle, float(vote), firsts.get(bundle.id, {}))
            kinds[one.syntheses[-1].flip if one.syntheses else ""].append(one)
    order = sorted((place, at) for at, group in enumerate(kinds.values()) for place in range(len(group)))
    return [list(kinds.values())[at][place] for place, at in order[:limit]]


def _shown(bundle: Bundle, vote: float, syntheses: Mapping[str, Synthesis]) -> Shown:
    references = [
        Text(f"Reference {i}", _clip(r.text), r.answer, r.verdict) for i, r in enumerate(bundle.references, 1)
    ]
    written = [
        Text(name, _written(s), s.answer, s.verdict, flip_kind(vote, s)) for name, s in syntheses.items()
    ]
    return Shown(bundle.problem_id, bundle.problem, bundle.answer, vote, references, written)


def _written(one: Synthesis) -> str:
    return OF_THE_VOTE if one.finish_reason == VOTED else _clip(one.text)


def _clip(text: str) -> str:
    """The end of a long text, which holds its answer."""
    cut = len(text) - MAX_SHOWN_CHARACTERS
    return text if cut <= 0 else f"[{cut} characters left out]\n{text[cut:]}"
