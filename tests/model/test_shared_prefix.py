"""The shared prefix computes what TRL's dense batch computes: log-probabilities, entropies, gradients."""

import hashlib
import inspect
import json
import runpy
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import replay
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from peft import LoraConfig, get_peft_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from transformers import AutoConfig, AutoModelForCausalLM, Qwen3Config, Qwen3ForCausalLM
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm
from trl import GRPOTrainer
from trl.trainer import utils as trl_utils
from trl.trainer.utils import (
    add_fused_lm_head,
    disable_dropout_in_model,
    shuffle_sequence_dict,
    split_tensor_dict,
)

from a2r_train.train.shared_prefix import trainer as shared_prefix
from a2r_train.train.shared_prefix.attention import ATTENTION, Sequences, SharedPrefixAttention
from a2r_train.train.shared_prefix.trainer import SharedPrefixGRPOTrainer, pack, regroup

SMALL: dict[str, Any] = {
    "vocab_size": 97, "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 2, "head_dim": 8, "max_position_embeddings": 2048, "pad_token_id": 0,
    "bos_token_id": None,
    "eos_token_id": 2,
}  # fmt: skip
Batch = tuple[torch.Tensor, torch.Tensor, int]
Groups = list[tuple[int, list[int]]]  # the prompt's tokens, and those of each completion


