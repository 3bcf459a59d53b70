"""The transformers engine: one seed a completion, whatever else is in the batch; greedy as `generate`; honest
counts.
"""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from shutil import copytree
from typing import Any

import bench_leaving
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import FalconH1Config, FalconH1ForCausalLM

from a2r_train.engines import EngineArguments, Sampling, check_engine, load_engine
from a2r_train.engines import transformers as transformers_engine
from a2r_train.engines.base import by_token
from a2r_train.engines.transformers import SeededDraw, TransformersEngine, uniform
from a2r_train.errors import InputError
from a2r_train.models import check_weights, load_tokenizer, model_hash
from a2r_train.records import seed_of

CHATS = [
    [{"role": "user", "content": content}]
    for content in ("1", "How many apples are left?", "x" * 60, "the answer", "2")
]
SAMPLING = Sampling(max_completion_tokens=12)


@pytest.fixture(scope="module")
def engine(tiny: str) -> Any:
    return load_engine(tiny, EngineArguments(batch_size=8, dtype="float32"))


def test_a_completion_depends_on_seed_and_prompt_alone(engine: TransformersEngine, tiny: str) -> None:
    seeds = [seed_of(0, i) for i in range(len(CHATS))]
    together = engine.generate(CHATS, SAMPLING, seeds)
    assert len({c.text for c in together}) == len(CHATS)
    alone = [engine.generate([chat], SAMPLING, [seed])[0] for chat, seed in zip(CHATS, seeds, strict=True)]
    assert alone == together
    assert engine.generate(CHATS[::-1], SAMPLING, seeds[::-1]) == together[::-1]
    assert (
        TransformersEngine(tiny, EngineArguments(batch_size=2, dtype="float32")).generate(
            CHATS, SAMPLING, seeds
        )
        == together
    )


def test_next_tokens_are_those_of_each_prompt_alone(engine: TransformersEngine) -> None:
    prompts = [load_tokenizer(engine.name)(text)["input_ids"] for text in ("1 and", "How many are", "x" * 60)]
    found = engine.next_tokens([*prompts, [1] * engine.context])
    assert found.pop() == {}
    for prompt, told in zip(prompts, found, strict=True):
        with torch.inference_mode():
            most = engine.model(input_ids=torch.tensor([prompt])).logits[0, -1].softmax(-1).topk(20)
        expected = by_token(
            engine.tokenizer, dict(zip(most.indices.tolist(), most.values.tolist(), strict=True))
        )
        assert told == pytest.approx(expected, abs=1e-5)
        assert 0 < sum(told.values()) < 1
    assert engine.next_tokens([]) == []


def test_a_prompt_that_fills_the_context_is_refused_and_no_completion_goes_beyond(
    tiny: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    small = copytree(tiny, tmp_path / "small")
    config = json.loads((small / "config.json").read_text())
    (small / "config.json").write_text(json.dumps({**config, "max_position_embeddings": 120}))
    short, long = (
        TransformersEngine(str(small), EngineArguments(dtype="float32")),
        TransformersEngine(tiny, EngineArguments(dtype="float32")),
    )
    chats = [[{"role": "user", "content": "apples " * count}] for count in (1, 12, 200)]
    asked = Sampling(1.0, max_completion_tokens=200)
    cut, whole = (engine.generate(chats, asked, [1, 2, 3]) for engine in (short, long))
    assert (cut[2].text, cut[2].finish_reason, cut[2].completion_tokens) == ("", "refused", 0)
    assert f"{small}: 1 of 3 prompts leave no room in its context, and are not answered" in caplog.messages
    for one, other in zip(cut[:2], whole[:2], strict=True):
        room = 120 - one.prompt_tokens
        assert one.completion_tokens == min(room, other.completion_tokens)
        assert other.text.startswith(one.text.rstrip("\ufffd"))
    assert any(one.finish_reason == "length" for one in cut[:2])
    assert [c.prompt_tokens for c in cut] == [c.prompt_tokens for c in whole]


def test_seeds_differ_and_repeat(engine: TransformersEngine) -> None:
    seeds = [1, 2, 3, 1]
    texts = [c.text for c in engine.generate([CHATS[1]] * 4, SAMPLING, seeds)]
    assert texts[0] == texts[3]
    assert len(set(texts)) == 3


def test_greedy_equals_generate(engine: TransformersEngine) -> None:
    found = engine.generate(CHATS, Sampling(0.0, max_completion_tokens=12), [0] * len(CHATS))
    for chat, completion in zip(CHATS, found, strict=True):
        inputs = engine.tokenizer(
            engine.tokenizer.apply_chat_template(chat, add_generation_prompt=True, tokenize=False),
            add_special_tokens=False,
            return_tensors="pt",
        )
        width = inputs["input_ids"].shape[1]
        ids = engine.model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, width:].tolist()
        assert completion.text == engine.tokenizer.decode(ids, skip_special_tokens=True)
        assert (completion.prompt_tokens, completion.completion_tokens) == (width, len(ids))


