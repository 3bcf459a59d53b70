"""Rollouts -> reference bundles: grouped, verified, decontaminated, mixed, split by problem, with a dataset
card.
"""

from __future__ import annotations

import json
import logging
import random
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path

from a2r_train import output
from a2r_train.config import check_least
from a2r_train.data.builder import make_bundles
from a2r_train.data.card import card
from a2r_train.data.decontaminate import contaminated
from a2r_train.data.files import paths_in
from a2r_train.data.mixture import cap_all_wrong, choose
from a2r_train.data.read import Columns, read
from a2r_train.data.rollouts import load_rollouts
from a2r_train.data.task import Task, inherit, prompt_of, task_of
from a2r_train.data.unparsable import unparsable
from a2r_train.errors import InputError
from a2r_train.models import load_tokenizer
from a2r_train.prompts import PromptConfig, Prompter
from a2r_train.records import CORRECT, Bundle, Problem, Rollout, seed_of, write, write_text

log = logging.getLogger(__name__)
CONTAMINATED, TOO_FEW = "problem is in an evaluation set", "problem has fewer than k rollouts"
MENDS = {
    CONTAMINATED: "change decontamination, or take other problems",
    TOO_FEW: "lower k, or explore with more samples",
}
MEND = "loosen mixture or max_all_wrong"
INPUTS = ("problems", "rollouts", "test_problems", "test_rollouts", "decontaminate_against", "prompt")


@dataclass
class BundleConfig:
    """`a2r bundle`: rollouts -> train.jsonl, test.jsonl with test-rollouts.jsonl, dropped.jsonl and a dataset
    card.
    """

    rollouts: str = field(metadata={"help": "rollouts to train on"})
    output_dir: str = field(metadata={"help": "where the bundles are written"})
    problems: str = field(
        default="", metadata={"help": "their problems; empty if each rollout row holds problem and answer"}
    )
    test_rollouts: str = field(
        default="", metadata={"help": "rollouts of the test problems, if they are a set of their own"}
    )
    test_problems: str = field(default="", metadata={"help": "the test problems"})
    test_share: float = field(
        default=0.0, metadata={"help": "share of the problems that become the test set instead"}
    )
    k: int = field(default=4, metadata={"help": "references a bundle; the most, if k_min is given"})
    k_min: int = field(
        default=0, metadata={"help": "draw the number of references from k_min to k; 0 keeps it at k"}
    )
    bundles_per_problem: int = field(default=2, metadata={"help": "AggLM: 2 of a problem are enough"})
    test_bundles_per_problem: int = field(default=1, metadata={"help": "the same for the test set"})
    mixture: str = field(default="all", metadata={"help": "all, hard_plus_easy, accuracy_band or balanced"})
    easy_percent: float = field(
        default=50.0, metadata={"help": "hard_plus_easy: easy bundles in percent of the hard ones"}
    )
    max_share_correct: float = field(
        default=0.375, metadata={"help": "accuracy_band: upper end (PaCoRe: 9 of 24)"}
    )
    max_all_wrong: float = field(
        default=1.0, metadata={"help": "largest share of bundles without a correct reference"}
    )
    decontaminate_against: str = field(default="", metadata={"help": "problem files, comma-separated"})
    decontamination: str = field(default="ngram", metadata={"help": "ngram, template or none"})
    tokenizer: str = field(
        default="", metadata={"help": "the synthesizer, to measure prompts and hold them to the budget"}
    )
    prompt: str = field(
        default="", metadata={"help": "a prompt file; empty for the synthesizer's own or the default"}
    )
    prompt_override: bool = field(
        default=False,
        metadata={"help": "let `prompt` differ from the one that the synthesizer was trained with"},
    )
    columns: str = field(
        default="{}", metadata={"help": "names of columns as JSON, in the files that have them"}
    )
    verifier: str = field(
        default="",
        metadata={"help": "judges all rows; empty for that of the rollouts, else each row's own, else math"},
    )
    seed: int = field(default=0, metadata={"help": "of grouping, order and mixture"})
    dry_run: bool = field(
        default=False, metadata={"help": "show the resolved config and one rendered bundle, and stop"}
    )


