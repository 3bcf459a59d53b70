"""The engine that always works: transformers' `generate` on left-padded batches, with one seed a
completion.
"""

from __future__ import annotations

import logging
from collections.abc import Sequence
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

from a2r_train.engines.base import Completion, EngineArguments, Sampling, tell_refused, token_ids_of
from a2r_train.models import context_length, load_model, load_tokenizer
from a2r_train.prompts import Chat, Prompter

log = logging.getLogger(__name__)
READ_TOKENS = (
    131_072  # prompt tokens in one forward, with padding; a layer of 10,000 columns makes 2.6 GB of them
)
GO_ON_TOKENS = 32  # so many tokens on, the completions that ended leave the batch
JOINED = {DynamicLayer, DynamicSlidingWindowLayer}  # layers of a cache that are no more than keys and values


class SeededDraw(LogitsProcessor):
    """Draws each row's next token with that row's own random numbers, by inverting the cumulative
    distribution.

    The number of row i at step t is a hash of (seed i, t) (splitmix64; Steele, Lea and Flood, 2014), so a
    completion depends on its seed and its prompt alone, not on its place in the batch. All scores but the
    drawn token's become -inf.
    """

    def __init__(self, seeds: Sequence[int], prompt_width: int) -> None:
        self.seeds = np.array([seed & 0xFFFFFFFFFFFFFFFF for seed in seeds], dtype=np.uint64)
        self.prompt_width = prompt_width

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        step = input_ids.shape[1] - self.prompt_width
        numbers = torch.from_numpy(uniform(self.seeds, step)).to(scores.device)
        cumulative = scores.double().softmax(-1).cumsum(-1)
        drawn = torch.searchsorted(cumulative, numbers[:, None] * cumulative[:, -1:], right=True)
        drawn = drawn.clamp(max=scores.shape[-1] - 1)
        return torch.full_like(scores, -torch.inf).scatter_(1, drawn, 0.0)


def uniform(seeds: np.ndarray, step: int) -> np.ndarray:
    """Numbers in [0, 1), one a seed, of a given step."""
    with np.errstate(over="ignore"):
        x = _mix(_mix(seeds) + np.uint64(step))
    return (x >> np.uint64(11)).astype(np.float64) * 2.0**-53


def _mix(x: np.ndarray) -> np.ndarray:
    x = x + np.uint64(0x9E3779B97F4A7C15)
    x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return np.asarray(x ^ (x >> np.uint64(31)))


