"""Store what readers need to check a result: small enough for the repository, without texts of third parties.

    K=scripts/make_data/keep_results.py
    python $K records runs/x/rollouts-test/rollouts.jsonl data/results/x     # rollouts.jsonl.xz there
    python $K bundles runs/x/bundles-test/train.jsonl data/results/x/bundles-test.kept.json \\
        --rollouts data/results/x/rollouts.jsonl.xz --golds data/results/golds/gsm8k-test.jsonl \\
        --problems openai/gsm8k:main:test
    python $K evaluation runs/x/evaluation data/results/x/evaluation \\
        --bundles data/results/x/bundles-test.kept.json --rollouts data/results/x/rollouts.jsonl.xz
    python $K adapter runs/x/grpo data/results/x/grpo

Stored bundles refer to rollouts and golds; golds of new problems are added to the golds file. An evaluation
is stored with its results, report.md, config and all syntheses, compressed; with --answers none, without
syntheses. The options name stored copies of the files in its config, which `a2r rescore` reads instead. An
adapter is cast to bfloat16, and may have at most 20 MB; `xz` saves a third, and `xz -dk` restores it.
"""

from __future__ import annotations

import argparse
import json
import lzma
import os
import shutil
import sys
from dataclasses import replace
from pathlib import Path

import yaml

from a2r_train.data.builder import problem_in
from a2r_train.data.read import read
from a2r_train.errors import InputError
from a2r_train.evaluate.answers import MANIFEST
from a2r_train.evaluate.kept import INPUTS, load_json
from a2r_train.evaluate.kept_bundles import (
    NO_TEXT,
    KeptBundles,
    bundles_of,
    draw,
    is_kept,
    kept_answer,
    read_golds,
    write_golds,
    write_kept,
)
from a2r_train.evaluate.pooled import FILE as SCORES
from a2r_train.records import Bundle, Rollout, write_text

REPORTS = ("results.json", "report.md", SCORES, "timing.json", "versions.json")  # report.html has texts
ADAPTER = ("adapter_config.json", "README.md", "prompt.yaml", "config.yaml")  # the tokenizer is the base's
MOST_BYTES = 20_000_000


def keep_records(source: Path, target: Path) -> Path:
    """Compress a JSONL file into a folder. Returns the new path."""
    return compress(source, target / f"{source.name}.xz")


def keep_bundles(source: Path, target: Path, rollouts: Path, golds: Path, problems: str) -> Path:
    """Write which rollouts each bundle contains, and add its problems to the golds.

    Raises InputError for references that are not among the rollouts, and for conflicting golds.
    """
    bundles = read(Bundle, str(source))
    known = read_golds(str(golds)) if golds.exists() else {}
    for bundle in bundles:
        gold = known.setdefault(bundle.problem_id, problem_in(bundle))
        if (kept_answer(gold), gold.verifier) != (kept_answer(problem_in(bundle)), bundle.verifier):
            raise InputError(f"{golds}: problem {bundle.problem_id} has another gold than bundle {bundle.id}")
    drawn = draw(bundles, read(Rollout, str(rollouts)))
    write_golds(known.values(), golds)
    beside = [Path(os.path.relpath(path, target.parent)).as_posix() for path in (golds, rollouts)]
    write_kept(KeptBundles(problems, beside[0], beside[1], drawn), target)
    check_same("bundles", str(source), target)
    return target


def keep_evaluation(source: Path, target: Path, inputs: dict[str, Path], answers: bool = True) -> Path:
    """Store a finished evaluation.

    Raises InputError if it has no manifest, or if the target folder is not empty.
    """
    results, manifest = load_json(source / "results.json"), load_json(source / MANIFEST)
    if target.exists() and any(target.iterdir()):
        raise InputError(f"{target}: the folder is not empty; name a new folder, or remove this one")
    config = results["setup"]["config"]
    for key, path in inputs.items():
        check_same(key, config.get(key) or "", path)
    target.mkdir(parents=True, exist_ok=True)
    tasks = manifest["tasks"] if answers else {}
    names = sorted({name for names in tasks.values() for name in names})
    places = {name: _place(source / name, target, f"{name}.xz") for name in names}
    for name in REPORTS:
        if (source / name).exists():
            shutil.copyfile(source / name, target / name)
    write_text(target / "config.yaml", yaml.safe_dump(config, sort_keys=False, allow_unicode=True))
    manifest["tasks"] = {task: [places[name] for name in names] for task, names in tasks.items()}
    manifest["inputs"] = {key: Path(os.path.relpath(path, target)).as_posix() for key, path in inputs.items()}
    write_text(target / MANIFEST, json.dumps(manifest, indent=1, sort_keys=True) + "\n")
    return target


