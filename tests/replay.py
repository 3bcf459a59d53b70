"""GRPO through the real trainer on replayed completions, dense or with the prompt shared; a program, for
several processes.

accelerate launch --config_file accelerate_configs/cpu2.yaml tests/replay.py MODEL OUTPUT SHARED [name=value
...]

The completions of a step depend on nothing but the step, the prompt and the place in the group, their rewards
on the completion alone: two runs differ by their arithmetic alone. The trained weights, and those that a
single process began with, are written to OUTPUT; the run's folder is OUTPUT without its suffix, and a run
that finds a checkpoint there goes on from it.
"""

import itertools
import sys
from pathlib import Path
from typing import Any

import torch
import yaml
from datasets import Dataset
from peft import LoraConfig
from transformers import AutoTokenizer
from trl import GRPOConfig, GRPOTrainer

from a2r_train.process import leave
from a2r_train.train.model import shard_precisely
from a2r_train.train.run import run_training
from a2r_train.train.sampling import EpochGRPOTrainer
from a2r_train.train.shared_prefix import trainer as shared_prefix
from a2r_train.train.shared_prefix.trainer import SharedPrefixGRPOTrainer

PROMPTS = [f"Problem {i}: " + "how many apples are left? " * (1 + i % 3) for i in range(8)]
GROUP = 4
Rows = dict[str, Any]


def completions(prompts: list[str], trainer: GRPOTrainer) -> Rows:
    """TRL's `rollout_func`: unequal lengths, the last one cut, and tokens of a tool in the middle of some."""
    tokenizer: Any = trainer.processing_class
    prompt_ids = [tokenizer(prompt, add_special_tokens=False)["input_ids"] for prompt in prompts]
    ids, masks = [], []
    for _, rows in itertools.groupby(prompt_ids):
        for place, row in enumerate(rows):
            seed = trainer.state.global_step * 1000 + sum(row) * 10 + place
            length = 2 + (3 * place + seed) % 7
            drawn = torch.randint(5, 300, (length,), generator=torch.Generator().manual_seed(seed)).tolist()
            ids.append([*drawn, *([tokenizer.eos_token_id] if place != GROUP - 1 else [])])
            masks.append([int(place != 1 or i != 1) for i in range(len(ids[-1]))])
    return {"prompt_ids": prompt_ids, "completion_ids": ids, "logprobs": None, "env_mask": masks}


def reward(completion_ids: list[list[int]], **_: Any) -> list[float]:
    return [sum(ids) % 7 / 7 for ids in completion_ids]


def trainer_of(model: Any, output: str, shared: bool, **changes: Any) -> GRPOTrainer:
    """A trainer in float32, of 4 groups a step. Sharing is never given up for speed."""
    options: dict[str, Any] = {
        "per_device_train_batch_size": 4 * GROUP,
        "num_generations": GROUP,
        "max_completion_length": 12,
        "max_steps": 20,
        "learning_rate": 1e-3,
        "beta": 0.05,
        "use_cpu": not torch.cuda.is_available(),
        "bf16": False,
        "report_to": "none",
        "save_strategy": "no",
        "logging_steps": 1,
        "activation_checkpointing": False,
        "mask_truncated_completions": True,
        "disable_tqdm": True,
        "dataloader_pin_memory": False,
        "model_init_kwargs": {"dtype": "float32"} if isinstance(model, str) else None,
        **changes,
    }
    peft = options.pop("peft_config", None)
    shared_prefix.MIN_TOKEN_RATIO = 0.0
    kind = SharedPrefixGRPOTrainer if shared else EpochGRPOTrainer
    args = GRPOConfig(output, **options)
    shard_precisely(args)
    return kind(
        model=model,
        reward_funcs=reward,
        args=args,
        train_dataset=Dataset.from_dict({"prompt": PROMPTS}),
        processing_class=AutoTokenizer.from_pretrained(
            model if isinstance(model, str) else model.config._name_or_path
        ),
        rollout_func=completions,
        peft_config=peft,
    )


def weights(trainer: GRPOTrainer) -> torch.Tensor:
    """All trained parameters, end to end."""
    state = trainer.accelerator.get_state_dict(trainer.model_wrapped)
    trained = {name for name, p in trainer.model.named_parameters() if p.requires_grad}
    return (
        torch.cat([state[name].flatten().float().cpu() for name in sorted(trained)])
        if state
        else torch.empty(0)
    )


def main(model: str, output: str, shared: str, *changes: str) -> int:
    given = {key: yaml.safe_load(value) for key, value in (change.split("=", 1) for change in changes)}
    folder = str(Path(output).with_suffix(""))
    torch.manual_seed(0)  # of an adapter's first weights
    if "peft_config" in given:
        given["peft_config"] = LoraConfig(**given["peft_config"], task_type="CAUSAL_LM")
    trainer = trainer_of(model, folder, yaml.safe_load(shared), **given)
    start = weights(trainer) if trainer.accelerator.num_processes == 1 else None
    run_training(trainer)
    trained = weights(trainer)
    if trainer.accelerator.is_main_process:
        torch.save({"start": start, "weights": trained, "log": trainer.state.log_history}, output)
    trainer.accelerator.wait_for_everyone()  # one that leaves while another still works can die of it
    trainer.accelerator.end_training()
    return 0


if __name__ == "__main__":
    leave(lambda: main(*sys.argv[1:]))
