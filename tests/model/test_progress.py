"""What a training prints, its model card, and checks that pass and say nothing."""

from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from huggingface_hub import ModelCard
from transformers import PrinterCallback, ProgressCallback, TrainerControl, TrainerState

from a2r_train.evaluate.report.model_card import BEGIN, END
from a2r_train.records import Bundle, Reference
from a2r_train.train import yellow_checks
from a2r_train.train.arguments import BundleArguments, ModelArguments
from a2r_train.train.model_card import card
from a2r_train.train.preflight import Check
from a2r_train.train.progress import ProgressLines, clock, show_progress

GRPO_LOGS = {
    "loss": 1e-8, "grad_norm": 0.2, "learning_rate": 1e-4, "reward": 0.53125, "reward_std": 0.3,
    "completions/mean_length": 51.6, "frac_reward_zero_std": 0.4, "entropy": 0.5, "kl": 0.0,
}  # fmt: skip


def lines(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, *logs: Any, main: bool = True
) -> str:
    now = [100.0]
    monkeypatch.setattr("a2r_train.train.progress.time.monotonic", lambda: now[0])
    callback, nothing = ProgressLines(), SimpleNamespace()
    state = TrainerState(max_steps=40, global_step=10, is_world_process_zero=main)
    callback.on_train_begin(nothing, state, nothing)  # type: ignore[arg-type]
    state.global_step, now[0] = 20, 130.0
    for entry in logs:
        callback.on_log(nothing, state, nothing, logs=entry)  # type: ignore[arg-type]
    return capsys.readouterr().out


