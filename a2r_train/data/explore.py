"""Stage 1: an explorer samples n solutions of every problem, and each is verified.

Work is cut into chunks of problems, and each chunk is written as one complete file. The engine begins the
next chunk before the last completions of one are made, and a chunk is verified meanwhile. A killed run
continues with the missing chunks. The seed of a rollout depends only on the problem and the sample. So a
resumed run ends with the same rollouts on a CPU, and with the same up to rounding on a GPU.
"""

from __future__ import annotations

import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from pyarrow import Table
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from a2r_train import output
from a2r_train.atomic import part_of
from a2r_train.config import check_least
from a2r_train.data import gym
from a2r_train.data.asked import write_asked
from a2r_train.data.options import letter_unasked, letters_judged_as_text
from a2r_train.data.processes import Rate
from a2r_train.data.read import Columns, judged_by, read
from a2r_train.data.shards import (
    ROLLOUT_ROWS,
    batches_of,
    check_format,
    join,
    rollout_cells,
    write_parquet,
)
from a2r_train.data.task import CHUNKS, FILE, Task, check_asked, prompt_of
from a2r_train.data.unparsable import Unparsable, unparsable
from a2r_train.engines import (
    ENGINE_MAY_DIFFER,
    Engine,
    EngineArguments,
    Sampling,
    check_engine,
    hardware,
    load_engine,
    settled,
    warn_failed,
)
from a2r_train.engines.judged import Sample, generated_batches, judged
from a2r_train.errors import InputError
from a2r_train.models import load_tokenizer, trust
from a2r_train.prompts import PromptConfig, Prompter
from a2r_train.records import CORRECT, UNPARSABLE, Problem, Rollout, seed_of, write, write_text
from a2r_train.verify import check_gold, left_out, warn_failing_golds
from a2r_train.verify.compare import OR_LEAVE_OUT

log = logging.getLogger(__name__)

# Between a run and its continuation, and between shards.
MAY_DIFFER = ("shard", *ENGINE_MAY_DIFFER)
INPUTS = ("problems", "prompt", "model")
OTHER_SHARDS = (
    ".lock-*-of-[2-9]*",
    ".lock-*-of-1?*",
)  # shards that were started; their chunks may still come
LARGE_BYTES, SHARD_BYTES = 10**9, 2**26  # of chunks: where Parquet starts, and its shard size
LOG_EVERY_S = 30.0  # without a terminal for a progress bar


@dataclass
class ExploreConfig(EngineArguments):
    """`a2r explore`: problems -> rollouts."""

    problems: str = field(
        metadata={"help": "problems: JSONL, CSV, TSV or Parquet files, or hub data sets, comma-separated"}
    )
    model: str = field(
        metadata={"help": "the explorer: a checkpoint folder, a model of the hub, or a .gguf file"}
    )
    output_dir: str = field(metadata={"help": "where rollouts.jsonl is written"})
    prompt: str = field(
        default="", metadata={"help": "a prompt file; empty for the checkpoint's own or the default"}
    )
    prompt_override: bool = field(
        default=False,
        metadata={"help": "allow a `prompt` other than the one that the model was trained with"},
    )
    chat_template_kwargs: str = field(
        default="{}",
        metadata={
            "help": "arguments of the chat template, such as {enable_thinking: false}; stored with the data"
        },
    )
    samples_per_problem: int = field(default=8, metadata={"help": "rollouts per problem"})
    temperature: float = field(default=1.0, metadata={"help": "of the sampling; 0 is greedy"})
    top_p: float = field(default=1.0, metadata={"help": "nucleus sampling; 1 keeps the whole distribution"})
    top_k: int = field(default=0, metadata={"help": "most probable tokens to sample from; 0 keeps them all"})
    max_completion_tokens: int = field(default=1024, metadata={"help": "a longer solution is cut off"})
    chunk_problems: int = field(
        default=128,
        metadata={"help": "problems per chunk (a file); a killed run loses those under way"},
    )
    max_problems: int = field(default=0, metadata={"help": "use only the first N; 0 uses all"})
    shard: str = field(
        default="0/1", metadata={"help": "i/n: this process takes every n-th chunk, starting at chunk i"}
    )
    columns: str = field(default="{}", metadata={"help": "column names, such as {problem: prompt}"})
    verifier: str = field(
        default="", metadata={"help": "for all rows; empty takes each row's own, else math"}
    )
    leave_out_bad_golds: bool = field(
        default=False, metadata={"help": "leave out problems whose gold the verifier cannot parse"}
    )
    trust_remote_code: bool = field(default=False, metadata={"help": "run code that comes with the model"})
    seed: int = field(default=0, metadata={"help": "seed of the sampling"})
    format: str = field(
        default="",
        metadata={"help": "of the rollouts: jsonl, or parquet in shards; empty: parquet from 1 GB up"},
    )
    dry_run: bool = field(
        default=False, metadata={"help": "show the resolved config and one prompt, and stop"}
    )