@dataclass
class Split:
    """What became of one split: its bundles, the judged rollouts of its problems, and the dropped ones by
    reason.
    """

    bundles: list[Bundle]
    rollouts: list[Rollout] = field(default_factory=list)
    dropped: Counter[str] = field(default_factory=Counter)


def bundle(config: BundleConfig) -> Path:
    """Run the stage and return its folder. Raises InputError for wrong input; nothing is written then."""
    train, test, dropped = build(config)
    histogram = measure(config, [*train.bundles, *test.bundles])
    for name, split in (("train", train), ("test", test)):
        if (unread := unparsable(split.rollouts)).many:
            log.warning("rollouts of the %s problems: %s", name, unread)
    folder = Path(config.output_dir)
    if output.prepare(folder, asdict(config), inputs=INPUTS):
        log.info("%s: done already", folder)
        return folder
    task_to_carry(config).write(folder)
    write(train.bundles, folder / "train.jsonl")
    if test.bundles:
        write(test.bundles, folder / "test.jsonl")
        write(test.rollouts, folder / "test-rollouts.jsonl")
    write_text(folder / "dropped.jsonl", "".join(json.dumps(row) + "\n" for row in dropped))
    write_text(folder / "README.md", card(config, train, test, histogram))
    output.finish(
        folder, {"train": len(train.bundles), "test": len(test.bundles), "dropped": dict(train.dropped)}
    )
    return folder


def task_to_carry(config: BundleConfig) -> Task:
    """The task of the rollouts, which the bundles go on with. Raises InputError where the recipe says
    another.
    """
    task = task_of(config.rollouts, config.test_rollouts)
    prompt = _prompt(config, config.tokenizer) if config.prompt or task.prompt else None
    return Task(prompt, inherit(config.verifier, "verifier", task), task.columns)


def _prompt(config: BundleConfig, model: str) -> PromptConfig:
    task = task_of(config.rollouts, config.test_rollouts)
    return prompt_of(model, config.prompt, task=task, override=config.prompt_override)


def build(config: BundleConfig) -> tuple[Split, Split, list[dict[str, str]]]:
    """The two splits, and the rows that decontamination dropped."""
    check_numbers(config)
    task, columns = task_to_carry(config), Columns.parse(config.columns)
    config = replace(config, verifier=task.verifier)
    if not columns.names:
        columns = Columns(task.columns, met=set(task.columns.values()))
    problems, rollouts = _loaded(config, config.problems, config.rollouts, columns)
    test_ids = ids_of_test(problems, config)
    train_problems = [p for p in problems if p.id not in test_ids]
    test = Split([])
    evaluation: list[Problem] = [p for p in problems if p.id in test_ids]
    if test_ids:
        test = _split(config, evaluation, rollouts, config.test_bundles_per_problem)
    if config.test_problems and not config.test_rollouts:
        raise InputError(
            "test_problems: expected test_rollouts beside it; to keep them "
            "out of training, decontaminate_against"
        )
    if config.test_rollouts:
        evaluation, test_rollouts = _loaded(config, config.test_problems, config.test_rollouts, columns)
        test = _split(config, evaluation, test_rollouts, config.test_bundles_per_problem)
    for path in paths_in(config.decontaminate_against):
        evaluation = [*evaluation, *read(Problem, path, columns)]
    columns.check_met()
    met = contaminated(train_problems, evaluation, config.decontamination)  # type: ignore[arg-type]
    kept = [p for p in train_problems if p.id not in met]
    train = _split(config, kept, rollouts, config.bundles_per_problem)
    train.dropped[CONTAMINATED] = len(met)
    _mix(config, train, rollouts)
    if not train.bundles:
        reason = train.dropped.most_common(1)[0][0] if train.dropped else ""
        raise InputError(
            f"{config.rollouts}: no bundle is left ({dict(train.dropped)}); {MENDS.get(reason, MEND)}"
        )
    if not any(b.n_correct for b in train.bundles):
        unread = unparsable(train.rollouts)
        why = str(unread) if unread.many else "explore with a stronger model or easier problems"
        raise InputError(f"{config.rollouts}: no correct reference anywhere; {why}")
    return train, test, [{"problem_id": a, "evaluation_id": b} for a, b in met.items()]


