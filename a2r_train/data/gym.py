"""Problems of Reasoning Gym (arXiv 2505.24760), drawn by its generators. Install the extra `reasoning-gym`.

`reasoning_gym:knights_knaves,number_sequence?size=2000&seed=1` draws that many of each task. A YAML file
can set more:

    reasoning_gym:
      - {task: knights_knaves, size: 1000, seed: 1, config: {n_people: 3}}
      - {task: number_sequence, size: 500}
"""

from __future__ import annotations

import difflib
import json
from collections.abc import Iterator, Mapping
from typing import Any
from urllib.parse import parse_qsl

from a2r_train.config import check_keys, load_yaml
from a2r_train.data.processes import Rate
from a2r_train.errors import InputError
from a2r_train.paths import GYM

TASK, CONFIG, ENTRY = "task", "config", "entry"  # as verify/gym.py reads them in the metadata
SIZE, SEED = 500, 0
FREE = "(any that the scorer takes)"  # the gold of an entry that has none


def is_gym(path: str) -> bool:
    return path.startswith(GYM) or path.endswith((".yaml", ".yml"))


def rows(path: str) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place, row) of each entry. Raises InputError for a task that does not exist or refuses its config."""
    for number, draw in enumerate(draws(path)):
        place = f"{path}: {draw[TASK]}"
        rate = Rate(f"{place}: drawing", draw["size"], "problems")
        for at, entry in enumerate(_entries(draw, place)):
            rate.add(1)
            yield f"{place} {at}", _row(draw, entry, f"{draw[TASK]}-{number}-{at}", place)


def draws(path: str) -> list[dict[str, Any]]:
    """What will be drawn: task, size, seed and config of each. Raises InputError for other values."""
    if path.startswith(GYM):
        names, _, query = path.removeprefix(GYM).partition("?")
        given: dict[str, Any] = dict(parse_qsl(query, keep_blank_values=True))
        draws: Any = [{TASK: name.strip(), **given} for name in names.split(",")]
    else:
        content = load_yaml(path)
        check_keys(content, {"reasoning_gym"}, path)
        draws = content.get("reasoning_gym")
    if not isinstance(draws, list) or not draws or not all(isinstance(one, dict) for one in draws):
        raise InputError(
            f"{path}: expected `reasoning_gym:` and a list of objects, such as {{task: countdown}}"
        )
    return [_checked(one, path) for one in draws]


def _checked(draw: Mapping[str, Any], path: str) -> dict[str, Any]:
    check_keys(draw, {TASK, "size", "seed", CONFIG}, path)
    found: dict[str, Any] = {TASK: "", "size": SIZE, "seed": SEED, CONFIG: {}, **draw}
    for key, least in (("size", 1), ("seed", 0)):
        text = str(found[key])
        if not text.isdecimal() or int(text) < least or isinstance(found[key], bool):
            raise InputError(f"{path}: {key} is {found[key]!r}; expected a whole number of at least {least}")
        found[key] = int(text)
    if not isinstance(found[CONFIG], dict):
        raise InputError(f"{path}: config is {found[CONFIG]!r}; expected an object, such as {{n_people: 3}}")
    return found


def _entries(draw: Mapping[str, Any], place: str) -> Any:
    try:
        import reasoning_gym
        from reasoning_gym.factory import DATASETS
    except ImportError:
        raise InputError(
            f"{place}: needs reasoning-gym, which is not installed: pip install -e '.[reasoning-gym]'"
        ) from None
    task = str(draw.get(TASK, ""))
    if task not in DATASETS:
        near = difflib.get_close_matches(task, sorted(DATASETS), n=1)
        hint = f"did you mean {near[0]!r}?" if near else f"it has {len(DATASETS)} tasks, such as countdown"
        raise InputError(f"{place}: Reasoning Gym has no task {task!r}; {hint}")
    try:
        return reasoning_gym.create_dataset(
            task, **{**draw[CONFIG], "size": draw["size"], "seed": draw["seed"]}
        )
    except (AssertionError, TypeError, ValueError) as error:
        raise InputError(
            f"{place}: the task refuses its config: {str(error)[:200] or draw[CONFIG]}"
        ) from None


def _row(draw: Mapping[str, Any], entry: Mapping[str, Any], identity: str, place: str) -> dict[str, Any]:
    try:
        plain = json.loads(json.dumps(entry))
    except (TypeError, ValueError) as error:
        raise InputError(f"{place}: its entries are not JSON ({error}); leave the task out") from None
    return {
        "id": identity,
        "problem": entry["question"],
        "answer": _gold(entry),
        "verifier": "reasoning_gym",
        "source": draw[TASK],
        "metadata": {TASK: draw[TASK], CONFIG: draw[CONFIG], ENTRY: plain},
    }


def _gold(entry: Mapping[str, Any]) -> str:
    """The answer of an entry, or its example of one."""
    if entry["answer"] is not None and str(entry["answer"]).strip():
        return str(entry["answer"])
    examples = [value for key, value in entry["metadata"].items() if "answer" in key and value is not None]
    if not examples:
        return FREE
    return examples[0] if isinstance(examples[0], str) else json.dumps(examples[0])