@pytest.fixture(scope="module")
def trainers(
    tiny: str, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[tuple[GRPOTrainer, GRPOTrainer]]:
    """Stock TRL and ours, for their methods; the model is given at each call."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(shared_prefix, "MIN_TOKEN_RATIO", 0.0)
        out = str(tmp_path_factory.mktemp("out"))
        both = replay.trainer_of(tiny, out, False, beta=0.0), replay.trainer_of(tiny, out, True, beta=0.0)
        for trainer in both:
            trainer.model.train()  # what it logs is filed under that
        yield both


def prepared(model: Any, temperature: float = 1.0) -> Any:
    """As the trainers prepare it; the attention is SDPA wherever the mask is not a packed one."""
    add_fused_lm_head(model, temperature=temperature, outputs=("log_probs", "entropy"))
    model.set_attn_implementation(ATTENTION)
    return model.train()


def qwen3(seed: int = 0, **changes: Any) -> Any:
    torch.manual_seed(seed)
    model = Qwen3ForCausalLM(Qwen3Config(**{**SMALL, **changes}))
    model.lm_head.weight.data.mul_(10.0)  # log-probabilities that differ
    return model


def batch_of(groups: Groups, left: int = 0, right: int = 0, seed: int = 0) -> Batch:
    """Random ids as TRL lays them out, with so many columns of padding more than needed."""
    draw = torch.Generator().manual_seed(seed)
    prompt_columns = left + max(p for p, _ in groups)
    completion_columns = right + max(1, *(c for _, lengths in groups for c in lengths))
    rows, masks = [], []
    for prompt, lengths in groups:
        prompt_ids = torch.randint(3, 97, (prompt,), generator=draw)
        for length in lengths:
            ids = torch.zeros(prompt_columns + completion_columns, dtype=torch.long)
            mask = torch.zeros_like(ids)
            ids[prompt_columns - prompt : prompt_columns] = prompt_ids
            # a truncated completion that is masked keeps its ids
            ids[prompt_columns:] = torch.randint(3, 97, (completion_columns,), generator=draw)
            mask[prompt_columns - prompt : prompt_columns + length] = 1
            rows.append(ids)
            masks.append(mask)
    return torch.stack(rows), torch.stack(masks), completion_columns


def computed(
    trainer: GRPOTrainer, model: Any, batch: Batch
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Log-probabilities, entropies, and the gradient of a random weighing of both."""
    model.zero_grad()
    ids, mask, columns = batch
    logps, entropies, _ = trainer._get_per_token_logps_and_entropies(
        model, ids, mask, columns, compute_entropy=True
    )
    draw = torch.Generator().manual_seed(1)
    weigh, weigh_entropy = (torch.randn(logps.shape, generator=draw).to(logps) for _ in range(2))
    ((logps * weigh).sum() + (entropies * weigh_entropy).sum() / 10).backward()
    gradient = torch.cat([p.grad.flatten() for p in model.parameters() if p.grad is not None])
    return logps.detach(), entropies.detach(), gradient


def assert_same(trainers: tuple[GRPOTrainer, GRPOTrainer], model: Any, batch: Batch) -> None:
    (logps, entropies, gradient), ours = (
        computed(trainers[0], model, batch),
        computed(trainers[1], model, batch),
    )
    assert logps.abs().max() > 0 or not batch[1][:, -batch[2] :].any()
    for expected, found in ((logps, ours[0]), (entropies, ours[1])):
        assert found.shape == expected.shape
        assert ((found - expected).abs() <= 1e-5 * expected.abs().clamp(min=1)).all()
    limit = 1e-8 if gradient.dtype == torch.float64 else 1e-4
    assert (ours[2] - gradient).norm() <= limit * gradient.norm()


class ExactHead:
    """TRL's head in the dtype of the model; TRL's own computes in float32 at the most."""

    @staticmethod
    def apply(
        hidden: Any, weight: Any, _bias: Any, labels: Any, temperature: float, *_: Any
    ) -> tuple[Any, ...]:
        logps = (hidden @ weight.t() / temperature).log_softmax(-1)
        return logps.gather(-1, labels[:, None])[:, 0], -(logps.exp() * logps).sum(-1), None, None, None


def exact_norm(self: Any, hidden: torch.Tensor) -> torch.Tensor:
    """Qwen3's in the dtype of the model; its own computes in float32, in which the gradients of G copies add
    up otherwise.
    """
    return self.weight * hidden * (hidden.square().mean(-1, keepdim=True) + self.variance_epsilon).rsqrt()


GROUPS = st.lists(
    st.tuples(st.integers(1, 9), st.lists(st.integers(0, 6), min_size=1, max_size=4)), min_size=1, max_size=3
)  # fmt: skip
MODEL = prepared(qwen3())


@settings(max_examples=40, deadline=None)
@given(groups=GROUPS, left=st.integers(0, 3), right=st.integers(0, 3), seed=st.integers(0, 99))
def test_any_batch_gives_the_dense_result(
    trainers: Any, groups: Groups, left: int, right: int, seed: int
) -> None:
    assert_same(trainers, MODEL, batch_of(groups, left, right, seed))


BATCHES: dict[str, Groups] = {
    "one group": [(7, [5, 3, 0, 5])],
    "several groups": [(7, [5, 3, 0, 5]), (3, [1, 5, 2, 2]), (12, [4, 4, 4, 4])],
    "a long completion": [(5, [11, 1, 2]), (6, [1, 2, 0]), (2, [0, 0])],
    "a prompt of one token": [(1, [5, 3, 2])],
    "groups of one": [(4, [5]), (6, [3]), (1, [2])],
    "nothing that is not masked": [(3, [0, 0]), (2, [0])],
    "nothing at all": [(1, [0, 0])],
}


@pytest.mark.parametrize("batch", BATCHES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize(
    ("tied", "lora", "checkpointing"),
    [(True, False, False), (False, False, True), (True, True, True), (False, True, False)],
)
def test_models_give_the_dense_result(
    trainers: Any,
    batch: str,
    dtype: Any,
    tied: bool,
    lora: bool,
    checkpointing: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if dtype == torch.float64:
        monkeypatch.setattr(trl_utils, "_ChunkedLogProbFunction", ExactHead)
        monkeypatch.setattr(Qwen3RMSNorm, "forward", exact_norm)
    model = prepared(qwen3(tie_word_embeddings=tied), temperature=0.7)
    if lora:
        model = get_peft_model(
            model, LoraConfig(r=2, init_lora_weights=False, target_modules=["q_proj", "v_proj", "up_proj"])
        )
    if checkpointing:
        model.activation_checkpointing_enable({"use_reentrant": False})
        model.enable_input_require_grads()
    assert_same(trainers, model.to(dtype), batch_of(BATCHES[batch], left=2, right=1))


@pytest.mark.parametrize("kind", shared_prefix.SERVED)
def test_served_models_give_the_dense_result(trainers: Any, kind: str) -> None:
    more = (
        {"num_experts": 4, "num_experts_per_tok": 2, "moe_intermediate_size": 16}
        if kind.endswith("moe")
        else {}
    )
    config = AutoConfig.for_model(kind, **{**SMALL, **more, "sliding_window": None})
    args: Any = SimpleNamespace(router_aux_loss_coef=0.0, disable_dropout=True)
    torch.manual_seed(0)
    model = AutoModelForCausalLM.from_config(config, attn_implementation="sdpa")
    assert shared_prefix.refused_model(config, args) == []
    disable_dropout_in_model(model)
    for p in model.parameters():
        p.data.mul_(1.5)  # positions and neighbours matter more than at the start of a training
    assert_same(trainers, prepared(model), batch_of(BATCHES["several groups"], left=2, right=1))


def test_a_batch_may_be_cut_into_micro_batches(trainers: Any) -> None:
    ids, mask, columns = batch_of([(5, [3, 4]), (2, [1, 4]), (4, [2, 2])])
    results = [
        trainer._get_per_token_logps_and_entropies(MODEL, ids, mask, columns, batch_size=2)[0].detach()
        for trainer in trainers
    ]
    torch.testing.assert_close(*results)


def test_rows_are_short_and_lay_out_as_documented() -> None:
    ids, mask, columns = batch_of([(4, [3, 0, 2]), (2, [1])], left=1, right=2)
    packed = pack(ids, mask, columns)
    assert (packed.source % 10).tolist() == [1, 2, 3, 3, 4, 5, 6, 4, 5, 4]
    assert packed.target.tolist() == [-1, -1, -1, -1, 5, 6, 7, 25, 26, 35]
    groups = packed.groups
    assert groups.own.stops == (0, 3, 4, 7, 9, 10)
    assert (groups.prompts.stops, groups.answers.stops, groups.begin) == ((0, 3, 4), (0, 5, 6), 4)
    assert groups.answers.offsets.tolist() == [0, 5, 6]
    assert (groups.own.longest, groups.answers.longest) == (3, 5)
    assert packed.token_ratio == 4 * 10 / 10
    whole = pack(*batch_of([(512, [64] * 8)]))
    assert whole.token_ratio == 8 * (512 + 64) / (512 - 1 + 8 * 64)


def test_groups_that_attend_across_come_first() -> None:
    packed = pack(*batch_of([(1, [2, 1]), (3, [0, 0]), (4, [3, 0])]))
    groups = packed.groups
    assert packed.source.tolist()[:3] == [28, 29, 30]  # the shared tokens of the last group
    assert groups.own.stops == (0, 3, 6, 9, 11, 12)
    assert (groups.prompts.stops, groups.answers.stops, groups.begin) == ((0, 3), (0, 3), 6)


def test_other_masks_are_an_error() -> None:
    ids, mask, columns = batch_of([(4, [3, 2])])
    for row, column in ((0, 1), (1, 4)):  # a hole in the prompt, one in the completion
        spoilt = mask.clone()
        spoilt[row, column] = 0
        with pytest.raises(ValueError, match="the mask has holes"):
            pack(ids, spoilt, columns)


def test_short_prompts_stay_dense(trainers: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shared_prefix, "MIN_TOKEN_RATIO", 2.0)
    ours, seen = trainers[1], []
    hook = MODEL.register_forward_pre_hook(
        lambda _, __, kwargs: seen.append(kwargs["input_ids"].shape), with_kwargs=True
    )
    for groups in ([(2, [9] * 4)], [(40, [9] * 4)]):
        assert_same(trainers, MODEL, batch_of(groups))
    hook.remove()
    assert [tuple(shape) for shape in seen] == [(4, 11), (4, 11), (4, 49), (1, 39 + 4 * 9)]
    assert ours._metrics["train"]["shared_prefix/token_ratio"][-2:] == [1.0, 4 * 49 / (39 + 36)]


# The kernels


def cuda_batch(groups: Groups, **more: int) -> Batch:
    ids, mask, columns = batch_of(groups, **more)
    return ids.cuda(), mask.cuda(), columns


@pytest.mark.parametrize("groups", BATCHES.values(), ids=BATCHES)
def test_the_kernels_of_a_gpu_take_what_they_are_given(groups: Groups) -> None:
    """Without values: names, order and shapes of the arguments as this torch declares them."""
    packed = pack(*batch_of(groups))

    def placed(sequences: Sequences) -> Sequences:
        return replace(sequences, offsets=sequences.offsets.to("meta"))

    own, prompts, answers = map(placed, (packed.groups.own, packed.groups.prompts, packed.groups.answers))
    on_gpu = replace(packed.groups, own=own, prompts=prompts, answers=answers)
    tokens = len(packed.source)
    made = {"device": "meta", "dtype": torch.bfloat16, "requires_grad": True}
    query, key, value = (torch.empty(tokens, heads, 64, **made) for heads in (4, 2, 2))
    out = SharedPrefixAttention.apply(query, key, value, on_gpu, 0.125)
    grads = torch.autograd.grad(out, (query, key, value), torch.empty_like(out))
    assert [tuple(grad.shape) for grad in grads] == [(tokens, heads, 64) for heads in (4, 2, 2)]


def test_autocast_gives_the_kernels_one_dtype(trainers: Any) -> None:
    ids, mask, columns = batch_of(BATCHES["several groups"], left=3)
    with torch.autocast("cpu"):
        dense, shared = (t._get_per_token_logps_and_entropies(MODEL, ids, mask, columns)[0] for t in trainers)
    assert (shared - dense).abs().max() < 0.1


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs CUDA")
def test_on_a_gpu_bf16_is_as_near_to_float32_as_dense_bf16(trainers: Any) -> None:
    exact, rounded = (
        prepared(qwen3(head_dim=64)).to("cuda", dtype) for dtype in (torch.float32, torch.bfloat16)
    )
    for length in (1, 64, 129, 700):
        batch = cuda_batch(
            [(length, [length // 4, 130, 7, 0]), (length // 2 + 1, [9, 9, 64, 1])], seed=length
        )
        logps, _, gradient = computed(trainers[0], exact, batch)
        with sdpa_kernel([SDPBackend.FLASH_ATTENTION, SDPBackend.MATH]):  # MATH: dense has a mask
            results = [computed(trainer, rounded, batch) for trainer in trainers]
        off = [float((result[0] - logps).norm() / logps.norm()) for result in results]
        off_gradient = [float((result[2].float() - gradient).norm() / gradient.norm()) for result in results]
        for dense, shared in (off, off_gradient):
            assert shared < 2 * dense + 1e-3
            assert dense < 0.1


def test_the_benchmark_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script = str(Path(__file__).parents[2] / "scripts" / "benchmarks" / "bench_shared_prefix.py")
    rows = tmp_path / "rows.jsonl"
    quick = ["--shape", "tiny", "--prompts", "128", "--repeats", "1", "--steps", "2", "--output", str(rows)]
    monkeypatch.setattr(sys, "argv", [script, *quick])
    monkeypatch.setattr(shared_prefix, "MIN_TOKEN_RATIO", 0.0)
    runpy.run_path(script, run_name="__main__")
    found = [json.loads(line) for line in rows.read_text().splitlines()]
    assert found[0]["ok"]
    assert [row["speedup"] > 0 for row in found if "asked" in row] == [True]
    assert [row["graphs"] for row in found if "lengths" in row] == [0]


# What of TRL is relied on


@pytest.mark.parametrize(
    ("function", "digest"),
    [
        (GRPOTrainer._get_per_token_logps_and_entropies, "ea73c3909275"),
        (GRPOTrainer._prepare_inputs, "f824e7fb0714"),
        (shuffle_sequence_dict, "bab038755e57"),
        (split_tensor_dict, "b61a5760a03e"),
        (add_fused_lm_head, "422d009f04b6"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_trl_is_what_was_read(function: Any, digest: str) -> None:
    """Where this fails, read the function anew beside a2r_train/train/shared_prefix/trainer.py, and then
    change the digest.
    """
    assert hashlib.sha256(inspect.getsource(inspect.unwrap(function)).encode()).hexdigest()[:12] == digest


def test_the_overridden_methods_take_what_trl_gives() -> None:
    for name in ("_get_per_token_logps_and_entropies", "_prepare_inputs"):
        ours, theirs = (
            inspect.signature(getattr(kind, name)) for kind in (SharedPrefixGRPOTrainer, GRPOTrainer)
        )
        named = [p for p in ours.parameters.values() if p.kind != p.VAR_KEYWORD]
        expected = list(theirs.parameters.values())[: len(named)]
        assert [(p.name, p.default) for p in named] == [(p.name, p.default) for p in expected]


def micro_batches(trainer: GRPOTrainer) -> list[torch.Tensor]:
    """The prompts of the micro-batches of one generation."""
    rows = [{"prompt": prompt} for prompt in replay.PROMPTS[:4] for _ in range(replay.GROUP)]
    trainer.model.train()
    trainer._buffered_inputs = None
    first = trainer._prepare_inputs(rows)
    assert first is trainer._buffered_inputs[0]
    return trainer._buffered_inputs


def test_groups_stay_whole_in_our_micro_batches_and_not_in_those_of_trl(tiny: str, tmp_path: Any) -> None:
    split: dict[str, Any] = {
        "per_device_train_batch_size": replay.GROUP,
        "steps_per_generation": 4,
        "beta": 0.0,
    }
    stock, ours = (
        micro_batches(replay.trainer_of(tiny, str(tmp_path), shared, **split)) for shared in (False, True)
    )
    prompts = [len(torch.unique(batch["prompt_ids"], dim=0)) for batch in ours]
    assert prompts == [1, 1, 1, 1]
    assert max(len(torch.unique(batch["prompt_ids"], dim=0)) for batch in stock) > 1
    for key in ("prompt_ids", "completion_ids", "advantages", "old_per_token_logps"):
        rows = [sorted(torch.cat([batch[key] for batch in batches]).tolist()) for batches in (stock, ours)]
        torch.testing.assert_close(*map(torch.tensor, rows))


def test_regroup_keeps_rows_together_with_what_belongs_to_them() -> None:
    prompt = torch.tensor([[0, 1], [2, 3], [5, 1], [2, 3], [0, 1], [5, 1]])
    mask = torch.tensor([[0, 1], [1, 1], [0, 1], [1, 1], [0, 1], [0, 1]])  # a masked token tells nothing
    rows = {
        "prompt_ids": prompt,
        "prompt_mask": mask,
        "advantages": torch.arange(6),
        "total": torch.tensor(7),
        "none": None,
    }
    batches = regroup(split_tensor_dict(rows, 3))
    assert torch.cat([batch["advantages"] for batch in batches]).tolist() == [0, 2, 4, 5, 1, 3]
    assert all(batch["total"] == 7 and batch["none"] is None for batch in batches)
