"""What a recipe with vLLM tells TRL, and what is said without vLLM."""

from pathlib import Path

import pytest
from conftest import hide_vllm, options

from a2r_train.config import parse
from a2r_train.errors import InputError
from a2r_train.train import grpo

ROOT = Path(__file__).parents[2]


def test_the_server_recipe_reaches_trl() -> None:
    path = "recipes/gsm8k-0.5b-server/grpo.yaml"
    _, args, _ = parse(grpo.ARGUMENTS, ["--config", str(ROOT / path), "--use_cpu", "true"])
    assert args.use_vllm
    assert (args.vllm_mode, args.vllm_server_host, args.vllm_server_port) == ("server", "localhost", 8000)


def test_training_without_vllm_says_how_to_install_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    hide_vllm(monkeypatch)
    keys = {
        "model_name_or_path": "data/tiny/synthesizer",
        "bundles": "none.jsonl",
        "output_dir": tmp_path / "out",
    }
    with pytest.raises(
        InputError, match=r"^vllm is not installed; install it with `pip install -e '\.\[vllm\]'`"
    ):
        grpo.train(*parse(grpo.ARGUMENTS, [*options(keys), "--use_vllm", "true", "--use_cpu", "true"]))
    assert not (tmp_path / "out").exists()
