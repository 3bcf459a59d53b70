"""`a2r init`: a folder of recipes for your problems and model, which `a2r run` can run as it is.

It asks no questions. Columns and verifier are guessed from the data, sizes from the model and the machine;
each guess is written into a recipe, where it can be changed.
"""

from __future__ import annotations

import json
import logging
import re
import statistics
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from string import Template
from typing import Any

from a2r_train.commands.counts import few_tests
from a2r_train.data.bundle import BundleConfig, ids_of_test
from a2r_train.data.options import are_letters, letter_unasked
from a2r_train.data.programs import columns_of, is_program
from a2r_train.data.read import ALIASES, FLAG, LOOKALIKES, Columns, Row, judged_by, read
from a2r_train.data.rollouts import with_their_problems, without_program
from a2r_train.data.task import prompt_of, within
from a2r_train.data.worked import SOLUTION
from a2r_train.engines import EngineArguments, check_engine
from a2r_train.errors import InputError
from a2r_train.models import context_length, count_parameters, load_tokenizer, model_file
from a2r_train.paths import paths_in
from a2r_train.prompts import PromptConfig, Prompter
from a2r_train.records import Problem, write_text
from a2r_train.verify import (
    bad_golds,
    check_contradictions,
    check_gold,
    check_verifier,
    doubts,
    left_out,
    traits_of,
    unreadable_golds,
    warn_doubts,
    warn_failing_golds,
)
from a2r_train.verify.compare import LEAVE_OUT, MOST_MISTAKES, WORKED
from a2r_train.verify.traits import ASKED, LETTER

log = logging.getLogger(__name__)
TEMPLATES = Path(__file__).parent / "templates"
K = 4  # references a bundle
FEWEST = 8  # problems: fewer leave nothing to train or to test on
TEST_SHARE, MOST_TEST = 0.25, 500
LONGEST_EXACT = 50  # characters of most golds: longer ones are sentences, which no completion repeats
OPTION = f", or leave such problems out with --{LEAVE_OUT}"
TINY = 50_000_000  # parameters: below this, all of them are trained, and a step takes no time
LORA = """\
# LoRA: an adapter of a few million parameters. For full fine-tuning, remove these keys and
# use a tenth of the rate.
use_peft: true
lora_target_modules: all-linear
lora_r: 16
lora_alpha: 32
lora_dropout: 0.0 # with dropout, GRPO would train another policy than it samples from"""
WHOLE = """\
# All weights are trained. For LoRA, uncomment these, with a learning rate about ten times as high:
# use_peft: true
# lora_target_modules: all-linear # without it only q_proj and v_proj, which learn far less
# lora_r: 16
# lora_alpha: 32"""
# The prompt of docs/results/answers-alone.md: there is nothing to copy but an answer, so the model solves.
ANSWERS_ALONE: dict[str, Any] = {
    "reference": "answer",
    "reference_template": "Attempt {number}: {text}",
    "reference_separator": "\n",
    "synthesizer_template": """\
Solve the problem below. Several earlier attempts at it gave the answers that follow. Any of them may be \
wrong, and all of them may be.

{problem}

{references}

Reason step by step, and put the final answer in \\boxed{{}}.""",
}
REFERENCES = ("solution", "answer")
PLAIN = """\
plain_share: 1.0 # every bundle is shown as its problem alone
# match_tokens_of: {run} # continues until it has generated as many tokens as this run
"""
ON_ADAPTER = "# Training continues on the adapter of SFT."


@dataclass(frozen=True)
class Sizes:
    """What depends on model and machine: tokens of a solution, and how much is done at once."""

    completion: int
    batch: int  # completions generated at once
    rows: int  # of SFT, at once
    sft_micro_batches: int
    completions: int  # of GRPO, at once
    micro_batches: int
    steps: int
    sft_rate: str
    grpo_rate: str


SIZES = {
    "tiny": Sizes(112, 256, 16, 1, 32, 1, 20, "1.0e-3", "1.0e-4"),
    "cpu": Sizes(320, 16, 2, 4, 8, 4, 10, "2.0e-4", "2.0e-4"),
    "gpu": Sizes(512, 128, 4, 4, 16, 4, 100, "2.0e-4", "2.0e-4"),
}


@dataclass(frozen=True)
class Data:
    """The problems, the columns that hold them, the verifier that reads their answers, and the test set.

    `held`: the column of each field, mapped or not. `rollouts`: how many the rows hold. `each`: how many per
    problem; 0 if there are none.
    """

    problems: list[Problem]
    columns: Mapping[str, str]
    verifier: str
    test_share: float
    test: int
    held: Mapping[str, str]
    rollouts: int = 0
    each: int = 0


