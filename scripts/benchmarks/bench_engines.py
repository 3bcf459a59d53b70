"""Compare the engines' tokens per second on the same work: starts times ways, one JSON row per repeat.

    python scripts/benchmarks/bench_engines.py --output rows.jsonl --models MODEL_0.5B,MODEL_1.5B \\
        --problems openai/gsm8k:main:train --prompt "" --count 1000 --max_completion_tokens 512 \\
        --temperature 0.8 --batch_size 2000 --warm_up 100 --most_s 1200     # one GPU
    python scripts/benchmarks/bench_engines.py --starts ours,server,transformers --repeats 3   # a CPU
    python scripts/benchmarks/bench_engines.py --table rows.jsonl     # the table again

A start is an engine with its settings, in a separate process. A way is how it is asked for the same
completions: through our engine, or through `LLM.generate`, as one request of n samples or as n requests, with
or without seeds, with texts or only token ids. The way `vllm bench` is what vLLM's own throughput benchmark
does: no seeds, one request of n, and texts. Some ways use only a share of the problems. On a CPU, the start
`continuous` takes 60 % of the memory.

On a shared machine, speed drifts over minutes. So the ways of a start take turns: first `repeat` 1 of all its
ways, then 2, up to `--repeats`. A row is written as soon as it is measured. The table has one line per model,
start and way, with the medians of the repeats and the range of tokens/s. Starts run one after the other, so
compare the ways of one start first.

`again` is the share of completions that are equal to those of the start's first seeded way in the same turn,
which asks all problems at once. `ours, chunk after chunk` asks half of them in four calls, and `ours, chunks
together` as four batches of one call, as the stages do. `ours, place by place` fills each place of vLLM as it
becomes free. `ours, again` asks a quarter of them, so in another batch, and `ours, other batch` asks this
quarter in four calls. `same` is the share that is equal in the way's previous repeat, which is the same call.
On a machine with other work, compare CPU seconds. They cover only the start's own process: on a CPU the
engine runs in it, unless it has copies. If other work uses the same CPU cores, torch's threads spin while
they wait for each other, which counts as CPU seconds; OMP_NUM_THREADS=1 avoids it.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts/proofs"))


@dataclass(frozen=True)
class Way:
    """How completions are requested. `parts`: successive calls, or batches of one call if `together`.
    `share`: share of the problems. `refill_share`: of vLLM's places, as in `vllm_copies`; None is our choice.
    """

    name: str
    ours: bool = False
    one_request: bool = False
    seeded: bool = True
    texts: bool = False
    parts: int = 1
    together: bool = False
    share: float = 1.0
    refill_share: float | None = None


OURS = Way("ours, seeds", ours=True)
FREE = Way("ours, seeded: false", ours=True, seeded=False)
PART = Way("ours, seeds, a quarter", ours=True, share=0.25)
BENCH = Way("vllm bench", one_request=True, seeded=False, texts=True)
ALL = (
    OURS,
    BENCH,  # second, so that a run that ends early has both
    FREE,
    Way("LLM.generate, n requests", seeded=False, texts=True),
    Way("LLM.generate, n requests, seeds, ids", share=0.25),
    Way("LLM.generate, n requests, ids", seeded=False, share=0.25),
    Way("LLM.generate, one request, seeds, ids", one_request=True, share=0.25),
    Way("LLM.generate, one request, ids", one_request=True, seeded=False, share=0.25),
    Way("ours, again", ours=True, share=0.25),
    Way("ours, other batch", ours=True, parts=4, share=0.25),
    Way("ours, place by place", ours=True, refill_share=0.0),
    Way("ours, chunk after chunk", ours=True, parts=4, share=0.5),
    Way("ours, chunks together", ours=True, parts=4, together=True, share=0.5),
)
QUARTER = tuple(Way(w.name, w.ours, w.one_request, w.seeded, w.texts, share=0.25) for w in (OURS, BENCH))


@dataclass(frozen=True)
class Start:
    """An engine. `settings` override ours for vLLM's `LLM`; `environment` goes to its process. `batching`:
    how the transformers engine makes its batches, if not in our way.
    """

    ways: tuple[Way, ...]
    arguments: dict[str, Any] = field(default_factory=dict)  # of EngineArguments
    settings: dict[str, Any] = field(default_factory=dict)
    batching: str = ""
    environment: dict[str, str] = field(default_factory=dict)


def graphs(sequences: int) -> dict[str, Any]:
    """Limit concurrent sequences, and capture CUDA graphs up to this number."""
    return {"max_num_seqs": sequences, "compilation_config": {"max_cudagraph_capture_size": sequences}}


# Leaves room for prompts that are read in the same step, because a larger step has no graph.
GRAPHS_BEYOND = {"max_cudagraph_capture_size": 4096}

# The first three are the main comparison; the others explain it. Starts that need a GPU are skipped on a CPU.
STARTS: dict[str, Start] = {
    "ours": Start(ALL),
    "vllm_defaults": Start((BENCH, OURS), settings={"max_num_seqs": None, "compilation_config": None}),
    "transformers": Start((OURS, PART), {"engine": "transformers"}),
    "static": Start((OURS, PART), {"engine": "transformers"}, batching="static"),
    "continuous": Start((FREE,), {"engine": "transformers"}, batching="continuous"),
    "copies_2": Start((OURS, FREE), {"copies_per_gpu": 2}),
    "copies_3": Start((OURS,), {"copies_per_gpu": 3}),
    "copies_4": Start((OURS,), {"copies_per_gpu": 4}),
    "graphs_256": Start(QUARTER, settings=graphs(256)),
    "graphs_512": Start(QUARTER, settings=graphs(512)),
    "graphs_2048": Start(QUARTER, settings=graphs(2048)),
    "graphs_beyond": Start(QUARTER, settings={**graphs(1024), "compilation_config": GRAPHS_BEYOND}),
    "sync": Start(QUARTER, settings={"async_scheduling": False}),
    "in_process": Start(QUARTER, environment={"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}),
    "runner_v1": Start(QUARTER, environment={"VLLM_USE_V2_MODEL_RUNNER": "0"}),
    "server": Start((OURS, FREE), {"engine": "openai"}),
}
ON_CPU = ("ours", "transformers", "static", "continuous", "copies_2", "sync", "server")


Answers = tuple[list[int], list[int]]  # tokens and a checksum of each completion


class Work:
    """The chats, prompts and seeds, which are the same for every way."""

    def __init__(self, given: argparse.Namespace) -> None:
        from a2r_train.data.read import read
        from a2r_train.engines import Sampling
        from a2r_train.models import load_tokenizer
        from a2r_train.prompts import PromptConfig, Prompter
        from a2r_train.records import Problem, seed_of

        problems = read(Problem, given.problems)[: given.count]
        prompter = Prompter(load_tokenizer(given.model), PromptConfig.load(given.prompt))
        self.samples, self.warm_up = given.samples, given.warm_up
        self.chats = [prompter.explorer(p.problem) for p in problems]
        self.prompts: list[Any] = [{"prompt_token_ids": prompter.token_ids(chat)} for chat in self.chats]
        self.seeds = [[seed_of(0, p.id, sample) for sample in range(given.samples)] for p in problems]
        self.sampling = Sampling(given.temperature, max_completion_tokens=given.max_completion_tokens)

    def ask(self, engine: Any, way: Way, begin: int, end: int) -> Answers:
        """Tokens and a checksum of each completion of problems `begin` to `end`, in order."""
        if not way.ours:
            return self._of_llm(engine, way, begin, end)
        return self.of_ours(engine, way, [(begin, end)])

    def of_ours(self, engine: Any, way: Way, bounds: Sequence[tuple[int, int]]) -> Answers:
        """The same of several runs of problems, as batches of one call of our engine."""
        batches = [
            (
                [chat for chat in self.chats[begin:end] for _ in range(self.samples)],
                [seed for group in self.seeds[begin:end] for seed in group],
            )
            for begin, end in bounds
        ]
        engine.seeded = way.seeded
        for copy, share in zip(getattr(engine, "_copies", []), self.refill_shares(engine), strict=False):
            copy.refill_share = share if way.refill_share is None else way.refill_share
        made = [one for batch in engine.generate_batches(batches, self.sampling) for one in batch]
        return [one.completion_tokens for one in made], [zlib.crc32(one.text.encode()) for one in made]

    @cache  # noqa: B019 - one engine
    def refill_shares(self, engine: Any) -> list[float]:
        """Those that the engine chose for its copies, before a way changes them."""
        return [copy.refill_share for copy in getattr(engine, "_copies", []) if hasattr(copy, "refill_share")]

    def _of_llm(self, engine: Any, way: Way, begin: int, end: int) -> Answers:
        from vllm import SamplingParams

        options: dict[str, Any] = {"temperature": self.sampling.temperature, "detokenize": way.texts}
        options["max_tokens"] = self.sampling.max_completion_tokens
        prompts, params = [], []
        for prompt, seeds in zip(self.prompts[begin:end], self.seeds[begin:end], strict=True):
            each = [(seeds[0], self.samples)] if way.one_request else [(seed, 1) for seed in seeds]
            prompts += [prompt] * len(each)
            params += [SamplingParams(seed=s if way.seeded else None, n=n, **options) for s, n in each]
        outputs = engine._copies[0].llm.generate(prompts, params, use_tqdm=False)
        ids = [list(one.token_ids) for output in outputs for one in output.outputs]
        return [len(one) for one in ids], [zlib.crc32(str(one).encode()) for one in ids]


def measure(work: Work, engine: Any, way: Way) -> tuple[dict[str, Any], list[int]]:
    """Measure a way once; returns its row, and the checksums of its completions."""
    count = max(1, round(len(work.chats) * way.share))
    bounds = list(pairwise(round(count * part / way.parts) for part in range(way.parts + 1)))
    tokens, sums = list[int](), list[int]()
    with Smi() as smi:
        began, used = time.perf_counter(), time.process_time()
        asked = [work.of_ours(engine, way, bounds)] if way.together else []
        for found in asked or (work.ask(engine, way, *one) for one in bounds):
            tokens += found[0]
            sums += found[1]
        seconds, cpu = time.perf_counter() - began, time.process_time() - used
    row = {"completions": len(tokens), "tokens": sum(tokens), "seconds": round(seconds, 2)}
    row |= {"tokens_per_s": round(sum(tokens) / seconds), "cpu_seconds": round(cpu, 2)}
    return {**row, "gpu_used": smi.mean}, sums


def by_turns(
    work: Work, engine: Any, ways: Sequence[Way], repeats: int
) -> Iterator[tuple[Way, dict[str, Any]]]:
    """Measure each way once, then each once more; yields a row as soon as it is measured."""
    previous: dict[str, list[int]] = {}
    for repeat in range(1, repeats + 1):
        first: list[int] = []
        for way in ways:
            row, sums = measure(work, engine, way)
            row |= {"repeat": repeat, "same": share_equal(previous.get(way.name, []), sums)}
            previous[way.name] = sums
            if way.ours and way.seeded:
                row["again"] = share_equal(first, sums)
                first = first or sums
            yield way, row


def share_equal(first: Sequence[int], second: Sequence[int]) -> float | None:
    """The share of equal values, up to the end of the shorter sequence; None if one is empty."""
    equal = [a == b for a, b in zip(first, second, strict=False)]
    return round(statistics.fmean(equal), 4) if equal else None


class Smi:
    """The GPU's mean utilisation in % inside the context; None without nvidia-smi."""

    mean: float | None = None

    def __enter__(self) -> Smi:
        gpu = (os.environ.get("CUDA_VISIBLE_DEVICES") or "0").split(",")[0]
        query = ["nvidia-smi", "-i", gpu, "--query-gpu=utilization.gpu", "--format=csv,noheader,nounits"]
        try:
            self.process: Any = subprocess.Popen([*query, "-lms", "250"], stdout=subprocess.PIPE, text=True)
        except FileNotFoundError:
            self.process = None
        return self

    def __exit__(self, *_: object) -> None:
        if self.process:
            self.process.terminate()
            seen = [float(one) for one in self.process.communicate()[0].split() if one.isdigit()]
            self.mean = round(statistics.mean(seen), 1) if seen else None


