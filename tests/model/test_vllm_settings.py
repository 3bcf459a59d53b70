"""What reaches vLLM of a recipe and of a launcher, without starting it."""

import json
import os
from pathlib import Path
from typing import Any

import pytest
from conftest import files_of, hide_vllm

from a2r_train.data import explore as stage
from a2r_train.data.explore import ExploreConfig, explore
from a2r_train.engines import EngineArguments, check_engine, load_engine, vllm, vllm_copies
from a2r_train.engines.base import token_ids_of
from a2r_train.errors import InputError
from a2r_train.models import load_tokenizer
from a2r_train.prompts import Chat, Prompter

ROOT = Path(__file__).parents[2]

MODEL = str(ROOT / "data/tiny/synthesizer")
PROBLEMS = str(ROOT / "data/tiny/validation.jsonl")


def test_nothing_of_a_launcher_reaches_vllm(monkeypatch: pytest.MonkeyPatch) -> None:
    """torch waits for the launcher's store, whatever address it is given, where this one is left."""
    monkeypatch.setattr(vllm_copies, "Copy", lambda *_: None)
    monkeypatch.setattr(vllm_copies, "_copy", [])
    for name in ("RANK", "WORLD_SIZE", "TORCHELASTIC_USE_AGENT_STORE"):
        monkeypatch.setenv(name, "1")
    vllm_copies._start_copy(0, 1, MODEL, "auto", {"tensor_parallel_size": 1})
    assert not {"RANK", "WORLD_SIZE", "TORCHELASTIC_USE_AGENT_STORE"} & set(os.environ)


def test_without_vllm_one_line_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hide_vllm(monkeypatch)
    monkeypatch.setattr(stage, "load_engine", None)
    with pytest.raises(
        InputError, match=r"^vllm is not installed; install it with `pip install -e '\.\[vllm\]'`"
    ) as caught:
        explore(ExploreConfig(PROBLEMS, MODEL, str(tmp_path / "out"), engine="vllm"))
    assert "\n" not in str(caught.value)
    assert files_of(tmp_path) == {}


def test_what_vllm_cannot_read_is_refused_before_it_starts(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="vllm cannot read a GGUF file here"):
        check_engine("owner/name/model.gguf", EngineArguments(engine="vllm"))
    with pytest.raises(InputError, match="expected engine: openai"):
        check_engine(MODEL, EngineArguments(engine="vllm", endpoint="http://localhost:8000/v1"))
    with pytest.raises(InputError, match="tensor_parallel_size is 0"):
        explore(ExploreConfig(PROBLEMS, MODEL, str(tmp_path / "out"), engine="vllm", tensor_parallel_size=0))


def test_the_parallel_sizes_of_a_recipe_reach_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    given: dict[str, Any] = {}
    monkeypatch.setattr(
        vllm.VLLMEngine, "__init__", lambda _, model, *options: given.update(model=model, options=options)
    )
    arguments = EngineArguments(
        engine="vllm", tensor_parallel_size=2, data_parallel_size=4, gpu_memory_utilization=0.5
    )
    load_engine(MODEL, arguments)
    assert given == {"model": MODEL, "options": (arguments, False, ())}


