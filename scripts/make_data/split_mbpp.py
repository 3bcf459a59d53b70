"""Split a local MBPP file into its official splits by task_id, for machines that cannot reach the hub.

    python scripts/make_data/split_mbpp.py mbpp.jsonl runs/mbpp

Writes train.jsonl (601 to 974), validation.jsonl (511 to 600) and test.jsonl (11 to 510), with unchanged
rows. MBPP (Austin et al. 2021, arXiv 2108.07732) is CC-BY-4.0.
"""

from __future__ import annotations

import argparse
import json
from pathlib import Path

SPLITS = {"test": (11, 510), "validation": (511, 600), "train": (601, 974)}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("file", type=Path, help="all 974 rows, as JSONL")
    parser.add_argument("out", type=Path, help="the folder to write to")
    given = parser.parse_args()
    rows = [json.loads(line) for line in given.file.read_text(encoding="utf-8").splitlines() if line.strip()]
    given.out.mkdir(parents=True, exist_ok=True)
    for name, (first, last) in SPLITS.items():
        chosen = [row for row in rows if first <= row["task_id"] <= last]
        text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in chosen)
        (given.out / f"{name}.jsonl").write_text(text, encoding="utf-8")
        print(f"{given.out / name}.jsonl: {len(chosen)} problems")


if __name__ == "__main__":
    main()