def _place(source: Path, target: Path, name: str) -> str:
    """Where a manifest finds these answers: in the target folder, or in another evaluation that has them."""
    kept = compress(source, target / name)
    others = (path for path in target.parent.parent.glob(f"*/*/{name}") if path != kept)
    same = next((path for path in sorted(others) if path.read_bytes() == kept.read_bytes()), None)
    if not same:
        return name
    kept.unlink()
    kept.parent.rmdir()
    return Path(os.path.relpath(same, target)).as_posix()


def keep_adapter(source: Path, target: Path) -> Path:
    """Write a LoRA adapter in bfloat16.

    Raises InputError if the source is not an adapter, or if it exceeds MOST_BYTES.
    """
    import torch
    from safetensors.torch import load_file, save_file

    weights = source / "adapter_model.safetensors"
    if not weights.is_file():
        raise InputError(f"{weights}: no such file; expected the folder of a LoRA adapter")
    tensors = {
        name: tensor.to(torch.bfloat16) if tensor.is_floating_point() else tensor
        for name, tensor in load_file(weights).items()
    }
    size = sum(tensor.nbytes for tensor in tensors.values())
    if size > MOST_BYTES:
        raise InputError(
            f"{weights}: {size / 1e6:.1f} MB in bfloat16; expected at most {MOST_BYTES / 1e6:.0f} MB"
        )
    target.mkdir(parents=True, exist_ok=True)
    save_file(tensors, target / weights.name, metadata={"format": "pt"})
    (target / weights.name).chmod(0o644)  # safetensors makes it readable only for the owner
    for name in ADAPTER:
        if (source / name).is_file():
            shutil.copyfile(source / name, target / name)
    return target


def compress(source: Path, target: Path) -> Path:
    """Compress a file; the same bytes always give the same output."""
    data = contents(source)
    target.parent.mkdir(parents=True, exist_ok=True)
    target.write_bytes(lzma.compress(data, preset=9 | lzma.PRESET_EXTREME))
    return target


def check_same(key: str, named: str, kept: Path) -> None:
    """Raise InputError if a stored file differs from what the evaluation read, if that still exists."""
    if not named:
        raise InputError(f"--{key}: the evaluation read no such file; remove the option")
    first = ""
    if not Path(named).is_file():
        same = bool(contents(kept))
    elif is_kept(str(kept)):
        both = (bundles_of(str(kept)), read(Bundle, named))
        ours, there = ([replace(bundle, problem=NO_TEXT, metadata={}) for bundle in one] for one in both)
        same = ours == there
        pairs = zip(ours, there, strict=False)
        first = next((f", first in bundle {b.id}" for a, b in pairs if a != b), "")
    else:
        same = contents(kept) == contents(Path(named))
    if not same:
        raise InputError(f"{kept}: its content differs from {named}, the evaluation's {key}{first}")


def contents(path: Path) -> bytes:
    """The bytes of a file, decompressed if it is an .xz file."""
    try:
        data = path.read_bytes()
        return lzma.decompress(data) if path.suffix == ".xz" else data
    except (OSError, lzma.LZMAError) as error:
        raise InputError(
            f"{path}: {getattr(error, 'strerror', None) or error}; expected a file to store"
        ) from None


def main(arguments: list[str] | None = None) -> int:
    given = _parsed(arguments)
    try:
        if given.verb == "records":
            made = keep_records(given.source, given.target)
        elif given.verb == "bundles":
            made = keep_bundles(given.source, given.target, given.rollouts, given.golds, given.problems)
        elif given.verb == "adapter":
            made = keep_adapter(given.source, given.target)
        else:
            inputs = {key: getattr(given, key) for key in INPUTS if getattr(given, key)}
            made = keep_evaluation(given.source, given.target, inputs, given.answers == "all")
    except InputError as error:
        sys.stderr.write(f"keep_results: {error}\n")
        return 2
    print(made)
    return 0


def _parsed(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    verbs = parser.add_subparsers(dest="verb", required=True)
    parsers = {}
    for verb, what in (
        ("evaluation", "the output folder of `a2r evaluate`"),
        ("bundles", "a file of bundles"),
        ("adapter", "the folder of a LoRA adapter"),
        ("records", "a .jsonl file"),
    ):
        one = parsers[verb] = verbs.add_parser(verb)
        one.add_argument("source", type=Path, help=what)
        one.add_argument("target", type=Path, help="the folder to write to; for bundles, a .kept.json file")
    for key in INPUTS:
        named = f"the stored copy of the file that the config names as {key}"
        parsers["evaluation"].add_argument(f"--{key}", type=Path, help=named)
    parsers["evaluation"].add_argument("--answers", choices=("all", "none"), default="all")
    bundles = parsers["bundles"]
    bundles.add_argument("--rollouts", type=Path, required=True, help="the stored rollouts of the references")
    bundles.add_argument("--golds", type=Path, required=True, help="the golds file of the data set")
    bundles.add_argument("--problems", default="", help="the data set, as a recipe names it")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
