"""Which settings of vLLM, and which way of asking it, give the most tokens a second: one JSON row a cell.

    python scripts/benchmarks/engine_matrix.py --model DIR --problems FILE --out rows.jsonl [--starts as_it_is,v1] [--scale 0.5]

A start is an engine with its settings, in a process of its own; a way is how the same completions are asked of it: by our
engine, by it as mended (`Mended`), or by `LLM.generate` as vLLM's own throughput benchmark does. Problems are GSM8K's or any
that `a2r explore` reads. While one start is measured, the next one imports vLLM and waits, so that it begins at once.

A row has tokens, seconds, the share of a core that the busiest thread of each process took, the GPU's utilisation, and what
the main threads were seen in (`stacks`: share of the samples in which a function was on the stack). The start `kernels` has
the seconds of each CUDA kernel instead. Rows with seeds also name a file of a checksum for each completion, so that two ways
can be compared: `--compare A B` prints the share of completions that are the same (with `--dummy` always nearly all).
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
import zlib
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from multiprocessing import get_context
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
SAMPLES = 8
INTERVAL_S = 0.005


@dataclass(frozen=True)
class Way:
    """How completions are asked for.

    by: `ours` (the engine as it stands), `mended`, or `LLM` (`LLM.generate` itself). one_request: a request of n samples, not
    n requests. share: of the problems, as slow ways need fewer.
    """

    name: str
    by: str = "LLM"
    one_request: bool = True
    seeded: bool = True
    detokenize: bool = False
    share: float = 1.0


OURS = Way("ours, seeds", by="ours", one_request=False)
OURS_FREE = Way("ours, no seeds", by="ours", one_request=False, seeded=False)
MENDED = Way("mended, seeds", by="mended")
MENDED_FREE = Way("mended, no seeds", by="mended", seeded=False)
BENCHMARK = Way("as vLLM's benchmark", seeded=False, detokenize=True)
BENCHMARK_IDS = Way("as vLLM's benchmark, ids alone", seeded=False)
ONE = Way("one request, seeds")
ONE_FREE = Way("one request, no seeds", seeded=False)
EIGHT = Way("eight requests, seeds", one_request=False)
EIGHT_FREE = Way("eight requests, no seeds", one_request=False, seeded=False)


@dataclass(frozen=True)
class Start:
    """An engine: `settings` go to vLLM's `LLM`, `environment` to its process; `copies` of it share the GPU."""

    ways: tuple[Way, ...]
    settings: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    copies: int = 1
    kind: str = "vllm"  # or transformers, kernels


