"""`engine: auto`: which engine it is, that the run says and keeps it, and what vLLM does not serve."""

import json
import logging
from pathlib import Path
from shutil import copytree

import pytest
import torch
import yaml
from conftest import hide_vllm

from a2r_train.data.explore import ExploreConfig, explore
from a2r_train.engines import EngineArguments, check_engine, load, load_engine, settled, vllm

ROOT = Path(__file__).parents[2]
MODEL = str(ROOT / "data/tiny/explorer")
PROBLEMS = str(ROOT / "data/tiny/validation.jsonl")


@pytest.fixture
def gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(load.importlib.util, "find_spec", lambda _: object())


def chosen(*models: str) -> str:
    return settled(EngineArguments(), *models).engine


def test_without_vllm_or_without_a_gpu_it_is_transformers(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(load.importlib.util, "find_spec", lambda _: object())
    assert chosen(MODEL) == "transformers"
    hide_vllm(monkeypatch)
    assert chosen(MODEL) == "transformers"
    assert caplog.messages == [
        "engine auto: transformers, as there is no GPU",
        "engine auto: transformers, as vllm is not installed",
    ]


@pytest.mark.usefixtures("gpu")
def test_on_a_gpu_it_is_vllm_if_it_serves_every_model(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(vllm, "not_served", lambda model: "it is odd" if model == "odd" else "")
    assert (chosen(MODEL), chosen(MODEL, "odd")) == ("vllm", "transformers")
    assert caplog.messages == [
        "engine auto: vllm, as it is installed and serves the model",
        "engine auto: transformers, as it is odd",
    ]


def test_what_vllm_does_not_serve(tmp_path: Path) -> None:
    assert "GGUF" in vllm.not_served("owner/name/model.gguf")
    for name, more in (("dora", {"use_dora": True}), ("other", {"peft_type": "LOHA"})):
        (tmp_path / name).mkdir()
        adapter = {"peft_type": "LORA", "r": 4, "base_model_name_or_path": MODEL, **more}
        (tmp_path / name / "adapter_config.json").write_text(json.dumps(adapter))
        assert "more than LoRA weights" in vllm.not_served(str(tmp_path / name))
    pytest.importorskip("vllm")
    assert vllm.not_served(MODEL) == ""
    copytree(MODEL, tmp_path / "new")
    config = json.loads((tmp_path / "new/config.json").read_text())
    (tmp_path / "new/config.json").write_text(json.dumps({**config, "architectures": ["NewForCausalLM"]}))
    assert "NewForCausalLM" in vllm.not_served(str(tmp_path / "new"))


def test_a_run_keeps_the_engine_that_ran_and_goes_on_with_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    out = tmp_path / "out"
    config = ExploreConfig(
        PROBLEMS, MODEL, str(out), max_problems=2, samples_per_problem=1, max_completion_tokens=4
    )
    explore(config)
    assert yaml.safe_load((out / "config.yaml").read_text())["engine"] == "transformers"
    assert sum("engine transformers started in" in line for line in caplog.messages) == 1
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    (out / "done.json").unlink()
    assert explore(config) == out / "rollouts.jsonl"
    assert "engine auto: transformers, as this run was started with it" in caplog.messages


def test_every_model_can_be_checked_and_loaded_by_default(tiny: str) -> None:
    check_engine(tiny, EngineArguments())
    assert type(load_engine(tiny)).__name__ == "TransformersEngine"
