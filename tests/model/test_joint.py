"""Explorer and synthesizer trained together: credit for pass@k, and references from the current explorer."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import on_policy
import pytest
from conftest import options, write_rows
from test_recipes import SMALL, status
from transformers import AutoTokenizer

from a2r_train.data.read import read
from a2r_train.prompts import Prompter
from a2r_train.records import Bundle, Rollout
from a2r_train.train import grpo
from a2r_train.train.arguments import SynthesizerGRPOConfig
from a2r_train.train.rewards import PassAtKReward

ROOT = Path(__file__).parents[2]


pytestmark = pytest.mark.usefixtures("at_root")


def test_the_reward_scores_whole_groups(tiny: str) -> None:
    reward = PassAtKReward(Prompter(AutoTokenizer.from_pretrained(tiny)), 2, 4)
    prompts = [[{"role": "user", "content": text}] for text in ("a", "b") for _ in range(4)]
    answers = ["5", "7", "7", "7", "7", "7", "7", "7"]
    chats = [[{"role": "assistant", "content": rf"\boxed{{{answer}}}"}] for answer in answers]
    columns = {
        "answer": ["5"] * 8,
        "verifier": ["math"] * 8,
        "n_correct": [0] * 8,
        "majority_answer": [""] * 8,
    }
    third = pytest.approx(1 / 3)
    assert reward(chats, prompts=prompts, **columns) == [1.0, third, third, third, 0, 0, 0, 0]
    with pytest.raises(ValueError, match="whole groups"):
        reward(chats[:6], prompts=prompts[:6], **{key: value[:6] for key, value in columns.items()})


@pytest.mark.parametrize("k", [0, 9])
def test_a_k_outside_the_group_is_refused(
    k: int, tiny: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    named = [
        "--bundles",
        write_rows(tmp_path / "b.jsonl", []),
        "--model_name_or_path",
        tiny,
        "--output_dir",
        str(tmp_path),
    ]
    assert grpo.main([*named, "--use_cpu", "true", "--num_generations", "8", "--pass_at_k", str(k)]) == 2
    assert f"pass_at_k is {k}; expected 1 to num_generations, 8" in capsys.readouterr().err


def test_parts_of_groups_are_refused_before_anything_is_trained(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Two processes that share a group: TRL allows it, but no credit can be computed from a part."""
    monkeypatch.setattr(SynthesizerGRPOConfig, "world_size", property(lambda _: 2))
    given = {"output_dir": str(tmp_path), "use_cpu": True, "num_generations": 8, "bf16": False}
    with pytest.raises(ValueError, match="each process scores 4 completions, not whole groups of 8"):
        SynthesizerGRPOConfig(**given, per_device_train_batch_size=4, pass_at_k=2)
    assert SynthesizerGRPOConfig(**given, per_device_train_batch_size=4).pass_at_k == 1
    assert SynthesizerGRPOConfig(**given, per_device_train_batch_size=8, pass_at_k=2).pass_at_k == 2


def test_every_round_reads_what_the_explorer_says_now(tmp_path: Path) -> None:
    """Two rounds of recipes/tiny, small: the second one's references are of the explorer that the first has
    trained.
    """

    def stage(verb: str, recipe: Path, given: Mapping[str, Any]) -> None:
        assert status(verb, ["--config", str(recipe), *options({**SMALL[verb], **given})]) == 0

    argv = [
        "--output",
        str(tmp_path),
        "--rounds",
        "2",
        "--steps",
        "1",
        "--synthesizer",
        "data/tiny/synthesizer",
    ]
    on_policy.main(argv, stage)
    models = []
    for number in range(2):
        folder = tmp_path / f"round-{number}"
        models.append(
            {rollout.model for rollout in read(Rollout, str(folder / "rollouts" / "rollouts.jsonl"))}
        )
        assert read(Bundle, str(folder / "bundles" / "train.jsonl"))
        for role in ("explorer", "synthesizer"):
            log = json.loads((folder / role / "trainer_state.json").read_text())
            assert log["global_step"] == 1
            keys = {key for entry in log["log_history"] for key in entry}
            assert ("reward/plain" in keys) == (role == "explorer")
            assert ("rewards/pass_at_k_reward/mean" in keys) == (role == "explorer")
    assert models == [{"data/tiny/explorer"}, {str(tmp_path / "round-0" / "explorer")}]
    assert (
        "model_name_or_path: " + str(tmp_path / "round-0" / "synthesizer")
        in (folder / "synthesizer/config.yaml").read_text()
    )