def init(
    folder: str,
    data: str,
    model: str,
    explorer: str = "",
    columns: str = "{}",
    test_share: float = 0.0,
    leave_out_bad_golds: bool = False,
    reference: str = "solution",
) -> str:
    """Write the recipes into a folder, and return what was guessed, in words.

    `reference` is what the synthesizer sees of each reference: its `solution`, or only its `answer`. Raises
    InputError for a folder that is not empty, data that cannot be read, a model that cannot be trained, and
    answers that cannot be shown alone.
    """
    place = Path(folder)
    if place.exists() and (not place.is_dir() or any(place.iterdir())):
        raise InputError(f"{folder}: already holds something; name a new folder")
    if model.endswith(".gguf"):
        raise InputError(
            f"{model}: convert it to a folder first: a2r merge --model {model} --output_dir FOLDER"
        )
    known = guessed(data, columns, test_share, leave_out_bad_golds)
    for name in {model, explorer or model}:
        check_engine(name, EngineArguments())
    kind = kind_of(model)
    _check_reference(reference, model, known)
    prompt = _prompt(model, SIZES[kind].completion)
    if not model_file(model, "prompt.yaml"):  # a trained model only works with its own
        shown = replace(prompt, **ANSWERS_ALONE) if reference == "answer" else prompt
        prompt = _asking(shown, known)
    templates = "explorer_template", "synthesizer_template"
    if says := letter_unasked(judged_by(known.verifier, known.problems), prompt, *templates):
        log.warning("the prompt of %s: %s", model, says)
    explorer = explorer or ("" if known.rollouts else model)
    values = _values(folder, data, model, explorer, known, kind, leave_out_bad_golds)
    Prompter(load_tokenizer(model), prompt)
    for name, text in _recipes(values, prompt).items():
        if name != "explore" or not known.rollouts:
            write_text(place / f"{name}.yaml", text)
    return _summary(folder, data, known)


def guessed(
    data: str, columns: str = "{}", test_share: float = 0.0, leave_out_bad_golds: bool = False
) -> Data:
    """Read the problems by the columns that hold them; columns that are not given are guessed.

    Raises InputError if no column is likely, and for too few problems.
    """
    if not 0 <= test_share < 1:
        raise InputError(f"test_share is {test_share:g}; expected 0 or more, and less than 1")
    names = dict(Columns.parse(columns).names)
    first = next(Columns(names, key=FLAG).rows(paths_in(data)[0]), None)
    named = first and not is_program(first.values)  # a row of MBPP's shape is read as it is
    for field in ("problem", "answer") if named else ():
        if column := likely(first, field) if first else "":
            names[field] = column
    problems, rollouts, each = _with_rollouts(data, Columns(names, key=FLAG))
    if len(problems) < FEWEST:
        raise InputError(f"{data}: {len(problems)} problems; expected at least {FEWEST}")
    verifier = verifier_of(problems, data, leave_out_bad_golds)
    if leave_out_bad_golds:
        problems = left_out(judged_by(verifier, problems), data)
    share = test_share or min(TEST_SHARE, MOST_TEST / len(problems))
    warn_doubts(doubts(judged_by(verifier, problems)), data)
    check_contradictions(enumerate(judged_by(verifier, problems), 1), data)
    warn_failing_golds(problems, data)
    while not (test := len(_test(problems, share))) and share < 0.5:
        share += 0.05
    row = replace(first, names=names) if first else Row("", {}, names)
    held = {field: row.column(field) for field in ("problem", "answer")}
    if first and is_program(first.values):
        held = columns_of(first.values)
    return Data(problems, names, verifier, round(share, 4), test, held, rollouts, each)


def _with_rollouts(data: str, columns: Columns) -> tuple[list[Problem], int, int]:
    """The problems, how many rollouts the rows hold, and how many per problem.

    A single text per problem may be a worked solution, and does not count.
    """
    if _has_rollouts(data, columns):
        problems, rollouts = with_their_problems(data, columns)
        each = statistics.median_low(Counter(rollout.problem_id for rollout in rollouts).values())
        if each > 1:
            return problems, len(rollouts), each
    return read(Problem, data, columns), 0, 0


def _has_rollouts(data: str, columns: Columns) -> bool:
    """Whether some row has texts that no other field claims, and all have them or some problem has several.
    A text that only some problems have, once each, may be a remark.
    """
    seen: Counter[str] = Counter()
    lack = False
    for file in paths_in(data):
        for row in columns.rows(file):
            column = _text_column(row)
            if column in columns.names.values():
                return False
            if not column:
                lack = True
                continue
            texts, problem = without_program(row).texts(), row.text("problem") or ""
            seen[problem] += 1 if texts is None else len(texts)
            if seen[problem] > 1:
                return True
    return bool(seen) and not lack


