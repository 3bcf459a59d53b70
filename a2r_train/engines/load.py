"""The engine that a recipe names."""

from __future__ import annotations

from a2r_train.engines.base import Engine, EngineArguments
from a2r_train.errors import InputError
from a2r_train.models import base_of, check_weights, context_length


def load_engine(model: str, arguments: EngineArguments | None = None, own_process: bool = False) -> Engine:
    """Start the engine of a recipe.

    With `own_process` vllm runs in a process of its own, whose memory is free again when the engine is gone.
    Raises InputError for an unknown engine or dtype and for a model that cannot be loaded or is not served.
    """
    arguments = arguments or EngineArguments()
    arguments.check_engine_arguments()
    check_engine(model, arguments)
    if arguments.engine == "openai":
        from a2r_train.engines.openai import OpenAIEngine

        return OpenAIEngine(model, arguments)
    if arguments.engine == "vllm":
        from a2r_train.engines.vllm import VLLMEngine

        return VLLMEngine(model, arguments, own_process)
    from a2r_train.engines.transformers import TransformersEngine

    return TransformersEngine(model, arguments)


def check_engine(model: str, arguments: EngineArguments) -> None:
    """What can be said before weights are loaded.

    Raises InputError for an unknown engine and a folder without weights.
    """
    if arguments.engine == "openai":
        from a2r_train.engines.openai import api_key, base_urls

        base_urls(arguments.endpoint)
        api_key()
        return
    if arguments.engine not in ("transformers", "vllm"):
        raise InputError(f"engine {arguments.engine!r}: expected transformers, vllm or openai")
    if arguments.endpoint:
        raise InputError(f"endpoint: the engine {arguments.engine} has none; expected engine: openai")
    check_weights(model)
    if not model.endswith(".gguf"):
        context_length(model)  # its config can be read, without code that it brings along
    if arguments.engine == "vllm":
        from a2r_train.engines.vllm import check_vllm

        check_vllm()
        if base_of(model).endswith(".gguf"):
            raise InputError(
                f"{model}: vllm reads no GGUF file here; make a folder of it with "
                "`a2r merge`, or use engine: transformers"
            )
