"""`--dry_run`: the resolved config and one rendered example, without loading weights."""

from __future__ import annotations

import itertools
from dataclasses import asdict
from typing import Any

import yaml
from rich.console import Console
from rich.markup import escape

from a2r_train.commands import grid
from a2r_train.commands.merge import MergeConfig, check_merge
from a2r_train.data import explore
from a2r_train.data.bundle import BundleConfig, built, task_to_carry
from a2r_train.evaluate import run
from a2r_train.evaluate.answers import prompt_for
from a2r_train.evaluate.config import EvaluateConfig, diagnostics_of
from a2r_train.evaluate.probe import run as probe
from a2r_train.evaluate.probe.config import ProbeConfig
from a2r_train.evaluate.probe.power import power_line
from a2r_train.evaluate.rows.panel import tasks
from a2r_train.evaluate.rows.selected import no_vote
from a2r_train.inference.synthesise import synthesizer_chat
from a2r_train.models import load_tokenizer
from a2r_train.prompts import Prompter

Config = MergeConfig | explore.ExploreConfig | BundleConfig | EvaluateConfig | grid.GridConfig | ProbeConfig


def preview(config: Config, console: Console) -> None:
    """Print what the stage would do.

    Raises InputError for the mistakes that the stage itself would find before it starts.
    """
    console.print(yaml.safe_dump(asdict(config), sort_keys=False, allow_unicode=True), markup=False, end="")
    if isinstance(config, MergeConfig):
        check_merge(config)
    elif isinstance(config, explore.ExploreConfig):
        problems, prompter = explore.prepared(config)
        _example(console, prompter, prompter.explorer(problems[0].problem))
        most = len(problems) * config.samples_per_problem
        console.print(
            f"{len(problems)} problems, {most} rollouts, at most {most * config.max_completion_tokens} tokens"
        )
    elif isinstance(config, BundleConfig):
        _show_bundles(config, console)
    elif isinstance(config, grid.GridConfig):
        for explorer, synthesizer in itertools.product(*grid.prepared(config)):
            console.print(f"{explorer} with {synthesizer}", markup=False, highlight=False)
    elif isinstance(config, ProbeConfig):
        given = probe.prepared(config)
        console.print(
            f"{len(given.rollouts)} rollouts; {len(given.asked.bundles)} bundles and "
            f"{len(given.asked.pairs)} pairs in two orders to answer"
        )
    else:
        _, bundles, _, _ = run.prepared(config)
        if config.base:
            prompter = Prompter(load_tokenizer(config.base), prompt_for(config, config.base))
            _example(console, prompter, synthesizer_chat(prompter, bundles[0]))
        console.print(f"rows to generate for {len(bundles)} bundles: {', '.join(rows_of(config))}")
        console.print(no_vote(bundles) or power_line(bundles), highlight=False)


def _show_bundles(config: BundleConfig, console: Console) -> None:
    with built(config) as made:
        train, test = made.splits["train"], made.splits["test"]
        console.print(
            f"{train.count} train and {test.count} test bundles, {len(made.met)} problems contaminated"
        )
        if config.tokenizer:
            prompter = Prompter(load_tokenizer(config.tokenizer), task_to_carry(config).prompt)
            _example(console, prompter, synthesizer_chat(prompter, next(train.bundles)))


def rows_of(config: EvaluateConfig) -> list[str]:
    """The rows for which models are asked."""
    more = {
        "self-refine": config.self_refine,
        "rounds": config.rounds,
        "adaptive": config.adaptive_validation,
    }
    asked = [
        *(name for name, wanted in more.items() if wanted),
        *(f"diagnostics {name}" for name in diagnostics_of(config)),
    ]
    return [*(task.name for task in tasks(config)), *asked]


def _example(console: Console, prompter: Prompter, chat: Any) -> None:
    console.rule("one prompt")
    console.print(escape(prompter.text(chat)))
    console.rule(f"{len(prompter.token_ids(chat))} tokens")
