"""Measure tokens per second on several GPUs of one host with the same work per GPU; see prove_gpus.py. Prints
one JSON object.

    python scripts/benchmarks/bench_scaling.py explore --model MODEL --gpus 2
    accelerate launch --config_file accelerate_configs/ddp.yaml --num_processes 2 \\
        scripts/benchmarks/bench_scaling.py update --shape 0.6b

explore: the samples of a problem go to one copy of the model. One problem thus keeps one GPU busy, and as
many problems as GPUs keep all of them busy; equal seeds give equal completions. explore_transformers is the
same without vLLM, with one process per GPU. update: GRPO optimizer steps on random completions, training all
weights; the first two steps are not counted.
"""

import argparse
import json
import tempfile
import time
from typing import Any

import measure_memory
import torch
from accelerate import PartialState
from measure_memory import CUDA, Point, Watch, trainer_of
from transformers import PrinterCallback

from a2r_train.engines import Engine, EngineArguments, Sampling, load_engine

PROBLEM = (
    "A shop sells {} lamps in a week, and a third of that in the next. How many lamps does it sell in all?"
)
STEPS = 6


def ask(engine: Engine, problems: list[int], samples: int, sampling: Sampling) -> tuple[int, float]:
    """Generate completions; returns the number of tokens and the seconds."""
    chats = [
        [{"role": "user", "content": PROBLEM.format(48 + 2 * i)}] for i in problems for _ in range(samples)
    ]
    began = time.perf_counter()
    made = engine.generate(
        chats, sampling, [1000 * i + sample for i in problems for sample in range(samples)]
    )
    return sum(completion.completion_tokens for completion in made), time.perf_counter() - began


def explore_vllm(model: str, gpus: int, samples: int, tokens: int) -> dict[str, Any]:
    engine = load_engine(
        model, EngineArguments(engine="vllm", data_parallel_size=gpus, gpu_memory_utilization=0.5)
    )
    problems, sampling = list(range(gpus)), Sampling(max_completion_tokens=tokens)
    ask(engine, problems, samples, Sampling(max_completion_tokens=16))
    together, took = ask(engine, problems, samples, sampling)
    alone = [ask(engine, [problem], samples, sampling) for problem in problems[:2]]
    one = sum(written for written, _ in alone) / sum(seconds for _, seconds in alone)
    return {
        "engine": "vllm",
        "tokens_s": round(together / took),
        "tokens_s_of_one": round(one),
        "tokens": together,
    }


def explore_transformers(model: str, samples: int, tokens: int) -> dict[str, Any]:
    """One process per GPU: first the main process works alone, then all of them."""
    state = PartialState(cpu=not CUDA)
    engine = load_engine(model, EngineArguments(batch_size=samples))
    ask(
        engine, [0], samples, Sampling(max_completion_tokens=tokens)
    )  # warm-up: allocates memory before anything is timed
    measured = []
    for workers in (1, state.num_processes):
        state.wait_for_everyone()
        began, written = time.perf_counter(), 0
        if state.process_index < workers:
            written, _ = ask(engine, [0], samples, Sampling(max_completion_tokens=tokens))
        state.wait_for_everyone()
        measured.append(workers * written / (time.perf_counter() - began))
    one, together = measured
    return {"engine": "transformers", "tokens_s": round(together), "tokens_s_of_one": round(one)}


class Steps(Watch):
    """Records only the seconds of each step."""

    def on_step_begin(self, *_: Any, **__: Any) -> None:
        self._began = measure_memory.clock()

    def on_step_end(self, *_: Any, **__: Any) -> None:
        self.seconds.append(measure_memory.clock() - self._began)


def update(shape: str) -> dict[str, Any]:
    """Measure two groups per process: 8 completions of 512 tokens, a prompt of 1024; less for `tiny`."""
    state = PartialState(cpu=not CUDA)  # gives each process its own GPU
    small = shape == "tiny"
    point = Point(
        shape, "grpo", False, 256 if small else 1024, 64 if small else 512, 4 if small else 8, groups=2
    )
    with tempfile.TemporaryDirectory() as folder:
        trainer, steps = trainer_of(point, folder), Steps()
        trainer.args.max_steps = 3 if small else STEPS
        trainer.remove_callback(PrinterCallback)
        trainer.add_callback(steps)
        trainer.train()
    trainer.accelerator.wait_for_everyone()
    seconds = sum(steps.seconds[2:]) / len(steps.seconds[2:])
    tokens = state.num_processes * point.groups * point.group.tokens
    row = {
        "shape": shape,
        "processes": state.num_processes,
        "tokens_s": round(tokens / seconds),
        "step_s": round(seconds, 3),
    }
    trainer.accelerator.end_training()
    return row


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("what", choices=["explore", "explore_transformers", "update"])
    parser.add_argument("--model", default="data/tiny/explorer")
    parser.add_argument(
        "--shape",
        default="0.6b",
        choices=measure_memory.SHAPES,
        help="shape of the random model for `update`",
    )
    parser.add_argument("--gpus", type=int, default=2)
    parser.add_argument("--samples", type=int, default=1024, help="completions per problem")
    parser.add_argument("--tokens", type=int, default=256, help="longest completion in tokens")
    given = parser.parse_args()
    if given.what == "explore":
        row = explore_vllm(given.model, given.gpus, given.samples, given.tokens)
    elif given.what == "explore_transformers":
        row = explore_transformers(given.model, given.samples, given.tokens)
    else:
        row = update(given.shape)
    if PartialState(cpu=not CUDA).is_main_process:
        print(f"\n{json.dumps({**row, 'torch': torch.__version__})}", flush=True)


if __name__ == "__main__":
    main()
