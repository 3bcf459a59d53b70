"""Rollouts with their problems, made here or elsewhere: all are judged, and none is of another problem."""

from __future__ import annotations

import logging
import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from a2r_train.data.asked import check_same_problems
from a2r_train.data.builder import bundle_of, problem_in, unfound
from a2r_train.data.choices import Choices, note_choice
from a2r_train.data.options import without_options
from a2r_train.data.programs import TEXTS, is_program
from a2r_train.data.read import (
    Columns,
    Row,
    is_untested,
    judged_by,
    name_of,
    problem_of,
    read,
    warn_untested,
)
from a2r_train.data.spill import key_of
from a2r_train.data.typed import is_chat
from a2r_train.errors import InputError
from a2r_train.paths import paths_in
from a2r_train.prompts import PromptConfig
from a2r_train.records import (
    CHECK_VERDICT,
    CORRECT,
    INCORRECT,
    UNPARSABLE,
    Bundle,
    Problem,
    Reference,
    Rollout,
    row_of,
)
from a2r_train.verify import VERIFIERS, Judgement, check_gold, equivalent, judge_all, left_out
from a2r_train.verify.compare import OR_LEAVE_OUT
from a2r_train.verify.slips import one_text

log = logging.getLogger(__name__)

# Share of the problems whose golds may have changed since their rollouts were judged. Of other problems with
# the same ids, nearly all golds differ, and half if the answers are yes and no.
MOST_CORRECTED = 0.3


def load_rollouts(
    problems: str,
    rollouts: str,
    columns: Columns | None = None,
    verifier: str = "",
    prompt: PromptConfig | None = None,
    leave_out_bad_golds: bool = False,
) -> tuple[list[Problem], list[Rollout]]:
    """Problems and judged rollouts; rows that hold `problem` and `answer` themselves need no problem file.

    A `verifier` overrides the rows' own; `prompt` says where the answer is in a text. Problems whose gold
    cannot be parsed can be left out with their rollouts. Raises InputError as `read` does, for such a gold,
    and for rollouts of other problems.
    """
    columns = columns or Columns(key="")
    if problems:
        known, samples = read(Problem, problems, columns), read(Rollout, rollouts, columns)
        check_beside(rollouts, columns, {problem.id: problem for problem in known})
        check_same_problems(rollouts, ((problem.id, problem.problem) for problem in known), problems)
    else:
        known, samples = with_their_problems(rollouts, columns)
    known = judged_by(verifier, known)
    if leave_out_bad_golds:
        kept = left_out(known, problems or rollouts)
        out = {problem.id for problem in known} - {problem.id for problem in kept}
        known, samples = kept, [sample for sample in samples if sample.problem_id not in out]
    check_gold(known, problems or rollouts, OR_LEAVE_OUT)
    by_id = {problem.id: problem for problem in known}
    return known, rejudged_rollouts(samples, by_id, rollouts, problems, verifier, prompt)


def rejudged_rollouts(
    samples: Sequence[Rollout],
    golds: Mapping[str, Problem],
    rollouts: str,
    problems: str,
    verifier: str = "",
    prompt: PromptConfig | None = None,
) -> list[Rollout]:
    """Rollouts of the problems, judged; their own verdicts are checked against the golds first.

    Raises InputError for rollouts of other problems.
    """
    for sample in samples:
        if sample.problem_id not in golds:
            raise InputError(
                f"{rollouts}: problem_id {sample.problem_id!r} is not in {problems}; "
                "name the problems it was made from"
            )
    if verifier:
        samples = [replace(sample, answer="", verdict=CHECK_VERDICT) for sample in samples]
    check_right(samples, golds, rollouts, problems)
    return judged(samples, golds, prompt)


