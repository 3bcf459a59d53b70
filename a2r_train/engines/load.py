"""The engine that a recipe names."""

from __future__ import annotations

import gc
import importlib.util
import logging
import time
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import yaml

from a2r_train.engines.base import Engine, EngineArguments
from a2r_train.errors import InputError
from a2r_train.models import base_of, check_weights, context_length
from a2r_train.output import CONFIG, stamp

log = logging.getLogger(__name__)

Config = TypeVar("Config", bound=EngineArguments)


def load_engine(
    model: str,
    arguments: EngineArguments | None = None,
    own_process: bool = False,
    others: Sequence[str] = (),
) -> Engine:
    """Start the engine of a recipe.

    With `own_process`, vllm runs in a process of its own, and its memory is free again when the engine is
    gone. `others`: the models asked after this one; see `switched`. Raises InputError for an unknown engine
    or dtype, and for a model that cannot be loaded or is not served.
    """
    arguments = arguments or EngineArguments()
    arguments.check_engine_arguments()
    check_engine(model, arguments)
    arguments = settled(arguments, model)
    gc.collect()  # reference cycles may keep an engine alive that is no longer used, with its memory
    began = time.monotonic()
    engine = _started(model, arguments, own_process, others)
    log.info("%s: engine %s started in %.1f s", model, arguments.engine, time.monotonic() - began)
    return engine


def switched(engine: Engine | None, model: str) -> Engine | None:
    """The running engine, switched to another model; None if that needs a new start.

    Only vllm can switch, and only between models that it was started for: a base and its adapters.
    """
    from a2r_train.engines.vllm import VLLMEngine

    return engine if isinstance(engine, VLLMEngine) and engine.switch(model) else None


def settled(config: Config, *models: str, folder: str = "") -> Config:
    """The config with the chosen engine in place of `auto`; the choice is logged in one line.

    A folder that was started with an engine continues with it. Raises InputError for a model that cannot be
    read.
    """
    if config.engine != "auto":
        return config
    engine, why = _chosen(models, begun_with(folder, "engine"))
    if not (folder and stamp(folder)):  # a finished run has logged it before
        log.info("engine auto: %s, as %s", engine, why)
    return replace(config, engine=engine)


def begun_with(folder: str, key: str) -> str:
    """The value of a key in the config that a folder was started with; "" if there is none."""
    path = Path(folder) / CONFIG
    if not folder or not path.is_file():
        return ""
    return str((yaml.safe_load(path.read_text(encoding="utf-8")) or {}).get(key) or "")


def _chosen(models: tuple[str, ...], before: str) -> tuple[str, str]:
    """The engine, and why. Without a GPU it is transformers: small models start sooner, and are as fast."""
    if before not in ("", "auto"):
        return before, "this run was started with it"
    if importlib.util.find_spec("vllm") is None:
        return "transformers", "vllm is not installed"
    import torch

    if not torch.cuda.is_available():
        return "transformers", "there is no GPU"
    from a2r_train.engines.vllm import not_served

    if reason := next(filter(None, map(not_served, models)), ""):
        return "transformers", reason
    return "vllm", "it is installed and serves the model"


def _started(model: str, arguments: EngineArguments, own_process: bool, others: Sequence[str]) -> Engine:
    if arguments.engine == "openai":
        from a2r_train.engines.openai import OpenAIEngine

        return OpenAIEngine(model, arguments)
    if arguments.engine == "vllm":
        from a2r_train.engines.vllm import VLLMEngine

        return VLLMEngine(model, arguments, own_process, others)
    from a2r_train.engines.transformers import TransformersEngine

    return TransformersEngine(model, arguments)


def check_engine(model: str, arguments: EngineArguments) -> None:
    """Check what can be checked before weights are loaded.

    Raises InputError for an unknown engine and a folder without weights.
    """
    if arguments.engine == "openai":
        from a2r_train.engines.openai import api_key, base_urls

        base_urls(arguments.endpoint)
        api_key()
        return
    if arguments.engine not in ("auto", "transformers", "vllm"):
        raise InputError(f"engine {arguments.engine!r}: expected auto, transformers, vllm or openai")
    if arguments.endpoint:
        raise InputError(f"endpoint: the engine {arguments.engine} has none; expected engine: openai")
    check_weights(model)
    if not model.endswith(".gguf"):
        context_length(model)  # raises if its config cannot be read, or needs the model's own code
    if arguments.engine == "vllm":
        from a2r_train.engines.vllm_copies import check_vllm

        check_vllm()
        if base_of(model).endswith(".gguf"):
            raise InputError(
                f"{model}: vllm cannot read a GGUF file here; convert it to a folder with "
                "`a2r merge`, or use engine: transformers"
            )