class Continuous:
    """transformers' own continuous batching, which has no seeds."""

    def __init__(self, engine: Any) -> None:
        self.engine = engine

    def generate_batches(self, batches: Sequence[Any], sampling: Any) -> Iterator[list[Any]]:
        for chats, _ in batches:
            yield self._generate(chats, sampling)

    def _generate(self, chats: Sequence[Any], sampling: Any) -> list[Any]:
        from transformers import GenerationConfig

        from a2r_train.engines.base import token_ids_of

        prompts = [list(prompt) for prompt in token_ids_of(self.engine._prompter, chats)]
        own = self.engine.model.generation_config
        config = GenerationConfig(
            do_sample=True,
            temperature=sampling.temperature,
            max_new_tokens=sampling.max_completion_tokens,
            eos_token_id=own.eos_token_id,
            pad_token_id=own.pad_token_id,
        )
        done = self.engine.model.generate_batch(prompts, generation_config=config).values()
        made = zip(prompts, done, strict=True)
        return [self.engine._completion(len(prompt), one.generated_tokens) for prompt, one in made]


def batched(engine: Any, batching: str) -> Any:
    """The transformers engine with another way to make its batches.

    `static` has a cache of fixed size, which transformers compiles with CUDA graphs on a GPU; a completion
    that has ended then stays in its batch. `continuous` is transformers' own continuous batching.
    """
    if batching == "continuous":
        return Continuous(engine)
    if batching == "static":
        engine._joins = engine._refills = False
        engine.model.generation_config.cache_implementation = "static"
    return engine


