"""The data builder at scale, compared with a plain loop over the same file in the same run.

    python scripts/benchmarks/bench_bundle.py make --rollouts 64000 --folder /tmp/rows
    python scripts/benchmarks/bench_bundle.py speed --folder /tmp/rows [--recorded]
    python scripts/benchmarks/bench_bundle.py kills --folder /tmp/rows --kills 10
    python scripts/benchmarks/bench_bundle.py grpo --folder /tmp/rows
    python scripts/benchmarks/bench_bundle.py gather --folder /tmp/rows

`make` writes problems and rollouts that resemble the tiny models' data. `speed` measures a loop of
`json.loads` and `tokenizer(batch)`, and then `a2r bundle` as a separate command, with the memory of all its
processes. `kills` kills `a2r bundle` at random moments and compares the result with that of an undisturbed
run. `grpo` and `gather` time these commands. Rows go to stdout.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

from a2r_train.records import seed_of

ROOT = Path(__file__).parents[2]
TOKENIZER = str(ROOT / "data" / "tiny" / "synthesizer")
PROBLEMS = ROOT / "data" / "tiny" / "train.jsonl"
WORDS = ["so", "then", "we", "take", "coins", "and", "add", "what", "is", "left", "after", "each", "week"]
BATCH = 1000
CHUNK = 128  # problems per chunk, as in explore
TEXTS_AN_ANSWER = 40


def parsed() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", choices=("make", "speed", "kills", "grpo", "gather"))
    parser.add_argument("--folder", type=Path, required=True)
    parser.add_argument("--rollouts", type=int, default=64_000)
    parser.add_argument("--samples", type=int, default=8, help="rollouts per problem")
    parser.add_argument("--characters", type=int, default=1000, help="approximate length of a rollout")
    parser.add_argument("--recorded", action="store_true", help="write rollouts that have token counts")
    parser.add_argument("--shuffled", action="store_true", help="write rollouts in random order")
    parser.add_argument("--options", default="", help="further options of a2r bundle")
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--loop", default=1.0, type=float, help="share of the file that the plain loop reads")
    return parser.parse_args()


def texts(rng: random.Random, answer: int, characters: int) -> str:
    """A random solution of words and numbers that boxes an answer."""
    words: list[str] = []
    length = 0
    while length < characters:
        word = str(rng.randrange(1000)) if rng.random() < 0.2 else rng.choice(WORDS)
        words.append(word + (".\n" if rng.random() < 0.06 else ""))
        length += len(words[-1]) + 1
    return f"{' '.join(words)} The answer is \\boxed{{{answer}}}."


def make(given: argparse.Namespace) -> None:
    given.folder.mkdir(parents=True, exist_ok=True)
    base = [json.loads(line) for line in PROBLEMS.read_text().splitlines()]
    count = given.rollouts // given.samples
    with open(given.folder / "problems.jsonl", "w") as file:
        for number in range(count):
            row = base[number % len(base)] | {"id": f"p{number:06d}"}
            row["problem"] = f"{row['problem']} Case {number}."
            file.write(json.dumps(row) + "\n")
    answers = [int(row["answer"]) for row in base]
    with open(given.folder / "rollouts.jsonl", "w") as file:
        for rows in rollouts(given, answers, count):
            file.writelines(json.dumps(row) + "\n" for row in rows)


def rollouts(given: argparse.Namespace, answers: list[int], count: int) -> Iterator[list[dict[str, Any]]]:
    """Rows in batches. With --recorded, texts come from a pool whose tokens are counted once."""
    rng = random.Random(0)
    pool = {answer: counted(rng, answer, given) for answer in sorted(set(answers))} if given.recorded else {}
    numbers = [(i, j) for i in range(count) for j in range(given.samples)]
    if given.shuffled:
        rng.shuffle(numbers)
    for at in range(0, len(numbers), BATCH):
        rows = []
        for i, sample in numbers[at : at + BATCH]:
            answer = answers[i % len(answers)] if rng.random() < 0.6 else rng.choice(answers)
            text, tokens = rng.choice(pool[answer]) if pool else (texts(rng, answer, given.characters), 0)
            rows.append({
                "problem_id": f"p{i:06d}", "sample": sample, "text": text, "answer": "",
                "verdict": "unverified", "prompt_tokens": 80, "completion_tokens": tokens,
                "finish_reason": "stop", "model": "tiny", "seed": rng.randrange(2**32),
            })  # fmt: skip
        yield rows


def counted(rng: random.Random, answer: int, given: argparse.Namespace) -> list[tuple[str, int]]:
    """Texts with this answer, and their token counts including the end of the turn."""
    some = [texts(rng, answer, given.characters) for _ in range(TEXTS_AN_ANSWER)]
    return [(text, size + 1) for text, size in zip(some, counter()(some), strict=True)]


@cache
def counter() -> Any:
    from transformers import AutoTokenizer

    backend = AutoTokenizer.from_pretrained(TOKENIZER).backend_tokenizer
    return lambda some: [len(one) for one in backend.encode_batch_fast(some, add_special_tokens=False)]


LOOP = """
import json, sys, time
from transformers import AutoTokenizer
tokenizer = AutoTokenizer.from_pretrained({tokenizer!r})
began, busy, rows, batch, most = time.monotonic(), time.process_time(), 0, [], {most}
for line in open({path!r}):
    batch.append(json.loads(line)["text"])
    rows += 1
    if len(batch) == 1000:
        {tokenise}
        batch = []
    if rows >= most:
        break
