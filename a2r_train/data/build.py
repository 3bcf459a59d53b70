"""Rollouts -> bundles, part by part: read into a store keyed by problem, judged, grouped and mixed.

The mixture needs only a few numbers of each bundle. Memory holds these numbers, and one part per process.
"""

from __future__ import annotations

import logging
import pickle
import random
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import chain
from pathlib import Path
from typing import TYPE_CHECKING, cast

from a2r_train.atomic import replacing
from a2r_train.data.decontaminate import Evaluation, Method
from a2r_train.data.files import size_of
from a2r_train.data.ingest import Store, ingest, parts_of
from a2r_train.data.mixture import cap_all_wrong, choose, contested, shares_in
from a2r_train.data.part import (
    TOO_FEW,
    PartTask,
    bad_in,
    bundle_part,
    doubts_in,
    is_test,
    met_in,
    problems_in,
)
from a2r_train.data.processes import Rate, cores, mapped
from a2r_train.data.read import Columns, questions
from a2r_train.data.splits import Split, split_of
from a2r_train.errors import InputError
from a2r_train.prompts import PromptConfig
from a2r_train.records import Problem
from a2r_train.verify import check_left_out, warn_doubts

if TYPE_CHECKING:
    from a2r_train.data.bundle import BundleConfig

log = logging.getLogger(__name__)
CONTAMINATED = "problem(s) like one of an evaluation set"
REMEDIES = {
    CONTAMINATED: "change decontamination, or use other problems",
    TOO_FEW: "lower k, or explore with more samples",
}
REMEDY = "loosen mixture, contested_only or max_all_wrong"
NONE_RIGHT = (
    "explore with a stronger model or easier problems; if you wrote the verifier, check that it accepts golds"
)
KINDS = {"train": "training", "test": "test"}
MANY_REPEATED = 0.5  # of the rollouts: what a file has whose rows are all there twice
PART_BYTES = 24 * 2**20  # of input; in memory a part is several times as large
MOST_PARTS = 1024
SMALL_BYTES = 32 * 2**20  # of input; below this, starting more processes takes longer than it saves


@dataclass(frozen=True)
class Built:
    """The bundles of both splits, and the problems that were dropped for their texts or their golds."""

    splits: dict[str, Split]
    met: list[dict[str, str]]


def build(
    config: BundleConfig,
    prompt: PromptConfig,
    columns: Columns,
    work: Path,
    note: Callable[[set[str]], None] | None = None,
) -> Built:
    """Write the bundles of both splits to files in the folder `work`, and keep what a killed run has left
    there. `note` gets all verifiers before the first of them judges.

    Raises InputError for wrong input, and if no bundle or no correct reference is left.
    """
    processes = processes_for(config)
    store = _ingested(config.problems, config.rollouts, columns, work / "train", processes, config.verifier)
    tested = None
    if config.test_rollouts:
        sets = config.test_problems, config.test_rollouts
        tested = _ingested(*sets, columns, work / "test", processes, config.verifier)
    named = [one.verifiers() for one in (store, tested) if one]
    if note:
        note({config.verifier} if config.verifier else set().union(*named))
    evaluation = _evaluation(config, store, tested, columns, work / "evaluation.pickle")
    tasks = [
        PartTask(config, store, i, work / "train", config.problems, config.rollouts, prompt, evaluation)
        for i in range(store.parts)
    ]
    sets = config.test_problems, config.test_rollouts
    tasks += [
        PartTask(config, tested, i, work / "test", *sets, prompt, None)
        for i in range(tested.parts if tested else 0)
        if tested
    ]
    left = [task for task in tasks if not task.is_done]
    each = [task.store.rollouts / task.store.parts for task in tasks]
    rate = Rate(
        "bundle: judging and grouping", sum(each), "rollouts", sum(each) * (1 - len(left) / len(tasks))
    )
    for at, _ in mapped(bundle_part, left, processes):
        rate.add(left[at].store.rollouts / left[at].store.parts)
    folders = [task.out for task in tasks if task.evaluation]
    tests = [task.out for task in tasks if not task.evaluation] or folders
    splits = {"train": split_of("train", folders), "test": split_of("test", tests)}
    met = met_in(folders)
    splits["train"].dropped[CONTAMINATED] = len(met)
    warn_doubts(doubts_in(folders), config.problems or config.rollouts)
    met += _bad(config.problems or config.rollouts, folders)
    met += _bad(config.test_problems or config.test_rollouts, tests) if tested else []
    _tell_texts(splits, config.rollouts)
    splits["train"] = _mixed(config, splits["train"])
    _tell(splits)
    if config.test_share and not splits["test"].said.rollouts:
        log.warning(
            "test_share %g holds out no problem, so there is no test set; raise it", config.test_share
        )
    return Built(splits, met)


