"""Rebuild data/code: our own programming problems, with hidden tests in MBPP's format.

    python scripts/make_data/write_code_problems.py

The problems are defined in scripts/make_data/code_problems/, as reference solutions with their texts and
calls. Every third one is a test problem. The solutions are ours, so they run in this process; `a2r` never
runs a program in its own process.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

from code_problems import lists, numbers, texts  # noqa: F401 (importing registers their problems)
from code_problems.told import PROBLEMS

OUT = Path(__file__).parents[2] / "data" / "code"


def rows() -> list[dict[str, object]]:
    """The problems in MBPP's format, numbered from 1."""
    return [
        {
            "task_id": f"code-{number:03d}",
            "text": told.text,
            "code": told.code,
            "test_list": told.tests,
            "test_setup_code": "",
        }
        for number, told in enumerate(PROBLEMS, 1)
    ]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=OUT, help="the folder to write to")
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    every = rows()
    for name, chosen in (
        ("train", [row for at, row in enumerate(every) if at % 3]),
        ("test", every[::3]),
    ):
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in chosen)
        (out / f"{name}.jsonl").write_text(text, encoding="utf-8")
        print(f"{out / name}.jsonl: {len(chosen)} problems")


if __name__ == "__main__":
    main()
