"""`a2r grid`: every explorer with every synthesizer, and the map of what the asymmetry is worth (A2R, arXiv
2509.22044).
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from a2r_train import output
from a2r_train.config import check_least
from a2r_train.data.builder import make_bundles
from a2r_train.data.explore import ExploreConfig, explore
from a2r_train.data.read import read
from a2r_train.data.rollouts import load_rollouts
from a2r_train.data.task import task_of
from a2r_train.engines import ENGINE_KEYS, ENGINE_MAY_DIFFER, EngineArguments, check_engine, settled
from a2r_train.errors import InputError
from a2r_train.evaluate.config import EvaluateConfig
from a2r_train.evaluate.report.plots import save_png
from a2r_train.evaluate.rows.names import ALONE, BASE, RANDOM, is_reference_vote
from a2r_train.evaluate.rows.row import by_id
from a2r_train.evaluate.run import evaluate
from a2r_train.records import Problem, write, write_text
from a2r_train.verify import check_gold
from a2r_train.verify.compare import OR_LEAVE_OUT

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass
class GridConfig(EngineArguments):
    """`a2r grid`: problems and models -> one evaluation per pair, grid.json and grid.png."""

    problems: str = field(metadata={"help": "test problems"})
    explorers: str = field(metadata={"help": "models of stage 1, comma-separated"})
    synthesizers: str = field(metadata={"help": "models of stage 2, comma-separated"})
    output_dir: str = field(metadata={"help": "where rollouts, bundles and evaluations are written"})
    k: int = field(default=4, metadata={"help": "references per bundle"})
    temperature: float = field(
        default=1.0, metadata={"help": "of the explorers; the synthesizers are greedy"}
    )
    max_completion_tokens: int = field(
        default=1024, metadata={"help": "longest completion of either stage, in tokens"}
    )
    max_problems: int = field(default=0, metadata={"help": "use only the first N; 0 uses all"})
    prompt: str = field(
        default="", metadata={"help": "a prompt file; empty for the checkpoint's own or the default"}
    )
    chat_template_kwargs: str = field(
        default="", metadata={"help": "arguments of the chat template, for both stages"}
    )
    leave_out_bad_golds: bool = field(
        default=False,
        metadata={"help": "leave out problems whose gold the verifier cannot parse"},
    )
    draws: int = field(default=10_000, metadata={"help": "resamples of the bootstrap"})
    seed: int = field(default=0, metadata={"help": "seed of sampling and bootstrap"})
    dry_run: bool = field(
        default=False, metadata={"help": "show the resolved config and the pairs, and stop"}
    )


def grid(config: GridConfig) -> Path:
    """Run what is missing and return the path of grid.json. Raises InputError for wrong input."""
    explorers, synthesizers = prepared(config)
    config = settled(config, *explorers, *synthesizers, folder=config.output_dir)
    folder = Path(config.output_dir)
    output.prepare(folder, asdict(config), ignore=("explorers", "synthesizers", "draws", *ENGINE_MAY_DIFFER))
    cells = []
    for explorer in explorers:
        rollouts, bundles = _explored(config, explorer, folder / _slug(explorer, explorers))
        for synthesizer in synthesizers:
            place = folder / f"{_slug(explorer, explorers)}+{_slug(synthesizer, synthesizers)}"
            cells.append(
                _cell(
                    _evaluated(config, explorer, synthesizer, rollouts, bundles, place), explorer, synthesizer
                )
            )
    path = folder / "grid.json"
    write_text(
        path,
        json.dumps({"explorers": explorers, "synthesizers": synthesizers, "cells": cells}, indent=2) + "\n",
    )
    heat_map(folder / "grid.png", explorers, synthesizers, cells)
    output.finish(folder)
    return path


def prepared(config: GridConfig) -> tuple[list[str], list[str]]:
    """Explorers and synthesizers.

    Raises InputError for whatever is wrong with the recipe; loads no weights.
    """
    check_least(config, k=2)
    config.check_engine_arguments()
    explorers, synthesizers = _models_of(config)
    for model in sorted({*explorers, *synthesizers}):
        check_engine(model, config)
    # Their errors come before anything is written, and do not name keys of explore.
    problems = read(Problem, config.problems)
    if not config.leave_out_bad_golds:
        check_gold(problems, config.problems, OR_LEAVE_OUT)
    return explorers, synthesizers


def _models_of(config: GridConfig) -> tuple[list[str], list[str]]:
    explorers, synthesizers = (
        [name.strip() for name in text.split(",") if name.strip()]
        for text in (config.explorers, config.synthesizers)
    )
    if not explorers or not synthesizers:
        raise InputError("grid: expected at least one model in `explorers:` and in `synthesizers:`")
    return explorers, synthesizers


def _slug(model: str, models: Sequence[str]) -> str:
    """The last part of a model's name, or all of it if another has the same last part."""
    short = Path(model).name
    return short if [Path(m).name for m in models].count(short) == 1 else model.strip("/").replace("/", "-")


