"""The estimate of memory and tokens: against tensors counted in real steps, against sums by hand, and as
`--dry_run` shows it.
"""

import json
import sys
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import measure_memory
import pytest
import torch
from conftest import save_tiny
from test_train import bundle
from transformers import AutoConfig
from trl.trainer import utils

from a2r_train.config import parse
from a2r_train.records import write
from a2r_train.train import grpo, sft
from a2r_train.train.arguments import ModelArguments
from a2r_train.train.estimate import memory
from a2r_train.train.estimate.activations import TokenBytes, trace
from a2r_train.train.estimate.memory import Group
from a2r_train.train.estimate.report import Step, proposals, tokens_of
from a2r_train.train.estimate.report import memory as on_one_gpu

N, E = 8_190_000_000, 622_000_000  # parameters and embedding of a model like Qwen3-8B
SIZE = memory.Size(
    N, N, 36, 4096, E, False, 1024, 4, TokenBytes(16e3, 5e4, 3e5), TokenBytes(8e3, 3e4, 2e5), True
)
LORA = replace(SIZE, parameters=N + 40_000_000, trained=40_000_000, weight_bytes=2)


@pytest.fixture(scope="module", autouse=True)
def narrow() -> Iterator[None]:
    """In all tests, so that each of its sizes is traced once."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(measure_memory.SHAPES, "tiny", (256, 768, 8, 4, 2, 64, 512, True))
        measure_memory.size_at.cache_clear()
        yield


@pytest.mark.parametrize("checkpointing", [True, False])
@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize(("stage", "completions", "groups"), [("sft", 1, 2), ("grpo", 4, 1)])
def test_real_steps_need_what_is_estimated(
    stage: str,
    completions: int,
    groups: int,
    lora: bool,
    checkpointing: bool,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Through TRL's trainers, on the CPU, whose tensors are counted one by one.

    The tiles of the LM head are small here: without Triton TRL makes several copies of them, and would hide
    all else.
    """
    monkeypatch.setattr(utils, "_CHUNKED_LOGPROB_CHUNK_SIZE", 256)
    monkeypatch.setattr(memory, "HEAD_WORDS", 256)
    row = measure_memory.measure(
        measure_memory.Point("tiny", stage, lora, 512, 64, completions, checkpointing, groups)
    )
    assert row["measured_gb"] > 0.03
    assert abs(row["off"]) < 0.15, row


def test_the_script_writes_a_row_as_soon_as_it_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        sys, "argv", ["measure_memory.py", "--shapes", "tiny", "--output", str(tmp_path / "rows.jsonl")]
    )
    measure_memory.main()
    rows = [json.loads(line) for line in (tmp_path / "rows.jsonl").read_text().splitlines()]
    assert [(row["stage"], row["lora"]) for row in rows] == [
        ("sft", True),
        ("sft", False),
        ("grpo", True),
        ("grpo", False),
    ]
    assert all(row["tokens_s"] > 0 and row["seconds"] > 0 for row in rows)


def test_a_size_counts_the_adapters_of_every_layer(tmp_path: Path) -> None:
    name, lora = (
        save_tiny(tmp_path, 0),
        {"use_peft": True, "lora_r": 2, "lora_target_modules": ["q_proj", "v_proj"]},
    )
    config = AutoConfig.from_pretrained(name)
    config.num_hidden_layers = 3
    config.layer_types = ["full_attention"] * 3
    config.save_pretrained(name)
    size = memory.size_of(ModelArguments(model_name_or_path=name, **lora), True)
    assert size.trained == 3 * 2 * 2 * (32 + 32)
    assert size.kv_bytes == 2 * 2 * 3 * 32  # keys and values, bfloat16


