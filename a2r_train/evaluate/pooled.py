"""Several evaluations as one: trainings that differ only in their seed, and several test sets.

The score of a problem is averaged over the evaluations that have it, whatever their order and whatever else
they have. Then all problems are pooled. So differences are clustered by problem, and a second training adds
no problems.
"""

from __future__ import annotations

import hashlib
import json
import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from a2r_train.errors import InputError
from a2r_train.evaluate.report.pairs import is_significant
from a2r_train.evaluate.report.tables import points
from a2r_train.evaluate.rows.names import BASE, CONTROL, EQUAL_COST, RANDOM, TRAINED, VOTED_CONTROL, is_vote
from a2r_train.evaluate.rows.row import Row, problem_ids
from a2r_train.evaluate.statistics import Difference, Scores, detectable_difference, holm, paired
from a2r_train.records import Bundle, write_text

FILE = "scores.json"
MEDOID = re.compile(r"best-of-\w+/medoid")


@dataclass(frozen=True, eq=False)
class Evaluation:
    """Scores [n_problems] in 0..1 of each row of an evaluation; NaN if a problem has none. `keys` of the
    problems are the same in every evaluation that has them. `by_vote` are the rows of systems in which the
    vote answers where enough references agree, with that share (`skip_agreement`). `golds` are the answers of
    the problems; [] in a file of an earlier version.
    """

    name: str
    keys: list[str]
    verifiers: list[str]
    rows: dict[str, Scores]
    by_vote: Mapping[str, float] = field(default_factory=dict)
    golds: list[str] = field(default_factory=list)


def write_scores(
    folder: str | Path,
    bundles: Sequence[Bundle],
    rows: Iterable[Row],
    by_vote: Mapping[str, float] | None = None,
) -> None:
    """Write the score of each problem in each row to a file beside the results."""
    texts = {bundle.problem_id: bundle.problem for bundle in bundles}
    golds = {bundle.problem_id: bundle.answer for bundle in bundles}
    problems, scores = problem_ids(bundles), _scores(rows)
    keys = _keys([texts[problem] for problem in problems])
    verifiers = sorted({bundle.verifier for bundle in bundles})
    content: dict[str, Any] = {"keys": keys, "verifiers": verifiers, "problems": problems, "rows": scores}
    content["golds"] = [golds[problem] for problem in problems]
    content |= {"by_vote": dict(by_vote)} if by_vote else {}
    write_text(Path(folder) / FILE, json.dumps(content) + "\n")


def _scores(rows: Iterable[Row]) -> dict[str, list[float | None]]:
    return {row.name: [None if np.isnan(s) else round(float(s), 6) for s in row.scores] for row in rows}


def differing_scores(folder: Path, rows: Iterable[Row]) -> list[str]:
    """A line for each row whose stored scores are not these; no line if none are stored."""
    if not (folder / FILE).is_file():
        return []
    kept, anew = json.loads((folder / FILE).read_text(encoding="utf-8"))["rows"], _scores(rows)
    names = [name for name, scores in kept.items() if scores != anew.get(name)]
    return [f"{FILE}: row {name}: other scores" for name in names]


def _keys(texts: Sequence[str]) -> list[str]:
    """A key of each problem: a hash of its text, and its number among equal texts. The id is not in it,
    because a file without ids gives a problem the number of its line.
    """
    seen: Counter[str] = Counter()
    keys = []
    for text in texts:
        keys.append(hashlib.sha256(f"{seen[text]} {text}".encode()).hexdigest()[:16])
        seen[text] += 1
    return keys


def read_scores(folder: str) -> Evaluation:
    """Raises InputError for a folder without them, or with those of an earlier version."""
    path = Path(folder) / FILE
    if not path.is_file():
        raise InputError(f"{folder}: no {FILE}; name the output folder of `a2r evaluate`, or evaluate again")
    content = json.loads(path.read_text(encoding="utf-8"))
    if "keys" not in content:
        raise InputError(
            f"{path}: written by an earlier version, and does not tell which problems two evaluations share; "
            "run the same `a2r evaluate` again, which writes it from the kept answers"
        )
    rows = {name: np.array(scores, dtype=float) for name, scores in content["rows"].items()}
    by_vote = content.get("by_vote", {})
    if isinstance(by_vote, list):  # of an earlier version, in which all references had to agree
        by_vote = dict.fromkeys(by_vote, 1.0)
    more = by_vote, content.get("golds", [])
    return Evaluation(folder, content["keys"], content["verifiers"], rows, *more)


