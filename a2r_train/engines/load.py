"""The engine keys of a recipe, and the engine that they name."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from typing import TYPE_CHECKING, Any

from a2r_train.config import check_least
from a2r_train.engines.base import DTYPES, Engine
from a2r_train.errors import InputError
from a2r_train.models import base_of, check_weights, context_length

if TYPE_CHECKING:
    pass


@dataclass(kw_only=True)
class EngineArguments:
    """The keys of a recipe that say how its models generate; part of every stage's config that has an
    engine.
    """

    engine: str = field(
        default="transformers", metadata={"help": "what generates: transformers, vllm or openai"}
    )
    dtype: str = field(
        default="auto",
        metadata={"help": f"of {', '.join(DTYPES)}; auto is bfloat16 on a GPU, float32 on a CPU"},
    )
    batch_size: int = field(default=64, metadata={"help": "of transformers: completions generated at once"})
    tensor_parallel_size: int = field(
        default=1, metadata={"help": "of vllm: GPUs that share one copy of the model"}
    )
    data_parallel_size: int = field(default=1, metadata={"help": "of vllm: copies of the model"})
    gpu_memory_utilization: float = field(
        default=0.9, metadata={"help": "of vllm: share of a GPU's memory that it may take"}
    )
    endpoint: str = field(default="", metadata={"help": "of openai: base URLs of servers, comma-separated"})
    max_concurrent_requests: int = field(
        default=64, metadata={"help": "of openai: requests under way at each endpoint"}
    )
    request_deadline_s: float = field(
        default=600.0, metadata={"help": "of openai: seconds until a request counts as lost"}
    )
    seeded: bool = field(
        default=True,
        metadata={
            "help": "of vllm and openai: each completion has a seed, and comes "
            "again; false leaves it out and is faster"
        },
    )

    def check_engine_arguments(self) -> None:
        """Raise InputError for a value that makes no sense for any model."""
        check_least(
            self, batch_size=1, tensor_parallel_size=1, data_parallel_size=1, max_concurrent_requests=1
        )
        check_least(self, request_deadline_s=1)
        if not 0 < self.gpu_memory_utilization <= 1:
            raise InputError(
                f"gpu_memory_utilization is {self.gpu_memory_utilization:g}; "
                "expected a share above 0, at most 1"
            )
        _check_dtype(self.dtype)

    def engine_options(self) -> dict[str, Any]:
        """What `load_engine` takes beside engine and model."""
        return {f.name: getattr(self, f.name) for f in fields(EngineArguments) if f.name != "engine"}


# What a run may go on with: it changes where and how fast completions are made, not which.
ENGINE_MAY_DIFFER = tuple(
    f.name for f in fields(EngineArguments) if f.name not in ("engine", "dtype", "seeded")
)


def load_engine(
    kind: str,
    model: str,
    *,
    batch_size: int = 64,
    dtype: str = "auto",
    tensor_parallel_size: int = 1,
    data_parallel_size: int = 1,
    gpu_memory_utilization: float = 0.9,
    own_process: bool = False,
    endpoint: str = "",
    max_concurrent_requests: int = 64,
    request_deadline_s: float = 600.0,
    seeded: bool = True,
) -> Engine:
    """Start an engine by name; `own_process` is for vllm, whose memory is then free again when the engine is
    gone.

    Raises InputError for an unknown name or dtype and for a model that cannot be loaded or is not served.
    """
    check_engine(kind, model, endpoint)
    _check_dtype(dtype)
    if kind == "openai":
        from a2r_train.engines.openai import OpenAIEngine

        return OpenAIEngine(
            model,
            endpoint,
            max_concurrent_requests=max_concurrent_requests,
            request_deadline_s=request_deadline_s,
            seeded=seeded,
        )
    if kind == "vllm":
        from a2r_train.engines.vllm import VLLMEngine

        return VLLMEngine(
            model,
            dtype=dtype,
            tensor_parallel_size=tensor_parallel_size,
            data_parallel_size=data_parallel_size,
            gpu_memory_utilization=gpu_memory_utilization,
            own_process=own_process,
            seeded=seeded,
        )
    from a2r_train.engines.transformers import TransformersEngine

    return TransformersEngine(model, batch_size=batch_size, dtype=dtype)


def _check_dtype(dtype: str) -> None:
    if dtype not in DTYPES:
        raise InputError(f"dtype {dtype!r}: expected {', '.join(DTYPES[:-1])} or {DTYPES[-1]}")


def check_engine(kind: str, model: str, endpoint: str = "") -> None:
    """What can be said before weights are loaded.

    Raises InputError for an unknown engine and a folder without weights.
    """
    if kind == "openai":
        from a2r_train.engines.openai import api_key, base_urls

        base_urls(endpoint)
        api_key()
        return
    if kind not in ("transformers", "vllm"):
        raise InputError(f"engine {kind!r}: expected transformers, vllm or openai")
    if endpoint:
        raise InputError(f"endpoint: the engine {kind} has none; expected engine: openai")
    check_weights(model)
    if not model.endswith(".gguf"):
        context_length(model)  # its config can be read, without code that it brings along
    if kind == "vllm":
        from a2r_train.engines.vllm import check_vllm

        check_vllm()
        if base_of(model).endswith(".gguf"):
            raise InputError(
                f"{model}: vllm reads no GGUF file here; make a folder of it with "
                "`a2r merge`, or use engine: transformers"
            )
