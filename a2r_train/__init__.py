"""a2r-train: train the synthesizer of asymmetric two-stage reasoning (A2R, arXiv 2509.22044).

    import a2r_train

    rollouts = a2r_train.explore(problems="problems.jsonl", model="MODEL", output_dir="runs/rollouts")

Public names are imported when first used; the package itself loads nothing heavy.
"""

import importlib
import os
import sys
from types import ModuleType
from typing import Any

__version__ = "0.1.0"

os.environ.setdefault("HF_HUB_DISABLE_TELEMETRY", "1")  # TRL's trainers send telemetry unless told not to

_PLACES = {
    "TwoStage": "inference.two_stage",
    "Adaptive": "inference.adaptive",
    "Rounds": "inference.rounds",
    "Sampling": "engines",
    **dict.fromkeys(("judge", "majority"), "verify"),
    **dict.fromkeys(("Problem", "Rollout", "Bundle", "Synthesis"), "records"),
    "InputError": "errors",
    **dict.fromkeys(("explore", "bundle", "sft", "grpo"), "stages"),
}
__all__ = [*_PLACES, "evaluate"]


class _Evaluate(ModuleType):
    """The subpackage `evaluate`, which can also be called as the stage of that name."""

    def __call__(self, *config: Any, **keys: Any) -> Any:
        from a2r_train.stages import evaluate

        return evaluate(*config, **keys)


class _Package(ModuleType):
    """This package: it makes `a2r_train.evaluate` callable, whoever has imported that first."""

    def __setattr__(self, name: str, value: Any) -> None:
        if name == "evaluate":
            value.__class__ = _Evaluate
        super().__setattr__(name, value)


def __getattr__(name: str) -> Any:
    if name == "evaluate":
        return importlib.import_module("a2r_train.evaluate")
    if name in _PLACES:
        return getattr(importlib.import_module(f"a2r_train.{_PLACES[name]}"), name)
    raise AttributeError(f"module 'a2r_train' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


sys.modules[__name__].__class__ = _Package
