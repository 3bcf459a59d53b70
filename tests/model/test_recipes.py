"""Every recipe parses strictly and says how it is run; those of recipes/tiny really run, small, on the
shipped models.
"""

import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from conftest import a2r, options
from measure_memory import config_of
from tiny_rows import PretrainConfig
from transformers import Qwen2Config

from a2r_train.commands import run as pipeline
from a2r_train.commands.merge import MergeConfig
from a2r_train.config import load_yaml, parse
from a2r_train.data.bundle import BundleConfig
from a2r_train.data.explore import ExploreConfig
from a2r_train.errors import InputError
from a2r_train.evaluate import EvaluateConfig
from a2r_train.evaluate.config import check
from a2r_train.prompts import PromptConfig
from a2r_train.train import grpo, sft
from a2r_train.train.arguments import BundleArguments, ModelArguments, cycle_steps
from a2r_train.train.estimate.memory import size_of
from a2r_train.train.estimate.report import USABLE, memory, step_of
from a2r_train.train.shared_prefix import trainer as shared_prefix

ROOT = Path(__file__).parents[2]

CONFIGS: dict[str, list[Any]] = {
    "merge": [MergeConfig],
    "explore": [ExploreConfig],
    "bundle": [BundleConfig],
    "sft": [BundleArguments, sft.SynthesizerSFTConfig, ModelArguments],
    "grpo": [BundleArguments, grpo.SynthesizerGRPOConfig, ModelArguments],
    "evaluate": [EvaluateConfig],
}
TRAINERS: dict[str, Callable[[list[str]], int]] = {"sft": sft.main, "grpo": grpo.main}
HEADS = {
    **{verb: rf"a2r {verb}" for verb in ("merge", "explore", "bundle", "evaluate")},
    **{
        verb: rf"(CUDA_VISIBLE_DEVICES=\d )?accelerate launch( --\S+ \S+)* scripts/{verb}\.py"
        for verb in TRAINERS
    },
    "pretrain": r"python scripts/make_data/pretrain_tiny\.py",
}
RECIPES = sorted(path.relative_to(ROOT) for path in (ROOT / "recipes").rglob("*.yaml"))
STAGES = [path for path in RECIPES if path.stem.partition("-")[0] in CONFIGS]
STEPS = {"sft": 32, "grpo": 256}  # rows of a step of GSM8K
QWEN2: dict[str, dict[str, int]] = {  # the shapes of Qwen2.5-Coder, by the recipes that train them
    "gsm8k-0.5b": {
        "hidden_size": 896,
        "intermediate_size": 4864,
        "num_hidden_layers": 24,
        "num_attention_heads": 14,
    },
    "gsm8k-0.5b-1.5b": {
        "hidden_size": 1536,
        "intermediate_size": 8960,
        "num_hidden_layers": 28,
        "num_attention_heads": 12,
    },
}
FOLDERS_OF_1_5B = ("gsm8k-1.5b", "gsm8k-1.5b-trained", "gsm8k-1.5b-answers")
QWEN2 |= dict.fromkeys(FOLDERS_OF_1_5B, QWEN2["gsm8k-0.5b-1.5b"])
# The longest with and without references; of the other recipes 1,560 and 182.
PROMPTS = {"gsm8k-1.5b": (2294, 231), "gsm8k-1.5b-trained": (2323, 255), "gsm8k-1.5b-answers": (301, 237)}
for shape in QWEN2.values():
    shape |= {"num_key_value_heads": 2, "vocab_size": 151936}


STEP = {"max_steps": 1, "use_cpu": True, "save_steps": 1, "logging_steps": 1}
SMALL: dict[str, dict[str, Any]] = {
    "explore": {"max_problems": 12, "samples_per_problem": 8},
    "bundle": {},
    "sft": {**STEP, "per_device_train_batch_size": 4},
    "grpo": {**STEP, "per_device_train_batch_size": 8, "num_generations": 8},
    "evaluate": {"max_bundles": 6, "draws": 50},
}

pytestmark = pytest.mark.usefixtures("at_root")


def verb_of(path: Path) -> str:
    """`panel` is an evaluation, and `panel-VERB` what it needs; `a2r run` leaves them out."""
    return "evaluate" if path.stem == "panel" else path.stem.removeprefix("panel-").partition("-")[0]


def status(verb: str, arguments: list[str]) -> int:
    """Run a stage as its command does, in this process; returns the exit status."""
    if verb in TRAINERS:
        return TRAINERS[verb](arguments)
    return a2r(verb, *arguments)


def resolved(recipe: dict[str, Any]) -> dict[str, Any]:
    """With what transformers makes of `report_to: none`."""
    return {k: [] if (k, v) == ("report_to", "none") else v for k, v in recipe.items()}