def judged(
    rollouts: Sequence[Rollout],
    golds: Mapping[str, Problem | Bundle],
    prompt: PromptConfig | None = None,
) -> list[Rollout]:
    """Judge again all rollouts whose gold is known.

    The gold may have been corrected since.
    """
    samples, judged_text = list(rollouts), (prompt or PromptConfig()).judged_text
    known = [i for i, sample in enumerate(samples) if sample.problem_id in golds]
    judgements = judge_all(
        [
            (
                judged_text(samples[i].text),
                golds[samples[i].problem_id].answer,
                golds[samples[i].problem_id].verifier,
            )
            for i in known
        ],
        [row_of(golds[samples[i].problem_id]) for i in known],
    )
    for i, judgement in zip(known, judgements, strict=True):
        samples[i] = replace(samples[i], answer=judgement.answer, verdict=judgement.verdict)
    return samples


def check_right(
    rollouts: Sequence[Rollout], golds: Mapping[str, Problem | Bundle], path: str, problems: str
) -> None:
    """Raise InputError if many rollouts marked correct do not have the gold answers of their problems.

    They are of other problems with the same ids (in a file without ids, these are the numbers of its lines),
    or were judged by another verifier. A few are logged: a gold has been corrected since, or the verifier.
    """
    right, wrong = set[str](), dict[str, str]()
    for sample in rollouts:
        problem = golds.get(sample.problem_id)
        if not problem or sample.verdict != CORRECT:
            continue
        right.add(sample.problem_id)
        if sample.problem_id not in wrong and wrong_reference(sample.answer, problem):
            wrong[sample.problem_id] = (
                f"sample {sample.sample} of problem {sample.problem_id!r} is marked correct with "
                f"{sample.answer[:40]!r}, but {problems} has {problem.answer[:40]!r}"
            )
    if not wrong:
        return
    first = next(iter(wrong.values()))
    if len(wrong) > MOST_CORRECTED * len(right):
        raise InputError(f"{path}: {first}; name the problems it was made from, and their verifier")
    log.warning(
        "%s: %s; such are %d of %d problems, and all are judged anew", path, first, len(wrong), len(right)
    )


def judged_bundles(bundles: Sequence[Bundle], path: str, prompt: PromptConfig) -> list[Bundle]:
    """The bundles with new verdicts on their references: since they were bundled, a gold may have been
    corrected, or a verifier edited. Logs how many references changed.
    """
    texts = [(prompt.judged_text(r.text), b.answer, b.verifier) for b in bundles for r in b.references]
    anew = iter(judge_all(texts, [row_of(b) for b in bundles for _ in b.references]))
    found, changed = list[Bundle](), 0
    for bundle in bundles:
        references = [_judged_reference(reference, next(anew), bundle) for reference in bundle.references]
        changed += sum(
            old.verdict != CHECK_VERDICT and old != new
            for old, new in zip(bundle.references, references, strict=True)
        )
        found.append(bundle_of(problem_in(bundle), references, bundle.id))
    if changed:
        log.warning(
            "%s: %d of %d references get another verdict than when they were bundled; this table has the new "
            "verdicts, but bundles for training made at that time still have the old ones: bundle and train "
            "again",
            path,
            changed,
            len(texts),
        )
    return found


def _judged_reference(reference: Reference, now: Judgement, bundle: Bundle) -> Reference:
    """A text without a readable answer keeps the one that came with it; only that one can be judged."""
    if now.answer or reference.verdict == CHECK_VERDICT:
        return replace(reference, answer=now.answer, verdict=now.verdict)
    if reference.answer and bundle.verifier in VERIFIERS:
        verdict = equivalent(reference.answer, bundle.answer, bundle.verifier)
        return replace(reference, verdict=verdict)
    return reference


def check_references(bundles: Iterable[Bundle], path: str) -> None:
    """Raise InputError for a reference marked correct whose answer is not the gold of its bundle."""
    for bundle in bundles:
        for reference in bundle.references:
            if reference.verdict == CORRECT and wrong_reference(reference.answer, bundle):
                raise InputError(
                    f"{path}: bundle {bundle.id!r} has a reference marked correct with "
                    f"{reference.answer[:40]!r}, but the answer {bundle.answer[:40]!r}; make it again with "
                    "`a2r bundle`, which judges"
                )