def explore(config: ExploreConfig) -> Path:
    """Run the stage and return the path of rollouts.jsonl; the folder of chunks while other shards are not
    done.

    Raises InputError for wrong input, before anything is written.
    """
    problems, _ = prepared(config)
    config = settled(config, config.model, folder=config.output_dir)
    sampling = Sampling(config.temperature, config.top_p, config.top_k, config.max_completion_tokens)
    index, of = parse_shard(config.shard)
    folder = Path(config.output_dir)
    lock = f".lock-{index}-of-{of}"  # shards share the folder
    if output.prepare(folder, asdict(config), MAY_DIFFER, lock, inputs=INPUTS, fixed=_fixed(config)):
        log.info("%s: done already", folder)
        return folder / "rollouts.jsonl"
    write_task(config, folder)
    chunks = chunks_of(config, problems)
    missing = [i for i in range(index, len(chunks), of) if not chunk_path(folder, i).exists()]
    if missing:
        engine = load_engine(config.model, config)
        _explore_chunks(config, engine, sampling, chunks, missing, folder)
    paths = [chunk_path(folder, i) for i in range(len(chunks))]
    if left := sum(not path.exists() for path in paths):
        log.info("%s: shard %s done; %d chunks are left for other shards", folder, config.shard, left)
        return folder / "chunks"
    write_asked(folder, problems)
    return finish(config, folder, checked_chunks(config, chunks, paths), paths)


def check_folder(config: ExploreConfig) -> None:
    """Raise InputError for the folder of another run."""
    output.check(config.output_dir, asdict(config), MAY_DIFFER, inputs=INPUTS, fixed=_fixed(config))


def _fixed(config: ExploreConfig) -> tuple[str, ...] | None:
    """The keys that the folder fixes: all once a shard has started, none before that."""
    folder, (_, of) = Path(config.output_dir), parse_shard(config.shard)
    begun = of > 1 or any(True for lock in OTHER_SHARDS for _ in folder.glob(lock))
    return () if output.holds_only(folder, FILE) and not begun else None


def prepared(config: ExploreConfig) -> tuple[list[Problem], Prompter]:
    """The problems, and what renders them.

    Raises InputError for anything wrong with the recipe; loads no weights.
    """
    check_least(config, samples_per_problem=1, chunk_problems=1, max_problems=0)
    check_format(config.format)
    config.check_engine_arguments()
    Sampling(config.temperature, config.top_p, config.top_k, config.max_completion_tokens)
    parse_shard(config.shard)
    if config.trust_remote_code:
        trust(config.model)
    if gym.is_gym(config.problems):  # drawing them may take minutes, so look for the model first
        gym.draws(config.problems)
        check_engine(config.model, config)
    problems = load_problems(config)
    warn_failing_golds(problems, config.problems)
    check_engine(config.model, config)
    prompter = Prompter(load_tokenizer(config.model), _prompt(config))
    check_asked({problem.verifier for problem in problems}, prompter.config, "explorer_template")
    if says := letter_unasked(problems, prompter.config, "explorer_template"):
        log.warning("the prompt of %s: %s", config.prompt or config.model, says)
    return problems, prompter