@pytest.mark.parametrize("path", RECIPES, ids=str)
def test_every_recipe_parses(path: Path) -> None:
    recipe, verb = load_yaml(str(path)), verb_of(path)
    if verb == "prompt":
        assert PromptConfig.load(path) != PromptConfig()
    elif verb == "task":
        assert PromptConfig.load(recipe["prompt"]) != PromptConfig()
    elif verb == "pretrain":
        assert set(PretrainConfig.load(str(path)).models) == set(recipe["models"])
    else:
        forced = ["--use_cpu", "true"] if verb in TRAINERS else []
        configs = parse(CONFIGS[verb], ["--config", str(path), *forced])
        assert verb not in TRAINERS or configs[1].bf16 is False
        for key, value in resolved(recipe).items():
            (config,) = (c for c in configs if hasattr(c, key))
            assert getattr(config, key) == value, key
        if verb == "evaluate":
            check(configs[0])
        for key in ("prompt", "problems", "test_problems"):
            named = recipe.get(key, "")
            assert (
                not named.endswith((".yaml", ".jsonl")) or named.startswith("runs/") or Path(named).is_file()
            ), key


@pytest.mark.parametrize("path", [path for path in RECIPES if path.match("recipes/*/grpo*.yaml")], ids=str)
def test_lengths_and_steps_of_grpo_go_together(path: Path) -> None:
    data, args, model = parse(CONFIGS["grpo"], ["--config", str(path), "--use_cpu", "true"])
    longest = PromptConfig.load(data.prompt).max_prompt_tokens + args.max_completion_length
    assert not args.use_vllm or args.vllm_max_model_length in (None, longest)
    assert not args.use_vllm or args.vllm_importance_sampling_mode == "token_truncate"
    assert not args.shared_prefix or shared_prefix.refused_settings(args, model) == []
    assert args.save_steps % cycle_steps(args) == 0


@pytest.mark.parametrize("folder", [f"recipes/{name}" for name in QWEN2])
def test_the_control_differs_by_its_references_alone(folder: str) -> None:
    """And every stage reads what an earlier one, or the folder of the explorer, has written."""
    tuned = Path(folder, "sft.yaml").exists()
    for verb in [verb for verb in TRAINERS if Path(folder, f"{verb}.yaml").exists()]:
        trained, control = (load_yaml(f"{folder}/{name}.yaml") for name in (verb, f"{verb}-no-references"))
        differ = {key for key in {*trained, *control} if trained.get(key) != control.get(key)}
        own = {"model_name_or_path"} if verb == "grpo" and tuned else set()
        assert differ == {"plain_share", "output_dir", *own}
        assert control["plain_share"] == 1
    before = [path for name in ("gsm8k-0.5b", "gsm8k-1.5b") for _, path in pipeline.stages(f"recipes/{name}")]
    written = [
        load_yaml(str(path))["output_dir"] for path in before if folder != f"recipes/{path.parent.name}"
    ]
    for _, path in pipeline.stages(folder):
        recipe = load_yaml(str(path))
        for key, value in recipe.items():
            assert (
                not str(value).startswith("runs/")
                or key == "output_dir"
                or str(value).startswith(tuple(written))
            ), key
        written.append(recipe["output_dir"])


@pytest.mark.parametrize("name", ["a2r-efficient", "a2r-self", "agglm-1.7b", "rsa-4b"])
def test_memory_at_the_head_is_what_a_dry_run_estimates(name: str, tmp_path: Path) -> None:
    """By the model's shape, as there is no hub here; `reference: full` and the other keys of a prompt change
    no length.
    """
    path = Path(f"recipes/{name}/grpo.yaml")
    data, args, model = parse(CONFIGS["grpo"], ["--config", str(path), "--use_cpu", "true"])
    shape = re.search(r"Qwen3-([\d.]+b)", model.model_name_or_path, re.IGNORECASE)
    config_of(shape[1].lower()).save_pretrained(tmp_path)
    size = size_of(replace(model, model_name_or_path=str(tmp_path)), args.activation_checkpointing, args)
    head = path.read_text()
    way, processes = re.search(r"accelerate_configs/(\w+)\.yaml --num_processes (\d+)", head).groups()
    step = step_of(args, PromptConfig.load(data.prompt).max_prompt_tokens, args.max_completion_length)
    found = memory(size, step, way, int(processes), 80e9).total
    assert f"{found / 1e9:.0f} GB of a GPU" in " ".join(head.replace("#", "").split())
    assert found < USABLE * 80e9