def test_each_copy_takes_its_share_of_the_gpus(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    seen: list[str | None] = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(vllm_copies, "Copy", lambda *_: seen.append(os.environ.get("CUDA_VISIBLE_DEVICES")))
    monkeypatch.setattr(vllm_copies, "_copy", [])
    for local_rank, index in ((0, 0), (0, 1), (1, 1)):
        for name, value in (("LOCAL_RANK", str(local_rank)), ("LOCAL_WORLD_SIZE", "2"), ("WORLD_SIZE", "2")):
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "8,9,10,11,12,13,14,15")
        vllm_copies._start_copy(index, 2, MODEL, "auto", {"tensor_parallel_size": 2})
        assert "WORLD_SIZE" not in os.environ
    assert seen == ["8,9", "10,11", "14,15"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0")
    with pytest.raises(InputError, match="2 GPUs are asked for, but only 1 are there"):
        vllm_copies._start_copy(0, 1, MODEL, "auto", {"tensor_parallel_size": 2})


def test_copies_that_share_a_gpu_start_one_after_the_other(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    import torch

    seen: list[Any] = []

    class Started:
        def __init__(self) -> None:
            seen.append("asked")

        def result(self) -> None:
            seen.append("started")

    def start(_: Any, index: int, of: int, *rest: Any) -> Started:
        assert (of, rest[2]["gpu_memory_utilization"], rest[3]) == (4, 0.45, 2)
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
        monkeypatch.setattr(vllm_copies, "Copy", lambda *_: seen.append(os.environ["CUDA_VISIBLE_DEVICES"]))
        vllm_copies._start_copy(index, of, *rest)
        return Started()

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(vllm_copies, "_copy", [])
    monkeypatch.setattr(vllm_copies.Remote, "start", start)
    sizes = iter((900, 900, 900, 100))
    monkeypatch.setattr(vllm_copies.Remote, "call", lambda *_: vllm_copies.Done(next(sizes)))
    with caplog.at_level("INFO"):
        vllm.VLLMEngine(MODEL, EngineArguments(engine="vllm", data_parallel_size=2, copies_per_gpu=2))
    assert f"{MODEL}: vLLM's KV cache holds 900 and 900 and 900 and 100 tokens" in caplog.messages
    assert "the KV caches are unequal; if another program started on a GPU meanwhile" in caplog.text
    assert seen[:12] == [one for gpu in "0011" for one in (gpu, "asked", "started")]
    with pytest.raises(InputError, match="copies_per_gpu is for a model on one GPU"):
        EngineArguments(tensor_parallel_size=2, copies_per_gpu=2).check_engine_arguments()


def test_on_a_gpu_every_batch_that_runs_has_its_cuda_graph(monkeypatch: pytest.MonkeyPatch) -> None:
    import vllm as library

    given: dict[str, Any] = {}

    def start(_: str, **settings: Any) -> object:
        given.update(settings)
        return object()

    monkeypatch.setattr(vllm_copies, "import_vllm", lambda: False)
    monkeypatch.setattr(library, "LLM", start)
    vllm_copies.Copy(MODEL, "auto", {})
    assert given["dtype"] == "bfloat16"
    assert given["compilation_config"] == {"max_cudagraph_capture_size": given["max_num_seqs"]}
    assert "enforce_eager" not in given


def test_an_engine_that_does_not_start_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    import vllm as library

    def fail(*_: Any, **__: Any) -> None:
        raise RuntimeError("Engine core initialization failed.\nSee root cause above.")

    monkeypatch.setattr(vllm_copies, "import_vllm", lambda: False)
    monkeypatch.setattr(library, "LLM", fail)
    with pytest.raises(InputError, match=r"cannot load it \(Engine core initialization failed\.\)"):
        vllm_copies.Copy(MODEL, "auto", {})


def test_a_base_is_the_same_model_by_any_path(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    started: list[tuple[Any, ...]] = []

    class Copy:
        def __init__(self, *how: Any) -> None:
            started.append(how)

        def call(self, what: str) -> Any:
            assert what == "cache_tokens"
            return vllm_copies.Done(900)

    monkeypatch.setattr(vllm, "Copy", Copy)
    monkeypatch.chdir(Path(MODEL).parent)
    near = Path(MODEL).name  # as a recipe names it; the adapter has the whole path
    config = {"base_model_name_or_path": str(Path(MODEL).resolve()), "r": 24}
    (tmp_path / "adapter_config.json").write_text(json.dumps(config))
    load_tokenizer(MODEL).save_pretrained(tmp_path)
    for first, second in ((near, str(tmp_path)), (str(tmp_path), near)):
        engine = vllm.VLLMEngine(first, EngineArguments(engine="vllm"), others=[first, second])
        assert [engine.switch(model) for model in (second, first, "other")] == [True, True, False]
    assert {how[2]["max_lora_rank"] for how in started} == {32}
    vllm.VLLMEngine(near, EngineArguments(engine="vllm"))
    assert "enable_lora" not in started[-1][2]


def test_the_samples_of_a_chat_are_rendered_once(monkeypatch: pytest.MonkeyPatch) -> None:
    prompter = Prompter(load_tokenizer(MODEL))
    first, again, other = (prompter.explorer(problem) for problem in ("1 more?", "1 more?", "2 more?"))
    thinking = Chat(first, {"enable_thinking": True}, first.day)
    dated = Chat(first, first.template_kwargs, "2001-02-03")
    chats = [first, other, again, first, thinking, dated]
    expected = [prompter.token_ids(chat) for chat in chats]
    rendered: list[Chat] = []
    token_ids = prompter.token_ids
    monkeypatch.setattr(prompter, "token_ids", lambda chat: rendered.append(chat) or token_ids(chat))
    assert token_ids_of(prompter, chats) == expected
    assert rendered == [first, other, thinking, dated]