def _text_column(row: Row) -> str:
    """The column of a solution, or of several; "" if the row has none."""
    row = without_program(row)
    if row.text("text") is not None:
        return row.column("text")
    return row.column("texts") if row.values.get(row.column("texts")) is not None else ""


def likely(row: Row, field: str) -> str:
    """The column that probably holds a field; "" if its own name, or one given, finds it."""
    if row.values.get(row.column(field)) is not None:
        return ""
    lower = {name.lower(): name for name in row.values}
    found = [
        lower[name.lower()]
        for name in (field, *ALIASES.get(field, ()), *LOOKALIKES[field])
        if name.lower() in lower
    ]
    if not found:
        raise row.missing(field)
    return found[0]


def verifier_of(problems: list[Problem], data: str, leave_out: bool) -> str:
    """The verifier of all answers; "" if the rows, or their options, name it themselves.

    Raises InputError for some golds that `math` cannot read among many that it can, which are mistakes,
    unless they are to be left out; and for golds that are sentences. If the rows name their verifiers, it
    raises it for an unknown one, and likewise for golds that their own cannot read.
    """
    if any(problem.verifier != "math" for problem in problems):
        _check_named(problems, data, leave_out)
        return ""
    if are_letters([problem.answer for problem in problems]):
        return "multiple_choice"
    bad = unreadable_golds(enumerate(problems, 1))
    if not bad:
        return "math"
    if len(bad) < MOST_MISTAKES * len(problems):
        if leave_out:
            return "math"
        raise bad_golds(bad, data, OPTION)
    if worked := [problem for _, problem in bad if WORKED.search(problem.answer)]:
        raise InputError(
            f"{data}: {len(worked)} of {len(problems)} answers are worked solutions, such as "
            f"{' '.join(worked[0].answer.split())[-60:]!r}, which no answer equals; name a column of final "
            f"answers with {FLAG}, or call this one {SOLUTION!r}: its last \\boxed{{}} is read"
        )
    if statistics.median(len(problem.answer) for problem in problems) > LONGEST_EXACT:
        shown = " ".join(bad[0][1].answer.split())[:60]
        raise InputError(
            f"{data}: the answers are sentences, such as {shown!r}, and `exact` accepts no other words; "
            "name a column of final answers with --columns, or give the rows a `verifier` of your own"
        )
    check_gold(judged_by("exact", problems), data)
    return "exact"


def _check_named(problems: list[Problem], data: str, leave_out: bool) -> None:
    numbered = list(enumerate(problems, 1))
    first = {problem.verifier: (row, problem.id) for row, problem in reversed(numbered)}
    for verifier, (row, identity) in first.items():
        try:
            check_verifier(verifier)
        except InputError as error:
            raise InputError(f"{data}: row {row}, problem {identity!r}: {error}") from None
    if not leave_out and (bad := unreadable_golds(numbered)):
        raise bad_golds(bad, data, OPTION)


def kind_of(model: str) -> str:
    """ "tiny" for a tiny model, else the device that there is to train it on."""
    import torch

    if 0 < count_parameters(model) < TINY:
        return "tiny"
    return "gpu" if torch.cuda.is_available() else "cpu"


def _test(problems: list[Problem], share: float) -> set[str]:
    return ids_of_test(problems, BundleConfig("", "", test_share=share))


def _prompt(model: str, completion: int) -> PromptConfig:
    """The model's own prompt or the default, shortened so that an answer fits into the context after it."""
    return within(prompt_of(model), context_length(model) - completion)


def _check_reference(reference: str, model: str, known: Data) -> None:
    """Raise InputError for an unknown `reference`, and where answers alone cannot be shown."""
    if reference not in REFERENCES:
        raise InputError(f"--reference {reference}: expected {' or '.join(REFERENCES)}")
    if reference == "solution":
        return
    if model_file(model, "prompt.yaml"):
        raise InputError(f"{model}: was trained with its own prompt.yaml; leave out --reference answer")
    if "code" in {traits_of(known.verifier or problem.verifier).answer_in for problem in known.problems}:
        raise InputError("--reference answer: an answer that is a program is a whole solution; leave it out")


