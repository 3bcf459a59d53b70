"""The stages as functions, for Python and notebooks: keyword arguments, or the config object of the stage.

The keys are those of the recipes, and are read as recipes are. What a stage returns prints as a table, and
can be given wherever a path can: `bundle(rollouts=explore(...), ...)`.
"""

from __future__ import annotations

import io
import json
import logging
import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from a2r_train.config import as_texts, configured
from a2r_train.data.read import read
from a2r_train.errors import InputError
from a2r_train.paths import has_data
from a2r_train.records import CORRECT, UNPARSABLE, Bundle, Rollout
from a2r_train.verify import has_vote

if TYPE_CHECKING:
    from rich.console import RenderableType

    from a2r_train.data.bundle import BundleConfig
    from a2r_train.data.explore import ExploreConfig
    from a2r_train.evaluate.config import EvaluateConfig

WIDTH = 100  # of a table, in characters
MOST_LINES = 12  # of a training's log
LOGGED = ("step", "loss", "reward", "new_correct_rate", "copy_rate", "mean_token_accuracy", "entropy")


@dataclass(frozen=True, repr=False)
class Result:
    """What a stage has written.

    path: the file or folder that the next stage reads. rows: rollouts, bundles, what a training logged, or
    the rows of an evaluation. lines: the table that it prints as.
    """

    path: Path
    rows: Sequence[Any] = field(default_factory=list)
    lines: list[dict[str, Any]] = field(default_factory=list)

    def __fspath__(self) -> str:
        return str(self.path)

    def __repr__(self) -> str:
        from rich.console import Console

        page = io.StringIO()
        Console(file=page, width=WIDTH).print(self.table())
        return f"{page.getvalue()}{self.path}"

    def table(self) -> RenderableType:
        """The table, for rich."""
        from rich.table import Table

        drawn = Table(*(self.lines[0] if self.lines else ()))
        for line in self.lines:
            drawn.add_row(*map(_cell, line.values()))
        return drawn


@dataclass(frozen=True, repr=False)
class Bundles(Result):
    """Training bundles, and the files of the test set; these are there if the recipe asks for a test set."""

    @property
    def test(self) -> Path:
        return self.path.with_name("test.jsonl")

    @property
    def test_rollouts(self) -> Path:
        return self.path.with_name("test-rollouts.jsonl")


@dataclass(frozen=True, repr=False)
class Evaluation(Result):
    """The table of an evaluation; `results` is what results.json holds."""

    results: dict[str, Any] = field(default_factory=dict)

    def table(self) -> RenderableType:
        from a2r_train.evaluate.report.terminal import table

        return table(self.results) if self.results else super().table()


def explore(config: ExploreConfig | None = None, **keys: Any) -> Result:
    """Sample and verify n solutions of every problem. The path is that of rollouts.jsonl."""
    from a2r_train.data.explore import ExploreConfig
    from a2r_train.data.explore import explore as stage

    (config,) = _configs("explore", [ExploreConfig], [config], keys)
    with _log_shown():
        if _previewed(config):
            return Result(Path(config.output_dir) / "rollouts.jsonl")
        path = stage(config)
    rollouts = read(Rollout, str(path)) if has_data(str(path)) else []
    return Result(path, rollouts, [_explored(rollouts)] if rollouts else [])


def bundle(config: BundleConfig | None = None, **keys: Any) -> Bundles:
    """Group, mix, decontaminate and split rollouts. The path is that of train.jsonl."""
    from a2r_train.data import bundles as opened
    from a2r_train.data.bundle import BundleConfig
    from a2r_train.data.bundle import bundle as stage

    (config,) = _configs("bundle", [BundleConfig], [config], keys)
    path = Path(config.output_dir) / "train.jsonl"
    with _log_shown():
        if _previewed(config):
            return Bundles(path)
        stage(config)
    splits = [path.with_name(f"{name}.jsonl") for name in ("train", "test")]
    found = {split.stem: opened.Bundles.open(str(split)) for split in splits if has_data(str(split))}
    return Bundles(path, found["train"].listed, [_bundled(name, some) for name, some in found.items()])


def sft(*configs: Any, **keys: Any) -> Result:
    """Fine-tune on verified answers to the bundles. The path is the checkpoint's folder.

    Takes keyword arguments, or BundleArguments, SynthesizerSFTConfig and ModelArguments.
    """
    from a2r_train.train import sft as trainer

    return _trained("sft", trainer, configs, keys)


def grpo(*configs: Any, **keys: Any) -> Result:
    """Train with a verifiable reward. The path is the checkpoint's folder.

    Takes keyword arguments, or BundleArguments, SynthesizerGRPOConfig and ModelArguments.
    """
    from a2r_train.train import grpo as trainer

    return _trained("grpo", trainer, configs, keys)