def _bad(place: str, folders: Sequence[Path]) -> list[dict[str, str]]:
    """The problems that were left out for their golds. Raises InputError as `check_left_out`."""
    bad, problems = bad_in(folders)
    check_left_out(len(bad), problems, place)
    return bad


def processes_for(config: BundleConfig) -> int:
    """The number that the recipe sets, or the number of cores; 1 for small input."""
    size = sum(map(size_of, (config.rollouts, config.test_rollouts)))
    return 1 if size < SMALL_BYTES else config.processes or cores()


def _ingested(
    problems: str, rollouts: str, columns: Columns, folder: Path, processes: int, verifier: str
) -> Store:
    parts = parts_of(size_of(rollouts), PART_BYTES, MOST_PARTS)
    return ingest(problems, rollouts, columns, folder, parts, processes, verifier)


def _evaluation(
    config: BundleConfig, store: Store, tested: Store | None, columns: Columns, path: Path
) -> Path:
    """The problems that training must not contain: the test problems, then those of other files. One file
    serves all parts.
    """
    named = config.decontaminate_against
    others = questions(named, columns) if named else []
    columns.check_met()
    if not path.exists():
        tests: Sequence[Problem] = []
        if config.decontamination != "none" and (tested or config.test_share):
            tests = sorted_problems(tested or store, config, everything=tested is not None)
        method = cast("Method", config.decontamination)
        known = Evaluation(chain(tests, others), method, columns.sources)
        with replacing(path) as part:
            part.write_bytes(pickle.dumps(known))
    return path


def sorted_problems(store: Store, config: BundleConfig, everything: bool) -> list[Problem]:
    """The test problems of a store in their order."""

    def found() -> Iterator[tuple[int, Problem]]:
        for part in range(store.parts):
            for number, problem in problems_in(store, part, config.verifier):
                if everything or is_test(problem.id, config):
                    yield number, problem

    return [problem for _, problem in sorted(found(), key=lambda one: one[0])]


def _mixed(config: BundleConfig, train: Split) -> Split:
    """The bundles that the mixture keeps.

    Raises InputError if none is left, or none has a correct reference.
    """
    rng = random.Random(config.seed)
    made, has_right = train.count, bool(train.n_correct.any())
    if config.contested_only:
        kept, dropped = contested(train.facts)
        train = replace(train.only(kept), dropped=train.dropped + dropped)
    kept, dropped = choose(
        train.facts,
        config.mixture,
        easy_percent=config.easy_percent,
        max_share_correct=config.max_share_correct,
        rng=rng,
        pattern_shares=shares_in(config.pattern_shares, config.sizes),
    )
    train = replace(train.only(kept), dropped=train.dropped + dropped)
    kept, dropped = cap_all_wrong(train.n_correct, config.max_all_wrong, rng)
    train = replace(train.only(kept), dropped=train.dropped + dropped)
    if made and not train.n_correct.any() and (train.count or not has_right):
        unread = train.unread
        why = str(unread) if unread.many else NONE_RIGHT
        raise InputError(f"{config.rollouts}: no correct reference anywhere; {why}")
    if not train.count:
        if not train.left_out:
            raise InputError(
                f"{config.rollouts}: every problem is in the test split; lower test_share, or add problems"
            )
        reason = train.dropped.most_common(1)[0][0]
        raise InputError(
            f"{config.rollouts}: no bundle is left ({train.left_out}); {REMEDIES.get(reason, REMEDY)}"
        )
    return train


def _tell_texts(splits: Mapping[str, Split], place: str) -> None:
    """Warn of texts that are there again and again, and of thoughts that are not read as such."""
    for name, split in splits.items():
        said, kind = split.said, KINDS[name]
        if said.rollouts and said.repeated >= MANY_REPEATED * said.rollouts:
            log.warning(
                "%s: %d of %d %s rollouts have the text of an earlier one of their problem, so references "
                "are alike; if rows are there twice, remove them, else explore at a higher temperature",
                place, said.repeated, said.rollouts, kind,
            )  # fmt: skip
        if said.thoughts:
            log.warning(
                "%s: %d of %d %s rollouts begin with a marker such as %s, which does not open a thought "
                "here, so thoughts count as solutions; write <think> and </think> in place of such markers",
                place, said.thoughts, said.rollouts, kind, said.marker,
            )  # fmt: skip


def _tell(splits: Mapping[str, Split]) -> None:
    """Log what each split has and lacks."""
    for name, split in splits.items():
        if split.said.rollouts and (split.count or split.left_out):
            right = (
                f"{split.said.right / split.said.rollouts:.1%} of {split.said.rollouts} rollouts are correct"
            )
            lacks = split.left_out or "none"
            log.info("%d %s bundles; %s; left out: %s", split.count, KINDS[name], right, lacks)
