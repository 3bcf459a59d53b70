"""Rollouts -> reference bundles: grouped, verified, decontaminated, mixed, split by problem, with a dataset
card.
"""

from __future__ import annotations

import json
import logging
import shutil
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from itertools import islice
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from a2r_train import output
from a2r_train.config import check_least
from a2r_train.data import build as building
from a2r_train.data.build import Built
from a2r_train.data.card import card
from a2r_train.data.lengths import fingerprint
from a2r_train.data.mixture import MIXTURES, shares_in
from a2r_train.data.options import letter_unasked, letters_judged_as_text
from a2r_train.data.part import is_test
from a2r_train.data.read import Columns
from a2r_train.data.shards import check_format
from a2r_train.data.splits import Lengths, measure_splits, write_splits
from a2r_train.data.task import Task, box_unread, inherit, parse_mapping, prompt_of, task_of
from a2r_train.errors import InputError
from a2r_train.models import load_tokenizer
from a2r_train.prompts import OF_ROLLOUTS, PromptConfig, Prompter
from a2r_train.records import Problem, write_text
from a2r_train.verify.vote import is_unanimous

log = logging.getLogger(__name__)
MAY_DIFFER = ("processes",)  # between a run and its continuation
MOST_LOOKED_AT = 1000  # bundles of a split: enough to know the verifiers
WORK = ".work"  # in the output folder: what a killed run leaves for the next one
OF_MIXTURE = {"easy_percent": "hard_plus_easy", "max_share_correct": "accuracy_band"}  # who reads a key
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
        default="", metadata={"help": "rollouts of the test problems, if these are a separate set"}
    )
    test_problems: str = field(default="", metadata={"help": "the test problems"})
    test_share: float = field(
        default=0.0,
        metadata={"help": "without test_rollouts: share of the problems held out as the test set"},
    )
    k: int = field(default=4, metadata={"help": "references per bundle; with k_min, the largest number"})
    k_min: int = field(
        default=0, metadata={"help": "draw the number of references from k_min to k; 0 keeps it at k"}
    )
    bundles_per_problem: int = field(default=2, metadata={"help": "2 are enough (AggLM)"})
    test_bundles_per_problem: int = field(default=1, metadata={"help": "the same, for the test set"})
    mixture: str = field(
        default="all", metadata={"help": "all, patterns, hard_plus_easy, accuracy_band or balanced"}
    )
    pattern_shares: str = field(
        default="{}",
        metadata={"help": "patterns: shares of agreement patterns, such as {3-1: 0.5}; others fill the rest"},
    )
    contested_only: bool = field(
        default=False, metadata={"help": "leave out bundles whose references all give the same answer"}
    )
    easy_percent: float = field(
        default=50.0, metadata={"help": "hard_plus_easy: easy bundles in percent of the hard ones"}
    )
    max_share_correct: float = field(
        default=0.375, metadata={"help": "accuracy_band: upper end (PaCoRe: 9 of 24)"}
    )
    max_all_wrong: float = field(
        default=1.0, metadata={"help": "largest share of bundles without a correct reference"}
    )
    decontaminate_against: str = field(
        default="", metadata={"help": "problem files to keep out of training, comma-separated"}
    )
    decontamination: str = field(default="ngram", metadata={"help": "ngram, template or none"})
    tokenizer: str = field(
        default="", metadata={"help": "the synthesizer; measures prompts and keeps them within the budget"}
    )
    prompt: str = field(
        default="", metadata={"help": "a prompt file; empty for the synthesizer's own or the default"}
    )
    prompt_override: bool = field(
        default=False,
        metadata={"help": "allow a `prompt` other than the one that the synthesizer was trained with"},
    )
    chat_template_kwargs: str = field(
        default="",
        metadata={
            "help": "arguments of the chat template, stored with the data; empty takes those of the rollouts"
        },
    )
    columns: str = field(
        default="{}", metadata={"help": "column names, such as {text: output}, for the files that have them"}
    )
    verifier: str = field(
        default="",
        metadata={"help": "for all rows; empty takes that of the rollouts, else each row's own, else math"},
    )
    leave_out_bad_golds: bool = field(
        default=False, metadata={"help": "leave out problems whose gold the verifier cannot parse"}
    )
    seed: int = field(default=0, metadata={"help": "seed of grouping, order and mixture"})
    format: str = field(
        default="",
        metadata={"help": "of the output: jsonl, or parquet in shards; empty: parquet from 1 GB up"},
    )
    processes: int = field(
        default=0, metadata={"help": "number of processes, each with a part of the problems; 0: one per core"}
    )
    dry_run: bool = field(
        default=False, metadata={"help": "show the resolved config and one rendered bundle, and stop"}
    )

    @property
    def sizes(self) -> range:
        """How many references a bundle may have."""
        return range(self.k_min or self.k, self.k + 1)


