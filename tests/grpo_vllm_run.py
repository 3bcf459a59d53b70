"""Run by test_grpo_vllm.py and scripts/proofs/prove_gpus.py: GRPO with vLLM; prints what trainer and engine
say, as JSON.

Arguments: bundles, output folder, and options of the recipe. Those of several runs are separated by `--next`:
each run is a fork of the process that has imported TRL and vLLM, which takes as long as to train.
"""

import json
import logging
import os
import sys
from functools import partial
from pathlib import Path
from typing import Any

import torch
from trl.generation import vllm_generation

from a2r_train.config import parse
from a2r_train.models import load_model
from a2r_train.process import leave
from a2r_train.train import grpo
from a2r_train.train.weight_sync import SummedGeneration

MODEL = "data/tiny/synthesizer"


class LengthReward:
    """A reward that differs within a group, whatever the model can do."""

    __name__ = "length_reward"

    def __init__(self, _: Any) -> None:
        pass

    def __call__(self, completions: list[Any], **_: Any) -> list[float]:
        return [float(len(completion[-1]["content"]) % 5) for completion in completions]


def as_trl_does(generation: Any) -> bool:
    """Whether the engine holds what TRL's own way of syncing gives it; the trainer's weights come back."""
    model = generation.llm.llm_engine.model_executor.driver_worker.model_runner.model
    ours = {name: weight.clone() for name, weight in model.named_parameters()}
    own = {name: weight.clone() for name, weight in generation.model.named_parameters()}
    for name, weight in vllm_generation.VLLMGeneration._iter_named_params(generation):
        model.load_weights([(name, weight)])
    for name, weight in generation.model.named_parameters():
        weight.data.copy_(own[name])
    return all(torch.equal(weight, ours[name]) for name, weight in model.named_parameters())


def cached(llm: Any) -> int:
    """Prompt tokens that TRL's engine does not read again for the second of two equal prompts."""
    from vllm import SamplingParams

    prompt = {"prompt_token_ids": list(range(100, 400))}
    asked = llm.generate([prompt] * 2, SamplingParams(max_tokens=1, logprobs=0), use_tqdm=False)
    return int(asked[1].num_cached_tokens or 0)


def main(bundles: str, folder: str, *options: str) -> int:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    grpo.VerifiableReward = LengthReward  # type: ignore[assignment, misc]
    engines: list[Any] = []
    equal: list[bool] = []
    sync = SummedGeneration.sync_weights

    def counted(self: Any) -> None:
        sync(self)
        engines.append(getattr(self, "llm", None))  # None of a server
        if engines[-1] and len(engines) == 2:  # after the first update
            equal.append(as_trl_does(self))

    SummedGeneration.sync_weights = counted  # type: ignore[method-assign]
    on_cpu = not torch.cuda.is_available()
    if not on_cpu:  # several GPUs then reduce by NCCL alone
        vllm_generation.LLM = partial(vllm_generation.LLM, enforce_eager=True, disable_custom_all_reduce=True)
    given = {"model_name_or_path": MODEL, "bundles": bundles, "output_dir": folder, "use_cpu": on_cpu,
    "use_vllm": True,
             "vllm_mode": "colocate", "max_steps": 4, "save_strategy": "no", "logging_steps": 1,
             "warmup_steps": 0,
             "per_device_train_batch_size": 16, "num_generations": 8,
             "max_completion_length": 24}  # fmt: skip
    arguments = [text for key, value in given.items() for text in (f"--{key}", str(value))]
    data, args, model = parse(grpo.ARGUMENTS, ["--config", "recipes/tiny/grpo.yaml", *arguments, *options])
    grpo.train(data, args, model)
    if os.environ.get("RANK", "0") != "0":
        return 0
    history = json.loads((Path(folder) / "trainer_state.json").read_text())["log_history"]
    before, after = load_model(model.model_name_or_path, "float32"), load_model(folder, "float32")
    ids = torch.arange(100, 164)[None]
    with torch.inference_mode():
        moved = (before(ids).logits.log_softmax(-1) - after(ids).logits.log_softmax(-1)).abs()
    means, most = (
        [row[f"sampling/sampling_logp_difference/{kind}"] for row in history if "reward" in row]
        for kind in ("mean", "max")
    )
    found = {
        "differences": most,
        "mean_differences": means,
        "moved": float(moved.max()),
        "mean_moved": float(moved.mean()),
        "tied": bool(before.config.tie_word_embeddings),
        "dtype": str(engines[0].llm_engine.model_config.dtype) if engines[0] else "the server's",
        "syncs": len(engines),
        "as_trl": equal,
        "cached": cached(engines[0]) if engines[0] else 0,
    }
    sys.stdout.write(f"\n{json.dumps(found)}\n")
    return 0


def in_forks(arguments: list[str]) -> int:
    """Each run in turn; stops at the first that fails."""
    while arguments:
        at = arguments.index("--next") if "--next" in arguments else len(arguments)
        own, arguments = arguments[:at], arguments[at + 1 :]
        if (child := os.fork()) == 0:
            leave(partial(main, *own))
        if status := os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]):
            return status
    return 0


if __name__ == "__main__":
    if "--next" in sys.argv:
        sys.exit(in_forks(sys.argv[1:]))
    leave(lambda: main(*sys.argv[1:]))
