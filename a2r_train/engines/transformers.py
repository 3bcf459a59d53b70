"""The engine that always works: transformers' `generate` on left-padded batches, one seed per completion."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from accelerate import PartialState
from transformers import (
    DynamicCache,
    GenerationConfig,
    LogitsProcessor,
    LogitsProcessorList,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)
from transformers.cache_utils import DynamicLayer, DynamicSlidingWindowLayer

from a2r_train.engines.base import (
    MOST_TOKENS_TOLD,
    Batch,
    Completion,
    Engine,
    EngineArguments,
    Sampling,
    by_token,
)
from a2r_train.engines.rows import Rows, joined
from a2r_train.engines.waiting import Queue
from a2r_train.models import context_length, load_model, load_tokenizer
from a2r_train.prompts import Chat, Prompter

log = logging.getLogger(__name__)
READ_TOKENS = (
    131_072  # prompt tokens in one forward, with padding; a layer of 10,000 columns needs 2.6 GB for them
)
GO_ON_TOKENS = 32  # after this many tokens, the completions that ended leave the batch
REFILL_SHARE = 0.25  # of a batch that must be free before others join, as this copies the whole cache
JOINED = {DynamicLayer, DynamicSlidingWindowLayer}  # cache layers that are only keys and values


class SeededDraw(LogitsProcessor):
    """Draws each row's next token with that row's own random numbers, by inverting the cumulative
    distribution.

    The number of row i at step t is a hash of (seed i, t) (splitmix64; Steele, Lea and Flood, 2014), so a
    completion depends on its seed and its prompt alone, not on its place in the batch. All scores but the
    drawn token's become -inf.
    """

    def __init__(self, seeds: Sequence[int], begins: Sequence[int]) -> None:
        """begins: the column at which the completion of each row begins."""
        self.seeds = np.array([seed & 0xFFFFFFFFFFFFFFFF for seed in seeds], dtype=np.uint64)
        self.begins = np.array(begins)

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        numbers = torch.from_numpy(uniform(self.seeds, input_ids.shape[1] - self.begins)).to(scores.device)
        cumulative = scores.double().softmax(-1).cumsum(-1)
        drawn = torch.searchsorted(cumulative, numbers[:, None] * cumulative[:, -1:], right=True)
        drawn = drawn.clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)


def uniform(seeds: np.ndarray, steps: np.ndarray) -> np.ndarray:
    """Numbers in [0, 1), one per seed, at the given step of each."""
    with np.errstate(over="ignore"):
        x = _mix(_mix(seeds) + steps.astype(np.uint64))
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(x: np.ndarray) -> np.ndarray:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


class TransformersEngine(Engine):
    """One model on one device. `batch_size` is the most completions made at once; chats of similar length are
    batched together.

    A prompt that fills the model's context is refused, and a completion ends where the context does, as in
    vLLM.
    """

    def __init__(self, model: str, arguments: EngineArguments | None = None) -> None:
        arguments = arguments or EngineArguments()
        self.name = model
        self.tokenizer = load_tokenizer(model)
        self.batch_size, self.context = arguments.batch_size, context_length(model)
        device = PartialState().device  # each rank has its own GPU; the draws need float64, which MPS lacks
        self.device = device if device.type == "cuda" else torch.device("cpu")
        if self.device.type == "cuda":
            # cuDNN makes a new plan for each length of the cache, so for every token
            torch.backends.cuda.enable_cudnn_sdp(False)
        self.model: Any = load_model(model, arguments.dtype).to(self.device)
        self.parameters = int(self.model.num_parameters())
        self._prompter = Prompter(self.tokenizer)
        self.model.generation_config = self._settings(self.model.generation_config)
        layers = {type(layer) for layer in DynamicCache(config=self.model.config).layers}
        self._joins, self._refills = layers <= JOINED, layers <= {DynamicLayer}

    def generate(self, chats: Sequence[Chat], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        (found,) = self.generate_batches([(chats, seeds)], sampling)
        return found

    @torch.inference_mode()
    def generate_batches(self, batches: Iterable[Batch], sampling: Sampling) -> Iterator[list[Completion]]:
        """Completions that have ended leave their places. Once REFILL_SHARE of the places are free, the next
        prompts take them, if the cache allows it.
        """
        queue = Queue(batches, self._prompter, self.context, sampling.max_completion_tokens, self.name)
        stops = torch.tensor(sorted(self._stop_ids()), device=self.device)
        rows: Rows | None = None
        while True:
            queue.draw(self.batch_size)
            rows = self._refilled(rows, queue)
            yield from queue.completed()
            if rows is None:
                return
            rooms, before = [queue.rooms[i] for i in rows.numbers], rows.ids.shape[1]
            room = torch.tensor(rooms).to(self.device)
            left = room - rows.lengths()
            steps = min(int(left.min()), GO_ON_TOKENS) if self._joins else int(left.max())
            rows = self._go_on(rows, steps, sampling, queue.seeds)
            ended = torch.isin(rows.ids[:, before:], stops).any(1) | (rows.lengths() >= room)
            for i, ids in rows.completions(ended):
                queue.done[i] = self._completion(len(queue.prompts[i]), ids[: queue.rooms[i]])
            rows = rows.only(~ended)

    @torch.inference_mode()
    def next_tokens(self, prompts: Sequence[list[int]]) -> list[dict[str, float]]:
        found: list[dict[str, float]] = [{}] * len(prompts)
        order = sorted(
            (i for i in range(len(prompts)) if len(prompts[i]) < self.context), key=lambda i: len(prompts[i])
        )
        while order:
            at_once = max(1, min(self.batch_size, READ_TOKENS // len(prompts[order[-1]])))
            order, pick = order[:-at_once], order[-at_once:]
            inputs = self._padded([prompts[i] for i in pick])
            logits = self.model(**inputs, position_ids=_positions(inputs["attention_mask"]), logits_to_keep=1)
            most = logits.logits[:, -1].float().softmax(-1).topk(MOST_TOKENS_TOLD)
            for i, ids, values in zip(pick, most.indices.tolist(), most.values.tolist(), strict=True):
                found[i] = by_token(self.tokenizer, dict(zip(ids, values, strict=True)))
        return found

    def _padded(self, prompts: list[list[int]]) -> Any:
        inputs = self.tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt")
        return inputs.to(self.device)

    def _started(self, numbers: list[int], queue: Queue, read: bool = False) -> Rows:
        """Rows of the prompts of these numbers; `read` if the cache has to hold them."""
        prompts = [queue.prompts[i] for i in numbers]
        inputs = self._padded(prompts)
        ids, mask = inputs["input_ids"], inputs["attention_mask"]
        begins = torch.full((len(numbers),), ids.shape[1], device=self.device)
        return Rows(numbers, begins, ids, mask, self._read(prompts, inputs, read))

    def _refilled(self, rows: Rows | None, queue: Queue) -> Rows | None:
        """The rows with the next prompts in free places; None if there are no rows."""
        if rows is None or not rows.numbers:
            first = queue.taken(self.batch_size)
            return self._started(first, queue) if first else None
        free = self.batch_size - len(rows.numbers)
        short = any(len(queue.prompts[i]) < 2 for i in queue.waiting[:free])  # its cache would be empty
        if not queue.waiting or not self._refills or free < REFILL_SHARE * self.batch_size or short:
            return rows
        return rows.with_more(self._started(queue.taken(free), queue, read=True))

    def _settings(self, own: GenerationConfig) -> GenerationConfig:
        """Of the model's own settings, only the tokens that end its turn: no engine uses its penalties and
        lengths.
        """
        pad = self.tokenizer.pad_token_id if own.pad_token_id is None else own.pad_token_id
        ends = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
        stops = sorted({i for i in ends if i is not None} | set(self._prompter.stop_ids()))
        return GenerationConfig(do_sample=False, use_cache=True, eos_token_id=stops or None, pad_token_id=pad)  # type: ignore[no-untyped-call]

    def _go_on(self, rows: Rows, steps: int, sampling: Sampling, seeds: Mapping[int, int]) -> Rows:
        made = self.model.generate(
            **rows.inputs(),
            max_new_tokens=steps,
            logits_processor=_processors(sampling, [seeds[i] for i in rows.numbers], rows.begins.tolist()),
            return_dict_in_generate=True,
        )
        return rows.grown(made)

    def _read(self, prompts: list[list[int]], inputs: Any, always: bool) -> Any:
        """The keys and values of all but the last prompt token. Equal prompts are read once, and only some at
        a time, so that the batch can be larger than one forward of all would allow. None if `generate` can
        just as well read them itself, unless `always`."""
        if not self._joins:  # such a cache cannot be cut to rows or repeated, either
            return None
        firsts = {tuple(prompt): i for i, prompt in reversed(list(enumerate(prompts)))}
        rows, tokens = sorted(firsts.values()), inputs["input_ids"].shape[1] - 1
        at_once = max(1, READ_TOKENS // max(1, tokens))
        if tokens == 0 or (len(prompts) == len(rows) <= at_once and not always):
            return None
        read = joined(
            [self._read_part(inputs, rows[at : at + at_once]) for at in range(0, len(rows), at_once)]
        )
        if len(rows) < len(prompts):
            place = {row: i for i, row in enumerate(rows)}
            read.batch_select_indices(
                torch.tensor([place[firsts[tuple(p)]] for p in prompts], device=self.device)
            )
        return read

    def _read_part(self, inputs: Any, rows: list[int]) -> Any:
        mask = inputs["attention_mask"][rows, :-1]
        return self.model(
            input_ids=inputs["input_ids"][rows, :-1],
            attention_mask=mask,
            position_ids=_positions(mask),
            use_cache=True,
            logits_to_keep=1,
        ).past_key_values

    def _completion(self, prompt_tokens: int, ids: list[int]) -> Completion:
        stops = self._stop_ids()
        end = next((i for i, token in enumerate(ids) if token in stops), None)
        kept = ids if end is None else ids[:end]
        reason = "length" if end is None else "stop"
        return Completion(self._prompter.decode(kept), prompt_tokens, len(kept) + (end is not None), reason)

    def _stop_ids(self) -> set[int]:
        ids = self.model.generation_config.eos_token_id
        ids = ids if isinstance(ids, list) else [ids]
        return {i for i in (*ids, self.tokenizer.eos_token_id) if i is not None}


def _positions(mask: torch.Tensor) -> torch.Tensor:
    return (mask.cumsum(-1) - 1).clamp(min=0)


def _processors(sampling: Sampling, seeds: list[int], begins: list[int]) -> LogitsProcessorList:
    if sampling.temperature == 0:
        return LogitsProcessorList()
    chosen: list[LogitsProcessor] = [TemperatureLogitsWarper(float(sampling.temperature))]
    if sampling.top_k:
        chosen.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        chosen.append(TopPLogitsWarper(sampling.top_p))
    return LogitsProcessorList([*chosen, SeededDraw(seeds, begins)])