def _prompt(config: ExploreConfig) -> PromptConfig:
    return prompt_of(
        config.model,
        config.prompt,
        template_kwargs=config.chat_template_kwargs,
        override=config.prompt_override,
    )


def write_task(config: ExploreConfig, folder: Path) -> None:
    """Write what later stages inherit, beside the rollouts."""
    Task(_prompt(config), config.verifier, Columns.parse(config.columns).names).write(folder)


def load_problems(config: ExploreConfig) -> list[Problem]:
    """The problems of the recipe, with every gold answer parsed once."""
    columns = Columns.parse(config.columns)
    problems = read(Problem, config.problems, columns)
    columns.check_met()
    problems = judged_by(config.verifier, problems[: config.max_problems or None])
    if config.leave_out_bad_golds:
        problems = left_out(problems, config.problems)
    check_gold(problems, config.problems, OR_LEAVE_OUT)
    if says := letters_judged_as_text(problems):
        log.warning("%s: %s", config.problems, says)
    return problems


def parse_shard(shard: str) -> tuple[int, int]:
    index, _, of = shard.partition("/")
    if not (index.isdigit() and of.isdigit() and int(index) < int(of)):
        raise InputError(f"shard {shard!r}: expected i/n with 0 <= i < n, such as 0/4")
    return int(index), int(of)


def _explore_chunks(
    config: ExploreConfig,
    engine: Engine,
    sampling: Sampling,
    chunks: list[list[Problem]],
    missing: list[int],
    folder: Path,
) -> None:
    """Generate the missing chunks. Each is judged and written while the engine generates the next ones."""
    prompter = Prompter(engine.tokenizer, _prompt(config))
    with _Told(len(missing)) as told, ThreadPoolExecutor(1) as beside:
        written: Future[None] | None = None
        made = generated_batches(
            engine,
            [chunks[i] for i in missing],
            lambda chunk: {problem.id: prompter.explorer(problem.problem) for problem in chunk},
            sampling,
            config.samples_per_problem,
            config.seed,
        )
        with closing(made):
            for i, samples in zip(missing, made, strict=True):
                if written:
                    written.result()
                path = chunk_path(folder, i)
                written = beside.submit(_write_chunk, prompter, engine.name, samples, path, told)
        if written:
            written.result()
    timing = {**told.counts(), "device": hardware(engine)}
    write_text(folder / f"timing-{config.shard.replace('/', '-of-')}.json", json.dumps(timing) + "\n")


def _write_chunk(prompter: Prompter, model: str, samples: list[Sample], path: Path, told: _Told) -> None:
    rollouts = [one.rollout(problem_id, at) for problem_id, at, one in judged(prompter, model, samples)]
    write(rollouts, path)
    told.add(rollouts)


class _Told:
    """What the user is told of the chunks written so far: a bar in a terminal, and otherwise lines."""

    def __init__(self, chunks: int) -> None:
        columns = (
            TextColumn("explore"),
            BarColumn(),
            TextColumn("{task.fields[state]}"),
            TimeRemainingColumn(),
        )
        console = Console(stderr=True)
        self.progress = Progress(*columns, console=console, disable=not console.is_terminal)
        self.bar = self.progress.add_task("explore", total=chunks, state="")
        self.chunks, self.done = chunks, 0
        self.right = self.unread = self.rollouts = self.tokens = 0
        self.began = self.logged = time.monotonic()
        self.seconds = 0.0

    def __enter__(self) -> _Told:
        self.progress.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.progress.stop()

    def add(self, rollouts: list[Rollout]) -> None:
        self.done += 1
        self.right += sum(r.verdict == CORRECT for r in rollouts)
        self.unread += sum(r.verdict == UNPARSABLE for r in rollouts)
        self.tokens += sum(r.completion_tokens for r in rollouts)
        self.rollouts += len(rollouts)
        now = time.monotonic()
        self.seconds = now - self.began
        state = f"{self.rollouts} rollouts, {self.tokens / self.seconds:.0f} tokens/s, "
        state += f"pass@1 {self.right / self.rollouts:.1%}, unparsable {self.unread / self.rollouts:.1%}"
        self.progress.update(self.bar, advance=1, state=state)
        due = now - self.logged > LOG_EVERY_S or self.done in (1, self.chunks)
        if due and not self.progress.console.is_terminal:
            left = self.seconds / self.done * (self.chunks - self.done)
            log.info("explore: %d of %d chunks, %s, %.0f s left", self.done, self.chunks, state, left)
            self.logged = now

    def counts(self) -> dict[str, Any]:
        return {
            "seconds": round(self.seconds, 1),
            "rollouts": self.rollouts,
            "completion_tokens": self.tokens,
        }