print(json.dumps([rows / (time.monotonic() - began), rows / (time.process_time() - busy)]))
"""


def loop(given: argparse.Namespace, tokenise: bool) -> tuple[float, float]:
    """Rollouts of the plain loop per second, and per CPU second."""
    path = given.folder / "rollouts.jsonl"
    most = max(1, int(given.loop * lines_of(path)))
    code = LOOP.format(
        tokenizer=TOKENIZER,
        most=most,
        path=str(path),
        tokenise="tokenizer(batch, add_special_tokens=False)" if tokenise else "pass",
    )
    made = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True, env=env())
    rate, core_rate = json.loads(made.stdout)
    return float(rate), float(core_rate)


def lines_of(path: Path) -> int:
    with open(path, "rb") as file:
        return sum(block.count(b"\n") for block in iter(lambda: file.read(2**24), b""))


def env() -> dict[str, str]:
    return {**os.environ, "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "true", "PYTHONPATH": str(ROOT)}


def command(given: argparse.Namespace, out: Path) -> list[str]:
    own = given.folder / "tokenizer"  # without the tiny models' prompt, whose budget is too small
    shutil.copytree(
        TOKENIZER, own, dirs_exist_ok=True, ignore=shutil.ignore_patterns("prompt.yaml", "*.safetensors")
    )
    return [
        sys.executable, "-c", "from a2r_train.cli import main; main()", "bundle",
        "--rollouts", str(given.folder / "rollouts.jsonl"), "--problems",
        str(given.folder / "problems.jsonl"), "--output_dir", str(out), "--tokenizer", str(own),
        "--decontamination", "none", *given.options.split(),
    ]  # fmt: skip


class Memory(threading.Thread):
    """Peak memory of a process and its children, in MB: `own`, and `all` including mapped file pages, which
    the system can reclaim. Shared pages count once (PSS).
    """

    def __init__(self, root: int) -> None:
        super().__init__(daemon=True)
        self.root, self.own, self.all = root, 0.0, 0.0
        self.start()

    def run(self) -> None:
        while Path(f"/proc/{self.root}").exists():
            now = [_memory_mb(process) for process in family(self.root)]
            self.own = max(self.own, sum(own for own, _ in now))
            self.all = max(self.all, sum(every for _, every in now))
            time.sleep(0.5)


def family(root: int) -> list[int]:
    found = [root]
    for one in found:
        for path in Path(f"/proc/{one}/task").glob("*/children"):
            try:
                found += map(int, path.read_text().split())
            except OSError:
                continue
    return found


def _memory_mb(process: int) -> tuple[float, float]:
    try:
        text = Path(f"/proc/{process}/smaps_rollup").read_text()
    except OSError:
        return 0.0, 0.0
    kb = {
        name: int(rest.split()[0])
        for name, _, rest in (line.partition(":") for line in text.splitlines()[1:])
    }
    return (kb.get("Pss_Anon", 0) + kb.get("Pss_Shmem", 0)) / 1000, kb.get("Pss", 0) / 1000


def speed(given: argparse.Namespace) -> None:
    out = given.folder / "bundles"
    shutil.rmtree(out, ignore_errors=True)
    plain, plain_core = loop(given, tokenise=not given.recorded)
    count = lines_of(given.folder / "rollouts.jsonl")
    status, seconds, core_s, memory = run(command(given, out))
    row = {
        "what": "speed", "rollouts": count, "recorded": given.recorded, "status": status,
        "loop_rollouts_s": round(plain), "bundle_rollouts_s": round(count / seconds),
        "ratio": round(count / seconds / plain, 3), "seconds": round(seconds, 1),
        "core_s": round(core_s, 1), "core_ratio": round(count / core_s / plain_core, 3),
        "own_mb": round(memory.own), "with_files_mb": round(memory.all), "digest": digest(out),
    }  # fmt: skip
    print(json.dumps(row), flush=True)


def run(words: list[str], **how: Any) -> tuple[int, float, float, Memory]:
    """Exit status, seconds, CPU seconds, and peak memory of a command and its children."""
    before, began = os.times(), time.monotonic()
    process = subprocess.Popen(words, env=env(), **how)
    memory = Memory(process.pid)
    status = process.wait()
    after = os.times()
    core_s = after.children_user + after.children_system - before.children_user - before.children_system
    return status, time.monotonic() - began, core_s, memory


def grpo(given: argparse.Namespace) -> None:
    """Measure time and memory of one GRPO step on the bundles that `speed` wrote."""
    out = given.folder / "grpo"
    options = {
        "model_name_or_path": given.folder / "tokenizer", "bundles": given.folder / "bundles" / "train.jsonl",
        "output_dir": out, "use_cpu": True, "max_steps": 1, "logging_steps": 1, "report_to": "none",
        "per_device_train_batch_size": 4, "num_generations": 4, "max_completion_length": 16,
        "activation_checkpointing": False, "save_strategy": "no",
    }  # fmt: skip
    own = given.folder / "tokenizer"
    shutil.copy(Path(TOKENIZER) / "model.safetensors", own)
    config = json.loads((Path(TOKENIZER) / "config.json").read_text())
    (own / "config.json").write_text(json.dumps(config | {"max_position_embeddings": 8192}))
    for what in ("first", "again"):
        shutil.rmtree(out, ignore_errors=True)
        words = [str(word) for key, value in options.items() for word in (f"--{key}", value)]
        status, seconds, core_s, memory = run([sys.executable, str(ROOT / "scripts" / "grpo.py"), *words])
        row = {
            "what": f"grpo, {what}", "status": status, "seconds": round(seconds, 1),
            "core_s": round(core_s, 1), "own_mb": round(memory.own), "with_files_mb": round(memory.all),
        }  # fmt: skip
        print(json.dumps(row), flush=True)


def gather(given: argparse.Namespace) -> None:
    """Measure `a2r gather` on four folders, written here in explore's format."""
    base = {
        "problems": str(given.folder / "problems.jsonl"),
        "model": "tiny",
        "samples_per_problem": given.samples,
    }
    problems = [json.loads(line) for line in (given.folder / "problems.jsonl").open()]
    folders = [given.folder / f"out-{i}" for i in range(4)]
    text = texts(random.Random(0), 7, given.characters)
    for folder in folders:
        shutil.rmtree(folder, ignore_errors=True)
        (folder / "chunks").mkdir(parents=True)
        (folder / "config.yaml").write_text(json.dumps({**base, "output_dir": str(folder)}))
    for number, at in enumerate(range(0, len(problems), CHUNK)):
        with open(folders[number % 4] / "chunks" / f"{number:06d}.jsonl", "w") as file:
            for problem in problems[at : at + CHUNK]:
                for sample in range(given.samples):
                    row = {"problem_id": problem["id"], "sample": sample, "text": text, "answer": "7"}
                    row |= {"verdict": "incorrect", "seed": seed_of(0, problem["id"], sample)}
                    file.write(json.dumps(row) + "\n")
    target = given.folder / "gathered"
    shutil.rmtree(target, ignore_errors=True)
    words = [sys.executable, "-c", "from a2r_train.cli import main; main()", "gather", *map(str, folders)]
    status, seconds, core_s, memory = run([*words, str(target)])
    row = {
        "what": "gather", "rollouts": len(problems) * given.samples, "status": status,
        "seconds": round(seconds, 1), "core_s": round(core_s, 1), "own_mb": round(memory.own),
    }  # fmt: skip
    print(json.dumps(row), flush=True)


