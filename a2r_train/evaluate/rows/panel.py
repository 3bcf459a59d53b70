"""The panel: which rows need generation, and how each becomes a line of the table."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from dataclasses import replace

from a2r_train.data.unparsable import unparsable
from a2r_train.evaluate.answers import Task
from a2r_train.evaluate.config import EvaluateConfig, grpo_row, numbers
from a2r_train.evaluate.rows.names import ALONE, BASE, CONTROL, GREEDY, SFT, TRAINED
from a2r_train.evaluate.rows.row import Row, by_bundle, part_of, reference_part, synthesis_row
from a2r_train.records import UNPARSABLE, Bundle, Synthesis
from a2r_train.verify import extract

# The first one that the recipe has answers the diagnostics.
FINAL = (*TRAINED, BASE)
_LATEX = re.compile(r"\\(?:text|math)[a-z]*|\\boldsymbol|\\[,;:!]|[\\{}~*$]")  # around a number or a word
_NUMBER = re.compile(
    r"(?:reference|solution)? ?(?:number|no\.?)? ?[#(\[]? ?([0-9]{1,3}) ?[)\].]?", re.IGNORECASE
)
INDEX_VIEWS = ("consistency", "select")  # the answer is the number of a reference


def tasks(config: EvaluateConfig) -> list[Task]:
    """The rows that need one generation per bundle: greedy, sampled, prompted methods, larger budgets."""
    named = [
        (GREEDY, config.explorer, "alone"),
        ("explorer/grpo", config.explorer_grpo, "alone"),
        ("monolith", config.monolith, "alone"),
        (ALONE, config.base, "alone"),
        (CONTROL, config.no_references, "alone"),
        (BASE, config.base, "references"),
        (SFT, config.sft, "references"),
        (grpo_row(config), config.grpo, "references"),
    ]
    greedy = [Task(name, model, view) for name, model, view in named if model]
    sampled = [
        replace(task, name=f"{task.name}@T", sampled=True, samples=config.samples)
        for task in greedy
        if config.temperature and task.name != GREEDY
    ]
    methods = [
        Task(name, config.base, view)
        for name, asked, view in (
            ("universal-self-consistency", config.universal_self_consistency, "consistency"),
            ("genselect", config.genselect, "select"),
        )
        if asked
    ]
    return [*greedy, *sampled, *methods, *_budget_tasks(config, greedy)]


def _budget_tasks(config: EvaluateConfig, greedy: Sequence[Task]) -> list[Task]:
    """pass@1 of the explorer and the final synthesizer, with more completion tokens."""
    final = final_task(greedy)
    found: list[Task] = []
    for factor in numbers(config.budgets, "budgets"):
        if config.explorer:
            sampled = bool(config.temperature)
            found.append(
                Task(
                    f"pass@1/{factor}x",
                    config.explorer,
                    "alone",
                    sampled,
                    config.samples if sampled else 1,
                    budget=factor,
                )
            )
        if final:
            found.append(replace(final, name=f"{final.name}/{factor}x", budget=factor))
    return found


def final_task(given: Sequence[Task]) -> Task | None:
    """The most trained synthesizer of the recipe, greedy; None without one."""
    return next((task for name in FINAL for task in given if task.name == name), None)


def chosen(task: Task, bundles: Sequence[Bundle], made: Sequence[Synthesis]) -> list[Synthesis]:
    """If a task asks for the number of a reference, that reference's answer and verdict; without a valid
    number, the synthesis is unparsable.
    """
    if task.view not in INDEX_VIEWS:
        return list(made)
    by_id = {bundle.id: bundle for bundle in bundles}
    return [_of_reference(by_id[s.bundle_id], s) for s in made]


def _of_reference(bundle: Bundle, synthesis: Synthesis) -> Synthesis:
    if not (at := named_reference(bundle, synthesis.text)):
        return replace(synthesis, answer="", verdict=UNPARSABLE)
    reference = bundle.references[at - 1]
    return replace(synthesis, answer=reference.answer, verdict=reference.verdict)


def named_reference(bundle: Bundle, text: str) -> int:
    r"""The number of the reference that a text names, from 1, also as `Reference 2`, `(2)` or `\#2`; 0 if its
    answer is anything else.
    """
    given = _LATEX.sub(" ", extract(text, "math_last_number"))
    named = _NUMBER.fullmatch(" ".join(given.split()))
    number = int(named[1]) if named else 0
    return number if number <= len(bundle.references) else 0


def unnamed(bundles: Sequence[Bundle], made: Sequence[Synthesis]) -> int:
    """How many texts name no reference although asked to. A named reference may itself be unparsable."""
    by_id = {bundle.id: bundle for bundle in bundles}
    return sum(not named_reference(by_id[s.bundle_id], s.text) for s in made)


def task_row(task: Task, bundles: Sequence[Bundle], made: Sequence[Synthesis], note: str = "") -> Row:
    """A row of the table. A model that reads no references pays only for its own tokens.

    Then `tokens` are those of its completion, as for the explorer; the prompt is in `parts`, for the cost.
    """
    row = synthesis_row(task.name, bundles, chosen(task, bundles, made))
    own = part_of(task.model, bundles, by_bundle(bundles, made), task.name)
    if task.view == "alone":
        unread = unparsable(made).share
        return replace(row, tokens=own.completion_tokens, parts=(own,), note=note, unparsable=unread)
    parts = (reference_part(bundles), own)
    if task.view not in INDEX_VIEWS:
        return replace(row, parts=parts, note=note, unparsable=unparsable(made).share)
    if none := unnamed(bundles, made):
        note = f"{note}{'; ' if note else ''}{none} of {len(made)} named no reference"
    return replace(row, parts=parts, note=note, unparsable=none / len(made) if made else math.nan)