def test_a_line_a_logging_step(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    out = lines(
        capsys, monkeypatch,
        GRPO_LOGS,
        {"loss": 0.71234, "mean_token_accuracy": 0.8},
        {"eval_reward": 0.5, "eval_loss": 0.0, "eval_runtime": 3.0},
        {"new_correct_rate": 0.1},
        {"train_runtime": 30.0, "train_loss": 0.1},
    )  # fmt: skip
    assert out.splitlines() == [
        "step 20/40  reward 0.531  length 52  no signal in 40% of groups  1:00 left",
        "step 20/40  loss 0.7123  token accuracy 80.0%  1:00 left",
        "step 20/40  validation: reward 0.500",
        "step 20/40  trained in 0:30",
    ]
    assert max(map(len, out.splitlines())) <= 80


def test_the_main_process_alone_prints(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert lines(capsys, monkeypatch, GRPO_LOGS, main=False) == ""


def test_lines_come_in_the_place_of_bar_and_dictionary() -> None:
    callbacks: list[Any] = [PrinterCallback, ProgressCallback]
    trainer: Any = SimpleNamespace(remove_callback=callbacks.remove, add_callback=callbacks.append)
    show_progress(trainer)
    assert [type(one) for one in callbacks] == [ProgressLines]


@pytest.mark.parametrize(("seconds", "text"), [(7.4, "0:07"), (754, "12:34"), (3723, "1:02:03")])
def test_times(seconds: float, text: str) -> None:
    assert clock(seconds) == text


def written(
    folder: Path,
    name: str,
    stage: str = "GRPO",
    dead: Sequence[float] = (),
    explorer: str = "",
    **data: Any,
) -> str:
    shares = [{"frac_reward_zero_std": share} for share in dead]
    state = SimpleNamespace(
        global_step=40, best_global_step=0, best_model_checkpoint=None,
        log_history=[{"entropy": 0.123, "clip_ratio/low_mean": 0.5}, *shares],
    )  # fmt: skip
    args = SimpleNamespace(
        output_dir=str(folder), push_to_hub=False, load_best_model_at_end=False, max_completion_length=112
    )
    model = ModelArguments(model_name_or_path=name)
    made = BundleArguments(bundles="train.jsonl", **data)
    trainer: Any = SimpleNamespace(state=state, args=args)
    return card(trainer, made, model, stage, "64 bundles", explorer)


def test_the_card_says_what_a_reader_of_the_hub_needs(tmp_path: Path) -> None:
    text = written(tmp_path / "mine", "Qwen/Qwen3-8B")
    loaded = ModelCard(text)
    assert (loaded.data.base_model, loaded.data.library_name) == ("Qwen/Qwen3-8B", "transformers")
    assert "a2r-train" in loaded.data.tags
    head = text.splitlines()
    at = head.index("|---|---|")
    table = head[at - 1 : head.index("", at)]
    assert all(line.startswith("|") for line in table)
    assert len(table) == 8
    for part in (
        "64 bundles, from `train.jsonl`",
        "40 steps",
        "GRPO",
        "112 tokens",
        "a2r solve",
        f"a2r serve --explorer Qwen/Qwen3-8B --synthesizer {tmp_path / 'mine'}",
        "vllm serve",
    ):
        assert part in text
    for part in ("AutoModelForCausalLM", "## Limits", "## Evaluation", f"{BEGIN}\nNot evaluated yet"):
        assert part in text
    assert END in text
    assert "entropy" not in text
    assert "clip_ratio" not in text
    assert "\n\n\n" not in text


@pytest.mark.parametrize(("dead", "told"), [((), False), ((1.0, 0.75), False), ((1.0, 1.0), True)])
def test_the_card_says_where_nothing_was_learnt(tmp_path: Path, dead: list[float], told: bool) -> None:
    text = written(tmp_path, "Qwen/Qwen3-8B", dead=dead)
    assert ("**Nothing was learnt:**" in text) == told
    assert "\n\n\n" not in text


def test_the_card_names_the_explorer_of_its_references(tmp_path: Path) -> None:
    text = written(tmp_path, "Qwen/Qwen3-8B", explorer="Qwen/Qwen3-4B")
    assert f"a2r serve --explorer Qwen/Qwen3-4B --synthesizer {tmp_path}" in text


def test_the_card_of_an_adapter_and_of_the_control(tmp_path: Path) -> None:
    folder = tmp_path / "mine"
    folder.mkdir()
    (folder / "adapter_config.json").write_text("{}")
    text = written(folder, str(tmp_path), "SFT", plain_share=1.0)
    loaded = ModelCard(text)
    assert (loaded.data.base_model, loaded.data.library_name) == (
        None,
        "peft",
    )  # a path is no model of the hub
    assert f"vllm serve {tmp_path} --enable-lora --lora-modules synthesizer={folder}" in text
    assert "AutoPeftModelForCausalLM.from_pretrained" in text
    assert "no-reference control" in text
    assert "a2r serve" not in text
    assert "| its prompt shows | the problem alone |" in text
    compile(text.split("```python\n")[1].split("```")[0], "card", "exec")


def verified(verifier: str, *verdicts: str) -> Bundle:
    references = [Reference("x", "1", verdict) for verdict in verdicts]
    return Bundle("b", "p", "1?", "1", verifier, references, verdicts.count("correct"), "1", "correct")


def test_a_verifier_of_ones_own_that_never_says_no_or_yes() -> None:
    one, other = yellow_checks.one_sided_verifiers(
        [
            verified("my.always", "correct", "correct"),
            verified("my.never", "incorrect"),
            verified("math", "correct"),
        ]
    )
    assert one.startswith("my.always never says no on 2 references")
    assert other.startswith("my.never never says yes on 1 references")
    assert yellow_checks.one_sided_verifiers([verified("my.both", "correct", "incorrect")]) == []


@pytest.mark.parametrize(
    ("no_signal", "groups", "few"), [(0.5, 100, False), (0.6, 1000, True), (0.5, 12, True), (0.1, 12, False)]
)
def test_few_live_groups(no_signal: float, groups: int, few: bool) -> None:
    assert yellow_checks.few_live_groups(no_signal, groups) == few


def test_targets_and_colours() -> None:
    assert yellow_checks.few_targets(32, "") == ""
    assert (
        yellow_checks.few_targets(7, "draw") == "7 targets, too few for SFT to learn anything general; draw"
    )
    assert yellow_checks.few_targets(1, "").startswith("1 target, too few")


def test_a_training_of_dead_groups_says_so_at_its_end() -> None:
    assert yellow_checks.few_had_signal(0.9) == ""
    assert yellow_checks.few_had_signal(0.95).startswith("in 95% of all logged groups the rewards were equal")
    assert "nothing was learnt" in yellow_checks.few_had_signal(1.0)


@pytest.mark.parametrize(
    ("strategy", "step", "logs"), [("steps", 4, True), ("steps", 3, False), ("no", 4, False)]
)
def test_the_last_step_is_logged_whatever_logging_steps_says(strategy: str, step: int, logs: bool) -> None:
    args: Any = SimpleNamespace(logging_strategy=strategy)
    control, state = TrainerControl(), TrainerState(max_steps=4, global_step=step)
    ProgressLines().on_step_end(args, state, control)
    assert control.should_log == logs
    colours = [
        Check("x", passed, "", empty).color for passed, empty in ((True, False), (True, True), (False, True))
    ]
    assert colours == ["green", "yellow", "red"]
