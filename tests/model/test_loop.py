"""The loop end to end on checkpoints that answer 3 or 6: `a2r run`, a kill, a thinking model, how checkpoints
load.
"""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml
from conftest import CHAT_TEMPLATE, files_of, options, save_tiny, teach, write_rows
from peft import AutoPeftModelForCausalLM
from test_recipes import status
from transformers import AutoModelForCausalLM, AutoTokenizer

from a2r_train.commands.merge import MergeConfig, merge
from a2r_train.commands.run import run, stages
from a2r_train.data.bundle import BundleConfig, bundle
from a2r_train.data.explore import ExploreConfig, explore
from a2r_train.data.read import read
from a2r_train.errors import InputError
from a2r_train.evaluate import EvaluateConfig, evaluate
from a2r_train.inference.synthesise import synthesizer_chat
from a2r_train.models import load_tokenizer
from a2r_train.prompts import PromptConfig, Prompter
from a2r_train.records import Bundle, Rollout, Synthesis
from a2r_train.train import grpo, sft
from a2r_train.train.arguments import BundleArguments, ModelArguments
from a2r_train.train.bundles import load_bundles

STEP = {
    "max_steps": 1, "per_device_train_batch_size": 16, "learning_rate": 1e-5, "report_to": "none",
    "logging_steps": 1,
    "use_cpu": True, "activation_checkpointing": False, "save_strategy": "no",
}  # fmt: skip
TARGETS = {"target_samples": 4, "max_target_tokens": 40}
SHORT = """\
explorer_template: "{problem}"
synthesizer_template: "{problem} {references}"
reference_template: "[{number}] {text}"
"""
GROUPS = {"num_generations": 4, "max_completion_length": 40}


@pytest.fixture
def six_problems(tmp_path: Path) -> str:
    rows = [{"id": f"p{i}", "problem": f"What is {i} * 3?", "answer": str(3 * (1 + i % 2))} for i in range(6)]
    return write_rows(tmp_path / "problems.jsonl", rows)


def write_recipes(folder: Path, out: Path, problems: str, model: str) -> None:
    rollouts, bundles = str(out / "rollouts" / "rollouts.jsonl"), str(out / "bundles" / "train.jsonl")
    tuned = {"bundles": bundles, **STEP}
    recipes = {
        "explore": {"problems": problems, "model": model, "samples_per_problem": 6,
        "max_completion_tokens": 16},
        "bundle": {"problems": problems, "rollouts": rollouts, "k": 2, "bundles_per_problem": 1,
        "tokenizer": model},
        "sft": {"model_name_or_path": model, **tuned, **TARGETS},
        "grpo": {"model_name_or_path": str(out / "sft"), **tuned, **GROUPS},
        "evaluate": {
            "bundles": bundles, "rollouts": rollouts, "explorer": model, "base": model,
            "sft": str(out / "sft"),
            "grpo": str(out / "grpo"), "max_completion_tokens": 16, "draws": 100, "allow_overlap": True,
        },
    }  # fmt: skip
    places = {"explore": "rollouts", "bundle": "bundles", "evaluate": "evaluation"}
    folder.mkdir()
    for stage, recipe in recipes.items():
        recipe["output_dir"] = str(out / places.get(stage, stage))
        (folder / f"{stage}.yaml").write_text(yaml.safe_dump(recipe))


