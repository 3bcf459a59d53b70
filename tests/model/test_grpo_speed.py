"""What makes a GRPO step with vLLM faster computes what TRL computes: the weights that the engine gets, and
the trained ones without the pass for the old log-probabilities.
"""

import gc
import inspect
import math
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import replay
import torch
from peft import LoraConfig, get_peft_model
from peft.tuners.lora import LoraLayer
from transformers import AutoModelForCausalLM
from trl.generation import vllm_generation
from trl.generation.vllm_generation import VLLMGeneration
from trl.trainer import grpo_trainer

from a2r_train.train.lean import LeanGRPOTrainer, frozen
from a2r_train.train.logprobs import extract_logprobs
from a2r_train.train.model import adds_plainly
from a2r_train.train.one_pass import OnePassGRPOTrainer
from a2r_train.train.weight_sync import SummedGeneration

LEAN = ("train", "_get_dataloader", "_tokenize_prompts")
MODES = ("token_truncate", "token_mask", "sequence_truncate", "sequence_mask")


def adapted(tiny: str, dtype: str = "float32", **changes: Any) -> Any:
    """A model with an adapter that changes every weight that it can."""
    torch.manual_seed(0)
    config = {"r": 4, "target_modules": "all-linear", "init_lora_weights": False, **changes}
    base = AutoModelForCausalLM.from_pretrained(tiny, dtype=dtype)
    return get_peft_model(base, LoraConfig(task_type="CAUSAL_LM", **config))


def given_to_vllm(kind: type[VLLMGeneration], model: Any) -> dict[str, torch.Tensor]:
    """What the engine would load, by name."""
    generation = kind.__new__(kind)
    generation.model = model
    generation._dist = grpo_trainer.VLLMGeneration.__init__.__globals__["DistributedBackend"](
        SimpleNamespace(state=SimpleNamespace(deepspeed_plugin=None, fsdp_plugin=None))
    )
    return {name: weight.clone() for name, weight in generation._iter_named_params()}


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"use_rslora": True, "rank_pattern": {"q_proj": 2}},
        {"target_modules": ["q_proj", "embed_tokens"]},
        {"target_modules": ["v_proj"], "modules_to_save": ["norm"]},
        {"use_dora": True},
    ],
    ids=["all", "ranks", "embedding", "saved", "dora"],
)
def test_base_plus_delta_is_what_merging_gives(changes: dict[str, Any], tiny: str) -> None:
    model = adapted(tiny, **changes)
    before = {name: weight.clone() for name, weight in model.named_parameters()}
    found = given_to_vllm(SummedGeneration, model)
    if adds_plainly(model.peft_config["default"]):
        assert all(torch.equal(weight, before[name]) for name, weight in model.named_parameters())
    expected = given_to_vllm(VLLMGeneration, model)
    assert list(found) == list(expected)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_a_bfloat16_base_gives_the_engine_what_a_float32_one_would(tiny: str) -> None:
    """Both bases hold the same numbers; the engine computes in bfloat16."""
    rounded, exact = adapted(tiny, "bfloat16"), adapted(tiny, "bfloat16")
    exact.base_model.model.float()
    before = {name: weight.clone() for name, weight in rounded.named_parameters()}
    for _ in range(3):
        found = given_to_vllm(SummedGeneration, rounded)
    expected = given_to_vllm(VLLMGeneration, exact)
    assert all(torch.equal(found[name].bfloat16(), expected[name].bfloat16()) for name in expected)
    assert all(torch.equal(weight, before[name]) for name, weight in rounded.named_parameters())
    assert any(isinstance(module, LoraLayer) for module in rounded.modules())


def drawn(prompts: list[str], trainer: Any) -> dict[str, Any]:
    """Replayed completions, and log-probabilities of an engine that is a little off."""
    rows = replay.completions(prompts, trainer)
    draw = torch.Generator().manual_seed(int(trainer.state.global_step))
    rows["logprobs"] = [
        (-5.7 + 0.6 * torch.randn(len(ids), generator=draw)).tolist() for ids in rows["completion_ids"]
    ]
    return rows


def trained(stock: bool, tiny: str, folder: Path, shared: bool = False, **changes: Any) -> Any:
    """Weights, log and passes of three steps of two micro-batches, with a stand-in for vLLM."""
    trainer: Any = replay.trainer_of(
        tiny, str(folder), shared, max_steps=3, gradient_accumulation_steps=2, per_device_train_batch_size=8,
        mask_truncated_completions=False, beta=0.0, **changes,
    )  # fmt: skip
    if stock:
        names = ("_compute_loss", "_generate_and_score_completions", *LEAN)
        its = {name: getattr(grpo_trainer.GRPOTrainer, name) for name in names}
        trainer.__class__ = type("Stock", (type(trainer),), its)
    trainer.use_vllm, trainer._last_loaded_step = True, -1
    trainer.vllm_generation = SimpleNamespace(sync_weights=lambda: None)
    trainer.rollout_func = drawn
    passes: list[bool] = []
    trainer.model.register_forward_hook(lambda *_: passes.append(torch.is_grad_enabled()))
    trainer.train()
    return replay.weights(trainer), trainer.state.log_history, passes


