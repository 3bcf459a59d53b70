"""A recipe that goes on with an adapter: what it asks of the adapter, and of the base below it."""

from pathlib import Path

import pytest
from test_train import GRPO, arguments, files, sft_arguments  # noqa: F401

from a2r_train.train import grpo, model, sft

ALL = "down_proj, gate_proj, k_proj, o_proj, q_proj, up_proj, v_proj"


@pytest.mark.parametrize(
    ("made", "asked", "held"),
    [
        ("", ("lora_target_modules", "all-linear"), "q_proj, v_proj"),  # PEFT's choice
        ("all-linear", ("lora_target_modules", "q_proj", "v_proj"), ALL),
        ("", ("lora_modules_to_save", "lm_head"), "none"),
        ("", ("lora_target_parameters", "mlp.weight"), "none"),
        ("", ("lora_target_modules", "v_proj", "q_proj"), ""),
        ("", ("lora_target_modules", r".*\.[qv]_proj"), ""),
        ("all-linear", ("lora_target_modules", "all-linear"), ""),
    ],
)
def test_modules_that_the_adapter_has_not_are_refused(
    made: str,
    asked: tuple[str, ...],
    held: str,
    files: Path,  # noqa: F811
    tiny: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    how = ("--use_peft", "true", "--lora_r", "2", *(("--lora_target_modules", made) if made else ()))
    assert sft.main(sft_arguments(files, tiny, "sft", *how)) == 0
    key, *values = asked
    capsys.readouterr()
    status = grpo.main(arguments(files, str(files / "sft"), "grpo", *GRPO, f"--{key}", *values))
    assert status == (2 if held else 0)
    if held:
        says = f"but the adapter {files}/sft has {held}, and is trained further as it is; remove the key\n"
        error = capsys.readouterr().err
        assert error.startswith(f"error: {key} is ")
        assert error.endswith(says)


def test_another_dropout_is_refused_where_there_is_one(
    files: Path,  # noqa: F811
    tiny: str,
    capsys: pytest.CaptureFixture[str],
) -> None:
    made = ("--use_peft", "true", "--lora_r", "2", "--lora_dropout", "0.1")
    assert sft.main(sft_arguments(files, tiny, "sft", *made)) == 0
    start, asked = str(files / "sft"), ("--lora_dropout", "0.0")
    capsys.readouterr()
    assert sft.main(sft_arguments(files, start, "out", *asked)) == 2
    assert capsys.readouterr().err.startswith("error: lora_dropout is 0.0, but the adapter ")
    assert sft.main(sft_arguments(files, start, "out", "--lora_dropout", "0.1")) == 0
    assert grpo.main(arguments(files, start, "grpo", *GRPO, *asked)) == 0  # which has none
    assert grpo.main(arguments(files, start, "other", *GRPO, *asked, "--disable_dropout", "false")) == 2


@pytest.mark.parametrize("trainer", ["sft", "grpo"])
def test_the_base_below_an_adapter_is_loaded_as_the_recipe_says(
    trainer: str,
    files: Path,  # noqa: F811
    tiny: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    assert sft.main(sft_arguments(files, tiny, "sft", "--use_peft", "true", "--lora_r", "2")) == 0
    loaded = []
    load = model.AutoModelForCausalLM.from_pretrained

    def kept(*names: str, **options: object) -> object:
        loaded.append(load(*names, **options))
        return loaded[-1]

    monkeypatch.setattr(model.AutoModelForCausalLM, "from_pretrained", kept)
    own = ("--model_init_kwargs", '{"sliding_window": 7, "attn_implementation": "eager"}')
    start = str(files / "sft")
    if trainer == "sft":
        assert sft.main(sft_arguments(files, start, "out", *own)) == 0
    else:
        assert grpo.main(arguments(files, start, "out", *GRPO, *own)) == 0
    assert (loaded[-1].config.sliding_window, loaded[-1].config._attn_implementation) == (7, "eager")
    assert "ignored" not in caplog.text
