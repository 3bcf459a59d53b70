"""`a2r evaluate`: every row of the table on the same bundles, then results.json and the reports.

What a row needs generated is kept in `syntheses/`, in complete files by chunk: a run that was killed goes on where it was,
and an added row computes only itself.
"""

from __future__ import annotations

import hashlib
import json
import logging
import shutil
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from a2r_train import output
from a2r_train.config import check_least
from a2r_train.engines import ENGINE_MAY_DIFFER, Engine, EngineArguments, Sampling, check_engine, load_engine
from a2r_train.errors import InputError
from a2r_train.evaluate.report import browser, build_results, write_report, write_results
from a2r_train.evaluate.rows import Row, bundle_votes, diagnose, equal_budget, majority_row, reference_rows, synthesis_row
from a2r_train.models import load_tokenizer, trust, weights_stamp
from a2r_train.prompts import Prompter
from a2r_train.records import Bundle, Rollout, Synthesis, read, write, write_text
from a2r_train.synthesise import prompt_of, syntheses_of, synthesizer_chat

log = logging.getLogger(__name__)

# Between a run and its continuation: what adds rows, and what changes none.
MAY_DIFFER = ("sft", "grpo", "no_references", "explorer", "draws", *ENGINE_MAY_DIFFER)


@dataclass
class EvaluateConfig(EngineArguments):
    """`a2r evaluate`: bundles and checkpoints -> results.json, report.md, report.html."""

    bundles: str = field(metadata={"help": "test bundles"})
    output_dir: str = field(metadata={"help": "where the results are written"})
    base: str = field(metadata={"help": "the synthesizer before training"})
    sft: str = field(default="", metadata={"help": "the checkpoint of SFT; empty leaves its rows out"})
    grpo: str = field(default="", metadata={"help": "the checkpoint of SFT and GRPO; empty leaves its rows out"})
    no_references: str = field(default="", metadata={"help": "the control that was trained without references"})
    explorer: str = field(default="", metadata={"help": "the explorer, for its greedy row and the cost"})
    rollouts: str = field(default="", metadata={"help": "all rollouts of the test problems, for the equal-budget majorities"})
    temperature: float = field(default=1.0, metadata={"help": "of the rows @T; 0 leaves them out"})
    samples: int = field(default=1, metadata={"help": "syntheses a bundle of the rows @T"})
    max_completion_tokens: int = field(default=1024, metadata={"help": "a longer synthesis is cut"})
    chunk_bundles: int = field(default=256, metadata={"help": "bundles a chunk: the most that a kill can lose"})
    max_bundles: int = field(default=0, metadata={"help": "take only the first so many; 0 takes all"})
    prompt: str = field(default="", metadata={"help": "a prompt file; empty for the checkpoint's own or the default"})
    trust_remote_code: bool = field(default=False, metadata={"help": "let code run that the models bring along"})
    draws: int = field(default=10_000, metadata={"help": "resamples of the bootstrap"})
    seed: int = field(default=0, metadata={"help": "of sampling and bootstrap"})
    dry_run: bool = field(default=False, metadata={"help": "show the resolved config and the rows, and stop"})


@dataclass(frozen=True)
class Task:
    """One row that needs generation: which model answers, with or without the references."""

    name: str
    model: str
    use_references: bool
    sampled: bool


def tasks(config: EvaluateConfig) -> list[Task]:
    """The rows that need generation, greedy first and then sampled, in the order of the table."""
    named = [
        ("explorer/greedy", config.explorer, False),
        ("synthesizer/alone", config.base, False),
        ("synthesizer/no_references", config.no_references, False),
        ("synthesizer/base", config.base, True),
        ("synthesizer/sft", config.sft, True),
        ("synthesizer/sft+grpo", config.grpo, True),
    ]
    greedy = [Task(name, model, with_references, False) for name, model, with_references in named if model]
    if not config.temperature:
        return greedy
    sampled = [Task(f"{t.name}@T", t.model, t.use_references, True) for t in greedy if t.name != "explorer/greedy"]
    return [*greedy, *sampled]


def evaluate(config: EvaluateConfig) -> dict[str, Any]:
    """Run the stage and return the results. Raises InputError for wrong input; nothing is written then."""
    check_least(config, samples=1, batch_size=1, chunk_bundles=1, max_bundles=0, draws=1)
    check_least(config, max_concurrent_requests=1, request_deadline_s=1, tensor_parallel_size=1, data_parallel_size=1)
    Sampling(config.temperature, max_completion_tokens=config.max_completion_tokens)
    bundles = read(Bundle, config.bundles)[: config.max_bundles or None]
    rollouts = read(Rollout, config.rollouts) if config.rollouts else []
    _check_models(config, bundles)
    folder = Path(config.output_dir)
    output.prepare(folder, asdict(config), ignore=MAY_DIFFER)
    parameters: dict[str, int] = {}
    found: dict[str, list[Synthesis]] = {}
    for model in dict.fromkeys(task.model for task in tasks(config)):
        lazy = _LazyEngine(config, model)  # for all rows of the model, and gone before the next one loads
        for task in tasks(config):
            if task.model == model:
                found[task.name] = _syntheses(config, task, lazy, bundles, folder, parameters)
    results = summarise(config, bundles, rollouts, found, parameters)
    votes = bundle_votes(bundles)
    write_results(folder, results)
    write_report(folder, results, browser(bundles, votes, _with_references(config, found)))
    output.finish(folder)
    return results


