"""Run by test_grpo_vllm.py in a process of its own: GRPO with colocated vLLM; prints what trainer and engine say, as JSON.

Arguments: bundles, output folder, and options of the recipe.
"""

import json
import sys
from typing import Any

import torch
from trl.generation import vllm_generation

from a2r_train.config import parse
from a2r_train.models import load_model
from a2r_train.train import grpo


def main(bundles: str, folder: str, *options: str) -> None:
    synced: list[Any] = []
    kept = vllm_generation.VLLMGeneration.sync_weights

    def sync(self: Any) -> None:
        kept(self)
        synced.append(self.llm)

    vllm_generation.VLLMGeneration.sync_weights = sync
    recipe = ["--config", "recipes/tiny/grpo.yaml", "--model_name_or_path", "data/tiny/synthesizer", "--bundles", bundles]
    given = {"output_dir": folder, "use_cpu": True, "use_vllm": True, "vllm_mode": "colocate", "max_steps": 4, "save_steps": 4,
             "per_device_train_batch_size": 16, "num_generations": 8, "warmup_steps": 0, "logging_steps": 1}  # fmt: skip
    arguments = [*recipe, *(text for key, value in given.items() for text in (f"--{key}", str(value))), *options]
    grpo.train(*parse(grpo.ARGUMENTS, arguments))
    history = json.loads(open(f"{folder}/trainer_state.json", encoding="utf-8").read())["log_history"]
    before, after = load_model("data/tiny/synthesizer", "float32"), load_model(folder, "float32")
    ids = torch.arange(100, 164)[None]
    with torch.inference_mode():
        moved = (before(ids).logits.log_softmax(-1) - after(ids).logits.log_softmax(-1)).abs().max()
    print(json.dumps({
        "differences": [row["sampling/sampling_logp_difference/max"] for row in history if "reward" in row],
        "moved": float(moved),
        "tied": bool(before.config.tie_word_embeddings),
        "dtype": str(synced[0].llm_engine.model_config.dtype),
        "syncs": len(synced),
    }))  # fmt: skip


if __name__ == "__main__":
    main(*sys.argv[1:])