def _asking(prompt: PromptConfig, known: Data) -> PromptConfig:
    """The prompt, which asks for what the verifier needs instead of a box."""
    verifiers = {known.verifier or problem.verifier for problem in known.problems}
    if verifiers == {"multiple_choice"}:
        return _with_place(prompt, LETTER)
    places = {traits_of(verifier).answer_in for verifier in verifiers} - {"box"}
    for place in places if len(places) == 1 else ():
        prompt = _with_place(prompt, ASKED[place])
    return prompt


def _with_place(prompt: PromptConfig, asked: str) -> PromptConfig:
    """The prompt with another request instead of that for a box."""
    changed = {
        key: getattr(prompt, key).replace(ASKED["box"], asked)
        for key in ("explorer_template", "synthesizer_template")
    }
    return replace(prompt, **changed)


def _values(
    folder: str, data: str, model: str, explorer: str, known: Data, kind: str, leave_out: bool
) -> dict[str, Any]:
    """What the templates are filled with."""
    sizes, tiny = SIZES[kind], kind == "tiny"
    note = "high, as the model is tiny" if tiny else "for LoRA; about ten times that of full fine-tuning"
    return {
        **vars(sizes),
        "folder": folder.rstrip("/"),
        "runs": f"runs/{Path(folder).resolve().name}",
        "data": _in_yaml(data),
        "model": _in_yaml(model),
        "explorer": _in_yaml(explorer),
        "k": min(K, known.each or K),
        "sources": _sources(folder, data, known),
        "problems": len(known.problems),
        "test": known.test,
        "test_share": known.test_share,
        "tested": f"{known.test / len(known.problems):.0%}",
        "columns": json.dumps(dict(known.columns)),
        "verifier": known.verifier or '""',
        "golds": f"{LEAVE_OUT}: true # counted, and listed in dropped.jsonl\n" if leave_out else "",
        "prompts": sizes.completions * sizes.micro_batches // 8,
        "weights": WHOLE if tiny else LORA,
        "rate_note": note,
    }


def _in_yaml(text: str) -> str:
    """A path or a name as YAML reads it: in quotes unless it is plain."""
    return text if re.fullmatch(r"[\w./~][\w./~ -]*(?<! )", text) else json.dumps(text, ensure_ascii=False)


def _sources(folder: str, data: str, known: Data) -> str:
    """Where bundle reads problems and rollouts; rows may hold both."""
    named = _in_yaml(data)
    if known.rollouts:
        return f"rollouts: {named} # also holds the problems"
    return f"problems: {named}\nrollouts: runs/{Path(folder).resolve().name}/rollouts/rollouts.jsonl"


def _recipes(values: Mapping[str, Any], prompt: PromptConfig) -> dict[str, str]:
    """The files of the folder, by name."""
    lora = str(values["weights"])
    trained = {
        "grpo_name": "grpo",
        "grpo_title": "GRPO on the synthesizer after SFT: reward 1 for a verified answer, else 0.",
        "grpo_model": f"{values['runs']}/sft # what SFT wrote",
        "plain": "",
        "grpo_weights": ON_ADAPTER if lora == LORA else lora,
    }
    control = {
        "grpo_name": "grpo-no-references",
        "grpo_title": "The control: the same GRPO on the same problems, without references and without SFT.",
        "grpo_model": values["model"],
        "plain": PLAIN.format(run=f"{values['runs']}/grpo"),
        "grpo_weights": lora,
    }
    more = {"prompt": prompt.dump().rstrip()}
    names = ("task", "prompt", "explore", "bundle", "sft", "evaluate")
    recipes = {name: _filled(name, {**values, **more}) for name in names}
    for one in (trained, control):
        recipes[str(one["grpo_name"])] = _filled("grpo", {**values, **one})
    return recipes


def _filled(name: str, values: Mapping[str, Any]) -> str:
    return Template((TEMPLATES / f"{name}.yaml").read_text(encoding="utf-8")).substitute(values)


def _summary(folder: str, data: str, known: Data) -> str:
    held = ", ".join(f"{field} in {column!r}" for field, column in known.held.items())
    rows = sorted({problem.verifier for problem in known.problems})
    judge = known.verifier or f"{' and '.join(rows)}, as the rows say"
    own = (
        f"{data}: its {known.rollouts} rollouts are used, and nothing is explored\n" if known.rollouts else ""
    )
    few = f"{data}: {says}\n" if (says := few_tests(known.test)) else ""
    return (
        f"{data}: {len(known.problems)} problems ({held}), judged by {judge}; {known.test} are the test set\n"
        f"{few}{own}{folder}: recipes with comments; read them, or start at once:\n"
        f"  a2r run {folder} --dry_run    # counts, a prompt, and what would fail\n"
        f"  a2r run {folder}\n"
    )
