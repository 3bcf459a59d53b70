"""`a2r evaluate`: every row of the table on the same bundles, then results.json and the reports."""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict
from functools import partial
from itertools import chain
from pathlib import Path
from typing import Any

from a2r_train import output
from a2r_train.data.asked import check_same_problems
from a2r_train.data.read import Columns, read
from a2r_train.data.rollouts import (
    check_beside,
    check_references,
    check_right,
    judged,
    judged_bundles,
    other_explorer,
    warn_of_others,
)
from a2r_train.data.task import check_asked
from a2r_train.engines import check_engine, settled, warn_failed
from a2r_train.errors import InputError
from a2r_train.evaluate.answers import Answers, Generator, Task, prompt_of_references
from a2r_train.evaluate.config import MAY_DIFFER, EvaluateConfig, check, diagnostics_of
from a2r_train.evaluate.cost import costs, load_prices, timings, writers_of
from a2r_train.evaluate.diagnostics import by_explorer, diagnose, unparsable_texts
from a2r_train.evaluate.external import is_outside, load
from a2r_train.evaluate.kept_bundles import NO_TEXT
from a2r_train.evaluate.overlap import check_overlap
from a2r_train.evaluate.pooled import write_scores
from a2r_train.evaluate.probe.beside import probe_line
from a2r_train.evaluate.report.browser import browser
from a2r_train.evaluate.report.model_card import write_cards
from a2r_train.evaluate.report.write import build_results, is_written, write_report, write_results
from a2r_train.evaluate.rows.adaptive import adaptive_row, validation_bundles
from a2r_train.evaluate.rows.fallback import fallback_rows
from a2r_train.evaluate.rows.iterative import first_populations, rounds_row, self_refine_row
from a2r_train.evaluate.rows.names import BASE, EQUAL_COST, EQUAL_TOKENS, is_system
from a2r_train.evaluate.rows.panel import INDEX_VIEWS, final_task, task_row, tasks
from a2r_train.evaluate.rows.perturbed import k_tasks, perturbed
from a2r_train.evaluate.rows.reward_model import best_of_row, check_classifier
from a2r_train.evaluate.rows.row import (
    Row,
    bundle_votes,
    equal_budget,
    gains,
    majority_row,
    of_bundles,
    reference_rows,
)
from a2r_train.evaluate.rows.selected import no_vote, selected_rows
from a2r_train.evaluate.rows.skipping import answers_to, is_skipping, note_of, voted_control_rows
from a2r_train.evaluate.rows.verdicts import verdict_rows
from a2r_train.models import trust
from a2r_train.records import Bundle, Rollout, Synthesis, write_text
from a2r_train.verify import check_contradictions