def pool(folders: Sequence[str], row: str = "", against: Sequence[str] = ()) -> list[str]:
    """The lines of a Markdown table: the compared row, and its difference to each rival over all evaluations.

    The rivals are one family, corrected together (Holm 1979). Raises InputError if an evaluation lacks a row,
    or if two were judged by other verifiers or golds.
    """
    places = [Path(folder).resolve() for folder in folders]
    if again := next((one for at, one in enumerate(folders) if places[at] in places[:at]), ""):
        raise InputError(f"{again} is named twice; name each evaluation once")
    found = [read_scores(folder) for folder in folders]
    if other := next((one for one in found if one.verifiers != found[0].verifiers), None):
        raise InputError(
            f"{other.name} was judged by {', '.join(other.verifiers)}, and {found[0].name} by "
            f"{', '.join(found[0].verifiers)}; evaluate both with the same verifier"
        )
    _check_golds(found)
    system = row or _first(found)
    rivals = list(against) or _rivals(found, system)
    if system in rivals:
        raise InputError(f"--against {system}: is the compared row itself; name others")
    for name in (system, *rivals):
        if lacking := next((one.name for one in found if name not in one.rows), ""):
            raise InputError(f"{lacking}: no row {name!r}; expected it in all evaluations")
        _check_same_kind(found, name)
    scores = {name: _over_all(found, name) for name in (system, *rivals)}
    differences = holm([paired(scores[system], scores[rival]) for rival in rivals])
    own = [[_mean_difference(one, system, rival) for one in found] for rival in rivals]
    head = [
        f"{system}, against",
        "pooled",
        "interval",
        "p",
        "smallest detectable",
        *(one.name for one in found),
    ]
    lines = [
        [
            rival,
            points(one.difference),
            _interval(one),
            f"{one.p_holm:.4f}",
            _smallest(one, len(rivals)),
            *each,
        ]
        for rival, one, each in zip(rivals, differences, own, strict=True)
    ]
    mean, size = float(np.nanmean(scores[system])), len(scores[system])
    evaluations = f"{len(found)} evaluation{'s' * (len(found) > 1)}"
    said = f"{system} is right in {100 * mean:.1f} % of {size} problems, the mean of {evaluations}."
    return [said, "", *(f"| {' | '.join(line)} |" for line in (head, ["---"] * len(head), *lines))]


def _check_golds(found: Sequence[Evaluation]) -> None:
    """Raise InputError if a problem has another gold in a second evaluation: one of them must be wrong."""
    known: dict[str, tuple[str, str]] = {}
    for one in found:
        for key, gold in zip(one.keys, one.golds, strict=bool(one.golds)):
            first, other = known.setdefault(key, (gold, one.name))
            if first != gold:
                raise InputError(
                    f"{one.name}: a problem has the answer {gold[:40]!r}, and in {other} {first[:40]!r}; "
                    "correct one, and evaluate again"
                )


def _check_same_kind(found: Sequence[Evaluation], name: str) -> None:
    """Raise InputError if a row is a model's in one evaluation and a system's in another, or if its systems
    ask their synthesizers at different agreement.
    """
    shares = {one.by_vote.get(name, 0.0): one.name for one in found}
    if len(shares) > 1:
        said = ", ".join(f"{share:g} in {one}" for share, one in shares.items())
        raise InputError(f"{name}: skip_agreement is {said}; evaluate all in the same way")


def _first(found: Sequence[Evaluation]) -> str:
    """The first system that all evaluations have. Raises InputError if there is none."""
    name = next((name for name in TRAINED if all(name in one.rows for one in found)), "")
    if not name:
        raise InputError(f"no trained synthesizer is in all {len(found)} evaluations; name a row with --row")
    return name


def _rivals(found: Sequence[Evaluation], system: str) -> list[str]:
    """The untrained synthesizer, the votes or the rows that replace them, and the control, alone and with
    votes, but for the compared row itself.
    """
    names = [name for name in found[0].rows if all(name in one.rows for one in found)]
    votes = [n for n in names if is_vote(n) and n != EQUAL_COST]
    instead = [n for n in names if n == RANDOM or MEDOID.fullmatch(n)]
    rivals = [n for n in (BASE, *(votes or instead), CONTROL, VOTED_CONTROL) if n in names and n != system]
    rivals = [
        n for at, n in enumerate(rivals) if not any(_are_equal(found, n, other) for other in rivals[:at])
    ]
    if not rivals:
        raise InputError("no vote and no control are in all evaluations; name the rivals with --against")
    return rivals


def _are_equal(found: Sequence[Evaluation], a: str, b: str) -> bool:
    """Whether two rows have the same scores in all evaluations, as a vote that found no further rollouts."""
    return all(np.array_equal(one.rows[a], one.rows[b], equal_nan=True) for one in found)


def _over_all(found: Sequence[Evaluation], name: str) -> Scores:
    """The scores of a row [n_problems], each the mean over the evaluations that have the problem; NaN if one
    of them has no score, so that all rows have the mean of the same evaluations.
    """
    scores: defaultdict[str, list[float]] = defaultdict(list)
    for one in found:
        for key, score in zip(one.keys, one.rows[name], strict=True):
            scores[key].append(float(score))
    return np.array([np.mean(each) for each in scores.values()])


def _mean_difference(one: Evaluation, system: str, rival: str) -> str:
    return points(float(np.nanmean(one.rows[system] - one.rows[rival])))


def _interval(one: Difference) -> str:
    doubt = "" if is_significant(vars(one)) else ", not told apart"
    return f"{points(one.low_holm)} to {points(one.high_holm)}{doubt}"


def _smallest(one: Difference, family: int) -> str:
    return f"{100 * detectable_difference(one.low, one.high, family):.1f}"