@pytest.mark.parametrize("mode", MODES)
def test_the_ratio_of_the_update_itself_trains_the_same_weights(mode: str, tiny: str, tmp_path: Path) -> None:
    how = {"vllm_importance_sampling_mode": mode}
    start, _, _ = trained(False, tiny, tmp_path / "start", learning_rate=0.0, **how)
    stock, its_log, its_passes = trained(True, tiny, tmp_path / "stock", **how)
    ours, log, passes = trained(False, tiny, tmp_path / "ours", **how)
    assert its_passes.count(False) == 6  # two micro-batches in each of three steps
    assert passes.count(False) == 0
    assert passes.count(True) == its_passes.count(True)
    assert (ours - stock).norm() < 1e-3 * (stock - start).norm()
    for one, other in zip(its_log[:3], log[:3], strict=True):
        names = [name for name in one if name.startswith("sampling/")]
        assert names == [name for name in other if name.startswith("sampling/")]
        assert len(names) == 5
        assert other["loss"] == pytest.approx(one["loss"], abs=1e-5)
    name = "sampling/sampling_logp_difference/max"
    assert log[0][name] <= its_log[0][name] + 1e-5


def test_the_shared_prefix_goes_with_it(tiny: str, tmp_path: Path) -> None:
    start, _, _ = trained(False, tiny, tmp_path / "start", shared=True, learning_rate=0.0)
    stock, _, its_passes = trained(True, tiny, tmp_path / "stock", shared=True)
    ours, _, passes = trained(False, tiny, tmp_path / "ours", shared=True)
    assert (passes.count(False), its_passes.count(False)) == (0, 6)
    assert (ours - stock).norm() < 1e-3 * (stock - start).norm()


def test_a_generation_that_lasts_for_several_steps_keeps_its_pass(tiny: str, tmp_path: Path) -> None:
    _, _, passes = trained(False, tiny, tmp_path / "a", num_iterations=2)
    assert passes.count(False) > 0


def test_the_overridden_methods_take_what_trl_gives() -> None:
    for ours, its, names in (
        (SummedGeneration, VLLMGeneration, ("sync_weights", "_iter_named_params")),
        (OnePassGRPOTrainer, grpo_trainer.GRPOTrainer, ("_generate_and_score_completions", "_compute_loss")),
        (LeanGRPOTrainer, grpo_trainer.GRPOTrainer, ("_tokenize_prompts",)),
    ):
        for name in names:
            assert [*inspect.signature(getattr(ours, name)).parameters] == [
                *inspect.signature(getattr(its, name)).parameters
            ]


def test_a_group_s_prompt_is_tokenized_once_as_trl_tokenizes_it(tiny: str, tmp_path: Path) -> None:
    trainer: Any = replay.trainer_of(tiny, str(tmp_path), False)
    chats = [[{"role": "user", "content": prompt}] for prompt in replay.PROMPTS[:2]]
    prompts = [chat for chat in (chats[0], chats[1], chats[0]) for _ in range(replay.GROUP)]
    seen: list[int] = []
    render = trainer.processing_class.apply_chat_template
    trainer.processing_class.apply_chat_template = lambda *args, **kwargs: (
        seen.append(len(kwargs["conversation"])) or render(*args, **kwargs)
    )
    its = grpo_trainer.GRPOTrainer._tokenize_prompts(trainer, prompts)
    assert trainer._tokenize_prompts(prompts) == its
    assert seen == [len(prompts), 3]


def test_a_generation_s_rows_are_read_once_and_are_those_of_trl(tiny: str, tmp_path: Path) -> None:
    options: dict[str, Any] = {"gradient_accumulation_steps": 4, "per_device_train_batch_size": 4}
    stock: Any = replay.trainer_of(tiny, str(tmp_path), False, **options)
    stock._get_dataloader = partial(grpo_trainer.GRPOTrainer._get_dataloader, stock)
    ours: Any = replay.trainer_of(tiny, str(tmp_path), False, **options)
    read: list[int] = []
    get = ours.train_dataset.__getitems__
    ours.train_dataset.__getitems__ = lambda places: read.append(len(places)) or get(places)
    batches = [*ours.get_train_dataloader()]
    assert [list(batch) for batch in batches] == [*stock.get_train_dataloader()]
    assert (len(batches), read) == (8, [4, 4])  # two generations of four different rows
    first, *others = [*batches[0]]
    first["prompt"] = "changed by a reward"
    assert all(row["prompt"] != first["prompt"] for row in [*others, *batches[0]])


def test_what_is_frozen_is_let_go_also_after_an_error() -> None:
    def ends() -> None:
        with frozen():
            assert gc.get_freeze_count() > 1000
            raise ValueError("ended")

    with pytest.raises(ValueError, match="ended"):
        ends()
    assert gc.get_freeze_count() == 0


def test_trl_reads_log_probabilities_by_a_name_of_its_module() -> None:
    assert "extract_logprobs" in VLLMGeneration.generate.__code__.co_names


def test_flat_log_probabilities_are_read_as_trl_reads_dictionaries() -> None:
    flat = pytest.importorskip("vllm.logprobs")
    one, several = [[(5, -0.5)], [(7, math.nan)], [(5, -2.0)]], [[(5, -0.5), (6, -0.1)], [(7, -1.0)]]
    for drawn in ([one, []], [one, several]):
        its, ours = [], []
        for places in drawn:
            dicts = [{token: flat.Logprob(value, rank) for rank, (token, value) in enumerate(place, 1)}
                     for place in places]  # fmt: skip
            made = flat.FlatLogprobs()
            made.extend(dicts)
            its.append(SimpleNamespace(outputs=[SimpleNamespace(logprobs=dicts)]))
            ours.append(SimpleNamespace(outputs=[SimpleNamespace(logprobs=made)]))
        assert extract_logprobs(ours) == extract_logprobs(its) == vllm_generation.extract_logprobs(its)
    assert extract_logprobs([SimpleNamespace(outputs=[SimpleNamespace(logprobs=None)])]) == (None, None)
