"""The engine at scale: vLLM's `LLM` in this process, or one copy of it in each of several processes.

Prompts and completions are passed as token ids, so that they are the same as with every other engine.
Prefix caching is on: the samples of a chat, and the bundles of a problem, read what they share once. An
adapter is served beside its base.
"""

from __future__ import annotations

import json
import logging
import os
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import BrokenExecutor
from contextlib import suppress
from dataclasses import asdict
from functools import partial
from math import ceil
from pathlib import Path
from typing import Any

from a2r_train.engines.base import (
    Batch,
    Completion,
    Engine,
    EngineArguments,
    Sampling,
    by_token,
    token_ids_of,
    warn_refused,
)
from a2r_train.engines.vllm_copies import Copy, Found, Remote, Request, check_vllm, import_vllm, launched
from a2r_train.errors import InputError
from a2r_train.models import architectures, base_of, count_parameters, load_tokenizer, model_file
from a2r_train.prompts import Chat, Prompter

log = logging.getLogger(__name__)

LORA_RANKS = (8, 16, 32, 64, 128, 256, 320, 512)  # that vLLM supports
MOST_TEMPERATURE = 2.0


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


class VLLMEngine(Engine):
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
        self._busy = False
        self._answer_as(model)
        beside = arguments.copies_per_gpu
        settings = {
            "tensor_parallel_size": arguments.tensor_parallel_size,
            "gpu_memory_utilization": arguments.gpu_memory_utilization / beside,
            **lora_settings(filter(_is_adapter, self.served)),
        }
        dtype, count = arguments.dtype, arguments.data_parallel_size * beside
        if count == 1 and not own_process and not launched():
            self._copies: list[Copy | Remote] = [Copy(self.base, dtype, settings)]
        else:
            copies = [Remote() for _ in range(count)]
            starts = []
            for i, copy in enumerate(copies):
                starts.append(copy.start(i, count, self.base, dtype, settings, beside))
                if beside > 1:  # one after the other, as each measures the free memory
                    starts[-1].result()
            for start in starts:
                start.result()
            self._copies = [*copies]
        self.cache_tokens = [copy.call("cache_tokens").result() for copy in self._copies]
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
        (found,) = self.generate_batches([(chats, seeds)], sampling)
        return found

    def generate_batches(self, batches: Iterable[Batch], sampling: Sampling) -> Iterator[list[Completion]]:
        if sampling.temperature > MOST_TEMPERATURE:
            raise InputError(
                f"temperature is {sampling.temperature:g}; vllm takes at most {MOST_TEMPERATURE:g}"
            )
        if self._busy:
            raise RuntimeError(
                "a call of this engine is under way: between its batches, ask for next_tokens only"
            )
        how = (asdict(sampling), self._prompter.stop_ids(), self._adapter)
        numbered, waiting = enumerate(batches), deque[_Waiting]()
        requests: list[list[Request]] = [[] for _ in self._copies]
        self._busy = more = True
        try:
            while more or waiting:
                while more and not all(requests):  # each copy gets new ones before it runs empty
                    number, batch = next(numbered, (0, None))
                    if more := batch is not None:
                        waiting.append(self._waiting(number, batch, requests))
                self._answered(requests, how, waiting, last=not more)
                while waiting and waiting[0].complete:
                    yield self._completions(waiting.popleft())
        finally:
            self._busy = False
            if waiting:  # the caller took no more, or something failed
                self._forget()

    def _forget(self) -> None:
        """Drop the requests of all copies; a process that has died has none."""
        for copy in self._copies:
            with suppress(BrokenExecutor):
                copy.call("forget").result()

    def _waiting(self, number: int, batch: Batch, requests: list[list[Request]]) -> _Waiting:
        """Add the requests of a batch to those of the copies. The samples of a chat go to one copy, for its
        prefix cache.
        """
        chats, seeds = batch
        prompts = token_ids_of(self._prompter, chats)
        places: dict[tuple[int, ...], int] = {}
        for i, (prompt, seed) in enumerate(zip(prompts, seeds, strict=True)):
            copy = (number + places.setdefault(tuple(prompt), len(places))) % len(requests)
            requests[copy].append(((number, i), prompt, seed if self.seeded else None))
        return _Waiting(number, prompts)

    def _answered(
        self, requests: list[list[Request]], how: Any, waiting: Iterable[_Waiting], last: bool
    ) -> None:
        """Give the copies their requests, and put what they have completed into its batch."""
        given, requests[:] = list(requests), [[] for _ in requests]  # another process reads its part later
        pending = [
            copy.call("advance", own, *how, last) for copy, own in zip(self._copies, given, strict=True)
        ]
        by_number = {one.number: one for one in waiting}
        for result in pending:
            for (number, i), found in result.result():
                by_number[number].found[i] = found

    def _completions(self, done: _Waiting) -> list[Completion]:
        found = [done.found[i] for i in range(len(done.prompts))]
        warn_refused(self.name, sum(reason == "refused" for _, reason, _ in found), len(found))
        self.prompt_tokens += sum(map(len, done.prompts))
        self.cached_prompt_tokens += sum(cached for _, _, cached in found)
        log.debug(
            "%s: %d of %d prompt tokens cached", self.name, self.cached_prompt_tokens, self.prompt_tokens
        )
        return [self._completion(prompt, *one[:2]) for prompt, one in zip(done.prompts, found, strict=True)]

    def next_tokens(self, prompts: Sequence[list[int]]) -> list[dict[str, float]]:
        size = ceil(len(prompts) / len(self._copies)) or 1  # neighbours share a prefix, so they stay together
        shares = [prompts[at : at + size] for at in range(0, len(prompts), size)]
        pending = [
            copy.call("next_tokens", list(share), self._adapter)
            for copy, share in zip(self._copies, shares, strict=False)  # fewer prompts than copies
        ]
        return [by_token(self.tokenizer, one) for result in pending for one in result.result()]

    def _completion(self, prompt: list[int], ids: list[int], reason: str) -> Completion:
        kept = ids[:-1] if reason == "stop" else ids
        return Completion(self._prompter.decode(kept), len(prompt), len(ids), reason)


class _Waiting:
    """A batch whose completions come one by one."""

    def __init__(self, number: int, prompts: list[list[int]]) -> None:
        self.number, self.prompts = number, prompts
        self.found: dict[int, Found] = {}

    @property
    def complete(self) -> bool:
        return len(self.found) == len(self.prompts)


def prepare_colocate() -> None:
    """Give TRL's colocated vLLM a port of its own before the trainer is made, and make it right on the CPU.

    TRL takes one of four ports, and trainings that start at the same time take the same one. On the CPU,
    oneDNN packs weights, and what the trainer then writes into them is lost (with tied embeddings) or
    refused. TRL leaves the dtype to vLLM, which uses bfloat16 for weights that are trained in float32.
    """
    on_cpu = import_vllm()
    from vllm.utils.network_utils import get_open_port

    if not launched():
        os.environ.setdefault("MASTER_PORT", str(get_open_port()))
    if not on_cpu:
        return
    from trl.generation import vllm_generation
    from vllm import LLM, _custom_ops

    _custom_ops._supports_onednn = False
    trl: Any = vllm_generation
    trl.LLM = partial(LLM, dtype="float32", enforce_eager=True, use_tqdm_on_load=False)


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