class TransformersEngine:
    """One model on one device. `batch_size` is the most completions made at once; chats of like length are
    put together.

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
            # cuDNN plans anew for each length of the cache, which is every token
            torch.backends.cuda.enable_cudnn_sdp(False)
        self.model: Any = load_model(model, arguments.dtype).to(self.device)
        self.parameters = int(self.model.num_parameters())
        self._prompter = Prompter(self.tokenizer)
        self.model.generation_config = self._settings(self.model.generation_config)
        self._joins = {type(layer) for layer in DynamicCache(config=self.model.config).layers} <= JOINED

    def generate(self, chats: Sequence[Chat], sampling: Sampling, seeds: Sequence[int]) -> list[Completion]:
        prompts = token_ids_of(self._prompter, chats)
        order = sorted(
            (i for i in range(len(prompts)) if len(prompts[i]) < self.context),
            key=lambda i: (len(prompts[i]), i),
        )
        tell_refused(self.name, len(prompts) - len(order), len(prompts))
        done = {i: Completion("", len(prompt), 0, "refused") for i, prompt in enumerate(prompts)}
        for at in range(0, len(order), self.batch_size):
            pick = order[at : at + self.batch_size]
            batch = self._batch([prompts[i] for i in pick], sampling, [seeds[i] for i in pick])
            done.update(zip(pick, batch, strict=True))
        return [done[i] for i in range(len(prompts))]

    @torch.inference_mode()
    def _batch(self, prompts: list[list[int]], sampling: Sampling, seeds: list[int]) -> list[Completion]:
        inputs = self.tokenizer.pad({"input_ids": prompts}, padding_side="left", return_tensors="pt").to(
            self.device
        )
        width = inputs["input_ids"].shape[1]
        left = min(sampling.max_completion_tokens, self.context - min(map(len, prompts)))
        given, going, done = (
            {**inputs, **self._read(prompts, inputs)},
            list(range(len(prompts))),
            dict[int, list[int]](),
        )
        stops = torch.tensor(sorted(self._stop_ids()), device=self.device)
        while going:
            steps, before = min(left, GO_ON_TOKENS) if self._joins else left, given["input_ids"].shape[1]
            made = self._go_on(given, steps, _processors(sampling, [seeds[i] for i in going], width))
            left -= made.sequences.shape[1] - before
            ended = torch.isin(made.sequences[:, before:], stops).any(1) | (left == 0)
            done.update(zip(_picked(going, ended), made.sequences[ended, width:].tolist(), strict=True))
            going = _picked(going, ~ended)
            if going:
                given = _rows(made, given["attention_mask"], (~ended).nonzero().flatten())
        return [self._completion(len(p), done[i][: self.context - len(p)]) for i, p in enumerate(prompts)]

    def _settings(self, own: GenerationConfig) -> GenerationConfig:
        """Of what the model brings along, the ends of its turn alone: its penalties and lengths hold in no
        engine.
        """
        pad = self.tokenizer.pad_token_id if own.pad_token_id is None else own.pad_token_id
        ends = own.eos_token_id if isinstance(own.eos_token_id, list) else [own.eos_token_id]
        stops = sorted({i for i in ends if i is not None} | set(self._prompter.stop_ids()))
        return GenerationConfig(do_sample=False, use_cache=True, eos_token_id=stops or None, pad_token_id=pad)  # type: ignore[no-untyped-call]

    def _go_on(self, given: dict[str, Any], steps: int, processors: LogitsProcessorList) -> Any:
        return self.model.generate(
            **given, max_new_tokens=steps, logits_processor=processors, return_dict_in_generate=True
        )

    def _read(self, prompts: list[list[int]], inputs: Any) -> dict[str, Any]:
        """The keys and values of all but the last prompt token: of equal prompts once, and so many prompts at
        a time that memory allows a larger batch than one forward of all could have. Nothing if `generate` can
        as well read them itself."""
        firsts = {tuple(prompt): i for i, prompt in reversed(list(enumerate(prompts)))}
        rows, tokens = sorted(firsts.values()), inputs["input_ids"].shape[1] - 1
        at_once = max(1, READ_TOKENS // max(1, tokens)) if self._joins else len(rows)
        if tokens == 0 or len(prompts) == len(rows) <= at_once:
            return {}
        read = _joined(
            [self._read_part(inputs, rows[at : at + at_once]) for at in range(0, len(rows), at_once)]
        )
        if len(rows) < len(prompts):
            place = {row: i for i, row in enumerate(rows)}
            read.batch_select_indices(
                torch.tensor([place[firsts[tuple(p)]] for p in prompts], device=self.device)
            )
        return {"past_key_values": read}

    def _read_part(self, inputs: Any, rows: list[int]) -> Any:
        mask = inputs["attention_mask"][rows, :-1]
        return self.model(
            input_ids=inputs["input_ids"][rows, :-1],
            attention_mask=mask,
            position_ids=(mask.cumsum(-1) - 1).clamp(min=0),
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


def _picked(items: list[int], mask: torch.Tensor) -> list[int]:
    return [item for item, picked in zip(items, mask.tolist(), strict=True) if picked]


def _rows(made: Any, mask: torch.Tensor, stay: torch.Tensor) -> dict[str, Any]:
    """What `generate` goes on from for some rows of what it made."""
    made.past_key_values.batch_select_indices(stay)
    ids = made.sequences[stay]
    mask = torch.nn.functional.pad(mask[stay], (0, ids.shape[1] - mask.shape[1]), value=1)
    return {"input_ids": ids, "attention_mask": mask, "past_key_values": made.past_key_values}


def _joined(parts: list[Any]) -> Any:
    """One cache of several with rows of the same width; a layer at a time, and the parts are freed on the
    way.
    """
    whole, *others = parts
    for i, layer in enumerate(whole.layers if others else []):
        layers = [layer, *(part.layers[i] for part in others)]
        layer.keys, layer.values = (
            torch.cat([getattr(one, name) for one in layers]) for name in ("keys", "values")
        )
        for one in layers[1:]:
            one.keys = one.values = None
    return whole


def _processors(sampling: Sampling, seeds: list[int], width: int) -> LogitsProcessorList:
    if sampling.temperature == 0:
        return LogitsProcessorList()
    chosen: list[LogitsProcessor] = [TemperatureLogitsWarper(sampling.temperature)]
    if sampling.top_k:
        chosen.append(TopKLogitsWarper(sampling.top_k))
    if sampling.top_p < 1:
        chosen.append(TopPLogitsWarper(sampling.top_p))
    return LogitsProcessorList([*chosen, SeededDraw(seeds, width)])