def wrong_reference(answer: str, problem: Problem | Bundle) -> bool:
    """Whether an answer marked correct is not the gold; a custom verifier may accept what it likes."""
    known = bool(answer) and problem.verifier in VERIFIERS
    return known and equivalent(answer, problem.answer, problem.verifier) in (INCORRECT, UNPARSABLE)


def with_their_problems(path: str, columns: Columns) -> tuple[list[Problem], list[Rollout]]:
    """Rollouts made elsewhere: columns problem, answer (gold) and text, and any other fields."""
    problems: dict[str, Problem] = {}
    first: dict[str, tuple[str, str]] = {}  # by id: the place of its first row, and the problem there
    samples: list[Rollout] = []
    untested, choices = dict[str, None](), Choices()
    for file in paths_in(path):
        for row in columns.rows(file):
            if is_untested(row):
                untested[name_of(row)] = None
                continue
            problem = problem_beside(row, str(len(problems)))
            note_choice(choices, row, problem)
            known = problems.setdefault(problem.problem, problem)
            place, there = first.setdefault(known.id, (row.place, known.problem))
            check_same_gold(known, problem, row.place, place)
            if known.problem != there:
                raise of_another(row.place, known.id, place)
            samples += samples_in(row, known.id, len(samples))
    if not samples:
        raise InputError(f"{path}: no rows; expected at least one rollout")
    if choices.by_text and not columns.by_text:  # which only the whole set tells
        return with_their_problems(path, replace(columns, by_text=True))
    warn_untested(path, list(untested))
    choices.check(path)
    return list(problems.values()), samples


def check_same_gold(known: Problem, problem: Problem, place: str, first: str) -> None:
    """Raise InputError if a row has another gold answer than the first row of its problem."""
    if known.answer != problem.answer and (
        equivalent(problem.answer, known.answer, known.verifier) != CORRECT
    ):
        raise InputError(
            f"{place}: answer {problem.answer!r}, but {first} has {known.answer!r} for the same problem; "
            "correct one, or leave it out"
        )


def of_another(place: str, identity: str, first: str) -> InputError:
    """The error for a problem_id that an earlier row has for another problem."""
    return InputError(
        f"{place}: problem_id {identity!r} is used at {first} for another problem; ids must be unique"
    )


def problem_beside(row: Row, identity: str) -> Problem:
    """The problem of a rollout's row, with its own id or that one."""
    if is_program(row.values):
        if without_program(row).texts() is None and without_program(row).text("text") is None:
            raise row.missing("texts")
        return problem_of(row, identity)
    if row.key and row.text("problem") is None:
        raise InputError(f"{row.missing('problem')}; or name the problem file with `problems:`")
    for field in ("problem", "answer"):
        row.required_text(field)
    texts = row.texts()
    if texts is None and row.text("text") is None:
        raise row.missing("texts" if row.column("texts") in row.values else "text")
    own = row.text("problem_id")
    if own is None and texts is not None:  # with a single text, `id` is the rollout's
        own = row.text("id")
    return replace(problem_of(_without(row, "id", "source"), ""), id=identity if own is None else own)


def key_beside(row: Row) -> int | None:
    """The key of the problem that a rollout's row names beside its id, None if it names none."""
    text = row.values.get(row.column("problem"))
    if not isinstance(text, str) or is_program(row.values) or is_chat(text) or not text.strip():
        return None
    return key_of(one_text(text))


def keys_of(problem: str) -> set[int]:
    """The keys by which a rollout's row may name a problem: with its options, or without."""
    return {key_of(one_text(text)) for text in (problem, without_options(problem))}


