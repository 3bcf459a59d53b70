"""Test problems that a model was trained on: its rows say nothing about new problems."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from a2r_train.data.trained_on import CHOICE, problem_hashes, trainings
from a2r_train.data.wording import bare
from a2r_train.errors import InputError
from a2r_train.evaluate.config import EvaluateConfig
from a2r_train.evaluate.rows.panel import tasks
from a2r_train.records import Bundle


@dataclass(frozen=True)
class Overlap:
    """How many of the test problems were in a training that led to a model, or chose which of its steps is
    kept.
    """

    model: str
    stage: str
    bundles: str
    count: int
    total: int

    @property
    def is_choice(self) -> bool:
        return self.stage.endswith(CHOICE)

    def __str__(self) -> str:
        if self.is_choice:
            return (
                f"{self.count} of {self.total} test problems chose the step that is kept: {self.model} was "
                f"validated on them in {self.stage.removesuffix(CHOICE)}, from {self.bundles}"
            )
        return (
            f"{self.count} of {self.total} test problems were trained on: "
            f"{self.model} read them in {self.stage}, from {self.bundles}"
        )


def overlaps(models: Sequence[str], bundles: Sequence[Bundle]) -> list[Overlap]:
    """One entry for each model and training that read a problem of the bundles."""
    tested = {bare(problem): problem_hashes(problem) for problem in {bundle.problem for bundle in bundles}}
    read = [
        (model, training, sum(not hashes.isdisjoint(training.problems) for hashes in tested.values()))
        for model in models
        for training in trainings(model)
    ]
    return [
        Overlap(model, training.stage, training.bundles, count, len(tested))
        for model, training, count in read
        if count
    ]


def check_overlap(config: EvaluateConfig, bundles: Sequence[Bundle]) -> list[Overlap]:
    """The overlaps, which the report shows in red. Raises InputError for problems that were trained on, if
    the recipe does not allow them; those that only chose a step may be looked at.
    """
    found = overlaps(models_of(config, bundles), bundles)
    trained = [one for one in found if not one.is_choice]
    if trained and not config.allow_overlap:
        raise InputError(
            f"{trained[0]}; name other bundles, or set allow_overlap: true to see the table anyway"
        )
    return found


def models_of(config: EvaluateConfig, bundles: Sequence[Bundle]) -> list[str]:
    """All models behind a row, and the explorers named in the bundles if they are local folders."""
    explorers = {reference.model for bundle in bundles for reference in bundle.references}
    local = {name for name in explorers if name and Path(name).is_dir()}
    return sorted({task.model for task in tasks(config)} | local | ({config.explorer} - {""}))


def overlap_lines(results: Mapping[str, Any]) -> list[str]:
    """What the report says about it in red."""
    return [str(Overlap(**one)) for one in results.get("overlap", [])]
