"""One part of the problems: its rollouts judged, grouped into bundles, and written with the numbers that the
mixture needs.
"""

from __future__ import annotations

import json
import pickle
from collections import Counter, defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa

from a2r_train.data.builder import make_bundles
from a2r_train.data.decontaminate import Evaluation
from a2r_train.data.ingest import Store
from a2r_train.data.mixture import check_vote
from a2r_train.data.read import identity_of, judged_by, used_twice
from a2r_train.data.rollouts import beside_another, check_same_gold, keys_of, rejudged_rollouts
from a2r_train.data.shards import BUNDLE, ROLLOUT_ROWS, batches_of, bundle_cells, rollout_cells
from a2r_train.data.spill import PROBLEM, PROBLEMS, ROLLOUTS, mark, metadata_of, read_part, write_batches
from a2r_train.data.unparsable import unparsable
from a2r_train.markers import OTHER_THOUGHT
from a2r_train.prompts import PromptConfig
from a2r_train.records import CORRECT, Bundle, Problem, Rollout, seed_of
from a2r_train.verify import bad_golds, doubts, unreadable_golds, warn_failing_golds
from a2r_train.verify.compare import OR_LEAVE_OUT
from a2r_train.verify.vote import agreements

if TYPE_CHECKING:
    from a2r_train.data.bundle import BundleConfig

UNREADABLE = "problem(s) whose gold the verifier cannot parse"
TOO_FEW, EQUAL = "problem(s) with fewer than k rollouts", "equal to another bundle"
FACTS = ("problem", "size", "n_correct", "majority_right", "share_correct", "agreement", "characters")


@dataclass(frozen=True)
class PartTask:
    """A part of a store that one process turns into bundles, in the part's folder."""

    config: BundleConfig
    store: Store
    part: int
    folder: Path
    problems: str
    rollouts: str
    prompt: PromptConfig | None
    evaluation: Path | None  # None where all problems are test problems

    @property
    def out(self) -> Path:
        return self.folder / f"part-{self.part:05d}"

    @property
    def is_done(self) -> bool:
        return (self.out / "said.json").exists()


@dataclass
class Said:
    """What a part reports on one split: counts of its rollouts, what was dropped, and the first text without
    an answer, with the number of its problem.
    """

    rollouts: int = 0
    right: int = 0
    unread: int = 0
    cut: int = 0
    marked: int = 0
    repeated: int = 0  # with the text of an earlier rollout of their problem
    thoughts: int = 0  # that begin with another marker of a thought than `<think>`
    marker: str = ""  # one of these markers
    sample: str = ""
    sample_of: int = -1
    dropped: dict[str, int] = field(default_factory=dict)


@dataclass
class Made:
    """One split of a part as it is being made."""

    said: Said = field(default_factory=Said)
    bundles: list[Bundle] = field(default_factory=list)
    facts: list[tuple[Any, ...]] = field(default_factory=list)  # as FACTS names them
    rollouts: list[tuple[int, Rollout]] = field(default_factory=list)  # with the number of their problem


def bundle_part(task: PartTask) -> None:
    """Make the part. Raises InputError for what is wrong with its rollouts."""
    problems, rollouts, bad = load_part(task)
    golds = {problem.id: problem for _, problem in problems}
    judged = rejudged_rollouts(
        rollouts, golds, task.rollouts, task.problems, task.config.verifier, task.prompt
    )
    pools: defaultdict[str, list[Rollout]] = defaultdict(list)
    for rollout in judged:
        pools[rollout.problem_id].append(rollout)
    evaluation = _evaluation(task.evaluation) if task.evaluation else None
    splits = {"train": Made(), "test": Made()}
    met: list[tuple[int, str, str]] = []
    for number, problem in problems:
        test = evaluation is None or is_test(problem.id, task.config)
        if evaluation and not test and (other := evaluation.met(problem)):
            met.append((number, problem.id, other))
            continue
        _add(splits["test" if test else "train"], task.config, number, problem, pools[problem.id], test)
    for _, problem in bad:
        dropped = splits[
            "test" if evaluation is None or is_test(problem.id, task.config) else "train"
        ].said.dropped
        dropped[UNREADABLE] = dropped.get(UNREADABLE, 0) + 1
    task.out.mkdir(parents=True, exist_ok=True)
    for name, made in splits.items():
        _write(task.out, name, made)
    said = {name: asdict(made.said) for name, made in splits.items()}
    unreadable = [(number, problem.id, problem.answer) for number, problem in bad]
    mark(
        task.out / "said.json",
        {
            **said,
            "met": met,
            "bad": unreadable,
            "problems": len(problems) + len(bad),
            "doubts": doubts(problem for _, problem in problems),
        },
    )


def _evaluation(path: Path) -> Evaluation:
    state = path.stat()
    return _loaded(path, state.st_ino, state.st_mtime_ns, state.st_size)