@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_equal_prompts_of_a_batch_are_read_once_and_answered_as_alone(
    engine: TransformersEngine, temperature: float
) -> None:
    chats = [CHATS[i] for i in (1, 2, 1, 0, 2, 1, 3)]
    sampling, seeds = Sampling(temperature, max_completion_tokens=12), list(range(7))
    alone = [engine.generate([chat], sampling, [seed])[0] for chat, seed in zip(chats, seeds, strict=True)]
    shapes: list[tuple[int, int]] = []

    def keep(_model: Any, _args: Any, options: Any) -> None:
        shapes.append(tuple(options["input_ids"].shape))

    hook = engine.model.register_forward_pre_hook(keep, with_kwargs=True)
    try:
        assert engine.generate(chats, sampling, seeds) == alone
    finally:
        hook.remove()
    width = max(completion.prompt_tokens for completion in alone)
    assert shapes[0] == (4, width - 1)  # four different prompts, all but their last token
    assert set(shapes[1:]) == {(7, 1)}


def sliding(model: str, folder: Path, window: int) -> str:
    """A copy of the model that looks back so far."""
    copy = copytree(model, folder / "sliding")
    config = json.loads((copy / "config.json").read_text())
    changes = {"use_sliding_window": True, "sliding_window": window, "layer_types": ["sliding_attention"]}
    (copy / "config.json").write_text(json.dumps(config | changes))
    return str(copy)


def test_a_temperature_may_be_an_integer(tiny: str) -> None:
    engine, chats = load_engine(tiny), [[{"role": "user", "content": "What is 2 + 3?"}]]
    texts = [
        engine.generate(chats, Sampling(temperature=heat, max_completion_tokens=8), [0])[0].text
        for heat in (1, 1.0)
    ]
    assert texts[0] == texts[1]


def test_a_model_whose_state_is_no_keys_and_values_answers_too(tiny: str, tmp_path: Path) -> None:
    """As a hybrid of attention and a state space; a batch of it goes whole."""
    torch.manual_seed(0)
    config = FalconH1Config(
        vocab_size=len(load_tokenizer(tiny)), hidden_size=32, intermediate_size=32, num_hidden_layers=2,
        num_attention_heads=2, num_key_value_heads=2, mamba_d_ssm=32, mamba_n_heads=4, mamba_d_head=8,
        mamba_d_state=8, mamba_n_groups=1, mamba_chunk_size=8, max_position_embeddings=512,
    )  # fmt: skip
    FalconH1ForCausalLM(config).save_pretrained(tmp_path)
    load_tokenizer(tiny).save_pretrained(tmp_path)
    engine = TransformersEngine(str(tmp_path), EngineArguments(batch_size=2, dtype="float32"))
    chats = [CHATS[i] for i in (1, 1, 1, 1, 1)]
    made = engine.generate(chats, SAMPLING, [1, 2, 1, 3, 1])
    assert made[0] == made[2] == made[4]
    assert [one.completion_tokens for one in made] == [12] * 5