def beside(copies: int) -> dict[str, Any]:
    """For copies that start at once: a cache of a given size, as vLLM cannot find out what is free while others fill it."""
    return graphs(512, kv_cache_memory_bytes=40 * 2**30 // copies, max_model_len=4096)


def graphs(sequences: int, **more: Any) -> dict[str, Any]:
    """So many sequences at once, with CUDA graphs up to as many."""
    return {"max_num_seqs": sequences, "compilation_config": {"max_cudagraph_capture_size": sequences}, **more}


RUNNER = "VLLM_USE_V2_MODEL_RUNNER"
# Engines are forked, so that vLLM is imported once a start; torch must then not ask the driver how many GPUs there are.
FORK = {"VLLM_WORKER_MULTIPROC_METHOD": "fork", "PYTORCH_NVML_BASED_CUDA_CHECK": "1"}
AGAIN = Way("one request, seeds, again")
ALL = (OURS, OURS_FREE, MENDED, BENCHMARK, BENCHMARK_IDS, EIGHT, ONE, AGAIN)
SHORT = tuple(replace(way, share=0.5) for way in (OURS, BENCHMARK, EIGHT_FREE, ONE))
STARTS: dict[str, Start] = {
    "graphs_1024": Start(ALL, graphs(1024)),
    "as_it_is": Start(SHORT),
    "copies_2": Start((MENDED, MENDED_FREE), beside(2), copies=2),
    "kernels": Start((), graphs(1024), {"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}, kind="kernels"),
    "v1": Start(SHORT, environment={RUNNER: "0"}),
    "v1_graphs_1024": Start(SHORT, graphs(1024), {RUNNER: "0"}),
    "graphs_512": Start((ONE, ONE_FREE), graphs(512)),
    "copies_3": Start((MENDED, MENDED_FREE), beside(3), copies=3),
    "sync": Start((ONE, ONE_FREE), {"async_scheduling": False}),
    "eager": Start((ONE, ONE_FREE), {"enforce_eager": True}),
    "in_process": Start((ONE, ONE_FREE), environment={"VLLM_ENABLE_V1_MULTIPROCESSING": "0"}),
    "no_prefix_cache": Start((ONE, EIGHT), {"enable_prefix_caching": False}),
    "short_context": Start((ONE, ONE_FREE), graphs(1024, max_model_len=2048)),
    "graphs_256": Start((ONE,), graphs(256)),
    "graphs_2048": Start((ONE, ONE_FREE), graphs(2048)),
    "v1_sync": Start((ONE_FREE,), {"async_scheduling": False}, {RUNNER: "0"}),
    "copies_4": Start((MENDED, MENDED_FREE), beside(4), copies=4),
    "transformers": Start((Way("ours, seeds", "ours", False, share=0.25),), kind="transformers"),
}


# ---- the engines, in the process of a start


class Work:
    """The same chats for every way; `share` takes the first so many problems."""

    def __init__(self, given: argparse.Namespace, part: int = 0, of: int = 1) -> None:
        from a2r_train.explore import seed_of
        from a2r_train.models import load_tokenizer
        from a2r_train.prompts import PromptConfig, Prompter
        from a2r_train.records import Problem, read

        self.given, self.part, self.of = given, part, of
        self.prompter = Prompter(load_tokenizer(given.model), PromptConfig.load(given.prompt))
        self.problems = read(Problem, given.problems)[: given.count]
        self.seed = {p.id: [seed_of(0, p.id, sample) for sample in range(SAMPLES)] for p in self.problems}

    def chosen(self, share: float) -> list[Any]:
        """This copy's problems."""
        return self.problems[: max(1, round(len(self.problems) * share * self.given.scale))][self.part :: self.of]

    def chats(self, problems: Sequence[Any]) -> tuple[list[Any], list[int]]:
        """One chat and one seed a completion, as `a2r explore` gives them to an engine."""
        chats = [self.prompter.explorer(p.problem) for p in problems for _ in range(SAMPLES)]
        return chats, [seed for p in problems for seed in self.seed[p.id]]


def mended(
    engine: Any, chats: Sequence[Any], sampling: Any, seeds: Sequence[int], one_request: bool, seeded: bool
) -> list[Any]:
    """What `VLLMEngine.generate` could be: each chat is rendered once, and its samples are one request with the first seed.

    Texts are decoded in one call, by all cores. With `one_request`, sample i of a chat has the seed of the first plus i.
    """
    from a2r_train.engines.base import Completion

    copy, places = engine._copies[0], dict[str, list[int]]()
    for i, chat in enumerate(chats):
        places.setdefault(json.dumps(chat), []).append(i)
    prompts = {key: engine._prompter.token_ids(chats[at[0]]) for key, at in places.items()}
    groups = list(places.items()) if one_request else [(key, [i]) for key, at in places.items() for i in at]
    stops = [i for i in [engine.tokenizer.eos_token_id] if i is not None]
    params = [
        parameters(sampling, n=len(at), seed=seeds[at[0]] if seeded else None, detokenize=False, stop_token_ids=stops)
        for _, at in groups
    ]
    outputs = copy.llm.generate([{"prompt_token_ids": prompts[key]} for key, _ in groups], params, use_tqdm=False)
    made = {i: one for (_, at), output in zip(groups, outputs, strict=True) for i, one in zip(at, output.outputs, strict=True)}
    kept = [list(made[i].token_ids)[: -1 if made[i].finish_reason == "stop" else None] for i in range(len(chats))]
    texts = engine.tokenizer.batch_decode(kept, skip_special_tokens=True)
    lengths = {key: len(ids) for key, ids in prompts.items()}
    whose = {i: key for key, at in places.items() for i in at}
    return [
        Completion(text, lengths[whose[i]], len(made[i].token_ids), str(made[i].finish_reason)) for i, text in enumerate(texts)
    ]


def parameters(sampling: Any, **more: Any) -> Any:
    from vllm import SamplingParams

    return SamplingParams(temperature=sampling.temperature, max_tokens=sampling.max_completion_tokens, **more)


def load(given: argparse.Namespace, start: Start) -> Any:
    """Our engine with the settings of the start, which its own do not overrule."""
    from a2r_train.engines import load_engine

    if start.kind == "transformers":
        return load_engine("transformers", given.model, batch_size=given.batch_size)
    import vllm

    from a2r_train.engines.vllm import VLLMEngine

    llm = vllm.LLM
    share = 0.9 if start.copies == 1 else 0.86 / start.copies

    def made(*args: Any, **settings: Any) -> Any:
        random = {"load_format": "dummy"} if given.dummy else {}
        cache = {"kv_cache_memory_bytes": int(given.cache_gib * 2**30)} if given.cache_gib else {}
        return llm(*args, **{**settings, **cache, **start.settings, **random})

    vllm.LLM = made  # what VLLMEngine imports
    try:
        return VLLMEngine(given.model, gpu_memory_utilization=given.memory or share)
    finally:
        vllm.LLM = llm


def ask(engine: Any, work: Work, way: Way, problems: Sequence[Any], tokens: int) -> tuple[int, list[int]]:
    """The tokens made, and a checksum of each completion."""
    from a2r_train.engines import Sampling

    sampling = Sampling(work.given.temperature, max_completion_tokens=tokens)
    chats, seeds = work.chats(problems)
    if way.by == "LLM":
        params = partial(parameters, sampling, detokenize=way.detokenize)
        prompts = [{"prompt_token_ids": work.prompter.token_ids(work.prompter.explorer(p.problem))} for p in problems]
        firsts = [work.seed[p.id][0] if way.seeded else None for p in problems]
        if way.one_request:
            given = [params(n=SAMPLES, seed=seed) for seed in firsts]
        else:
            prompts = [prompt for prompt in prompts for _ in range(SAMPLES)]
            given = [params(seed=seed if way.seeded else None) for seed in seeds]
        outputs = engine._copies[0].llm.generate(prompts, given, use_tqdm=False)
        ids = [one.token_ids for output in outputs for one in output.outputs]
        return sum(map(len, ids)), [zlib.crc32(str(list(i)).encode()) for i in ids]
    if way.by == "mended":
        made = mended(engine, chats, sampling, seeds, way.one_request, way.seeded)
    else:
        engine.seeded = way.seeded
        made = engine.generate(chats, sampling, seeds)
    return sum(c.completion_tokens for c in made), [zlib.crc32(c.text.encode()) for c in made]


_held: dict[str, Any] = {}


def begin(given: argparse.Namespace, start: Start, part: int) -> tuple[float, dict[str, Any]]:
    """Load the engine of a copy and warm it up; the seconds that loading took, and the engine's own settings."""
    began = time.perf_counter()
    work = Work(given, part, start.copies)
    engine = load(given, start)
    _held.update(work=work, engine=engine)
    took = time.perf_counter() - began
    if start.kind == "vllm":
        ask(engine, work, EIGHT, work.problems[-100:], 32)
    return took, chosen_by(engine) if start.kind != "transformers" else {}


def chosen_by(engine: Any) -> dict[str, Any]:
    """What vLLM made of the settings."""
    config = engine._copies[0].llm.llm_engine.vllm_config
    return {
        "runner_v2": bool(getattr(config, "use_v2_model_runner", False)),
        "async_scheduling": config.scheduler_config.async_scheduling,
        "max_num_seqs": config.scheduler_config.max_num_seqs,
        "max_num_batched_tokens": config.scheduler_config.max_num_batched_tokens,
        "largest_graph": config.compilation_config.max_cudagraph_capture_size,
        "max_model_len": config.model_config.max_model_len,
    }


def go(way: Way) -> tuple[int, list[int], float, float]:
    """Tokens, checksums, and when a copy began and ended."""
    work = _held["work"]
    problems, began = work.chosen(way.share), time.time()
    tokens, sums = ask(_held["engine"], work, way, problems, work.given.max_completion_tokens)
    return tokens, sums, began, time.time()


# ---- what is watched meanwhile


class Watch:
    """GPU utilisation, CPU seconds and stacks of this process and those below it, while it is entered."""

    def __init__(self, stacks: Path) -> None:
        self.stacks, self.row = stacks, dict[str, Any]()

    def __enter__(self) -> Watch:
        for old in self.stacks.glob("*.json"):
            old.unlink()
        (self.stacks / "on").touch()
        self._before, self._began = self._threads(), time.perf_counter()
        gpu = (os.environ.get("CUDA_VISIBLE_DEVICES") or "0").split(",")[0]
        query = ["nvidia-smi", "-i", gpu, "--query-gpu=utilization.gpu,memory.used", "--format=csv,noheader,nounits"]
        try:
            self._smi = subprocess.Popen([*query, "-lms", "250"], stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        except FileNotFoundError:
            self._smi = None
        return self

    def __exit__(self, *_: object) -> None:
        seconds = time.perf_counter() - self._began
        (self.stacks / "on").unlink()
        after = self._threads()
        shares: dict[str, list[float]] = defaultdict(list)
        for (name, thread), used in after.items():
            shares[name].append((used - self._before.get((name, thread), 0.0)) / seconds)
        self.row["cores"] = {name: round(sum(found), 2) for name, found in shares.items()}
        self.row["busiest_thread"] = {name: round(max(found), 2) for name, found in shares.items()}
        if self._smi:
            self._smi.terminate()
            lines = [line.split(",") for line in str(self._smi.communicate()[0]).splitlines() if "," in line]
            used = [float(line[0]) for line in lines]
            self.row["gpu_utilisation"] = round(sum(used) / len(used), 1) if used else None
            self.row["gpu_memory_gib"] = round(max(float(line[1]) for line in lines) / 1024, 1) if lines else None
        time.sleep(1.2)  # the samplers write once a second
        self.row["stacks"] = {}
        for file in sorted(self.stacks.glob("*.json")):
            found = json.loads(file.read_text())
            if found["samples"] > 20:
                self.row["stacks"][f"{found['name']}:{file.stem}"] = {
                    "samples": found["samples"],
                    "on_stack": _shares(found["on_stack"], found["samples"], 60),
                    "leaf": _shares(found["leaf"], found["samples"], 25),
                }

    def _threads(self) -> dict[tuple[str, int], float]:
        import psutil

        found = {}
        me = psutil.Process()
        for process in [me, *me.children(recursive=True)]:
            try:
                name = "front" if process.pid == me.pid else f"{process.name()}:{process.pid}"
                found |= {(name, t.id): t.user_time + t.system_time for t in process.threads()}
            except psutil.Error:
                continue
        return found


def _shares(counts: dict[str, int], samples: int, most: int) -> dict[str, float]:
    return {name: round(n / samples, 3) for name, n in Counter(counts).most_common(most)}


def sample_stacks(folder: Path) -> None:
    """In every process of a start: note what the main thread is in, each 5 ms while `folder/on` exists."""

    def run() -> None:
        main, on = threading.main_thread().ident, folder / "on"
        samples, on_stack, leaf, written = 0, Counter[str](), Counter[str](), 0.0
        while True:
            time.sleep(INTERVAL_S)
            frame = sys._current_frames().get(main or 0) if on.exists() else None
            if frame is None:
                if samples and time.monotonic() - written > 0.2:
                    samples, on_stack, leaf = 0, Counter(), Counter()
                continue
            samples += 1
            seen, at = set(), frame
            while at is not None:
                seen.add(f"{'/'.join(at.f_code.co_filename.rsplit('/', 2)[-2:])}:{at.f_code.co_name}")
                at = at.f_back  # type: ignore[assignment]
            on_stack.update(seen)
            leaf[f"{'/'.join(frame.f_code.co_filename.rsplit('/', 2)[-2:])}:{frame.f_code.co_name}:{frame.f_lineno}"] += 1
            if time.monotonic() - written > 1:
                written = time.monotonic()
                text = json.dumps({"name": _process_name(), "samples": samples, "on_stack": on_stack, "leaf": leaf})
                part = folder / f"{os.getpid()}.part"
                part.write_text(text)
                part.rename(folder / f"{os.getpid()}.json")

    threading.Thread(target=run, daemon=True, name="stacks").start()


def _process_name() -> str:
    try:
        return Path(f"/proc/{os.getpid()}/comm").read_text().strip()
    except OSError:
        return "process"


SITE = """\
import os, sys
if os.environ.get("STACKS"):
    sys.path.insert(0, {here!r})
    try:
        from pathlib import Path
        from engine_matrix import sample_stacks
        folder = Path(os.environ["STACKS"])
        sample_stacks(folder)
        os.register_at_fork(after_in_child=lambda: sample_stacks(folder))
    finally:
        sys.path.pop(0)
"""


# ---- one start, and all of them


def run_start(given: argparse.Namespace, name: str) -> None:
    """In a process of its own: import, wait for the one before, and measure each way."""
    start, stacks = STARTS[name], Path(os.environ["STACKS"])
    if start.kind != "transformers":
        from a2r_train.engines.vllm import import_vllm

        import_vllm()
    while not (stacks / "turn").exists():
        time.sleep(0.05)
    if start.kind == "kernels":
        write(given, name, kernels(given, start))
        return
    pools = [ProcessPoolExecutor(1, mp_context=get_context("fork")) for _ in range(start.copies if start.copies > 1 else 0)]
    call: Callable[..., list[Any]]
    if pools:
        call = lambda what, *args: [f.result() for f in [p.submit(what, *args) for p in pools]]  # noqa: E731
        loading = [f.result() for f in [p.submit(begin, given, start, i) for i, p in enumerate(pools)]]
    else:
        call = lambda what, *args: [what(*args)]  # noqa: E731
        loading = [begin(given, start, 0)]
    took, config = max(seconds for seconds, _ in loading), loading[0][1]
    print(f"{given.label} {name}: started in {took:.0f} s; {config}", file=sys.stderr, flush=True)
    for way in start.ways:
        watch = Watch(stacks)
        with watch:
            found = call(go, way)
        seconds = max(f[3] for f in found) - min(f[2] for f in found)
        tokens = sum(f[0] for f in found)
        sums = [s for f in found for s in f[1]]
        row = {"way": asdict(way), "completions": len(sums), "tokens": tokens, "seconds": round(seconds, 2)}
        row |= {"tokens_per_s": round(tokens / seconds), "start_s": round(took, 1), "config": config, **watch.row}
        if way.seeded and start.copies == 1:
            row["checksums"] = f"{given.label}-{name}-{way.name}.sums".replace(" ", "_").replace(",", "")
            (Path(given.out).parent / row["checksums"]).write_text("\n".join(map(str, sums)))
        write(given, name, row)
    for pool in pools:
        pool.shutdown(wait=False, cancel_futures=True)
    os._exit(0)


def kernels(given: argparse.Namespace, start: Start) -> dict[str, Any]:
    """GPU seconds by kernel of some 100 decoding steps of a full batch, seeded."""
    from torch.profiler import ProfilerActivity, profile

    took, config = begin(given, start, 0)
    work, engine = _held["work"], _held["engine"]
    problems = work.problems[:128]
    ask(engine, work, ONE, problems, 96)
    with profile(activities=[ProfilerActivity.CUDA, ProfilerActivity.CPU]) as profiled:
        began = time.perf_counter()
        tokens, _ = ask(engine, work, ONE, problems, 96)
        seconds = time.perf_counter() - began
    events = sorted(profiled.key_averages(), key=lambda e: -e.self_device_time_total)
    total = sum(e.self_device_time_total for e in events) / 1e6
    top = {e.key[:90]: [e.count, round(e.self_device_time_total / 1e6, 4)] for e in events[:40] if e.self_device_time_total}
    host = sorted(profiled.key_averages(), key=lambda e: -e.self_cpu_time_total)[:25]
    calls = {e.key[:90]: [e.count, round(e.self_cpu_time_total / 1e6, 4)] for e in host}
    row = {"way": asdict(ONE), "tokens": tokens, "seconds": round(seconds, 2), "gpu_s": round(total, 3)}
    return row | {"start_s": round(took, 1), "config": config, "kernels": top, "host_calls": calls}


def write(given: argparse.Namespace, name: str, row: dict[str, Any]) -> None:
    """Append a row, with what it was made on."""
    import torch

    device = "CPU"
    if smi := _text(["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]):
        device = smi.splitlines()[0]
    start = asdict(STARTS[name])
    del start["ways"]
    whole = {
        "model": given.label,
        "random_weights": given.dummy,
        "start": name,
        **start,
        **row,
        "device": device,
        "torch": torch.__version__,
    }
    whole |= {f"{package}_version": _version(package) for package in ("vllm", "transformers")}
    with open(given.out, "a") as out:
        out.write(json.dumps(whole) + "\n")
    print(f"{given.label} {name}: {row['way']['name']}: {row.get('tokens_per_s')} tokens/s, {row['seconds']} s",
          file=sys.stderr, flush=True)  # fmt: skip


def _text(command: list[str]) -> str:
    try:
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout
    except FileNotFoundError:
        return ""


def _version(package: str) -> str:
    try:
        return version(package)
    except PackageNotFoundError:
        return ""


def run_all(given: argparse.Namespace, names: list[str]) -> None:
    """Each start in a process of its own; the next one is begun while one is measured."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "sitecustomize.py").write_text(SITE.format(here=str(HERE)))
        waiting: list[tuple[str, subprocess.Popen[bytes]]] = []
        for name in [*names, None]:
            if name:
                stacks = Path(folder) / name
                stacks.mkdir()
                path = os.pathsep.join([folder, str(HERE.parent.parent), os.environ.get("PYTHONPATH", "")])
                own = {**FORK, **STARTS[name].environment}
                environment = {**os.environ, **own, "PYTHONPATH": path, "STACKS": str(stacks)}
                waiting.append((name, subprocess.Popen([sys.executable, __file__, *sys.argv[1:], "--only", name],
                                                       env=environment, start_new_session=True)))  # fmt: skip
            while waiting and (len(waiting) > 1 or name is None):
                done, process = waiting.pop(0)
                (Path(folder) / done / "turn").touch()
                try:
                    process.wait(given.most_s)
                except subprocess.TimeoutExpired:
                    print(f"{done}: took longer than {given.most_s} s", file=sys.stderr, flush=True)
                _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """End what a start has left running: its own processes alone are in its group."""
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()


def compare(first: str, second: str) -> None:
    """Print the share of completions, of those that both files have, that are the same."""
    a, b = (Path(file).read_text().splitlines() for file in (first, second))
    size = min(len(a), len(b))
    print(f"{sum(x == y for x, y in zip(a[:size], b[:size], strict=True)) / size:.4f} of {size}")


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default="data/tiny/explorer")
    parser.add_argument("--label", default="", help="the model's name in the rows; empty for its folder's")
    parser.add_argument("--problems", default="data/tiny/validation.jsonl")
    parser.add_argument("--prompt", default="", help="a prompt file; empty for the default prompt")
    parser.add_argument("--count", type=int, default=1000, help="problems")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the problems that every way takes")
    parser.add_argument("--temperature", type=float, default=0.8)
    parser.add_argument("--max_completion_tokens", type=int, default=512)
    parser.add_argument("--batch_size", type=int, default=2000, help="of the transformers engine")
    parser.add_argument("--memory", type=float, default=0.0, help="gpu_memory_utilization of a copy; 0 divides the GPU")
    parser.add_argument("--cache_gib", type=float, default=0.0, help="GiB of a copy's cache; 0 leaves it to vLLM")
    parser.add_argument("--starts", default=",".join(STARTS))
    parser.add_argument("--out", default="engine_matrix.jsonl")
    parser.add_argument("--most_s", type=float, default=400, help="seconds after which a start is ended")
    parser.add_argument("--dummy", action="store_true", help="random weights, with which a completion takes all its tokens")
    parser.add_argument("--only", default="", help=argparse.SUPPRESS)
    parser.add_argument("--compare", nargs=2, metavar=("A", "B"))
    given = parser.parse_args()
    given.label = given.label or Path(given.model).name
    if given.compare:
        compare(*given.compare)
    elif given.only:
        run_start(given, given.only)
    else:
        run_all(given, given.starts.split(","))
    return 0


if __name__ == "__main__":
    sys.exit(main())