def chunks_of(config: ExploreConfig, problems: list[Problem]) -> list[list[Problem]]:
    """The problems in chunks, each of which is written as one file."""
    return [
        problems[at : at + config.chunk_problems] for at in range(0, len(problems), config.chunk_problems)
    ]


def chunk_path(folder: Path, index: int) -> Path:
    """The file of a chunk."""
    return folder / CHUNKS / f"{index:06d}.jsonl"


def checked_chunks(
    config: ExploreConfig, chunks: list[list[Problem]], paths: list[Path]
) -> Iterator[tuple[Path, list[Rollout]]]:
    """The rollouts of each chunk, one chunk at a time.

    Raises InputError for a chunk whose rollouts are not those that its problems ask for.
    """
    rate = Rate("explore: putting chunks together", len(paths), "chunks")
    for path, chunk in zip(paths, chunks, strict=True):
        found = read(Rollout, str(path))
        asked = [
            (p.id, s, seed_of(config.seed, p.id, s)) for p in chunk for s in range(config.samples_per_problem)
        ]
        if [(r.problem_id, r.sample, r.seed) for r in found] != asked:
            raise InputError(
                f"{path}: does not hold the {len(asked)} rollouts of problems "
                f"{chunk[0].id} to {chunk[-1].id}; remove it"
            )
        yield path, found
        rate.add(1)


def finish(
    config: ExploreConfig, folder: Path, chunks: Iterable[tuple[Path, list[Rollout]]], paths: Sequence[Path]
) -> Path:
    """Join the chunks into rollouts.jsonl or its Parquet shards, and complete the folder. Memory holds one
    chunk at a time, or one Parquet shard.
    """
    target = folder / "rollouts.jsonl"
    reasons: Counter[str] = Counter()
    right, unread = 0, Unparsable(0, 0)

    def counted() -> Iterator[tuple[Path, list[Rollout]]]:
        nonlocal right, unread
        for path, rollouts in chunks:
            reasons.update(rollout.finish_reason for rollout in rollouts)
            right += sum(rollout.verdict == CORRECT for rollout in rollouts)
            unread += unparsable(rollouts)
            yield path, rollouts

    size = sum(path.stat().st_size for path in paths)
    if (config.format or ("parquet" if size > LARGE_BYTES else "jsonl")) == "parquet":
        write_rollouts(counted(), target, -(-size // SHARD_BYTES))
    else:
        join((path for path, _ in counted()), target)
    warn_failed(folder, reasons)
    if unread.many:
        log.warning("%s: %s", target, unread)
    total = unread.total
    output.finish(folder, {"rollouts": total, "pass@1": right / total, "unparsable": unread.share})
    return target


def write_rollouts(chunks: Iterable[tuple[Path, list[Rollout]]], target: Path, count: int) -> None:
    """Write chunks as at most `count` Parquet shards of about the same size, none of them empty."""
    written: list[Path] = []
    cells: list[tuple[Any, ...]] = []
    held = 0

    def flush() -> None:
        written.append(part_of(target.with_name(f"{target.stem}-{len(written):05d}.parquet")))
        write_parquet(Table.from_batches(batches_of(cells, ROLLOUT_ROWS), ROLLOUT_ROWS), written[-1])
        cells.clear()

    for path, rollouts in chunks:
        cells += map(rollout_cells, rollouts)
        held += path.stat().st_size
        if held >= SHARD_BYTES and len(written) + 1 < count:
            flush()
            held = 0
    flush()
    for number, part in enumerate(written):
        part.replace(target.with_name(f"{target.stem}-{number:05d}-of-{len(written):05d}.parquet"))