def evaluate(config: EvaluateConfig | None = None, **keys: Any) -> Evaluation:
    """Evaluate every row on the same test bundles. The path is the folder of the report."""
    from a2r_train.evaluate.config import EvaluateConfig
    from a2r_train.evaluate.run import evaluate as stage

    (config,) = _configs("evaluate", [EvaluateConfig], [config], keys)
    path = Path(config.output_dir)
    with _log_shown():
        if _previewed(config):
            return Evaluation(path)
        results = stage(config)
    return Evaluation(path, results["rows"], [], results)


def _trained(verb: str, trainer: Any, given: Sequence[Any], keys: dict[str, Any]) -> Result:
    """Train in this process. Raises KeyboardInterrupt at Ctrl-C, once the step is saved."""
    data, args, model = _configs(verb, trainer.ARGUMENTS, given, keys)
    try:
        with _log_shown():
            trainer.train(data, args, model)
    except SystemExit as ended:
        if ended.code == 130:
            raise KeyboardInterrupt from None
        raise
    folder = Path(str(args.output_dir))
    state = folder / "trainer_state.json"
    log = json.loads(state.read_text(encoding="utf-8"))["log_history"] if state.is_file() else []
    return Result(folder, log, _logged(log))


def _configs(verb: str, types: Sequence[Any], given: Sequence[Any], keys: dict[str, Any]) -> tuple[Any, ...]:
    """The config objects, or those of the keyword arguments, read as a recipe is."""
    there = [config for config in given if config is not None]
    if there and (keys or [type(config) for config in there] != list(types)):
        expected = ", ".join(kind.__name__ for kind in types)
        raise InputError(f"{verb}: expected either keyword arguments or {expected}")
    if not there:
        return configured(types, {key: _plain(value) for key, value in keys.items()}, verb)
    return tuple(_with_texts(config) for config in there)


def _with_texts(config: Any) -> Any:
    """A config with its dicts as text, as in a recipe; a config of TRL has none and stays as it is."""
    texts = as_texts(type(config), vars(config))
    changed = {key: value for key, value in texts.items() if value is not vars(config)[key]}
    return replace(config, **changed) if changed else config


def _plain(value: Any) -> Any:
    """Paths as text, and several of them comma-separated."""
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, list | tuple) and any(isinstance(part, os.PathLike) for part in value):
        return ",".join(os.fspath(part) for part in value)
    return value


def _previewed(config: Any) -> bool:
    """Show what the stage would do, if the config asks for it."""
    if config.dry_run:
        from rich.console import Console

        from a2r_train.commands.dry_run import preview

        preview(config, Console())
    return bool(config.dry_run)


@contextmanager
def _log_shown() -> Iterator[None]:
    """Show the log of the stages if logging is not set up, as in a notebook."""
    log, handler = logging.getLogger("a2r_train"), logging.StreamHandler()
    if logging.getLogger().handlers or log.handlers:
        yield
        return
    before = log.level
    log.addHandler(handler)
    log.setLevel(logging.INFO)
    try:
        yield
    finally:
        log.removeHandler(handler)
        log.setLevel(before)


def _explored(rollouts: Sequence[Rollout]) -> dict[str, Any]:
    n, right = len(rollouts), {r.problem_id for r in rollouts if r.verdict == CORRECT}
    problems = len({r.problem_id for r in rollouts})
    return {
        "problems": problems,
        "rollouts": n,
        "pass@1": sum(r.verdict == CORRECT for r in rollouts) / n,
        f"pass@{n // problems}": len(right) / problems,
        "unparsable": sum(r.verdict == UNPARSABLE for r in rollouts) / n,
        "tokens each": round(sum(r.completion_tokens for r in rollouts) / n),
    }


def _bundled(name: str, bundles: Sequence[Bundle]) -> dict[str, Any]:
    n, shown = len(bundles), sum(len(b.references) for b in bundles)
    voted = sum(b.majority_verdict == CORRECT for b in bundles)
    return {
        "split": name,
        "bundles": n,
        "problems": len({b.problem_id for b in bundles}),
        "correct references": sum(b.n_correct for b in bundles) / shown,
        **({} if any(not has_vote(b.verifier) for b in bundles) else {"majority right": voted / n}),
        "none right": sum(b.n_correct == 0 for b in bundles) / n,
    }


def _logged(log: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Some lines of a training's log, the last one among them."""
    steps = [entry for entry in log if "loss" in entry]
    some = steps[:: -max(1, -(-len(steps) // MOST_LINES))][::-1]
    keys = [key for key in LOGGED if any(key in entry for entry in some)]
    return [{key: entry.get(key, "") for key in keys} for entry in some]


def _cell(value: Any) -> str:
    return format(value, ".3g") if isinstance(value, float) else str(value)