@lru_cache(maxsize=1)
def _loaded(path: Path, *_state: int) -> Evaluation:
    """The pickled problems. They are read once for all parts, and again when another run has written them."""
    evaluation: Evaluation = pickle.loads(path.read_bytes())
    return evaluation


def is_test(identity: str, config: BundleConfig) -> bool:
    """Whether a problem is in the test split. A hash of its id decides, however the rollouts change."""
    return seed_of(config.seed, "split", identity) < config.test_share * 2**32


def _add(
    made: Made, config: BundleConfig, number: int, problem: Problem, pool: Sequence[Rollout], test: bool
) -> None:
    """Add a problem's bundles to a split. Raises InputError as `check_vote` does."""
    check_vote(config.mixture, problem.verifier, config.contested_only)
    _count(made.said, number, pool)
    if test:
        made.rollouts += [(number, rollout) for rollout in pool]
    dropped = made.said.dropped
    if len(pool) < (config.k_min or config.k):
        dropped[TOO_FEW] = dropped.get(TOO_FEW, 0) + 1
        return
    count = config.test_bundles_per_problem if test else config.bundles_per_problem
    bundles = make_bundles(problem, pool, k=config.k, k_min=config.k_min, count=count, seed=config.seed)
    dropped[EQUAL] = dropped.get(EQUAL, 0) + count - len(bundles)
    share = sum(rollout.verdict == CORRECT for rollout in pool) / max(1, len(pool))
    made.bundles += bundles
    votes = [([reference.answer for reference in one.references], problem.verifier) for one in bundles]
    for one, agreement in zip(bundles, agreements(votes), strict=True):
        characters = len(one.problem) + sum(len(reference.text) for reference in one.references)
        right = one.majority_verdict == CORRECT
        numbers = number, len(one.references), one.n_correct, right, share
        made.facts.append((*numbers, agreement.encode(), characters))


def _count(said: Said, number: int, pool: Sequence[Rollout]) -> None:
    unread = unparsable(pool)
    said.rollouts += len(pool)
    said.right += sum(rollout.verdict == CORRECT for rollout in pool)
    said.unread += unread.count
    said.cut += unread.cut
    said.marked += unread.marked
    others = [found[1] for rollout in pool if (found := OTHER_THOUGHT.match(rollout.text))]
    said.thoughts += len(others)
    said.marker = max([said.marker, *others])
    said.repeated += len(pool) - len({rollout.text for rollout in pool})
    if unread.sample and not said.sample:
        said.sample, said.sample_of = unread.sample, number


def _write(out: Path, name: str, made: Made) -> None:
    rows = [bundle_cells(bundle) for bundle in made.bundles]
    write_batches(out / f"{name}.arrow", BUNDLE, batches_of(rows, BUNDLE))
    columns: dict[str, Any] = {}
    if rows:
        columns = dict(zip(FACTS, map(np.array, zip(*made.facts, strict=True)), strict=True))
    np.savez(out / f"{name}.npz", **columns)
    if made.rollouts:
        cells = [rollout_cells(rollout) for _, rollout in made.rollouts]
        write_batches(out / f"{name}-rollouts.arrow", ROLLOUT_ROWS, batches_of(cells, ROLLOUT_ROWS))
        numbers = np.array([number for number, _ in made.rollouts])
        characters = np.array([len(rollout.text) for _, rollout in made.rollouts])
        np.savez(out / f"{name}-rollouts.npz", problem=numbers, characters=characters)


Problems = list[tuple[int, Problem]]  # with their numbers


def load_part(task: PartTask) -> tuple[Problems, list[Rollout], Problems]:
    """The problems of a part, in the order of their numbers; their rollouts in the input's order; and the
    problems that are left out with their rollouts, because their golds cannot be parsed.

    Raises InputError for such a gold if the recipe does not leave it out, for different golds of one problem,
    and for a repeated rollout.
    """
    store, part, verifier = task.store, task.part, task.config.verifier
    own = (store.folder / "numbered.json").exists()
    names: dict[int, str] = {}
    problems = _own_problems(store, part, names) if own else _given_problems(store, part)
    bad = unreadable_golds((n + 1, p) for (n, _), p in _judged_by(verifier, problems))
    if bad and not task.config.leave_out_bad_golds:
        raise bad_golds(bad, task.problems or task.rollouts, OR_LEAVE_OUT)
    out = {problem.id for _, problem in bad}
    every = [(number, problem) for (number, _), problem in _judged_by(verifier, problems)]
    found = [one for one in every if one[1].id not in out]
    warn_failing_golds((problem for _, problem in found), task.problems or task.rollouts)
    texts = {} if own else {problem.id: problem.problem for _, problem in every}
    rollouts = [one for one in _rollouts(store, part, names, own, texts) if one.problem_id not in out]
    return found, rollouts, [one for one in every if one[1].id in out]


def _judged_by(
    verifier: str, problems: Sequence[tuple[int, Problem]]
) -> Iterator[tuple[tuple[int, Problem], Problem]]:
    return zip(problems, judged_by(verifier, [problem for _, problem in problems]), strict=True)


