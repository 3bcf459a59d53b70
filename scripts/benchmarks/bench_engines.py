"""Tokens per second of the engines on the same work, and of vLLM's own `LLM.generate` on the same prompts as
the ceiling.

The ceiling has no seeds, which cost vLLM time; the engine is measured with a seed for each completion, and
without.

    python scripts/benchmarks/bench_engines.py [--model DIR] [--problems FILE] [--count 200] \\
        [--samples 8] [--engines vllm,LLM.generate]

One GPU, a real model (the endpoint is vLLM's own server):

    python scripts/benchmarks/bench_engines.py --model Qwen/Qwen2.5-Coder-0.5B-Instruct \\
        --problems openai/gsm8k:main:train --count 1000 --temperature 0.8 --max_completion_tokens 320 \\
        --batch_size 2048 --prompt "" --warm_up 100 --repeats 1 --engines vllm,transformers

Every engine samples the first `warm_up` problems once, all of them if it is 0 (vLLM then has their prompts in
its cache), and then all problems `repeats` times, vLLM and the ceiling by turns. Wall seconds are the median.
On a machine that does other work, too, compare CPU seconds, which are those of this process (the engine's,
where it runs in this process, as on a CPU).
"""

import argparse
import gc
import statistics
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

from a2r_train.data.read import read
from a2r_train.engines import Engine, EngineArguments, Sampling, load_engine
from a2r_train.models import load_tokenizer
from a2r_train.prompts import Chat, PromptConfig, Prompter
from a2r_train.records import Problem, seed_of

sys.path.insert(0, str(Path(__file__).parent.parent / "proofs"))
from agree_engines import serving

CEILING = "LLM.generate"


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
    warm_up: int  # so many of the chats

    def by(self, engine: Engine) -> Callable[[int], int]:
        """The tokens that the engine makes of the first so many chats."""

        def sample(count: int) -> int:
            return sum(
                c.completion_tokens
                for c in engine.generate(self.chats[:count], self.sampling, self.seeds[:count])
            )

        return sample


def measure(works: dict[str, Callable[[int], int]], work: Work, repeats: int) -> dict[str, Measured]:
    """The works by turns, after one warm-up of each."""
    found = {name: Measured() for name in works}
    for sample in works.values():
        sample(work.warm_up)
    for _ in range(repeats):
        for name, sample in works.items():
            found[name].add(partial(sample, len(work.chats)))
            one = found[name]
            print(
                f"{name}: {one.tokens[-1]} tokens, {one.wall_s[-1]:.1f} s, CPU {one.cpu_s[-1]:.1f} s",
                file=sys.stderr,
            )
    return found


def ceiling(engine: Any, prompts: list[dict[str, list[int]]], work: Work) -> Callable[[int], int]:
    """The same prompts by `LLM.generate` itself, on the engine's own LLM; vLLM makes the text, too."""
    from vllm import SamplingParams

    llm = engine._copies[0].llm
    params = SamplingParams(
        temperature=work.sampling.temperature, max_tokens=work.sampling.max_completion_tokens
    )

    def sample(count: int) -> int:
        outputs = llm.generate(prompts[:count], params, use_tqdm=False)
        return sum(len(output.outputs[0].token_ids) for output in outputs)

    return sample


def without_seeds(engine: Any, sample: Callable[[int], int], count: int) -> int:
    engine.seeded = False
    try:
        return sample(count)
    finally:
        engine.seeded = True


def load_work(given: argparse.Namespace) -> tuple[Work, list[dict[str, list[int]]]]:
    """The chats, and their prompts as vLLM takes them."""
    problems = read(Problem, given.problems)[: given.count]
    prompter = Prompter(load_tokenizer(given.model), PromptConfig.load(given.prompt))
    chats = [prompter.explorer(p.problem) for p in problems for _ in range(given.samples)]
    seeds = [seed_of(0, p.id, sample) for p in problems for sample in range(given.samples)]
    sampling = Sampling(given.temperature, max_completion_tokens=given.max_completion_tokens)
    warm_up = given.warm_up * given.samples or len(chats)
    return Work(chats, seeds, sampling, warm_up), [
        {"prompt_token_ids": prompter.token_ids(chat)} for chat in chats
    ]


def in_process(
    given: argparse.Namespace, work: Work, prompts: list[dict[str, list[int]]]
) -> dict[str, Measured]:
    """vLLM in this process, and its ceiling if asked for; the memory is free again when this returns."""
    engine = load_engine(given.model, EngineArguments(engine="vllm"))
    works = {"vllm": work.by(engine), "vllm, seeded: false": partial(without_seeds, engine, work.by(engine))}
    if CEILING in given.engines.split(","):
        works[CEILING] = ceiling(engine, prompts, work)
    return measure(works, work, given.repeats)


def run(given: argparse.Namespace) -> dict[str, Measured]:
    work, prompts = load_work(given)
    found: dict[str, Measured] = {}
    if "vllm" in given.engines.split(","):
        found |= in_process(given, work, prompts)
        gc.collect()
    if "openai" in given.engines.split(","):
        with serving(given.model, "auto") as url:
            engine = load_engine(
                given.model,
                EngineArguments(engine="openai", endpoint=url, max_concurrent_requests=given.batch_size),
            )
            found |= measure({"openai": work.by(engine)}, work, given.repeats)
    if "transformers" in given.engines.split(","):
        engine = load_engine(given.model, EngineArguments(batch_size=given.batch_size))
        found |= measure({"transformers": work.by(engine)}, work, given.repeats)
    return found


def show(found: dict[str, Measured]) -> None:
    """A Markdown table; the shares of the ceiling are empty where vLLM was not measured."""
    top = found[CEILING].rates() if CEILING in found else None
    heads = ["engine", "tokens", "wall s", "tokens/s", "of LLM.generate", "tokens a CPU s", "of LLM.generate"]
    print(f"| {' | '.join(heads)} |\n{'|---' * len(heads)}|")
    for name, one in found.items():
        wall, cpu = one.rates()
        by_wall, by_cpu = (f"{wall / top[0]:.0%}", f"{cpu / top[1]:.0%}") if top else ("", "")
        mine = " | " if name == "openai" else f"{cpu:.0f} | {by_cpu}"
        row = f"{one.tokens[0]} | {statistics.median(one.wall_s):.1f} | {wall:.0f} | {by_wall} | {mine}"
        print(f"| {name} | {row} |")


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="data/tiny/explorer")
    parser.add_argument("--problems", default="data/tiny/validation.jsonl")
    parser.add_argument(
        "--prompt", default="recipes/tiny/prompt.yaml", help='a prompt file; "" for the default prompt'
    )
    parser.add_argument("--count", type=int, default=200, help="problems")
    parser.add_argument("--samples", type=int, default=8, help="completions a problem")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--max_completion_tokens", type=int, default=40)
    parser.add_argument(
        "--batch_size", type=int, default=256, help="of transformers, and requests under way at the server"
    )
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--warm_up", type=int, default=0, help="problems to warm up with; 0 takes all")
    parser.add_argument(
        "--engines", default=f"vllm,{CEILING},openai,transformers", help=f"which; {CEILING} needs vllm"
    )
    show(run(parser.parse_args()))
    return 0


if __name__ == "__main__":
    sys.exit(main())