def started(given: argparse.Namespace, start: Start) -> Any:
    """Load the engine of a start. A setting of `None` removes ours."""
    from a2r_train.engines import EngineArguments, load_engine

    arguments: dict[str, Any] = {"engine": "vllm", "batch_size": given.batch_size, **start.arguments}
    arguments |= {"max_concurrent_requests": given.batch_size, "endpoint": given.endpoint}
    arguments["gpu_memory_utilization"] = given.gpu_memory_utilization
    if not start.settings:
        return batched(load_engine(given.model, EngineArguments(**arguments)), start.batching)
    import vllm

    from a2r_train.engines.vllm_copies import import_vllm

    import_vllm()
    llm = vllm.LLM

    def made(*args: Any, **settings: Any) -> Any:
        chosen = {**settings, **start.settings}
        return llm(*args, **{key: value for key, value in chosen.items() if value is not None})

    vllm.LLM = made  # type: ignore[assignment, misc]
    return load_engine(given.model, EngineArguments(**arguments))


def run_start(given: argparse.Namespace) -> int:
    """Measure the ways of `--only` in this process, and write each row as soon as it is measured."""
    from contextlib import nullcontext

    import torch
    from agree_engines import serving

    from a2r_train.output import versions

    start = STARTS[given.only]
    served, began = start.arguments.get("engine") == "openai", time.perf_counter()
    with serving(given.model, "auto") if served else nullcontext("") as given.endpoint:
        work = Work(given)
        engine = started(given, start)
        row = {"run": given.run, "model": given.model, "start": given.only}
        row["start_s"] = round(time.perf_counter() - began, 1)
        row |= {"device": torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"}
        row |= {"versions": versions(), "settings": asdict(start)["settings"]}
        row["cache_tokens"] = getattr(engine, "cache_tokens", None)  # of each copy of vLLM
        ways = chosen(start, given.ways)
        for way in (OURS, FREE):  # on a CPU, the first request without seeds compiles for seconds
            if any(way.seeded == other.seeded for other in ways):
                work.ask(engine, way, 0, work.warm_up or len(work.chats))
        for way, found in by_turns(work, engine, ways, given.repeats):
            write_row(given.output, {**row, "way": way.name, **found, "share": way.share})
    return 0


def chosen(start: Start, names: str) -> list[Way]:
    """The ways of a start whose names contain one of the requested parts, separated by `;`."""
    return [way for way in start.ways if not names or any(part in way.name for part in names.split(";"))]


def write_row(path: str, row: dict[str, Any]) -> None:
    with open(path, "a", encoding="utf-8") as out:
        out.write(json.dumps(row) + "\n")


def run_all(given: argparse.Namespace) -> None:
    """Run each start of each model in a separate process; one that fails gives a row with its error."""
    import torch

    names = given.starts.split(",") if given.starts else list(STARTS if torch.cuda.is_available() else ON_CPU)
    keys = ["output", "problems", "prompt", "count", "samples", "temperature", "max_completion_tokens"]
    keys += ["batch_size", "gpu_memory_utilization", "repeats", "warm_up", "ways", "run"]
    for model in given.models.split(","):
        for name in names:
            options = {key: getattr(given, key) for key in keys}
            command = [text for key, value in options.items() for text in (f"--{key}", str(value))]
            ended = run_one(
                [sys.executable, __file__, *command, "--models", model, "--only", name], name, given
            )
            if ended:
                write_row(given.output, {"model": model, "start": name, "error": ended})
            sys.stderr.write(f"{model}, {name}: {'failed' if ended else 'done'}\n")


def run_one(command: Sequence[str], name: str, given: argparse.Namespace) -> str:
    """Run a start. Returns "", or how it failed."""
    environment = {**os.environ, **STARTS[name].environment}
    try:
        done = subprocess.run(
            command, env=environment, stderr=subprocess.PIPE, text=True, timeout=given.most_s, check=False
        )
    except subprocess.TimeoutExpired:
        return f"it took longer than {given.most_s} s"
    said = [line for line in done.stderr.splitlines() if line.strip()]
    return " ".join(said[-3:])[-600:] or f"status {done.returncode}" if done.returncode else ""


def table(rows: Sequence[dict[str, Any]]) -> str:
    """Markdown; shares are relative to the model's fastest `vllm bench` line of the same run."""
    lines = lines_of([row for row in rows if "error" not in row])
    ceiling: dict[tuple[str, str], int] = {}
    for line in lines:
        if line["way"] == BENCH.name:
            of = line["run"], line["model"]
            ceiling[of] = max(ceiling.get(of, 0), line["tokens_per_s"])
    heads = ["model", "start", "way", "tokens", "s", "tokens/s", f"of the best {BENCH.name}", "CPU s"]
    heads += ["GPU used, %", "again", "same", "start, s"]
    shown = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    show: Callable[[Any], str] = lambda value: "" if value is None else str(value)  # noqa: E731
    for line in lines:
        top = ceiling.get((line["run"], line["model"]))
        share = f"{line['tokens_per_s'] / top:.2f}" if top else ""
        cells = [Path(line["model"]).name, line["start"], line["way"], line["tokens"], line["seconds"]]
        cells += [f"{line['tokens_per_s']}{line['range']}", share, line["cpu_seconds"], line["gpu_used"]]
        cells += [line["again"], line["same"], line["start_s"]]
        shown.append(f"| {' | '.join(map(show, cells))} |")
    shown += [f"{row['model']}, {row['start']}: {row['error']}" for row in rows if "error" in row]
    return "\n".join(shown)


def lines_of(rows: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """One line for the repeats of a way in one process, with their medians. A row without `repeat` is older:
    its repeats are in it, so it has its own line.
    """
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for number, row in enumerate(rows):
        of = [row.get(key) for key in ("run", "model", "start", "start_s", "way")]
        groups.setdefault((*of, None if "repeat" in row else number), []).append(row)
    digits = {"tokens": None, "tokens_per_s": None, "seconds": 2, "cpu_seconds": 2, "gpu_used": 1}
    lines = []
    for (run, model, start, start_s, way, _), group in groups.items():
        line = {"run": run, "model": model, "start": start, "start_s": start_s, "way": way, "range": ""}
        for key, places in {**digits, "again": 4, "same": 4}.items():
            values = [row[key] for row in group if row.get(key) is not None]
            line[key] = round(statistics.median(values), places) if values else None
        if len(group) > 1:
            rates = [row["tokens_per_s"] for row in group]
            line["range"] = f" ({min(rates)} to {max(rates)})"
        lines.append(line)
    return lines


def main() -> int:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--output", default="engines.jsonl", help="file to append rows to")
    parser.add_argument("--models", default="data/tiny/explorer", help="comma-separated")
    parser.add_argument("--problems", default="data/tiny/validation.jsonl")
    parser.add_argument(
        "--prompt", default="recipes/tiny/prompt.yaml", help='a prompt file; "" for the default prompt'
    )
    parser.add_argument("--count", type=int, default=200, help="number of problems")
    parser.add_argument("--samples", type=int, default=8, help="completions per problem")
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--max_completion_tokens", type=int, default=40)
    parser.add_argument(
        "--batch_size",
        type=int,
        default=256,
        help="batch size of transformers, and concurrent requests to the server",
    )
    parser.add_argument(
        "--gpu_memory_utilization",
        type=float,
        default=0.9,
        help="share of the GPU's memory for vLLM inside the process; lower it to measure two side by side",
    )
    parser.add_argument("--repeats", type=int, default=1, help="turns, each with all ways of a start")
    parser.add_argument("--warm_up", type=int, default=0, help="problems for warm-up; 0: all")
    parser.add_argument("--starts", default="", help=f"some of {', '.join(STARTS)}; empty: all")
    parser.add_argument("--ways", default="", help="parts of the names of ways, separated by `;`")
    parser.add_argument("--most_s", type=float, default=580, help="seconds after which a start is killed")
    parser.add_argument("--table", default="", help="only show the table of this file of rows")
    parser.add_argument("--run", default=time.strftime("%Y-%m-%d %H:%M"), help="name of the run, in its rows")
    parser.add_argument("--only", default="", choices=["", *STARTS], help=argparse.SUPPRESS)
    given = parser.parse_args()
    given.model, given.endpoint = given.models, ""
    if given.only:
        return run_start(given)
    if not given.table:
        run_all(given)
    rows = [json.loads(line) for line in Path(given.table or given.output).read_text().splitlines()]
    sys.stdout.write(table(rows) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main())