def bundle(config: BundleConfig) -> Path:
    """Run the stage and return its folder; a killed run continues where it stopped.

    Raises InputError for wrong input, and then leaves nothing behind.
    """
    folder = Path(config.output_dir)
    check(config)
    prompter = prompter_of(config)  # before hours of building, whose parts a wrong name must not cost
    if output.prepare(folder, asdict(config), MAY_DIFFER, inputs=INPUTS):
        log.info("%s: done already", folder)
        return folder
    try:
        made = build(config, folder / WORK, partial(output.note, folder))
        lengths = measure(prompter, made, folder / WORK)
        _write(config, made, lengths, folder)
    except InputError:
        output.abandon(folder, (WORK,))
        raise
    return folder


def check_folder(config: BundleConfig) -> None:
    """Raise InputError for the folder of another run."""
    output.check(config.output_dir, asdict(config), MAY_DIFFER, inputs=INPUTS)


def _write(config: BundleConfig, made: Built, lengths: Lengths, folder: Path) -> None:
    for name, split in made.splits.items():
        if split.unread.many:
            log.warning("rollouts of the %s problems: %s", name, split.unread)
    train, test = made.splits["train"], made.splits["test"]
    task_to_carry(config).write(folder)
    ending = write_splits(made.splits, folder, folder / WORK, config.format, building.processes_for(config))
    write_text(folder / "dropped.jsonl", "".join(json.dumps(row) + "\n" for row in made.met))
    write_text(folder / "README.md", card(config, train, test, lengths.tokens, ending))
    shutil.rmtree(folder / WORK)
    summary = {"train": train.count, "test": test.count, "dropped": dict(train.dropped)}
    output.finish(folder, summary | ({"prompts": _prompts(config, lengths)} if len(lengths.tokens) else {}))


def _prompts(config: BundleConfig, lengths: Lengths) -> dict[str, object]:
    """What a trainer need not measure again."""
    return {
        "measured_with": fingerprint(config.tokenizer, _prompt(config, config.tokenizer)),
        "longest": int(lengths.tokens.max()),
        "cut_references": lengths.cut_references,
    }


def task_to_carry(config: BundleConfig) -> Task:
    """The task of the rollouts, passed on with the bundles. Raises InputError if the recipe differs."""
    task = _task(config)
    said = config.prompt or parse_mapping(config.chat_template_kwargs, "chat_template_kwargs")
    prompt = _prompt(config, config.tokenizer) if said or task.prompt else None
    return Task(prompt, inherit(config.verifier, "verifier", task), task.columns)


def _task(config: BundleConfig) -> Task:
    """The task of the rollouts. A synthesizer may use another prompt, if that asks an explorer the same."""
    task = task_of(config.rollouts, config.test_rollouts)
    if config.prompt and task.prompt:
        given = PromptConfig.load(config.prompt)
        if all(getattr(given, key) == getattr(task.prompt, key) for key in OF_ROLLOUTS):
            return replace(task, prompt=given)
    return task


def _prompt(config: BundleConfig, model: str) -> PromptConfig:
    return prompt_of(
        model,
        config.prompt,
        task=_task(config),
        template_kwargs=config.chat_template_kwargs,
        override=config.prompt_override,
    )


@contextmanager
def built(config: BundleConfig) -> Iterator[Built]:
    """What a run would make, in a temporary folder. Raises InputError as `bundle` does."""
    with TemporaryDirectory() as folder:
        prompter = prompter_of(config)
        made = build(config, Path(folder))
        measure(prompter, made, Path(folder))
        yield made


def build(config: BundleConfig, work: Path, note: Callable[[set[str]], None] | None = None) -> Built:
    """The bundles of both splits, in files of the folder `work`; `note` gets all their verifiers before these
    judge. Raises InputError as `bundle` does.
    """
    check(config)
    task, columns = task_to_carry(config), Columns.parse(config.columns)
    if not columns.names:
        columns = Columns(task.columns, met=set(task.columns.values()))
    prompt = _prompt(config, config.tokenizer)
    made = building.build(replace(config, verifier=task.verifier), prompt, columns, work, note)
    _tell_prompt(config, made, prompt)
    return made


