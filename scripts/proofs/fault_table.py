"""Break every stage on purpose, run the same command again, and record in docs/reliability.md what survived.

    python scripts/proofs/fault_table.py    # needs [dev]; about 20 minutes on two cores; a trial: --kills 1

Model and data are tiny and generated at the start. faults.py runs and breaks the stages; bad_inputs.py lists
the user errors.
"""

import argparse
import logging
import os
import platform
import random
import signal
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from shutil import copytree
from typing import Any

import faults
from bad_inputs import BAD_INPUTS, Said, say
from faults import STAGES, TRAINERS, Run, difference

from a2r_train import output

DOCUMENT = Path(__file__).parents[2] / "docs" / "reliability.md"
FULL_BYTES = {
    "explore": 1000,
    "bundle": 3000,
    "sft": 60_000,
    "grpo": 60_000,
    "evaluate": 2500,
}  # config.yaml still fits
REMOVED = {
    "explore": ["chunks/000001.jsonl", "rollouts.jsonl", "done.json"],
    "bundle": ["train.jsonl", "done.json"],
    "sft": ["checkpoint-40/trainer_state.json", "model.safetensors", "trainer_state.json", "done.json"],
    "grpo": ["checkpoint-16/trainer_state.json", "model.safetensors", "trainer_state.json", "done.json"],
    "evaluate": ["syntheses/synthesizer-base/000006-*.jsonl", "results.json", "done.json"],
}
log = logging.getLogger(__name__)


@dataclass(frozen=True)
class Row:
    """A fault, how often it was injected into a stage, how often the stage survived, and what was lost."""

    fault: str
    stage: str
    injected: int
    survived: int
    lost: str


@dataclass(frozen=True)
class Bench:
    """A stage with its inputs, an undisturbed run, and a folder for the disturbed runs."""

    stage: str
    keys: dict[str, Any]
    whole: Run
    folder: Path

    def different(self, other: str) -> str:
        return difference(self.stage, self.folder / "whole" / "out", self.folder / other / "out")

    def again(self, name: str) -> str:
        """Run the same command again. Returns what differs from the undisturbed run, or ""."""
        ended = faults.run(self.stage, self.keys, self.folder / name)
        return self.different(name) if ended.status == 0 else f"status {ended.status}: {ended.line}"


def killed(bench: Bench, kills: int, rng: random.Random) -> Row:
    """SIGKILL at random moments: one in five between start and first output, the others between first output
    and end.
    """
    lost = []
    for number in range(kills):
        began, ended = number % 5 != 0, None
        while ended is None:  # a run may finish before the kill; then try again
            name = f"kill-{number}-{time.monotonic_ns()}"
            delay_s = rng.uniform(0, bench.whole.work_s if began else bench.whole.began_s)
            ended = faults.kill(bench.stage, bench.keys, bench.folder / name, delay_s, began)
        lost.append(bench.again(name))
    return row("SIGKILL at a random moment", bench, lost)


def stopped(bench: Bench) -> Row:
    """SIGTERM halfway: status 143, one line that says so, and the same result afterwards."""
    ended, saved, shares = None, False, iter((0.5, 0.7, 0.35, 0.85, 0.6, 0.25, 0.15, 0.05, 0.02))
    while ended is None or not saved:  # before training begins there is nothing to save
        share = next(shares)
        name = f"term-{share}"
        ended = faults.kill(
            bench.stage, bench.keys, bench.folder / name, bench.whole.work_s * share, how=signal.SIGTERM
        )
        saved = bench.stage not in TRAINERS or any(
            (bench.folder / name / "out").glob("checkpoint-*/trainer_state.json")
        )
    told = "stopped by SIGTERM" in ended.says and ended.status == 143
    said = "" if told else f"status {ended.status}: {ended.line}"
    return row("SIGTERM, status 143", bench, [said or bench.again(name)])


def full(bench: Bench) -> Row:
    """A full disk, simulated by a limit on file size: status 1 and one line; with room the run continues."""
    ended = faults.run(bench.stage, bench.keys, bench.folder / "full", FULL_BYTES[bench.stage])
    told = ended.status == 1 and "no space left on the disk" in ended.line and "Traceback" not in ended.says
    return row("full disk", bench, [bench.again("full") if told else f"status {ended.status}: {ended.line}"])


def read_only(bench: Bench) -> Row:
    """An output folder on a read-only file system: status 2 and one line."""
    ended = faults.run(bench.stage, {**bench.keys, "output_dir": "/sys/a2r-out"}, bench.folder / "read-only")
    refused = (
        "name an output folder that can be written",
        "free at /sys",
    )  # either is right: /sys also has no free space
    told = ended.status == 2 and any(words in ended.line for words in refused)
    return row("read-only output", bench, ["" if told else f"status {ended.status}: {ended.line}"])


def removed(bench: Bench) -> Row:
    """A chunk, or the last file of the newest checkpoint, removed by hand from a finished folder."""
    copytree(bench.folder / "whole", bench.folder / "removed", symlinks=True)
    for pattern in REMOVED[bench.stage]:
        (lost,) = (bench.folder / "removed" / "out").glob(pattern)
        lost.unlink()
    return row("files removed by hand", bench, [bench.again("removed")])


