"""What `a2r run FOLDER --dry_run` prints below a stage: how much it reads and makes, and its first prompt."""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

from a2r_train.commands.dry_run import rows_of
from a2r_train.data.build import CONTAMINATED, REMEDIES, Built
from a2r_train.data.bundle import BundleConfig, ids_of_test, prompter_of, task_to_carry
from a2r_train.data.decontaminate import Evaluation, Method
from a2r_train.data.explore import ExploreConfig
from a2r_train.data.read import judged_by
from a2r_train.errors import InputError, PromptTooLong
from a2r_train.evaluate.config import EvaluateConfig
from a2r_train.evaluate.probe.power import Spread
from a2r_train.inference.synthesise import synthesizer_chat
from a2r_train.models import load_tokenizer
from a2r_train.output import DONE
from a2r_train.prompts import Prompter
from a2r_train.records import Bundle, Problem, Rollout
from a2r_train.train.arguments import BundleArguments
from a2r_train.train.bundles import open_bundles
from a2r_train.train.preflight import Check
from a2r_train.verify import left_out

FEW_TESTS = 20
DIFFERING = Spread(0.25, 0.0)  # of two rows, one right and one wrong in a quarter of the problems


def done(folder: str) -> str:
    """The counts that a finished stage recorded; "" if it recorded none."""
    text = (Path(folder) / DONE).read_text(encoding="utf-8")
    said: dict[str, Any] = json.loads(text) if text.strip() else {}
    counts = {name: value for name, value in said.items() if isinstance(value, int | float | str)}
    return ", ".join(f"{name} {_short(value)}" for name, value in counts.items())


def _short(value: float | str) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def explored(config: ExploreConfig, problems: Sequence[Problem]) -> str:
    """Problems, the verifiers that could read their golds, and what is sampled."""
    verifiers = ", ".join(f"{count} by {name}" for name, count in golds(problems).items())
    rollouts = len(problems) * config.samples_per_problem
    return (
        f"{len(problems)} problems, golds read {verifiers}; {rollouts} rollouts of at most "
        f"{config.max_completion_tokens} tokens"
    )


def golds(problems: Sequence[Problem]) -> Counter[str]:
    """How many golds each verifier reads."""
    return Counter(problem.verifier for problem in problems)


def bundled(made: Built) -> list[str]:
    """Bundles of both splits, and what was left out; then what a small test set tells."""
    train, test = made.splits["train"], made.splits["test"]
    said = f"{train.count} train and {test.count} test bundles; left out: {train.left_out or 'none'}"
    said += f"; of the test problems: {test.left_out}" if test.left_out else ""
    return list(filter(None, [said, few_tests(test.problems)]))


def to_bundle(
    config: BundleConfig, sets: Mapping[str, Sequence[Problem]], file_names: Collection[str]
) -> list[str]:
    """What is known before there are rollouts, from the problems that the recipe's keys name.

    Raises InputError if no problem would be left to train on.
    """
    problems = sets["problems"]
    if config.leave_out_bad_golds:
        problems = left_out(judged_by(config.verifier, problems), config.problems)
    check_longest(config, problems)
    tests = ids_of_test(problems, config) if config.test_share else set()
    train = [problem for problem in problems if problem.id not in tests]
    held = [problem for problem in problems if problem.id in tests]
    others = [problem for key in ("test_problems", "decontaminate_against") for problem in sets.get(key, ())]
    known = Evaluation([*held, *others], cast("Method", config.decontamination), file_names)
    alike = {problem.id: other for problem in train if (other := known.met(problem))}
    if train and len(alike) == len(train):
        raise InputError(
            f"{config.problems}: all {len(train)} problems to train on are like one of an evaluation set, as "
            f"{train[0].id!r} like {alike[train[0].id]!r}; {REMEDIES[CONTAMINATED]}"
        )
    share = f", {len(tests)} of them ({len(tests) / len(problems):.0%}) the test set" if tests else ""
    share += f"; {len(alike)} {CONTAMINATED} will be left out" if alike else ""
    each = f"{config.bundles_per_problem} bundles of {config.k} references per problem"
    return list(filter(None, [f"{len(problems)} problems{share}; at most {each}", few_tests(len(tests))]))


def check_longest(config: BundleConfig, problems: Sequence[Problem]) -> None:
    """Raise InputError if the longest problem alone is over the budget of a prompt, as bundle would say once
    all of them are explored.
    """
    prompter = prompter_of(config)
    longest = max(problems, key=lambda problem: len(problem.problem))
    try:
        if prompter:
            prompter.synthesizer(longest.problem, [])
    except PromptTooLong as error:
        says = error.says.partition(" with references")[0]
        raise InputError(
            f"{config.problems}: problem {longest.id!r} alone is a {says}; leave it out, or raise "
            "max_prompt_tokens in the prompt file"
        ) from None


def few_tests(count: int) -> str:
    """A warning for a test set of fewer than FEW_TESTS problems, and how many would do; "" for a larger one,
    and for none.
    """
    if not 0 < count < FEW_TESTS:
        return ""
    return (
        f"the test set has {count} problem{'s' * (count > 1)}, too few to show most differences; "
        f"10 points take {DIFFERING.problems(0.1, 1)}, if two rows differ in a quarter of them"
    )


def checked(data: BundleArguments, checks: Sequence[Check]) -> str:
    """Bundles, and the preflight by colour; what is yellow is named."""
    bundles = len(open_bundles(data))
    colors = Counter(check.color for check in checks)
    yellow = "; ".join(f"{check.name}: {check.detail}" for check in checks if check.color == "yellow")
    found = ", ".join(f"{count} {color}" for color, count in colors.items())
    return f"{bundles} bundles; checks: {found}" + (f" ({yellow})" if yellow else "")


def evaluated(config: EvaluateConfig, bundles: Sequence[Bundle], rollouts: Sequence[Rollout]) -> str:
    """Bundles, rollouts and the rows that are asked for."""
    return f"{len(bundles)} test bundles, {len(rollouts)} rollouts; {to_evaluate(config)}"


def to_evaluate(config: EvaluateConfig) -> str:
    """The rows that models are asked for."""
    return f"rows to generate: {', '.join(rows_of(config))}"


def prompt_of_bundles(config: BundleConfig, made: Built) -> str:
    """The first bundle as its synthesizer reads it; "" if the recipe names no tokenizer."""
    first = next(made.splits["train"].bundles, None)
    if not (config.tokenizer and first):
        return ""
    prompter = Prompter(load_tokenizer(config.tokenizer), task_to_carry(config).prompt)
    return prompter.text(synthesizer_chat(prompter, first))