def check_beside(path: str, columns: Columns, golds: Mapping[str, Problem | Bundle]) -> None:
    """Raise InputError for a row of rollouts that names another problem than the one that has its id."""
    keys: dict[str, set[int]] = {}
    for file in paths_in(path):
        for at, row in enumerate(columns.rows(file)):
            if at == 0 and row.column("problem") not in row.values:
                break  # a large file need not be read again
            identity = row.text("problem_id")
            if identity is None or identity not in golds or (key := key_beside(row)) is None:
                continue
            if identity not in keys:
                keys[identity] = keys_of(golds[identity].problem)
            if key not in keys[identity]:
                raise beside_another(row.place, identity)


def beside_another(place: str, identity: str) -> InputError:
    """The error for a rollout's row with the text of another problem than the one that has its id."""
    return InputError(
        f"{place}: the row's problem is not the text of problem {identity!r}; name the problems that the "
        "rollouts were made from, or remove the column if it holds something else"
    )


def samples_in(row: Row, problem_id: str, number: int) -> list[Rollout]:
    """One rollout, or one for each text of the row, numbered from `number`."""
    row = without_program(row)
    listed = row.texts()
    texts = [row.text("text") or ""] if listed is None else listed
    tokens = row.value("completion_tokens", "int") or 0 if listed is None else 0
    own = _without(row, "model", "finish_reason")
    model, reason = (own.text(field) or "" for field in ("model", "finish_reason"))
    return [
        Rollout(problem_id, number + at, one, completion_tokens=tokens, finish_reason=reason, model=model)
        for at, one in enumerate(texts)
    ]


def without_program(row: Row) -> Row:
    """The row without the text of a program's problem, which is not a rollout unless `columns` says so."""
    if not is_program(row.values) or "text" in row.names:
        return row
    return replace(row, values={name: value for name, value in row.values.items() if name not in TEXTS})


def _without(row: Row, *fields: str) -> Row:
    """The row without those of the fields that mean something else there, such as a `model` that is an
    object.
    """
    foreign = {
        row.column(field)
        for field in fields
        if field == "id" or isinstance(row.values.get(row.column(field)), list | dict | bool)
    }
    values: dict[str, Any] = {name: value for name, value in row.values.items() if name not in foreign}
    return replace(row, values=values)


def other_explorer(explorer: str, bundles: Iterable[Bundle]) -> str:
    """A warning if the references name their models and the recipe's explorer is not among them, else "".

    Costs and the vote of equal cost are counted with the recipe's explorer, unless several wrote references.
    """
    wrote = sorted({reference.model for bundle in bundles for reference in bundle.references} - {""})
    if not (explorer and wrote) or os.path.abspath(explorer) in map(os.path.abspath, wrote):
        return ""
    if len(wrote) > 1:
        return f"the references were written by {', '.join(wrote)}, and none by the explorer {explorer}"
    return (
        f"the references were written by {wrote[0]}, but costs are counted for the explorer "
        f"{explorer}; set explorer: {wrote[0]}, if that is still the name of the model"
    )


def warn_of_others(bundles: Sequence[Bundle], rollouts: Sequence[Rollout], path: str) -> None:
    """Warn of references that are not among the rollouts of their problem.

    They are of another exploration; if it is all of them, perhaps of other problems.
    """
    grouped: dict[str, list[Rollout]] = {}
    for rollout in rollouts:
        grouped.setdefault(rollout.problem_id, []).append(rollout)
    known = [bundle for bundle in bundles if bundle.problem_id in grouped]
    texts = {identity: {rollout.text for rollout in group} for identity, group in grouped.items()}
    if known and not any(r.text in texts[bundle.problem_id] for bundle in known for r in bundle.references):
        log.warning(
            "%s: no reference of any bundle is among the rollouts of "
            "its problem; were they made from these problems?",
            path,
        )
    elif missing := sum(bool(unfound(bundle, grouped[bundle.problem_id])) for bundle in known):
        log.warning(
            "%s: not all references of %d of %d bundles are among the rollouts of their problems; a larger "
            "vote or bundle counts such references beside all rollouts",
            path,
            missing,
            len(known),
        )