def twice(bench: Bench) -> Row:
    """A second run while the first, paused halfway, holds the folder: it is refused, and the first finishes
    undisturbed.
    """
    number, first = 0, None
    while first is None:
        number += 1
        name = f"twice-{number}"
        process = faults.start(bench.stage, bench.keys, bench.folder / name)
        faults.await_folder(process, bench.folder / name)
        os.kill(int(process.pid or 0), signal.SIGSTOP)
        first = None if (bench.folder / name / "out" / "done.json").exists() else process
        if not first:
            process.kill()
    says = (bench.folder / name / "log").read_text()
    second = faults.run(bench.stage, bench.keys, bench.folder / name)
    (bench.folder / name / "log").write_text(says)
    os.kill(int(first.pid or 0), signal.SIGCONT)
    faults.ended(first)
    told = second.status == 2 and "another process is writing here" in second.line
    return row(
        "two runs on one folder",
        bench,
        [bench.different(name) if told else f"status {second.status}: {second.line}"],
    )


def row(fault: str, bench: Bench, lost: Sequence[str]) -> Row:
    """One row from what each injection lost, "" for nothing."""
    made = Row(fault, bench.stage, len(lost), lost.count(""), "; ".join(filter(None, lost)) or "nothing")
    log.info("%s", made)
    return made


FAULTS: list[Callable[[Bench], Row]] = [stopped, full, read_only, removed, twice]


def table(kills: int, seed: int, folder: Path) -> tuple[list[Row], list[Said]]:
    """Inject all faults into all stages, and collect what each bad input prints."""
    inputs, rows = faults.write_inputs(folder / "inputs"), []
    for stage in STAGES:
        whole = faults.run(stage, inputs[stage], folder / stage / "whole")
        if whole.status:
            raise RuntimeError(f"{stage}: {whole.says}")
        log.info("%s: output after %.1f s, then %.1f s", stage, whole.began_s, whole.work_s)
        bench = Bench(stage, inputs[stage], whole, folder / stage)
        rows += [killed(bench, kills, random.Random(f"{seed}/{stage}")), *(fault(bench) for fault in FAULTS)]
    return rows, [say(case, inputs, folder) for case in BAD_INPUTS]


def document(rows: Sequence[Row], said: Sequence[Said], kills: int, seed: int) -> str:
    """The page: one row per fault, one column per stage, and below them what was lost."""
    survived: dict[str, dict[str, str]] = {}
    for r in rows:
        survived.setdefault(r.fault, {})[r.stage] = f"{r.survived} of {r.injected}"
    lines = [f"| {f} | {' | '.join(of.get(s, '') for s in STAGES)} |" for f, of in survived.items()]
    lost = [f"- {r.fault}, {r.stage}: {r.lost}" for r in rows if r.survived < r.injected]
    lost = ["", "What was lost:", "", *lost] if lost else []
    bad = [f"| {s.name} | {s.stage} | {s.status} | `{s.line.replace('|', chr(92) + '|')}` |" for s in said]
    known = output.versions()
    packages = ", ".join(f"{name} {known[name]}" for name in ("python", "torch", "transformers", "trl"))
    head = HEAD.format(kills=kills, seed=seed, packages=packages, system=f"{platform.system()}, CPU")
    return "\n".join([head, *lines, *lost, MIDDLE, *bad, ""])


HEAD = """\
# Reliability

If a run stops, run the same command again. It continues from what is on disk. On a CPU its result is that of
an undisturbed run. On a GPU, completions that are made again [may differ](scaling.md#what-seeds-promise).

| what happened | what you see | what to do |
|---|---|---|
| the process was killed | nothing | the same command |
| SIGTERM | status 143 and one line | the same command |
| the disk is full | status 1 and one line | make room, then the same command |
| files of a finished run were removed | nothing | the same command |
| the output folder cannot be written | status 2 and one line, before any work | name another output folder |
| two runs use one folder | the second run ends with status 2 and one line | wait, or name another folder |
| the input is wrong | status 2 and one of the lines below | correct what the line names |

## What was tested

Made by `python scripts/proofs/fault_table.py --kills {kills} --seed {seed}` ({packages}; {system}).
Every run is a process of its own, with a one-layer model. Each cell shows how many of the injected faults the
stage survived.

| fault | explore | bundle | sft | grpo | evaluate |
|---|---|---|---|---|---|"""
MIDDLE = """
*Survived* means:

- **explore, bundle, evaluate** (transformers engine, float32, CPU): after the same command, the files have
  the same bytes as those of an undisturbed run, except for timings.
- **sft, grpo**: after the same command, the loss of every step is that of an undisturbed run, within 1e-5.
- **read-only output**: the run is refused, as in the table above.
- **two runs on one folder**: the second run is refused. The first run finishes undisturbed.

How the faults are injected:

- **SIGKILL**: one kill in five comes between start and first output, the other four between first output and
  end. No worker outlived a killed process.
- **Full disk**: a limit on file size, which fails the same way.
- **Files removed by hand**: a chunk, a split, or the last file of the newest checkpoint is removed from the
  folder of a finished run.

## Bad input

Each of these ends with exit status 2 and the line shown. Nothing is written.

| what is wrong | stage | status | the line |
|---|---|---|---|"""


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=10, help="per stage")
    parser.add_argument("--seed", type=int, default=0, help="of the moments of the kills")
    given = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    os.environ |= {"HF_HUB_OFFLINE": "1", "OMP_NUM_THREADS": "1"}
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="faults-") as folder:
        rows, said = table(given.kills, given.seed, Path(folder))
    DOCUMENT.parent.mkdir(exist_ok=True)
    DOCUMENT.write_text(document(rows, said, given.kills, given.seed), encoding="utf-8")
    right = sum(row.injected == row.survived for row in rows), sum(one.status == 2 for one in said)
    took = time.monotonic() - began
    log.info(
        "%s: %d of %d rows, %d of %d lines, %.0f s", DOCUMENT, right[0], len(rows), right[1], len(said), took
    )


if __name__ == "__main__":
    main()