def test_a_size_is_that_of_the_weights_as_they_are_trained(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """For vLLM an adapter's base is float32; GRPO drops nothing out, also of an adapter that says so."""
    monkeypatch.setattr("a2r_train.config.PACKAGES", {})  # bitsandbytes is not needed for a size
    named = [
        "--bundles",
        "b",
        "--model_name_or_path",
        tiny,
        "--use_cpu",
        "true",
        "--output_dir",
        str(tmp_path / "out"),
    ]
    lora = [*named, "--use_peft", "true", "--lora_target_modules", "all-linear"]

    def size(*more: str) -> memory.Size:
        _, args, model = parse(grpo.ARGUMENTS, [*lora, *more])
        return memory.size_of(model, False, args)

    assert size().weight_bytes == size("--use_vllm", "true", "--load_in_4bit", "true").weight_bytes * 4 == 2
    assert size("--use_vllm", "true").weight_bytes == 2
    assert size("--use_vllm", "true", "--use_dora", "true").weight_bytes == 4
    assert size("--use_vllm", "true", "--dtype", "bfloat16").weight_bytes == 2
    assert size().plain == size("--lora_dropout", "0").plain == size("--lora_dropout", "0.5").plain
    assert size("--disable_dropout", "false").plain.kept > 1.1 * size().plain.kept
    *_, model = parse(grpo.ARGUMENTS, lora)
    assert memory.size_of(model, False).plain == size("--disable_dropout", "false").plain  # as of SFT


@pytest.mark.parametrize(
    "kind", ["gemma", "gemma3_text", "granite", "llama", "mistral", "olmo2", "phi3", "qwen2", "smollm3"]
)
def test_other_architectures_are_traced(kind: str) -> None:
    sizes: dict[str, Any] = {
        "hidden_size": 64,
        "intermediate_size": 128,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
    }
    config = AutoConfig.for_model(
        kind, vocab_size=64, num_hidden_layers=4, head_dim=32, pad_token_id=0, **sizes
    )
    found = trace(config, lambda model: model, torch.float32, True)
    assert found.kept == pytest.approx(4 * 64, rel=0.01)  # the layer's input in float32
    assert found.work > 10 * found.kept


def test_what_stays_through_a_step_by_hand() -> None:
    def held(size: memory.Size, sharding: str, processes: int) -> tuple[float, float, float]:
        found = memory.update(size, sharding, processes, 1, 1)
        return found.weights / N, found.gradients / N, found.optimizer / N

    assert held(SIZE, "ddp", 1) == (4, 4, 8)  # ZeRO (arXiv 1910.02054) counts 16 bytes a parameter, too
    assert held(SIZE, "zero2", 8) == (2, 2 / 8, 12 / 8)
    assert held(SIZE, "zero3", 8) == (2 / 8, 2 / 8, 12 / 8)
    assert held(SIZE, "fsdp2", 8) == (4 / 8, 4 / 8, 8 / 8)
    assert held(SIZE, "zero3_offload", 8)[::2] == (0, 0)
    weights, _, optimizer = held(LORA, "ddp", 8)
    assert weights == pytest.approx(2 + 4 * 40e6 / N)
    assert optimizer == pytest.approx(8 * 40e6 / N)
    assert memory.update(SIZE, "ddp", 1, 1, 1, reference=True).weights == 8 * N
    assert (
        memory.update(LORA, "ddp", 1, 1, 1, reference=True).weights
        == memory.update(LORA, "ddp", 1, 1, 1).weights
    )


def test_activations_grow_with_tokens_and_without_checkpointing() -> None:
    few, many = (memory.update(LORA, "ddp", 1, tokens, 100).activations for tokens in (1000, 3000))
    assert (many - few) / 2000 == 36 * 16e3 + 5e4 + 3e5
    plain = replace(LORA, checkpointing=False, plain=TokenBytes(25e4, 5e4, 1e5))
    assert memory.update(plain, "ddp", 1, 1000, 100).activations == pytest.approx(
        1000 * (36 * 25e4 + 5e4 + 1e5)
    )


def test_a_shared_prompt_counts_once() -> None:
    dense, shared = Group(8192, 2048, 8), Group(8192, 2048, 8, shared=True)
    assert dense.tokens == 8 * (8192 + 2048)
    assert shared.tokens == 8192 + 8 * 2048
    assert dense.predicted == shared.predicted == 8 * 2048


def test_tokens_of_a_training_by_hand(tiny: str, tmp_path: Path) -> None:
    """Ten steps of 16 completions, four of a group, each generation trained on twice."""
    named = ["--bundles", "b", "--model_name_or_path", tiny, "--use_cpu", "true"]
    named += ["--output_dir", str(tmp_path / "out"), "--max_steps", "10"]
    batch = ["--per_device_train_batch_size", "8", "--gradient_accumulation_steps", "2"]
    _, args, _ = parse(grpo.ARGUMENTS, [*named, *batch, "--num_generations", "4", "--num_iterations", "2"])
    dense, shared = (Step(Group(1000, 500, 4, shared), 2, True) for shared in (False, True))
    generated = 10 * 16 * 500
    assert tokens_of(args, dense, 99) == {"generation": generated / 2, "policy update": 10 * 16 * 1500}
    assert tokens_of(args, shared, 99, validation_completions=6) == {
        "generation": generated / 2,
        "policy update": 10 * 4 * 1000 + generated,
        "validation": 6 * 500,
    }
    _, args, _ = parse(sft.ARGUMENTS, [*named, *batch])
    assert tokens_of(args, Step(Group(1000, 500), 8, True), 99) == {"training": 10 * 16 * 1500}


def test_what_generates_has_its_share() -> None:
    group = Group(2000, 400, 4, shared=True)
    update = on_one_gpu(LORA, Step(group, 1, False), "ddp", 1, 80e9)
    awake = on_one_gpu(LORA, Step(group, 1, False, vllm_share=0.5), "ddp", 1, 80e9)
    assert awake.total == pytest.approx(update.total + 40e9)
    asleep = on_one_gpu(LORA, Step(group, 1, False, vllm_share=0.5, vllm_sleeps=True), "ddp", 1, 80e9)
    assert asleep.total == pytest.approx(
        update.weights + update.optimizer + 40e9
    )  # more than the update needs
    with_transformers = on_one_gpu(LORA, Step(group, 1, False, generates=64), "ddp", 1, 80e9)
    assert with_transformers.generation == 64 * 2400 * LORA.kv_bytes


def test_zero3_gathers_the_model_to_generate() -> None:
    group, bfloat16 = Group(200, 400), 2 * LORA.parameters

    def most(size: memory.Size, sharding: str, **step: Any) -> float:
        return on_one_gpu(size, Step(group, 1, False, generates=64, **step), sharding, 8, 80e9).buffers

    for sharding in ("zero3", "zero3_offload"):
        assert most(LORA, sharding, gathers=True) == most(LORA, sharding, merges=True) == bfloat16
        assert most(SIZE, sharding, gathers=True) == 2 * SIZE.parameters
        assert most(SIZE, sharding, merges=True) < bfloat16  # one weight after the other
    assert most(LORA, "zero2", gathers=True) == 0


def test_copies_of_a_float32_base_stay_without_checkpointing() -> None:
    plain, base = replace(LORA, checkpointing=False), N - 2 * E
    for size, copies in ((LORA, 2 * base / 36), (plain, 2 * base)):
        found = [memory.update(replace(size, weight_bytes=w), "ddp", 1, 9000, 1).activations for w in (2, 4)]
        assert found[1] - found[0] == pytest.approx(copies)


def test_what_is_proposed_fits(tmp_path: Path) -> None:
    name = save_tiny(tmp_path, 0)
    step, model = Step(Group(2000, 400, 4), 16, accumulates=False), ModelArguments(model_name_or_path=name)
    full = memory.size_of(model, False)
    needed = on_one_gpu(full, step, "ddp", 1, 80e9).total
    for share in (0.9, 0.7, 0.5):
        found = next(proposals(model, step, "ddp", 1, share * needed))
        assert on_one_gpu(found.size, found.step, found.sharding, 1, share * needed).total <= share * needed
        assert found.times * found.step.groups == 16
    assert not list(proposals(model, step, "ddp", 1, 1e4))
    group = Step(Group(2000, 400, 4, shared=True), 1, accumulates=False)
    needed = on_one_gpu(full, group, "ddp", 1, 80e9).total
    smaller = [
        p for p in proposals(model, group, "ddp", 1, needed) if p.size.full and not p.step.group.shared
    ]
    assert [p.step.rows for p in smaller if not p.size.checkpointing][-1] == 1  # one of the four at a time
    args: Any = SimpleNamespace(gradient_accumulation_steps=3)
    said = found.in_words(args)
    assert (
        f"per_device_train_batch_size {found.step.rows}, gradient_accumulation_steps {3 * found.times}"
        in said
    )


@pytest.mark.parametrize("stage", [sft, grpo])
def test_a_dry_run_shows_memory_and_tokens(
    stage: Any, tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write([bundle(i) for i in range(4)], tmp_path / "bundles.jsonl")
    named = [
        "--bundles",
        str(tmp_path / "bundles.jsonl"),
        "--model_name_or_path",
        tiny,
        "--output_dir",
        str(tmp_path / "out"),
    ]
    own = ["--num_generations", "2", "--shared_prefix", "true"] if stage is grpo else []
    assert (
        stage.main(
            [*named, *own, "--use_cpu", "true", "--per_device_train_batch_size", "2", "--dry_run", "true"]
        )
        == 0
    )
    shown = capsys.readouterr().out
    for line in (
        "memory: ddp on 1 GPU(s), micro-batch 2\n",
        "full, zero3 ",
        "LoRA, fsdp2 ",
        "million tokens",
    ):
        assert line in shown
    assert ("policy update" if stage is grpo else "training") in shown
    assert "this fits" not in shown  # the recipe's own settings do