def digest(folder: Path) -> str:
    """Hash of a run's output, except its versions, config and inputs."""
    whole = hashlib.sha256()
    for path in sorted(folder.glob("*")):
        if path.is_file() and path.name not in ("config.yaml", "versions.json", "inputs.json"):
            whole.update(path.name.encode())
            with open(path, "rb") as file:
                while block := file.read(2**24):
                    whole.update(block)
    return whole.hexdigest()[:16]


def kills(given: argparse.Namespace) -> None:
    whole, out = given.folder / "whole", given.folder / "killed"
    for folder in (whole, out):
        shutil.rmtree(folder, ignore_errors=True)
    began = time.monotonic()
    subprocess.run(command(given, whole), env=env(), check=True)
    seconds, rng, killed, same = time.monotonic() - began, random.Random(1), list[float](), list[bool]()
    while len(killed) < given.kills or out.exists():
        process = subprocess.Popen(command(given, out), env=env())
        wait = rng.uniform(0.03, 0.3) * seconds if len(killed) < given.kills else None
        try:
            process.wait(wait)
        except subprocess.TimeoutExpired:
            process.send_signal(signal.SIGKILL)
            process.wait()
            killed.append(round(wait or 0.0, 1))
        else:  # it finished, on top of what the killed runs left
            same.append(digest(whole) == digest(out))
            shutil.rmtree(out)
    row = {"what": "kills", "whole_s": round(seconds, 1), "killed_after_s": killed, "same": same}
    print(json.dumps(row), flush=True)


if __name__ == "__main__":
    arguments = parsed()
    {"make": make, "speed": speed, "kills": kills, "grpo": grpo, "gather": gather}[arguments.what](arguments)