def _tell_prompt(config: BundleConfig, made: Built, prompt: PromptConfig) -> None:
    """Warn if the prompt puts the answers to these bundles where the verifiers do not read them."""
    splits = [[*islice(split.bundles, MOST_LOOKED_AT)] for split in made.splits.values()]
    train, verifiers = splits[0], {one.verifier for some in splits for one in some}
    if says := letters_judged_as_text(train):
        log.warning("%s: %s", config.problems or config.rollouts, says)
    if says := box_unread(verifiers, prompt, "synthesizer_template"):
        log.warning(
            "%s: evaluate and the trainers will refuse these bundles unless their recipe or model has "
            "another prompt: %s",
            config.rollouts,
            says,
        )
    is_known = config.tokenizer or config.prompt  # otherwise a trainer uses another prompt
    if is_known and (says := letter_unasked(train, prompt, "synthesizer_template")):
        log.warning("the prompt of %s: %s", config.prompt or config.tokenizer, says)


def prompter_of(config: BundleConfig) -> Prompter | None:
    """What measures prompts; None without a tokenizer. Raises InputError for one that cannot be loaded."""
    if not config.tokenizer:
        return None
    return Prompter(load_tokenizer(config.tokenizer), _prompt(config, config.tokenizer))


def measure(prompter: Prompter | None, made: Built, work: Path) -> Lengths:
    """Synthesizer prompt lengths in tokens, of train and test; texts without a count get one.

    Raises InputError where a bundle cannot be made to fit the budget.
    """
    if not prompter:
        return Lengths(np.array([], dtype=np.int64), 0)
    return measure_splits(prompter, made.splits, work)


def check(config: BundleConfig) -> None:
    """Raise InputError for a number that makes no sense, and for keys that do not go together."""
    check_least(config, bundles_per_problem=1, test_bundles_per_problem=1)
    if not 1 <= (config.k_min or config.k) <= config.k:
        raise InputError(
            f"k {config.k}, k_min {config.k_min}: expected 1 <= k_min <= k, or k_min 0 and k at least 1"
        )
    if not 0 <= config.test_share < 1:
        raise InputError(f"test_share is {config.test_share:g}; expected 0 or more, and less than 1")
    for key in ("max_all_wrong", "max_share_correct"):
        if not 0 <= (share := getattr(config, key)) <= 1:
            raise InputError(f"{key} is {share:g}; expected a share from 0 to 1")
    check_least(config, easy_percent=0)
    _check_mixture(config)
    check_format(config.format)
    _check_patterns(config)
    if config.processes < 0:
        raise InputError(f"processes is {config.processes}; expected 0 or more")
    if config.test_share and config.test_rollouts:
        raise InputError(
            "test_share and test_rollouts are both given; remove one: the test set comes from the other"
        )
    if config.decontaminate_against and config.decontamination == "none":
        raise InputError(
            "decontaminate_against names problems to keep out of training, but decontamination is none; set "
            "it to ngram or template, or remove decontaminate_against"
        )
    if config.test_problems and not config.test_rollouts:
        raise InputError(
            "test_problems needs test_rollouts; to only keep these problems out of training, name them in "
            "decontaminate_against"
        )


def _check_mixture(config: BundleConfig) -> None:
    """Raise InputError for an unknown mixture, and for a key that this one does not read."""
    if config.mixture not in MIXTURES:
        raise InputError(f"mixture {config.mixture!r}: expected one of {', '.join(MIXTURES)}")
    for key, mixture in OF_MIXTURE.items():
        if config.mixture != mixture and getattr(config, key) != getattr(BundleConfig, key):
            raise InputError(
                f"{key} is for mixture {mixture}, but mixture is {config.mixture}; remove one of the two"
            )


def _check_patterns(config: BundleConfig) -> None:
    """Raise InputError for shares that nothing draws, or that another key would change."""
    if config.contested_only and config.k == 1:
        raise InputError("contested_only: one reference has nothing to disagree with; k must be at least 2")
    shares = shares_in(config.pattern_shares, config.sizes)
    if bool(shares) != (config.mixture == "patterns"):
        raise InputError("mixture patterns and pattern_shares go together: give both, or neither")
    if shares and config.max_all_wrong < 1:
        raise InputError(
            "max_all_wrong selects by correct references, which mixture patterns must not; remove one of them"
        )
    if config.contested_only and any(share and is_unanimous(name) for name, share in shares.items()):
        raise InputError(
            "contested_only leaves out the unanimous bundles that pattern_shares asks for; remove one of them"
        )


def ids_of_test(problems: Sequence[Problem], config: BundleConfig) -> set[str]:
    """The problems of the test split."""
    return {problem.id for problem in problems if is_test(problem.id, config)}