@pytest.mark.parametrize("name", ["a2r-efficient", "a2r-self"])
def test_one_gpu_takes_lora_as_the_head_says(name: str, tmp_path: Path) -> None:
    path = f"recipes/{name}/grpo.yaml"
    head = " ".join(Path(path).read_text().replace("#", "").split())
    gpu, changes, total, longest, longer = re.search(
        r"One GPU of (\d+) GB: LoRA, .*? with (.*?): (\d+) GB .*? "
        r"Completions of ([\d,]+) tokens take (\d+) GB",
        head,
    ).groups()
    config_of("8b").save_pretrained(tmp_path)
    for more, said in (
        (changes, total),
        (f"{changes} --max_completion_length {longest.replace(',', '')}", longer),
    ):
        given = ["--config", path, "--model_name_or_path", str(tmp_path), "--use_cpu", "true", *more.split()]
        data, args, model = parse(CONFIGS["grpo"], given)
        step = step_of(args, PromptConfig.load(data.prompt).max_prompt_tokens, args.max_completion_length)
        found = memory(
            size_of(model, args.activation_checkpointing, args), step, "ddp", 1, 1e9 * int(gpu)
        ).total
        assert f"{found / 1e9:.0f}" == said
        assert args.per_device_train_batch_size * args.gradient_accumulation_steps == 8 * 8 * 16
        assert (found < USABLE * 1e9 * int(gpu)) == (said == total)


@pytest.mark.parametrize(
    "path", [path for path in RECIPES if path.parent.name in QWEN2 and verb_of(path) in TRAINERS], ids=str
)
def test_memory_at_the_head_of_gsm8k_is_what_a_dry_run_estimates(path: Path, tmp_path: Path) -> None:
    """On the bundles of data/results."""
    verb, prompt = verb_of(path), PROMPTS.get(path.parent.name, (1560, 182))["no-references" in path.stem]
    Qwen2Config(**QWEN2[path.parent.name], tie_word_embeddings=False).save_pretrained(tmp_path)
    first = Path(
        "recipes", re.sub("-(trained|answers)$", "", path.parent.name), "sft.yaml"
    )  # it has the adapter's shape, or else GRPO's
    shape = load_yaml(str(first if first.exists() else first.with_name("grpo.yaml")))
    adapter = {k: v for k, v in shape.items() if re.match("use_peft|lora", k)}
    head = " ".join(path.read_text().replace("#", "").split())
    said = [
        (gpu, "", total)
        for gpu, total in re.findall(r"one GPU of (\d+) GB, of which it takes (\d+) by --dry_run", head)
    ]
    said += re.findall(r"One of (\d+) GB takes the same step with (.*?): (\d+) GB", head)
    assert said
    for gpu, changes, total in said:
        given = options({"model_name_or_path": tmp_path, "use_cpu": True, **adapter})
        _, args, model = parse(CONFIGS[verb], ["--config", str(path), *given, *changes.split()])
        completion = getattr(args, "max_completion_length", 320)  # of SFT's targets the longest
        size, step = (
            size_of(model, bool(args.activation_checkpointing), args),
            step_of(args, prompt, completion),
        )
        found = memory(size, step, "ddp", 1, 1e9 * int(gpu)).total / 1e9
        assert (f"{found:.0f}", args.per_device_train_batch_size * args.gradient_accumulation_steps) == (
            total,
            STEPS[verb],
        )
        assert found < USABLE * int(gpu)


@pytest.mark.parametrize(
    "path", [path for path in RECIPES if verb_of(path) not in ("prompt", "task")], ids=str
)
def test_the_head_of_a_recipe_is_its_command(path: Path) -> None:
    head = re.match(r"(#.*\n)+", path.read_text(encoding="utf-8"))
    assert head, "no comment at the head"
    lines = re.sub(r" \\\n#\s+", " ", head.group())
    found = re.search(rf"^#\s+{HEADS[verb_of(path)]} --config (?P<path>\S+)", lines, re.MULTILINE)
    assert found, head.group()
    assert found["path"] == str(path)


@pytest.mark.parametrize("path", STAGES, ids=str)
def test_a_misspelt_key_ends_with_status_2_and_the_right_one(
    path: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    wrong = tmp_path / path.name
    wrong.write_text(path.read_text().replace("\noutput_dir:", "\noutput_dirr:"))
    assert status(verb_of(path), ["--config", str(wrong)]) == 2
    error = capfd.readouterr().err
    assert error.endswith(f"{wrong}: unknown key 'output_dirr'; did you mean 'output_dir'?\n")
    assert error.count("\n") == 1
    assert [p.name for p in tmp_path.iterdir()] == [path.name]


def test_a_misspelt_key_of_a_prompt_or_a_pretraining(tmp_path: Path) -> None:
    for name, was, is_ in (("prompt", "reference_template", "template"), ("pretrain", "vocab_size", "vocab")):
        (tmp_path / f"{name}.yaml").write_text(
            Path(f"recipes/tiny/{name}.yaml").read_text().replace(f"\n{was}:", f"\n{is_}:")
        )
    with pytest.raises(InputError, match=r"unknown key 'template'; did you mean '\w*_template'"):
        PromptConfig.load(tmp_path / "prompt.yaml")
    with pytest.raises(InputError, match="unknown key 'vocab'; did you mean 'vocab_size'"):
        PretrainConfig.load(str(tmp_path / "pretrain.yaml"))