@pytest.mark.usefixtures("drawn")
def test_run_skips_every_stage_that_is_done(
    six_problems: str,
    speaking: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    """That it makes them is in test_front.py; here they are made in this process."""
    monkeypatch.setenv("A2R_TEST_WITHOUT_VLLM", "1")
    recipes, out = tmp_path / "recipes", tmp_path / "out"
    write_recipes(recipes, out, six_problems, speaking)
    for verb, path in stages(str(recipes)):
        assert status(verb, ["--config", str(path)]) == 0
    rows = {
        row["name"]: row["accuracy"]
        for row in json.loads((out / "evaluation" / "results.json").read_text())["rows"]
    }
    assert {
        "maj@2",
        "maj@equal_tokens",
        "synthesizer/base",
        "synthesizer/sft",
        "synthesizer/sft+grpo@T",
    } <= set(rows)
    assert 0 < rows["pass@1"] < rows["pass@2"]
    assert all(
        (out / name / "done.json").exists() for name in ("rollouts", "bundles", "sft", "grpo", "evaluation")
    )
    before, times = files_of(out), {path: path.stat().st_mtime_ns for path in out.rglob("*")}
    capfd.readouterr()
    run(str(recipes))
    said = capfd.readouterr()
    assert (said.out, said.err.count("done already"), said.err.count("\n")) == ("", 5, 5), said
    assert files_of(out) == before
    made_anew = {
        path.name for path, then in times.items() if path.is_file() and path.stat().st_mtime_ns != then
    }
    assert made_anew <= {
        "results.json",
        "report.md",
        "report.html",
        "scores.json",
        "timing.json",
        "manifest.json",
        "done.json",
        "config.yaml",
    }


@pytest.mark.parametrize("stage", ["explore", "sft"])
def test_run_ends_with_the_status_of_the_stage_that_fails(
    stage: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / f"{stage}.yaml").write_text("output_dirr: x\n")
    (tmp_path / "evaluate.yaml").write_text("output_dirr: x\n")
    with pytest.raises(SystemExit) as ended:
        run(str(tmp_path))
    assert ended.value.code == 2
    error = capfd.readouterr().err
    assert f"{stage}.yaml: unknown key 'output_dirr'; did you mean 'output_dir'?" in error
    assert "evaluate.yaml" not in error


def test_run_of_a_folder_without_stages(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"no such folder; a2r init .* makes one"):
        run(str(tmp_path / "missing"))
    (tmp_path / "explore.yaml").touch()
    with pytest.raises(InputError, match=rf"is a file; name the folder .*, as in a2r run {tmp_path}$"):
        run(str(tmp_path / "explore.yaml"))
    (tmp_path / "explore.yaml").unlink()
    with pytest.raises(InputError, match="no stage here"):
        run(str(tmp_path))


def test_a_thinking_model_runs_from_explore_to_evaluate(six_problems: str, tmp_path: Path) -> None:
    """It thinks of a wrong answer, so that whoever reads the thinking judges it wrong."""
    template = CHAT_TEMPLATE.replace("assistant\n{% endif %}", "assistant\n<think>\n{% endif %}")
    model = save_tiny(tmp_path / "thinker", seed=2, chat_template=template)
    teach(model, [rf"QUARK \boxed{{9}}</think>So \boxed{{{answer}}}" for answer in (3, 6)], steps=150)
    (tmp_path / "short.yaml").write_text(SHORT)
    prompt = str(tmp_path / "short.yaml")
    folders = {name: str(tmp_path / name) for name in ("explore", "bundle", "sft", "grpo", "evaluate")}
    sizes = {"samples_per_problem": 4, "max_completion_tokens": 40, "prompt": prompt}
    found = explore(ExploreConfig(six_problems, model, folders["explore"], **sizes))  # type: ignore[arg-type]
    rollouts = read(Rollout, str(found))
    assert sum(r.text.startswith("<think>QUARK") for r in rollouts) > 12
    assert 4 < sum(r.verdict == "correct" for r in rollouts) < 20
    grouped = {"k": 2, "bundles_per_problem": 1, "tokenizer": model, "prompt": prompt}
    bundle(BundleConfig(str(found), folders["bundle"], six_problems, **grouped))  # type: ignore[arg-type]
    bundles = f"{folders['bundle']}/train.jsonl"
    prompter = Prompter(load_tokenizer(model), PromptConfig.load(prompt))
    for one in read(Bundle, bundles):
        shown = prompter.text(synthesizer_chat(prompter, one))
        assert r"So \boxed{" in shown
        assert "QUARK" not in shown

    tuned = {"bundles": bundles, **STEP}
    given = options(
        {"model_name_or_path": model, "output_dir": folders["sft"], "prompt": prompt, **tuned, **TARGETS}
    )
    assert sft.main(given) == 0
    targets = read(Synthesis, f"{folders['sft']}/targets.jsonl")
    assert sum(t.text.startswith("<think>QUARK") for t in targets) > len(targets) / 2
    assert (
        grpo.main(
            options({"model_name_or_path": folders["sft"], "output_dir": folders["grpo"], **tuned, **GROUPS})
        )
        == 0
    )
    logged = json.loads((Path(folders["grpo"]) / "trainer_state.json").read_text())["log_history"][0]
    assert logged["reward"] > 0

    panel = {
        "sft": folders["sft"],
        "grpo": folders["grpo"],
        "prompt": prompt,
        "temperature": 0.0,
        "draws": 50,
        "allow_overlap": True,  # six problems are all that there are
    }
    results = evaluate(EvaluateConfig(bundles, folders["evaluate"], model, max_completion_tokens=40, **panel))  # type: ignore[arg-type]
    rows = {row["name"]: row["accuracy"] for row in results["rows"]}
    assert rows["synthesizer/sft+grpo"] > 0
    (path,) = Path(folders["evaluate"]).glob("syntheses/synthesizer-sft+grpo/*.jsonl")
    made = read(Synthesis, str(path))
    assert all(s.text.startswith("<think>") and s.answer in ("3", "6", "") for s in made)


def greedy(model: Any, tokenizer: Any, content: str) -> str:
    chat = [{"role": "user", "content": content}]
    inputs = tokenizer.apply_chat_template(
        chat, add_generation_prompt=True, return_dict=True, return_tensors="pt"
    )
    return str(tokenizer.decode(model.generate(**inputs, max_new_tokens=24, do_sample=False)[0]))


@pytest.mark.parametrize("lora", [False, True])
def test_checkpoints_load_as_they_are_and_a_merged_one_says_the_same(
    lora: bool, rollouts: str, problems: str, tiny: str, tmp_path: Path
) -> None:
    folder = bundle(BundleConfig(rollouts, str(tmp_path / "bundle"), problems))
    bundles = f"{folder}/train.jsonl"
    first = read(Bundle, bundles)[0]
    target = Synthesis(
        first.id, 0, rf"It is \boxed{{{first.answer}}}", first.answer, "correct", 1, 1, "stop", "m", 0
    )
    targets = write_rows(tmp_path / "targets.jsonl", [target.__dict__])
    tuned = {
        "bundles": bundles,
        **STEP,
        "learning_rate": 0.05,
        "max_completion_length": 16,
        "num_generations": 4,
    }
    peft = {"use_peft": True, "lora_r": 4, "lora_target_modules": "all-linear"} if lora else {}
    taught = {key: tuned[key] for key in ("bundles", *STEP)} | {"targets": targets, "max_steps": 4, **peft}
    assert sft.main(options({"model_name_or_path": tiny, "output_dir": tmp_path / "sft", **taught})) == 0
    assert (
        grpo.main(options({"model_name_or_path": tmp_path / "sft", "output_dir": tmp_path / "grpo", **tuned}))
        == 0
    )
    base = AutoModelForCausalLM.from_pretrained(tiny)
    loads = AutoPeftModelForCausalLM if lora else AutoModelForCausalLM
    for name in ("sft", "grpo"):
        tokenizer = AutoTokenizer.from_pretrained(tmp_path / name)
        model = loads.from_pretrained(tmp_path / name, dtype=torch.float32)
        said = [greedy(model, tokenizer, content) for content in ("1", "How many?", "x" * 40)]
        assert said != [greedy(base, tokenizer, content) for content in ("1", "How many?", "x" * 40)]
        if lora:
            asked = MergeConfig(str(tmp_path / name), str(tmp_path / f"{name}-merged"))
            merge(asked)
            (tmp_path / name / "adapter_model.safetensors").touch()  # another time, the same weights
            merge(asked)
            merged = AutoModelForCausalLM.from_pretrained(tmp_path / f"{name}-merged")
            assert [greedy(merged, tokenizer, content) for content in ("1", "How many?", "x" * 40)] == said
            assert (tmp_path / f"{name}-merged" / "prompt.yaml").exists()
    if lora:
        weights = tmp_path / "grpo" / "adapter_model.safetensors"
        weights.write_bytes(weights.read_bytes()[:-1] + b"?")
        with pytest.raises(InputError, match="grpo has changed since this run"):
            merge(asked)
    else:
        with pytest.raises(InputError, match="expected the folder of a LoRA adapter"):
            merge(MergeConfig(str(tmp_path / "sft"), str(tmp_path / "merged")))
        assert not (tmp_path / "merged").exists()


def test_a_gguf_file_is_held_to_its_sha256_and_is_not_trained(tmp_path: Path) -> None:
    file = tmp_path / "model.gguf"
    file.write_bytes(b"GGUF")
    with pytest.raises(InputError, match=r"model\.gguf: its sha256 is [0-9a-f]{64}; expected abc"):
        merge(MergeConfig(str(file), str(tmp_path / "folder"), sha256="abc"))
    assert not (tmp_path / "folder").exists()
    with pytest.raises(
        InputError, match=r"model\.gguf: a GGUF file cannot be trained; .* a2r merge --model FILE"
    ):
        load_bundles(BundleArguments("none.jsonl"), ModelArguments(str(file)))