def _shared(config: GridConfig, *keys: str) -> dict[str, Any]:
    names = (*keys, "max_completion_tokens", "prompt", "seed")
    given = ("chat_template_kwargs",) if config.chat_template_kwargs else ()
    return {name: getattr(config, name) for name in (*names, *given, *ENGINE_KEYS)}


def _explored(config: GridConfig, explorer: str, folder: Path) -> tuple[str, str]:
    """The files of an explorer's rollouts and bundles."""
    options = _shared(config, "problems", "temperature", "max_problems", "leave_out_bad_golds")
    rollouts = explore(
        ExploreConfig(model=explorer, output_dir=str(folder), samples_per_problem=config.k, **options)
    )
    path = folder / "bundles.jsonl"
    if not path.exists():
        prompt = task_of(str(rollouts)).prompt  # which says where the answers are
        problems, found = load_rollouts(
            config.problems, str(rollouts), prompt=prompt, leave_out_bad_golds=config.leave_out_bad_golds
        )
        grouped = by_id(found)
        made = [
            make_bundles(p, grouped[p.id], k=config.k, k_min=0, count=1, seed=config.seed) for p in problems
        ]
        write((bundle for bundles in made for bundle in bundles), path)
    return str(rollouts), str(path)


def _evaluated(
    config: GridConfig, explorer: str, synthesizer: str, rollouts: str, bundles: str, folder: Path
) -> dict[str, Any]:
    options = _shared(config, "draws") | {
        "temperature": 0.0,
        "cards": False,
        "explorer": explorer,
        "rollouts": rollouts,
    }
    return evaluate(EvaluateConfig(bundles, str(folder), synthesizer, **options))


def _cell(results: dict[str, Any], explorer: str, synthesizer: str) -> dict[str, Any]:
    rows = {row["name"]: row for row in results["rows"]}
    vote = next(filter(is_reference_vote, rows), RANDOM)  # without a vote, this row takes its place
    own = rows[BASE]
    found = {"explorer": explorer, "synthesizer": synthesizer} | {
        key: own[key] for key in ("accuracy", "low", "high", "n")
    }
    others = {"pass@1": "pass@1", "majority": vote, "alone": ALONE}
    found |= {key: rows[name]["accuracy"] for key, name in others.items()}
    return found | {
        "flops": results["diagnostics"]["cost"][BASE]["flops"],
        "tokens": own["tokens"],
    }


def heat_map(
    path: Path, explorers: Sequence[str], synthesizers: Sequence[str], cells: Sequence[dict[str, Any]]
) -> None:
    """Accuracy and cost of each pair, side by side; each cell shows its value."""
    columns, lines = [_slug(m, synthesizers) for m in synthesizers], [_slug(m, explorers) for m in explorers]
    label = {"facecolor": "white", "alpha": 0.7, "linewidth": 0}

    def draw(figure: Figure) -> None:
        maps = (("accuracy", "accuracy", "Blues"), ("flops", "FLOPs an answer", "Oranges"))
        for axes, (key, title, colors) in zip(figure.subplots(1, 2), maps, strict=True):
            values = [float("nan") if cell[key] is None else cell[key] for cell in cells]
            axes.imshow(np.reshape(values, (len(lines), len(columns))), cmap=colors, aspect="auto")
            for at, value in enumerate(values):
                text = format(value, ".1%" if key == "accuracy" else ".2g")
                axes.text(at % len(columns), at // len(columns), text, ha="center", va="center", bbox=label)
            axes.set_xticks(range(len(columns)), columns, rotation=30, ha="right")
            axes.set_yticks(range(len(lines)), lines)
            axes.set(title=title, xlabel="synthesizer", ylabel="explorer")

    save_png(path, (4.0 + 2.2 * len(columns), 2.5 + 0.6 * len(lines)), draw)
