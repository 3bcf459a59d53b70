"""`a2r evaluate`: every row of the table on the same bundles, then results.json and the reports."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from a2r_train import output
from a2r_train.engines import check_engine
from a2r_train.evaluate.config import MAY_DIFFER, EvaluateConfig, check
from a2r_train.evaluate.diagnostics import diagnose
from a2r_train.evaluate.generate import Generator
from a2r_train.evaluate.panel import final_name, task_row, tasks
from a2r_train.evaluate.report import browser, build_results, write_report, write_results
from a2r_train.evaluate.rows import Row, bundle_votes, equal_budget, majority_row, reference_rows
from a2r_train.records import Bundle, Rollout, Synthesis, read


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Run the stage and return the results. Raises InputError for wrong input; nothing is written then."""
    check(config)
    bundles = read(Bundle, config.bundles)[: config.max_bundles or None]
    rollouts = read(Rollout, config.rollouts) if config.rollouts else []
    folder = Path(config.output_dir)
    work = Generator(config, folder)
    _check_models(config, work, bundles)
    output.prepare(folder, asdict(config), ignore=MAY_DIFFER)
    found = {task.name: work.syntheses(task, bundles) for task in sorted(tasks(config), key=lambda task: task.model)}
    parameters = {task.model: work.parameters(task.model) for task in tasks(config)}
    results = summarise(config, bundles, rollouts, found, parameters)
    votes = bundle_votes(bundles)
    write_results(folder, results)
    write_report(folder, results, browser(bundles, votes, _with_references(config, found)))
    output.finish(folder)
    return results


def _check_models(config: EvaluateConfig, work: Generator, bundles: Sequence[Bundle]) -> None:
    """Find what is wrong with a model or too long for its prompt before anything is generated or written."""
    for model in sorted({task.model for task in tasks(config)}):
        check_engine(config.engine, model, config.endpoint)
    for task in {(task.model, task.view): task for task in tasks(config)}.values():
        work.chats(task, bundles)


def summarise(
    config: EvaluateConfig,
    bundles: Sequence[Bundle],
    rollouts: Sequence[Rollout],
    found: Mapping[str, list[Synthesis]],
    parameters: dict[str, int],
) -> dict[str, Any]:
    """The table and the diagnostics, from what was generated."""
    votes = bundle_votes(bundles)
    rows = reference_rows(bundles, votes, rollouts)
    if rollouts and (final := final_name(found)):
        rows += _equal_budget_rows(config, bundles, rollouts, found[final], parameters)
    rows += [task_row(task, bundles, found[task.name]) for task in tasks(config)]
    recipe = {key: value for key, value in asdict(config).items() if key not in ("dry_run", "output_dir")}
    setup = {"config": recipe, "protocol": _protocol(config, bundles), "bundles": len(bundles), "parameters": parameters}
    diagnostics = diagnose(bundles, votes, _with_references(config, found))
    return build_results(rows, setup=setup, diagnostics=diagnostics, seed=config.seed, draws=config.draws)


def _equal_budget_rows(
    config: EvaluateConfig,
    bundles: Sequence[Bundle],
    rollouts: Sequence[Rollout],
    syntheses: Sequence[Synthesis],
    parameters: Mapping[str, int],
) -> list[Row]:
    rows = [majority_row("maj@equal_tokens", bundles, rollouts, equal_budget(bundles, rollouts, syntheses))]
    if config.explorer and parameters[config.base] and parameters[config.explorer]:
        ratio = parameters[config.base] / parameters[config.explorer]
        m = equal_budget(bundles, rollouts, syntheses, token_cost=ratio)
        rows.append(majority_row("maj@equal_cost", bundles, rollouts, m))
    return rows


def _protocol(config: EvaluateConfig, bundles: Sequence[Bundle]) -> str:
    """Bundles a problem times syntheses a bundle, as they are and not only as the recipe asks for them."""
    sizes = sorted(Counter(bundle.problem_id for bundle in bundles).values())
    spread = f"{sizes[0]}" if sizes[0] == sizes[-1] else f"{sizes[0]} to {sizes[-1]}"
    sampled = f", {config.samples} at T={config.temperature:g}" if config.temperature else ""
    return f"{len(sizes)} problems x {spread} bundles x 1 greedy synthesis{sampled}; intervals resample problems"


def _with_references(config: EvaluateConfig, found: Mapping[str, list[Synthesis]]) -> dict[str, list[Synthesis]]:
    plain = (task for task in tasks(config) if task.view == "references" and task.budget == 1)
    return {task.name: found[task.name] for task in plain}