def _check_models(config: EvaluateConfig, bundles: Sequence[Bundle]) -> None:
    """Find what is wrong with a model or too long for its prompt before anything is generated or written."""
    for model, use_references in sorted({(task.model, task.use_references) for task in tasks(config)}):
        if config.trust_remote_code:
            trust(model)
        check_engine(config.engine, model, config.endpoint)
        prompter = Prompter(load_tokenizer(model), prompt_of(model, config.prompt))
        for bundle in bundles:
            synthesizer_chat(prompter, bundle, use_references)


def summarise(
    config: EvaluateConfig,
    bundles: Sequence[Bundle],
    rollouts: Sequence[Rollout],
    found: dict[str, list[Synthesis]],
    parameters: dict[str, int],
) -> dict[str, Any]:
    """The table and the diagnostics, from what was generated."""
    votes = bundle_votes(bundles)
    rows = reference_rows(bundles, votes)
    final = next(name for name in ("synthesizer/sft+grpo", "synthesizer/sft", "synthesizer/base") if name in found)
    if rollouts:
        rows.append(majority_row("maj@equal_tokens", bundles, rollouts, equal_budget(bundles, rollouts, found[final])))
    if rollouts and config.explorer and parameters[config.base] and parameters[config.explorer]:
        ratio = parameters[config.base] / parameters[config.explorer]
        m = equal_budget(bundles, rollouts, found[final], token_cost=ratio)
        rows.append(majority_row("maj@equal_cost", bundles, rollouts, m))
    rows += [_row(task, bundles, found[task.name]) for task in tasks(config)]
    recipe = {key: value for key, value in asdict(config).items() if key not in ("dry_run", "output_dir")}
    setup = {"config": recipe, "bundles": len(bundles), "parameters": parameters}
    diagnostics = diagnose(bundles, votes, _with_references(config, found))
    return build_results(rows, setup=setup, diagnostics=diagnostics, seed=config.seed, draws=config.draws)


def _row(task: Task, bundles: Sequence[Bundle], syntheses: Sequence[Synthesis]) -> Row:
    """A model that reads no references pays for its completion alone."""
    row = synthesis_row(task.name, bundles, syntheses)
    if task.use_references:
        return row
    tokens = sum(s.completion_tokens for s in syntheses) / len(syntheses)
    return Row(row.name, row.scores, tokens, row.note)


def _with_references(config: EvaluateConfig, found: dict[str, list[Synthesis]]) -> dict[str, list[Synthesis]]:
    return {task.name: found[task.name] for task in tasks(config) if task.use_references}


class _LazyEngine:
    """Loads its model at the first chunk that is missing, and not at all if none is."""

    def __init__(self, config: EvaluateConfig, model: str) -> None:
        self.config, self.model = config, model

    @cached_property
    def engine(self) -> Engine:
        return load_engine(self.config.engine, self.model, **self.config.engine_options())

    @cached_property
    def prompter(self) -> Prompter:
        return Prompter(self.engine.tokenizer, prompt_of(self.model, self.config.prompt))


def _syntheses(
    config: EvaluateConfig,
    task: Task,
    lazy: _LazyEngine,
    bundles: Sequence[Bundle],
    folder: Path,
    parameters: dict[str, int],
) -> list[Synthesis]:
    place = folder / "syntheses" / task.name.replace("/", "-")
    parameters[task.model] = _parameters(place, lazy, bundles)
    sampling = Sampling(config.temperature if task.sampled else 0.0, max_completion_tokens=config.max_completion_tokens)
    samples = config.samples if task.sampled else 1
    found: list[Synthesis] = []
    for at in range(0, len(bundles), config.chunk_bundles):
        path = place / f"{at:06d}.jsonl"
        part = bundles[at : at + config.chunk_bundles]
        if not path.exists():
            made = syntheses_of(
                lazy.engine,
                lazy.prompter,
                part,
                sampling,
                samples=samples,
                seed=config.seed,
                use_references=task.use_references,
            )
            write(made, path)
        found += read(Synthesis, str(path))
        log.info("%s: %d of %d bundles", task.name, min(at + config.chunk_bundles, len(bundles)), len(bundles))
    return found


def _parameters(place: Path, lazy: _LazyEngine, bundles: Sequence[Bundle]) -> int:
    """The model's parameters, from the file that says of what the kept syntheses are: model, its weights, and the bundles.

    Where weights or bundles have changed since under their names, the syntheses are removed, to be made anew. Raises
    InputError for those of another model.
    """
    path = place / "parameters.json"
    bundles_hash = hashlib.sha256(repr(bundles).encode()).hexdigest()
    given = {"model": lazy.model, "weights": weights_stamp(lazy.model), "bundles": bundles_hash}
    kept = json.loads(path.read_text()) if path.exists() else {}
    if kept and kept["model"] != lazy.model:
        raise InputError(f"{place}: was made by {kept['model']}, not by {lazy.model}; name another output folder")
    if not given.items() <= kept.items():
        if place.exists():
            log.info("%s: %s or the bundles have changed since; made anew", place, lazy.model)
            shutil.rmtree(place)
        kept = {**given, "parameters": lazy.engine.parameters}
        write_text(path, json.dumps(kept) + "\n")
    return int(kept["parameters"])
