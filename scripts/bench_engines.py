"""Tokens per second of the engines on the same work, and of vLLM's own `LLM.generate` on the same prompts as the ceiling.

    python scripts/bench_engines.py [--model DIR] [--problems FILE] [--count 200] [--samples 8] [--repeats 3]

One GPU, a real model (the endpoint is vLLM's own server):

    python scripts/bench_engines.py --model Qwen/Qwen2.5-Coder-0.5B-Instruct --problems openai/gsm8k:main:train --count 1000 \\
        --temperature 0.8 --max_completion_tokens 320 --batch_size 512 --prompt ""

Every engine samples all problems once to warm up (vLLM then has the prompts in its cache) and `repeats` times more, vLLM and
the ceiling by turns. Wall seconds are the median. On a machine that does other work, too, compare CPU seconds, which are those
of this process (the engine's, where it runs in this process, as on a CPU).
"""

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from agree_engines import serving

from a2r_train.engines import Engine, Sampling, load_engine
from a2r_train.explore import seed_of
from a2r_train.models import load_tokenizer
from a2r_train.prompts import Chat, PromptConfig, Prompter
from a2r_train.records import Problem, read


@dataclass
class Measured:
    """What an engine took, a number a repeat."""

    tokens: list[int] = field(default_factory=list)
    wall_s: list[float] = field(default_factory=list)
    cpu_s: list[float] = field(default_factory=list)

    def add(self, work: Callable[[], int]) -> None:
        wall, cpu = time.perf_counter(), time.process_time()
        self.tokens.append(work())
        self.wall_s.append(time.perf_counter() - wall)
        self.cpu_s.append(time.process_time() - cpu)

    def rates(self) -> tuple[float, float]:
        """Tokens a second by the clock, and a CPU second: medians."""
        per_wall = statistics.median(t / s for t, s in zip(self.tokens, self.wall_s, strict=True))
        return per_wall, statistics.median(t / s for t, s in zip(self.tokens, self.cpu_s, strict=True))


@dataclass
class Work:
    """What every engine does."""

    chats: list[Chat]
    seeds: list[int]
    sampling: Sampling

    def by(self, engine: Engine) -> Callable[[], int]:
        return lambda: sum(c.completion_tokens for c in engine.generate(self.chats, self.sampling, self.seeds))


def measure(works: dict[str, Callable[[], int]], repeats: int) -> dict[str, Measured]:
    """The works by turns, after one warm-up of each."""
    found = {name: Measured() for name in works}
    for work in works.values():
        work()
    for _ in range(repeats):
        for name, work in works.items():
            found[name].add(work)
            print(f"{name}: {found[name].wall_s[-1]:.1f} s, CPU {found[name].cpu_s[-1]:.1f} s", file=sys.stderr)
    return found


def ceiling(engine: Any, prompts: list[dict[str, list[int]]], work: Work) -> Callable[[], int]:
    """The same prompts by `LLM.generate` itself, on the engine's own LLM; vLLM makes the text, too."""
    from vllm import SamplingParams

    llm = engine._copies[0].llm
    options = {"temperature": work.sampling.temperature, "max_tokens": work.sampling.max_completion_tokens}
    params = [SamplingParams(**options, seed=seed) for seed in work.seeds]
    return lambda: sum(len(output.outputs[0].token_ids) for output in llm.generate(prompts, params, use_tqdm=False))


def load_work(given: argparse.Namespace) -> tuple[Work, list[dict[str, list[int]]]]:
    """The chats, and their prompts as vLLM takes them."""
    problems = read(Problem, given.problems)[: given.count]
    prompter = Prompter(load_tokenizer(given.model), PromptConfig.load(given.prompt))
    chats = [prompter.explorer(p.problem) for p in problems for _ in range(given.samples)]
    seeds = [seed_of(0, p.id, sample) for p in problems for sample in range(given.samples)]
    sampling = Sampling(given.temperature, max_completion_tokens=given.max_completion_tokens)
    return Work(chats, seeds, sampling), [{"prompt_token_ids": prompter.token_ids(chat)} for chat in chats]


def in_process(given: argparse.Namespace, work: Work, prompts: list[dict[str, list[int]]]) -> dict[str, Measured]:
    """vLLM in this process and its ceiling; the memory is free again when this returns."""
    engine = load_engine("vllm", given.model)
    return measure({"vllm": work.by(engine), "LLM.generate": ceiling(engine, prompts, work)}, given.repeats)


def run(given: argparse.Namespace) -> dict[str, Measured]:
    work, prompts = load_work(given)
    found = in_process(given, work, prompts)
    gc.collect()
    with serving(given.model, "auto") as url:
        engine = load_engine("openai", given.model, endpoint=url, max_concurrent_requests=given.batch_size)
        found |= measure({"openai": work.by(engine)}, given.repeats)
    engine = load_engine("transformers", given.model, batch_size=given.batch_size)
    return found | measure({"transformers": work.by(engine)}, given.repeats)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="data/tiny/explorer")
    parser.add_argument("--problems", default="data/tiny/validation.jsonl")
    parser.add_argument("--prompt", default="recipes/tiny/prompt.yaml", help='a prompt file; "" for the default prompt')
    parser.add_argument("--count", type=int, default=200, help="problems")
    parser.add_argument("--samples", type=int, default=8, help="completions a problem")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--max_completion_tokens", type=int, default=40)
    parser.add_argument("--batch_size", type=int, default=256, help="of transformers, and requests under way at the server")
    parser.add_argument("--repeats", type=int, default=3)
    found = run(parser.parse_args())
    by_wall, by_cpu = found["LLM.generate"].rates()
    heads = ["engine", "tokens", "wall s", "tokens/s", "of LLM.generate", "tokens a CPU s", "of LLM.generate"]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for name, one in found.items():
        wall, cpu = one.rates()
        mine = " | " if name == "openai" else f"{cpu:.0f} | {cpu / by_cpu:.0%}"
        row = f"{one.tokens[0]} | {statistics.median(one.wall_s):.1f} | {wall:.0f} | {wall / by_wall:.0%} | {mine}"
        print(f"| {name} | {row} |")
    return 0


if __name__ == "__main__":
    sys.exit(main())