def check_numbers(config: BundleConfig) -> None:
    """Raise InputError for a number that makes no sense."""
    check_least(config, bundles_per_problem=1, test_bundles_per_problem=1)
    if not 1 <= (config.k_min or config.k) <= config.k:
        raise InputError(
            f"k {config.k}, k_min {config.k_min}: expected 1 <= k_min <= k, or k_min 0 and k at least 1"
        )
    if not 0 <= config.test_share < 1:
        raise InputError(f"test_share is {config.test_share:g}; expected 0 or more, and less than 1")
    if not 0 <= config.max_all_wrong <= 1:
        raise InputError(f"max_all_wrong is {config.max_all_wrong:g}; expected a share from 0 to 1")


def _loaded(
    config: BundleConfig, problems: str, rollouts: str, columns: Columns
) -> tuple[list[Problem], list[Rollout]]:
    """With token counts where a tokenizer is named: rollouts made elsewhere have none, and would look free in
    an evaluation.
    """
    known, found = load_rollouts(
        problems, rollouts, columns, config.verifier, _prompt(config, config.tokenizer)
    )
    if config.tokenizer and not all(r.completion_tokens for r in found):
        tokenizer = load_tokenizer(config.tokenizer)
        texts = sorted({r.text for r in found if not r.completion_tokens})
        size = {
            t: len(ids)
            for t, ids in zip(texts, tokenizer(texts, add_special_tokens=False)["input_ids"], strict=True)
        }
        found = [r if r.completion_tokens else replace(r, completion_tokens=size[r.text]) for r in found]
    return known, found


def ids_of_test(problems: Sequence[Problem], config: BundleConfig) -> set[str]:
    """The problems of the test split, by a hash of their ids: the same ones however the rollouts change."""
    if config.test_share and config.test_rollouts:
        raise InputError("test_share and test_rollouts are both given; the test set comes from one of them")
    return {p.id for p in problems if seed_of(config.seed, "split", p.id) < config.test_share * 2**32}


def _split(
    config: BundleConfig, problems: Sequence[Problem], rollouts: Iterable[Rollout], count: int
) -> Split:
    pools: defaultdict[str, list[Rollout]] = defaultdict(list)
    for rollout in rollouts:
        pools[rollout.problem_id].append(rollout)
    split = Split([])
    for problem in problems:
        pool = pools[problem.id]
        split.rollouts += pool
        if len(pool) < (config.k_min or config.k):
            split.dropped[TOO_FEW] += 1
            continue
        made = make_bundles(problem, pool, k=config.k, k_min=config.k_min, count=count, seed=config.seed)
        split.bundles += made
        split.dropped["equal to another bundle"] += count - len(made)
    return split


def _mix(config: BundleConfig, split: Split, rollouts: Iterable[Rollout]) -> None:
    pools: defaultdict[str, list[bool]] = defaultdict(list)
    for rollout in rollouts:
        pools[rollout.problem_id].append(rollout.verdict == CORRECT)
    share = {identity: sum(right) / len(right) for identity, right in pools.items()}
    rng = random.Random(config.seed)
    split.bundles, dropped = choose(
        split.bundles,
        config.mixture,
        easy_percent=config.easy_percent,
        max_share_correct=config.max_share_correct,
        share_correct=share,
        rng=rng,
    )
    split.dropped += dropped
    split.bundles, dropped = cap_all_wrong(split.bundles, config.max_all_wrong, rng)
    split.dropped += dropped


def measure(config: BundleConfig, bundles: Sequence[Bundle]) -> list[int]:
    """Synthesizer prompt lengths in tokens; raises InputError where a bundle cannot be made to fit the
    budget.
    """
    if not config.tokenizer:
        return []
    prompter = Prompter(load_tokenizer(config.tokenizer), _prompt(config, config.tokenizer))
    return [prompter.synthesizer(b.problem, b.references).prompt_tokens for b in bundles]