def problems_in(store: Store, part: int, verifier: str) -> list[tuple[int, Problem]]:
    """The problems of a part with their numbers, without their rollouts."""
    own = (store.folder / "numbered.json").exists()
    problems = _own_problems(store, part, {}) if own else _given_problems(store, part)
    return [(number, problem) for (number, _), problem in _judged_by(verifier, problems)]


def _rows(table: pa.Table) -> Iterator[tuple[Any, ...]]:
    return zip(*(column.to_pylist() for column in table.columns), strict=True)


def _problem(cells: Sequence[Any], identity: str) -> Problem:
    _, problem, answer, verifier, source, metadata = cells
    return Problem(identity, problem, answer, verifier, source, metadata_of(metadata))


def _given_problems(store: Store, part: int) -> list[tuple[int, Problem]]:
    table = read_part(store.files("problems"), PROBLEMS, part)
    return [(row[1], _problem(row[-len(PROBLEM) :], row[-len(PROBLEM)])) for row in _rows(table)]


def _own_problems(store: Store, part: int, names: dict[int, str]) -> list[tuple[int, Problem]]:
    """Problems in the rollouts' own rows, each from its first row; `names` gets the id of each key."""
    keys, ordinals = (np.load(store.folder / f"{name}.npy", mmap_mode="r") for name in ("keys", "ordinals"))
    table = read_part(store.files("problems"), PROBLEMS, part)
    rows = sorted(_rows(table), key=lambda row: (row[2], row[1]))  # by slice, and by number in it
    known: dict[int, tuple[int, Problem, str]] = {}
    for key, _, piece, line, *cells in rows:
        place = store.place(piece, line)
        if key not in known:
            number = int(ordinals[np.searchsorted(keys, np.uint64(key))])
            names[key] = str(number) if cells[0] is None else cells[0]
            known[key] = number, _problem(cells, names[key]), place
        else:
            check_same_gold(known[key][1], _problem(cells, ""), place, known[key][2])
    return sorted(((number, problem) for number, problem, _ in known.values()), key=lambda one: one[0])


def _rollouts(
    store: Store, part: int, names: dict[int, str], own: bool, texts: Mapping[str, str]
) -> list[Rollout]:
    """The rollouts of a part. Raises InputError for a repeated one, and for one whose row has the text of
    another problem than `texts` by its id.
    """
    keys: dict[str, set[int]] = {}
    table = read_part(store.files("rollouts"), ROLLOUTS, part)
    rollouts, places = [], dict[Any, tuple[int, int]]()
    for key, number, piece, line, *cells, beside in _rows(table):
        if cells[1] is None:
            cells[1] = store.before[piece] + number
        if own:
            cells[0] = names[key]
        elif beside is not None and (identity := cells[0]) in texts:
            if identity not in keys:
                keys[identity] = keys_of(texts[identity])
            if beside not in keys[identity]:
                raise beside_another(store.place(piece, line), identity)
        rollout = Rollout(*cells)
        if not own and (identity := identity_of(rollout)) in places:
            raise used_twice(store.place(piece, line), identity, store.place(*places[identity]))
        if not own:
            places[identity] = piece, line
        rollouts.append(rollout)
    return rollouts


def said_of(folders: Sequence[Path], split: str) -> tuple[Said, Counter[str]]:
    """What all parts report on a split, added up."""
    whole, dropped, first = Said(), Counter[str](), -1
    for folder in folders:
        said = Said(**json.loads((folder / "said.json").read_text(encoding="utf-8"))[split])
        for name in ("rollouts", "right", "unread", "cut", "marked", "repeated", "thoughts"):
            setattr(whole, name, getattr(whole, name) + getattr(said, name))
        if said.sample and (first < 0 or said.sample_of < first):
            whole.sample, first = said.sample, said.sample_of
        whole.marker = max(whole.marker, said.marker)
        dropped.update(said.dropped)
    return whole, dropped


def met_in(folders: Sequence[Path]) -> list[dict[str, str]]:
    """The problems that decontamination dropped, in their order."""
    met = [row for said in _said_in(folders) for row in said["met"]]
    return [{"problem_id": identity, "evaluation_id": other} for _, identity, other in sorted(met)]


def bad_in(folders: Sequence[Path]) -> tuple[list[dict[str, str]], int]:
    """The problems that were left out for their golds, in their order; and how many there were in all."""
    said = list(_said_in(folders))
    bad = sorted(row for one in said for row in one["bad"])
    rows = [{"problem_id": identity, "answer": answer} for _, identity, answer in bad]
    return rows, sum(one["problems"] for one in said)


def doubts_in(folders: Sequence[Path]) -> Counter[str]:
    """What `doubts` counts in all parts."""
    return sum((Counter(said.get("doubts", {})) for said in _said_in(folders)), Counter[str]())


def _said_in(folders: Sequence[Path]) -> Iterator[dict[str, Any]]:
    for folder in folders:
        yield json.loads((folder / "said.json").read_text(encoding="utf-8"))