log = logging.getLogger(__name__)


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Run the stage and return the results. Raises InputError for wrong input; nothing is written then."""
    work, bundles, rollouts, outside = prepared(config)
    models = sorted({task.model for task in tasks(config)})
    config = work.config = settled(config, *models, folder=config.output_dir)
    work.models = models
    folder = Path(config.output_dir)
    done = output.prepare(folder, asdict(config), ignore=MAY_DIFFER, fixed=_fixed(config))
    found = answers_of(config, work, bundles)
    results, timing, rows = summarise(config, work, bundles, rollouts, found, outside)
    if overlap := check_overlap(config, bundles):
        results["overlap"] = [asdict(one) for one in overlap]
    write_text(folder / "timing.json", json.dumps(timing, indent=1) + "\n")
    work.write_manifest()
    output.write_config(folder, asdict(config))  # the recipe may have gained rows since the first run
    same = done and is_written(folder, results)
    write_results(folder, results)
    skipping = {one.name for one in tasks(config) if is_skipping(config, one)}
    systems = {row.name: config.skip_agreement for row in rows if is_system(row.name, skipping)}
    write_scores(folder, bundles, rows, systems)
    write_report(folder, results, browser(bundles, bundle_votes(bundles), _with_references(config, found)))
    if config.cards:
        write_cards(config, results)
    warn_failed(folder, chain.from_iterable(work.reasons.values()))
    if same:
        log.info("%s: done already; report.md has its table", folder)
        return results
    output.finish(folder)
    base = found.get(BASE, [])
    if not no_vote(bundles) and (said := probe_line(bundles, base, results)):
        log.info(said)
    return results


def check_folder(config: EvaluateConfig) -> None:
    """Raise InputError if the folder belongs to another run."""
    output.check(config.output_dir, asdict(config), ignore=MAY_DIFFER, fixed=_fixed(config))


def _fixed(config: EvaluateConfig) -> tuple[str, ...] | None:
    """The keys that may not change any more; none as long as the folder holds no answer."""
    return () if output.holds_only(config.output_dir) else None


def prepared(config: EvaluateConfig) -> tuple[Generator, list[Bundle], list[Rollout], dict[str, Any]]:
    """The generator and the judged inputs. Loads no weights.

    Raises InputError for a mistake in the recipe.
    """
    check(config)
    bundles, stored, outside = read_inputs(config)
    prompt = prompt_of_references(config)
    if not outside:  # those are judged as they are read
        check_references(bundles, config.bundles)
        bundles = judged_bundles(bundles, config.bundles, prompt)
    golds = {bundle.problem_id: bundle for bundle in bundles}
    if config.rollouts:
        check_beside(config.rollouts, Columns(), golds)
        texts = ((one.problem_id, one.problem) for one in golds.values() if one.problem != NO_TEXT)
        check_same_problems(config.rollouts, texts, config.bundles)
    check_right(stored, golds, config.rollouts, config.bundles)
    rollouts = judged(stored, golds, prompt)
    load_prices(config.prices)
    work = Generator(config, Path(config.output_dir))
    _check_inputs(config, work, bundles, rollouts)
    return work, bundles, rollouts, outside


def read_inputs(
    config: EvaluateConfig, read_rollouts: Callable[[str], Sequence[Rollout]] | None = None
) -> tuple[list[Bundle], list[Rollout], dict[str, Any]]:
    """Bundles, rollouts with the verdicts of their file, and the labels of rollouts made elsewhere.

    `read_rollouts` replaces the reader, for a caller that has read the file already.
    """
    outside: dict[str, Any] = {}
    reader = read_rollouts or partial(read, Rollout)
    rollouts = list(reader(config.rollouts)) if config.rollouts else []
    if is_outside(config.bundles):
        if config.rollouts:
            raise InputError(
                f"rollouts: {config.bundles} holds rollouts itself, and all of them are used; remove the key"
            )
        bundles, rollouts, outside = load(config)
    else:
        bundles = read(Bundle, config.bundles)
        with_texts = ((row, b) for row, b in enumerate(bundles, 1) if b.problem != NO_TEXT)
        check_contradictions(with_texts, config.bundles)
    return bundles[: config.max_bundles or None], rollouts, outside


def answers_of(
    config: EvaluateConfig, work: Answers, bundles: Sequence[Bundle]
) -> dict[str, list[Synthesis]]:
    """The answers to each task of the panel; tasks are sorted by model, so that each is loaded once."""
    return {
        task.name: answers_to(work, task, bundles)
        for task in sorted(tasks(config), key=lambda task: task.model)
    }


def _check_inputs(
    config: EvaluateConfig, work: Generator, bundles: Sequence[Bundle], rollouts: Sequence[Rollout]
) -> None:
    """Raise InputError for an unfit model, a prompt that is too long, or too few rollouts, before anything is
    generated or written.
    """
    for one in check_overlap(config, bundles):
        if one.is_choice:  # nobody has allowed it
            log.warning("%s: %s", config.bundles, one)
    warn_of_others(bundles, rollouts, config.rollouts)
    if says := other_explorer(config.explorer, bundles):
        log.warning("%s: %s", config.bundles, says)
    models = sorted({task.model for task in tasks(config)})
    for model in filter(None, (*models, config.reward_model)) if config.trust_remote_code else ():
        trust(model)
    if config.reward_model:
        check_classifier(config.reward_model)
    for model in models:
        check_engine(model, config)
        if any(task.model == model and task.view == "references" for task in tasks(config)):
            check_asked({bundle.verifier for bundle in bundles}, work.prompt(model), "synthesizer_template")
    for task in {(task.model, task.view): task for task in tasks(config)}.values():
        work.chats(task, bundles)
    if config.rounds:
        first_populations(config, bundles, rollouts)
    if config.adaptive_validation:
        validation_bundles(config, bundles)
    for key in ("adaptive_validation", "skip_agreement", "vote_fallback"):
        if getattr(config, key) and (silent := no_vote(bundles)):
            raise InputError(f"{key}: needs votes. {silent} Leave the key out")
    if "k" in diagnostics_of(config) and (final := final_task(tasks(config))):
        for _, task, sized in k_tasks(config, final, bundles, rollouts):
            work.chats(task, sized)


def summarise(
    config: EvaluateConfig,
    work: Answers,
    bundles: Sequence[Bundle],
    rollouts: Sequence[Rollout],
    found: Mapping[str, list[Synthesis]],
    outside: Mapping[str, Any],
) -> tuple[dict[str, Any], dict[str, Any], list[Row]]:
    """The results, the timings, and the rows of the table, from the answers given and those that depend on
    them.
    """
    votes, final = bundle_votes(bundles), final_task(tasks(config))
    parameters = {task.model: work.parameters(task.model) for task in tasks(config)}
    diagnostics = diagnose(bundles, votes, _with_references(config, found))
    rows, silent = reference_rows(bundles, votes, rollouts), no_vote(bundles)
    if silent:
        rows += selected_rows(bundles)
    if config.reward_model:
        rows.append(best_of_row(config.reward_model, bundles, work.folder, config.batch_size))
    uncounted = _uncounted(config, bundles, rollouts, outside)
    if silent:
        diagnostics["no_vote"] = silent
    elif rollouts and final and not uncounted:
        rows += _equal_budget_rows(config, bundles, rollouts, found[final.name], parameters)
    elif rollouts and final:
        log.warning(
            "%s: no token counts, so no majority at an equal budget; add them with `a2r bundle --tokenizer`",
            uncounted,
        )
    for task in tasks(config):
        made = found[task.name]
        note = config.methods_note if task.view in INDEX_VIEWS else note_of(bundles, made)
        rows.append(task_row(task, bundles, made, note))
    rows += voted_control_rows(config, bundles, found) + fallback_rows(config, bundles, found)
    swept: list[Row] = []
    judged_rows, verdicts = verdict_rows(config, work, bundles, found)
    chained, details = _chained_rows(config, work, final, bundles, rollouts)
    rows += [*judged_rows, *chained]
    if final:
        changed, swept = perturbed(config, work, final, bundles, rollouts)
        details |= changed
    explorer = config.explorer or (rollouts[0].model if rollouts else "")
    here = of_bundles(bundles, rollouts)
    writers = writers_of(explorer, bundles, here)
    details["cost"] = costs([*rows, *swept], writers, load_prices(config.prices), work.size)
    details |= {"outside": outside} if outside else {}
    named = {task.name for task in tasks(config) if task.view in INDEX_VIEWS}
    answered = {name: made for name, made in found.items() if name not in named}
    details |= unparsable_texts(bundles, rollouts, answered) | by_explorer(bundles) | verdicts
    diagnostics |= details | {"gain": gains(rows, config.seed, config.draws)}
    recipe = {key: value for key, value in asdict(config).items() if key not in ("dry_run", "output_dir")}
    setup = {
        "config": recipe,
        "protocol": _protocol(config, bundles),
        "bundles": len(bundles),
        "parameters": parameters,
    }
    results = build_results(rows, setup=setup, diagnostics=diagnostics, seed=config.seed, draws=config.draws)
    return results, timings([*rows, *swept], work), rows


def _chained_rows(
    config: EvaluateConfig,
    work: Answers,
    final: Task | None,
    bundles: Sequence[Bundle],
    rollouts: Sequence[Rollout],
) -> tuple[list[Row], dict[str, Any]]:
    """Rows whose questions depend on earlier answers, and their diagnostics."""
    rows: list[Row] = []
    details: dict[str, Any] = {}
    if config.self_refine:
        rows.append(self_refine_row(config, work, bundles))
    if config.rounds and final:
        rows.append(rounds_row(config, work, final, bundles, rollouts))
    if config.adaptive_validation and final:
        row, details["adaptive"] = adaptive_row(config, work, final, bundles)
        rows.append(row)
    return rows, details


def _equal_budget_rows(
    config: EvaluateConfig,
    bundles: Sequence[Bundle],
    rollouts: Sequence[Rollout],
    syntheses: Sequence[Synthesis],
    parameters: Mapping[str, int],
) -> list[Row]:
    rows = [majority_row(EQUAL_TOKENS, bundles, rollouts, equal_budget(bundles, rollouts, syntheses))]
    one = len({reference.model for bundle in bundles for reference in bundle.references}) == 1
    base, explorer = parameters.get(config.base), parameters.get(config.explorer)
    if one and base and explorer:  # rollouts of several explorers do not cost the same
        ratio = base / explorer
        m = equal_budget(bundles, rollouts, syntheses, token_cost=ratio)
        rows.append(majority_row(EQUAL_COST, bundles, rollouts, m))
    return rows


def _uncounted(
    config: EvaluateConfig, bundles: Sequence[Bundle], rollouts: Sequence[Rollout], outside: Mapping[str, Any]
) -> str:
    """The file without token counts, such as rollouts made elsewhere; "" if all have them."""
    if not any(r.completion_tokens for r in rollouts):
        return config.bundles if outside else config.rollouts
    return "" if any(r.tokens for b in bundles for r in b.references) else config.bundles


def _protocol(config: EvaluateConfig, bundles: Sequence[Bundle]) -> str:
    """Bundles per problem times syntheses per bundle, counted and not as the recipe asks for them."""
    sizes = sorted(Counter(bundle.problem_id for bundle in bundles).values())
    spread = f"{sizes[0]}" if sizes[0] == sizes[-1] else f"{sizes[0]} to {sizes[-1]}"
    sampled = f", {config.samples} at T={config.temperature:g}" if config.temperature else ""
    skipped = f"; where the references agree (skip_agreement {config.skip_agreement:g}), their vote answers"
    voted = skipped if config.skip_agreement else ""
    return (
        f"{len(sizes)} problems x {spread} bundles x 1 greedy synthesis{sampled}{voted}; "
        "intervals resample problems"
    )


def _with_references(
    config: EvaluateConfig, found: Mapping[str, list[Synthesis]]
) -> dict[str, list[Synthesis]]:
    plain = (task for task in tasks(config) if task.view == "references" and task.budget == 1)
    return {task.name: found[task.name] for task in plain}