@pytest.mark.parametrize("window", [None, 8])
@pytest.mark.parametrize("picks", [range(5), (1, 2, 1, 0, 2, 1, 3)])
def test_prompts_that_are_read_in_parts_are_answered_as_alone(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int | None, picks: Sequence[int]
) -> None:
    engine = TransformersEngine(
        sliding(tiny, tmp_path, window) if window else tiny, EngineArguments(batch_size=8, dtype="float32")
    )
    chats = [CHATS[i] for i in picks]
    alone = [engine.generate([chat], SAMPLING, [seed])[0] for seed, chat in enumerate(chats)]
    monkeypatch.setattr(transformers_engine, "READ_TOKENS", 200)
    shapes: list[tuple[int, int]] = []
    hook = engine.model.register_forward_pre_hook(
        lambda _model, _args, options: shapes.append(tuple(options["input_ids"].shape)), with_kwargs=True
    )
    assert engine.generate(chats, SAMPLING, range(len(chats))) == alone
    hook.remove()
    width = max(completion.prompt_tokens for completion in alone)
    different = len(set(picks))
    read = [rows for rows, columns in shapes if columns == width - 1]
    assert (sum(read), max(read)) == (different, 200 // (width - 1))
    assert set(shapes[len(read) :]) == {(len(chats), 1)}


@pytest.mark.parametrize("window", [None, 8])
def test_completions_that_ended_leave_the_batch(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int | None
) -> None:
    engine = TransformersEngine(
        sliding(tiny, tmp_path, window) if window else tiny, EngineArguments(batch_size=8, dtype="float32")
    )
    monkeypatch.setattr(
        engine, "_stop_ids", lambda: set(range(0, 400, 7))
    )  # so that a random model ends, now and then
    chats, sampling = [CHATS[i] for i in (1, 2, 1, 0, 2, 1, 3, 4)], Sampling(max_completion_tokens=14)
    whole = engine.generate(chats, sampling, range(8))
    assert len({c.completion_tokens for c in whole}) > 2
    monkeypatch.setattr(transformers_engine, "GO_ON_TOKENS", 4)
    rows: list[int] = []
    hook = engine.model.register_forward_pre_hook(
        lambda _model, _args, options: rows.append(len(options["input_ids"])), with_kwargs=True
    )
    assert engine.generate(chats, sampling, range(8)) == whole
    hook.remove()
    ends = [c.completion_tokens if c.finish_reason == "stop" else 15 for c in whole]
    assert rows[1:] == [
        sum(end > step // 4 * 4 for end in ends) for step in range(14)
    ]  # rows[0] is the prompts


@pytest.mark.parametrize("window", [None, 8])
def test_others_take_the_places_of_those_that_ended(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, window: int | None
) -> None:
    """Where every layer keeps all keys; what is completed does not depend on it."""
    model = sliding(tiny, tmp_path, window) if window else tiny
    engines = [
        TransformersEngine(model, EngineArguments(batch_size=size, dtype="float32")) for size in (1, 4)
    ]
    for engine in engines:
        monkeypatch.setattr(engine, "_stop_ids", lambda: set(range(0, 400, 7)))
    monkeypatch.setattr(transformers_engine, "GO_ON_TOKENS", 4)
    chats, sampling = [CHATS[i % 5] for i in range(24)], Sampling(max_completion_tokens=30)
    alone = engines[0].generate(chats, sampling, range(24))
    sizes: list[int] = []
    engines[1].model.register_forward_pre_hook(
        lambda _model, _args, options: sizes.append(options["input_ids"].shape[0]), with_kwargs=True
    )
    assert engines[1].generate(chats, sampling, range(24)) == alone
    assert max(sizes) == 4
    drawn = sum(completion.completion_tokens for completion in alone)
    assert (len(sizes) < drawn / 2) == (window is None)
    assert len({completion.completion_tokens for completion in alone}) > 4


def test_the_benchmark_of_leaving_makes_the_same_completions(tmp_path: Path) -> None:
    found = bench_leaving.measure(
        bench_leaving.random_model(str(tmp_path)), 12, batches=2, prompt_tokens=60, tokens=100, mean=40
    )
    assert (found["rows"], found["completions"], found["same"]) == (12, 24, 24)
    assert 32 < found["longest"] <= 100  # type: ignore[operator]


@pytest.mark.parametrize(
    "settings",
    [
        *({"use_cache": False}, {"cache_implementation": "static"}, {"cache_implementation": "dynamic"}),
        *({"min_new_tokens": 7}, {"repetition_penalty": 4.0}, {"no_repeat_ngram_size": 2}, {"max_length": 5}),
    ],
)
def test_of_the_settings_of_a_model_the_ends_of_its_turn_hold_alone(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    """As in vLLM, which is told all of the sampling; and none keeps completions from leaving."""
    copy = Path(copytree(tiny, tmp_path / "set"))
    config = json.loads((copy / "generation_config.json").read_text())
    made = []
    for own in ({}, settings):
        ends = {**config, **own, "eos_token_id": [*range(0, 400, 7)]}
        (copy / "generation_config.json").write_text(json.dumps(ends))
        engine = TransformersEngine(str(copy), EngineArguments(batch_size=8, dtype="float32"))
        made.append(engine.generate([*CHATS, *CHATS], SAMPLING, range(10)))
    assert len({c.completion_tokens for c in made[0]}) > 2
    assert made[0] == made[1]
    monkeypatch.setattr(transformers_engine, "GO_ON_TOKENS", 4)
    assert engine.generate([*CHATS, *CHATS], SAMPLING, range(10)) == made[0]


def test_tokens_are_counted_with_the_end_of_the_turn(engine: TransformersEngine) -> None:
    found = engine.generate([CHATS[1]] * 8, SAMPLING, list(range(8)))
    assert {c.completion_tokens for c in found if c.finish_reason == "length"} == {12}
    end = engine.tokenizer.eos_token_id
    text = engine.tokenizer("the answer", add_special_tokens=False)["input_ids"]
    stopped, cut = engine._completion(5, [*text, end, 0, 0]), engine._completion(5, text)
    assert (stopped.text, stopped.completion_tokens, stopped.finish_reason) == (
        "the answer",
        len(text) + 1,
        "stop",
    )
    assert (cut.text, cut.completion_tokens, cut.finish_reason) == ("the answer", len(text), "length")


def test_top_k_of_one_is_greedy_at_any_temperature(engine: TransformersEngine) -> None:
    greedy = engine.generate(CHATS, Sampling(0.0, max_completion_tokens=8), [0] * len(CHATS))
    for sampling in (
        Sampling(1.5, top_k=1, max_completion_tokens=8),
        Sampling(1.5, top_p=1e-6, max_completion_tokens=8),
    ):
        assert engine.generate(CHATS, sampling, list(range(len(CHATS)))) == greedy


def drawn(scores: torch.Tensor, n: int, step: int) -> np.ndarray:
    """How often each token is drawn with n seeds as explore makes them."""
    seeds = [seed_of(0, "p", i) for i in range(n)]
    draw = SeededDraw(seeds, [3] * len(seeds))
    kept = draw(torch.zeros(n, 3 + step, dtype=torch.long), scores.expand(n, -1).clone())
    assert ((kept == 0).sum(-1) == 1).all()
    assert (torch.isinf(kept).sum(-1) == len(scores) - 1).all()
    return np.bincount(kept.argmax(-1).numpy(), minlength=len(scores))


@pytest.mark.parametrize("step", [0, 1, 17])
def test_the_draws_follow_the_softmax(step: int) -> None:
    scores = torch.tensor([1.0, 0.0, -1.0, 2.0, -torch.inf, 0.5, -3.0])
    n, p = 20_000, torch.softmax(scores, -1).double().numpy()
    counts = drawn(scores, n, step)
    assert counts[4] == 0
    possible = p > 0
    chi_square = float((((counts - n * p) ** 2)[possible] / (n * p)[possible]).sum())
    assert chi_square < 20.5  # the 99.9 % quantile with 5 degrees of freedom
    assert chi_square > 0.2  # 99.9 % of fair draws are not that even


def test_numbers_of_steps_and_neighbouring_seeds_are_independent() -> None:
    numbers = np.stack([uniform(np.arange(4000, dtype=np.uint64), np.full(4000, step)) for step in range(4)])
    assert numbers.min() >= 0
    assert numbers.max() < 1
    correlation = np.corrcoef([*numbers, np.roll(numbers[0], 1)])
    assert np.abs(correlation - np.eye(5)).max() < 0.06  # 4 standard errors
    # Step t of seed s must not be step t - 1 of seed s + 1.
    assert not np.isin(numbers[1], numbers[0]).any()


@given(st.lists(st.floats(-30, 30), min_size=1, max_size=6), st.integers(0, 2**32 - 1), st.integers(0, 50))
@settings(max_examples=100, deadline=None)
def test_an_impossible_token_is_never_drawn(scores: list[float], seed: int, step: int) -> None:
    row = torch.tensor([[-torch.inf, *scores, -torch.inf]])
    kept = SeededDraw([seed], [0])(torch.zeros(1, step, dtype=torch.long), row)
    assert 1 <= int(kept.argmax()) <= len(scores)


@pytest.mark.parametrize(
    "values", [{"temperature": -1}, {"top_p": 0}, {"top_p": 1.1}, {"top_k": -1}, {"max_completion_tokens": 0}]
)
def test_sampling_out_of_range_is_refused(values: dict[str, Any]) -> None:
    with pytest.raises(InputError, match="out of range"):
        Sampling(**values)


def test_what_cannot_be_loaded_is_named_before_it_is_loaded(tiny: str) -> None:
    with pytest.raises(InputError, match="engine 'vlm'"):
        check_engine(tiny, EngineArguments(engine="vlm"))
    with pytest.raises(InputError, match="no such folder or file"):
        load_engine(f"{tiny}/none")


def test_the_base_of_several_adapters_is_read_once_and_anew_after_a_change(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base, read = copytree(tiny, tmp_path / "base"), list[str]()
    digest = hashlib.file_digest
    monkeypatch.setattr(
        hashlib, "file_digest", lambda file, kind: read.append(file.name) or digest(file, kind)
    )
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "adapter_config.json").write_text(
            json.dumps({"base_model_name_or_path": str(base)})
        )
        (tmp_path / name / "adapter_model.safetensors").write_text(name)
    before = [model_hash(str(tmp_path / name)) for name in ("a", "b")]
    weights = base / "model.safetensors"
    assert len(set(before)) == 2
    assert read.count(str(weights)) == 1
    weights.write_bytes(weights.read_bytes()[:-1] + b"x")
    after = [model_hash(str(tmp_path / name)) for name in ("a", "b")]
    assert not set(after) & set(before)
    assert read.count(str(weights)) == 2


@pytest.mark.parametrize("model", ["runs/tiny/sftt", "runs/tiny/sft/model.gguf", "./model.gguf"])
def test_a_misspelt_path_is_not_looked_for_on_the_hub(model: str, tmp_path: Path) -> None:
    says = f"^{model}: no such folder or file; expected a checkpoint folder or a model of the hub$"
    (tmp_path / "adapter").mkdir()
    (tmp_path / "adapter" / "adapter_config.json").write_text(json.dumps({"base_model_name_or_path": model}))
    (tmp_path / "adapter" / "adapter_model.safetensors").touch()
    for named in (model, str(tmp_path / "adapter")):
        with pytest.raises(InputError, match=says):
            check_engine(named, EngineArguments())
        with pytest.raises(InputError, match=says):
            load_tokenizer(named)
    for on_the_hub in ("owner/name", "owner/name/model.gguf"):
        check_weights(on_the_hub)
