"""Recipes: one YAML file plus command-line overrides, read into dataclasses with strict keys.

TRL's parser converts types and merges. This module refuses what that parser would accept: misspelt keys,
duplicate keys, and values of the wrong shape. Every mistake is one InputError that names the file and the
key.

A path in a recipe is relative to the working directory. If it does not exist there, but does exist beside the
recipe, that file is used (`prompt: prompt.yaml`). Outputs always go below the working directory.
"""

from __future__ import annotations

import difflib
import functools
import importlib
import importlib.util
import json
import os
import re
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import MISSING, fields
from pathlib import Path
from types import UnionType
from typing import Any, NoReturn, Union, get_args, get_origin, get_type_hints

import yaml

from a2r_train.errors import InputError
from a2r_train.paths import has_data

# Values of TRL's keys that need a package which this one does not install; any one of those listed is enough.
PACKAGES: dict[tuple[str, Any], tuple[str, ...]] = {
    ("report_to", "wandb"): ("wandb",),
    ("report_to", "trackio"): ("trackio",),
    ("report_to", "tensorboard"): ("tensorboard", "tensorboardX"),
    ("report_to", "mlflow"): ("mlflow",),
    ("report_to", "comet_ml"): ("comet_ml",),
    ("report_to", "neptune"): ("neptune",),
    ("report_to", "clearml"): ("clearml",),
    ("report_to", "dvclive"): ("dvclive",),
    ("report_to", "swanlab"): ("swanlab",),
    ("report_to", "codecarbon"): ("codecarbon",),
    ("attn_implementation", "flash_attention_2"): ("flash_attn", "kernels"),
    ("attn_implementation", "flash_attention_3"): ("flash_attn_interface", "kernels"),
    ("attn_implementation", "flash_attention_4"): ("flash_attn", "kernels"),
    ("load_in_4bit", True): ("bitsandbytes",),
    ("load_in_8bit", True): ("bitsandbytes",),
    ("use_liger_kernel", True): ("liger_kernel",),
}
# Keys that only one stage has. They show that a recipe belongs to another stage.
MARKS: dict[str, tuple[str, ...]] = {
    "explore": ("samples_per_problem", "chunk_problems", "shard", "max_problems"),
    "bundle": ("mixture", "test_share", "test_rollouts", "test_problems", "bundles_per_problem", "k_min"),
    "sft": ("target_samples", "target_temperature", "max_target_tokens", "target_engine", "packing"),
    "grpo": ("num_generations", "max_completion_length", "beta", "scale_rewards", "pass_at_k", "validation"),
    "evaluate": ("base", "sft", "grpo", "no_references", "self_refine", "diagnostics", "budgets"),
    "probe": ("max_pairs", "accuracy"),
    "merge": ("sha256",),
    "grid": ("explorers", "synthesizers"),
}
# How to fix a YAML error, by a fragment of the parser's message.
YAML_REMEDIES = {
    "mapping values are not allowed": "quote a value that contains `: `, or align the keys",
    "'\\t'": "indent with spaces, not tabs",
    "cannot start any token": "quote a value that starts with this character",
    "could not find expected ':'": "write `key: value`, with a space after the colon",
    "found unexpected end of stream": "close the quotes or brackets that are open",
    "quoted scalar": "close the quotes",
    "flow ": "close the brackets",
    "expected <block end>": "align the keys, and quote either the whole value or none of it",
    "<document start>": "align the keys",
    "alias": "quote a value that starts with *",
    "tag": "quote a value that starts with !",
    "key in brackets": "quote a value that starts with { or [",
}


NEAR, FIRST_WORD = 0.5, 0.15  # least similarity of a suggestion, and the bonus for an equal first word
# What other tools call a key.
MEANT = {
    "batch_size": "per_device_train_batch_size",
    "lora_rank": "lora_r",
    "lr": "learning_rate",
    "model": "model_name_or_path",
    "rank": "lora_r",
}
# The types that YAML may return for a plain type.
PLAIN: dict[Any, tuple[type, ...]] = {
    int: (int,),
    float: (int, float),
    bool: (bool,),
    str: (str, int, float),
}
TASK_FILE = "task.yaml"
TASK_KEYS = ("prompt", "verifier", "columns", "chat_template_kwargs", "leave_out_bad_golds")


def parse(types: Sequence[Any], argv: Sequence[str] | None = None) -> tuple[Any, ...]:
    """Read `--config recipe.yaml` and `--key value` overrides into one instance of each dataclass.

    Raises InputError for a missing file, an unknown key (with the nearest known one), a duplicate key, and a
    value of the wrong type or that needs a package which is not installed.
    """
    arguments = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & {*arguments}:
        _parser(types, "").print_help()
        raise SystemExit(0)
    path, arguments = take_config(arguments)
    return configured(types, load_recipe(path) if path else {}, path or "command line", arguments)


def configured(
    types: Sequence[Any], recipe: dict[str, Any], place: str, arguments: Sequence[str] = ()
) -> tuple[Any, ...]:
    """One instance of each dataclass, from a recipe's keys and overrides. Raises InputError like `parse`."""
    known = {field.name for kind in types for field in fields(kind) if field.init}
    check_stage(recipe, known, place)
    check_keys(recipe, known, place)
    recipe = {**task_keys(place, recipe, known), **recipe}
    given = [a[2:].partition("=")[0].replace("-", "_") for a in arguments if a.startswith("--")]
    check_keys(given, known, "command line")
    for kind in types:
        recipe = as_texts(kind, without_empty(kind, recipe, place))
        recipe = {**recipe, **_checked(kind, recipe, place)}
    parser = _parser(types, "" if place == "command line" else f"{place}: ")
    parser.set_defaults_with_config(**recipe)
    try:
        configs = tuple(parser.parse_args_into_dataclasses(args=[*_with_json(types, arguments)]))
    except (ValueError, TypeError) as error:
        raise InputError(f"{place}: {' '.join(str(error).split())}") from None
    for config in configs:
        _check_packages(config)
    return configs


def _parser(types: Sequence[Any], place: str) -> Any:
    """TRL's parser, with errors turned into InputErrors that begin with the place."""
    from trl.scripts.utils import TrlParser

    class Parser(TrlParser):
        def error(self, message: str) -> NoReturn:
            said = message.replace("the following arguments are required", "missing")
            raise InputError(f"{place}{said}")

    usage = "%(prog)s --config RECIPE [--key value ...]"
    return Parser(list(types), prog=_command(), usage=usage, allow_abbrev=False)


def as_texts(kind: type, recipe: dict[str, Any]) -> dict[str, Any]:
    """Turn dicts into JSON text where the field holds JSON, such as `columns`."""
    as_json = {field.name for field in fields(kind) if str(field.default).startswith("{")}
    if kinds_of(kind).get("chat_template_kwargs") == (str,):  # "" where an earlier stage sets it
        as_json.add("chat_template_kwargs")
    return {
        key: json.dumps(value) if key in as_json and isinstance(value, dict) else value
        for key, value in recipe.items()
    }


def without_empty(kind: type, recipe: dict[str, Any], place: str) -> dict[str, Any]:
    """The recipe without this dataclass's empty keys (`k:`), where empty is also their default.

    A key that may be null keeps it. Raises InputError for any other empty key: its value is probably missing.
    """
    empty = [one for one in fields(kind) if one.init and one.name in recipe and recipe[one.name] is None]
    unset = {one.name for one in empty if not _may_be_null(kind, one.name)}
    for one in empty:
        default = one.default_factory() if callable(one.default_factory) else one.default
        if one.name in unset and default not in (None, "", "{}", []):
            remedy = "give it a value" if default is MISSING else "remove the key or give it a value"
            raise InputError(f"{place}: {one.name}: empty; {remedy}")
    return {key: value for key, value in recipe.items() if key not in unset}


def mapping_in(text: str) -> dict[str, Any] | None:
    """A mapping as a recipe has it, such as {enable_thinking: false}, or in JSON; None for anything else."""
    try:
        found = yaml.safe_load(text)
    except yaml.YAMLError:
        return None
    return {str(key): value for key, value in found.items()} if isinstance(found, dict) else None


def _with_json(types: Sequence[Any], arguments: Sequence[str]) -> Iterator[str]:
    """The arguments, with mappings in JSON, which is all that TRL's parser reads."""
    mappings = {
        name
        for kind in types
        for name, kinds in kinds_of(kind).items()
        if any(dict in (one, get_origin(one)) for one in kinds)
    }
    key = ""
    for argument in arguments:
        before, value = "", argument
        if argument.startswith("--"):
            key, equals, value = argument.partition("=")
            before = f"{key}{equals}"
        asked = value.startswith("{") and key[2:].replace("-", "_") in mappings
        found = mapping_in(value) if asked else None
        yield argument if found is None else f"{before}{json.dumps(found)}"


def task_keys(path: str, recipe: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """The keys of this stage that `task.yaml` sets for all recipes of its folder.

    Raises InputError for a key that task.yaml may not set, for one that the recipe sets differently, and for
    a task.yml, which no stage reads.
    """
    place = Path(path).parent / TASK_FILE
    if not path.endswith((".yaml", ".yml")):
        return {}
    if (misnamed := place.with_suffix(".yml")).is_file():
        raise InputError(f"{misnamed}: would not be read; rename it to {TASK_FILE}")
    if not place.is_file():
        return {}
    task = load_recipe(str(place))
    check_keys(task, set(TASK_KEYS), str(place))
    for key in task.keys() & recipe.keys():
        if recipe[key] != task[key]:
            raise InputError(
                f"{path}: {key} is {recipe[key]!r}, but {place} sets {task[key]!r}; set it only there"
            )
    return {key: value for key, value in task.items() if key in known}


def load_dotted(path: str, key: str) -> Any:
    """Import `package.module.name` or `package.module:name`; the working directory is on the import path.

    Raises InputError if there is no such module or name.
    """
    module, _, name = path.replace(":", ".").rpartition(".")
    if os.getcwd() not in sys.path:
        sys.path.append(os.getcwd())
    try:
        return getattr(importlib.import_module(module), name)
    except (ImportError, AttributeError, ValueError) as error:
        raise InputError(
            f"{key} {path!r}: cannot be imported ({error}); expected package.module.name"
        ) from None


def check_least(config: Any, **least: int) -> None:
    """Raise InputError if a field of the config is below its minimum."""
    for name, value in least.items():
        if getattr(config, name) < value:
            raise InputError(f"{name} is {getattr(config, name)}; expected at least {value}")


def _check_packages(config: Any) -> None:
    for (name, value), packages in PACKAGES.items():
        given = getattr(config, name, None)
        if value in (given if isinstance(given, list) else [given]) and not any(
            map(importlib.util.find_spec, packages)
        ):
            named = " or ".join(package.replace("_", "-") for package in packages)
            raise InputError(
                f"{name} {str(value).lower()} needs {named}, which is not "
                "installed: pip install it, or remove the key"
            )


def take_config(arguments: Sequence[str]) -> tuple[str, list[str]]:
    """The path of `--config PATH` or `--config=PATH`, "" if there is none, and the remaining arguments."""
    for at, argument in enumerate(arguments):
        key, equals, path = argument.partition("=")
        if key == "--config":
            after = at + 1 if equals else at + 2
            path = path or "".join(arguments[at + 1 : after])
            if not path:
                raise InputError("--config: expected the path of a YAML recipe")
            return path, [*arguments[:at], *arguments[after:]]
    return "", [*arguments]


def _command() -> str:
    """The command as the user typed it: the program, and the verb of `a2r`."""
    return " ".join([Path(sys.argv[0]).name, *(word for word in sys.argv[1:2] if not word.startswith("-"))])


class _UniqueKeys(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        lines: dict[Any, int] = {}
        for found, _ in node.value:
            if found.tag == "tag:yaml.org,2002:merge":  # `<<: *name`
                continue
            if not isinstance(found, yaml.ScalarNode):
                raise yaml.MarkedYAMLError(problem="found a key in brackets", problem_mark=found.start_mark)
            key, line = self.construct_object(found, deep=True), found.start_mark.line + 1
            if key in lines:
                raise yaml.YAMLError(
                    f"key {key!r} is written twice, at lines {lines[key]} and {line}; remove one"
                )
            lines[key] = line
        return super().construct_mapping(node, deep)


def load_recipe(path: str) -> dict[str, Any]:
    """`load_yaml`, with paths resolved beside the recipe where needed."""
    return {key: _beside(value, Path(path).parent) for key, value in load_yaml(path).items()}


def _beside(value: Any, folder: Path) -> Any:
    """Apply this module's rule for paths to a value, or to each part of a comma-separated one."""
    if not isinstance(value, str) or _is_there(value):
        return value
    if "," in value:
        parts = [part.strip() for part in value.split(",")]
        placed = [_beside(part, folder) for part in parts]
        return value if placed == parts else ",".join(placed)  # prose keeps its spaces
    looks_like_a_path = "/" in value or "." in value
    return str(folder / value) if looks_like_a_path and _is_there(str(folder / value)) else value


def _is_there(path: str) -> bool:
    """Whether the file or folder exists, or the shards that a stage wrote instead of a file."""
    return os.path.exists(path) or (path.endswith((".jsonl", ".parquet")) and has_data(path))


def load_yaml(path: str) -> dict[str, Any]:
    """Load a YAML mapping with the safe loader.

    Raises InputError for a missing or broken file, and for one that is not a mapping.
    """
    text = ""
    try:
        text = Path(path).read_text(encoding="utf-8")
        content = yaml.load(text, Loader=_UniqueKeys) or {}
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a YAML recipe") from None
    except UnicodeDecodeError as error:
        raise InputError(f"{path}: byte {error.start} is not UTF-8; save the file as UTF-8") from None
    except yaml.YAMLError as error:
        raise InputError(_broken(path, text, error)) from None
    if not isinstance(content, dict):
        raise InputError(
            f"{path}: expected `key: value` lines, a space after the colon; found a {type(content).__name__}"
        )
    return content


def _broken(path: str, text: str, error: yaml.YAMLError) -> str:
    """One line: the place, the offending line, and the fix or else what the parser says."""
    says = f"{getattr(error, 'context', None) or ''} {getattr(error, 'problem', None) or ''}".strip()
    mark = getattr(error, "problem_mark", None)
    if mark is None:
        return f"{path}: {' '.join(str(error).split())}"
    if "simple key" in says:  # point at the line without a colon, not at the next one
        mark = getattr(error, "context_mark", None) or mark
    lines = text.splitlines()
    number = min(mark.line, len(lines) - 1)
    place = f"{path}:{number + 1}: `{lines[number].strip()[:80]}` is not valid YAML"
    remedy = next((remedy for part, remedy in YAML_REMEDIES.items() if part in says), "")
    return f"{place}; {remedy}" if remedy else f"{place} ({says}); expected `key: value` lines"


def check_stage(recipe: Iterable[str], known: set[str], path: str) -> None:
    """Raise InputError if a recipe belongs to another stage than the one that knows these keys."""
    unknown = [str(key) for key in recipe if str(key) not in known]
    told = {verb: [key for key in unknown if key in keys] for verb, keys in MARKS.items()}
    verb = max(told, key=lambda verb: len(told[verb]))
    if told[verb]:
        raise InputError(
            f"{path}: this is a recipe of `a2r {verb}`: {told[verb][0]!r} is not a key of this stage; "
            f"run a2r {verb} --config {path}"
        )


def check_keys(keys: Iterable[str], known: set[str], place: str) -> None:
    """Raise InputError for an unknown key, naming the nearest known one."""
    for key in keys:
        if str(key) not in known:
            near = nearest(str(key), known)
            hint = f"did you mean {near!r}?" if near else f"the keys are {', '.join(sorted(known))[:300]}"
            raise InputError(f"{place}: unknown key {key!r}; {hint}")


def nearest(key: str, known: Iterable[str]) -> str:
    """The known key that was most likely meant, "" if none is close.

    difflib compares the letters. A key with the same first word counts as closer: lora_ranks gives lora_r,
    not local_rank.
    """
    known = {*known}
    if MEANT.get(key) in known:
        return MEANT[key]

    def score(other: str) -> float:
        alike = difflib.SequenceMatcher(None, other, key).ratio()
        return alike + FIRST_WORD * (other.partition("_")[0] == key.partition("_")[0] and "_" in key + other)

    scored = {other: score(other) for other in sorted(known)}
    best = max(scored, key=lambda other: scored[other], default="")
    return best if best and scored[best] >= NEAR else ""


@functools.cache
def _hints(config: type) -> dict[str, Any]:
    """The annotations of a config's fields: HfArgumentParser overwrites `field.type`."""
    return get_type_hints(config)


def _may_be_null(config: type, name: str) -> bool:
    return type(None) in get_args(_hints(config)[name])


@functools.cache
def kinds_of(config: type) -> dict[str, tuple[Any, ...]]:
    """The types that each field of a config may have, apart from None."""
    hints = _hints(config)
    several = {name: get_args(hint) if _is_union(hint) else (hint,) for name, hint in hints.items()}
    return {name: tuple(one for one in kinds if one is not type(None)) for name, kinds in several.items()}


def _is_union(hint: Any) -> bool:
    return get_origin(hint) in (Union, UnionType)


def _checked(kind: type, recipe: dict[str, Any], path: str) -> dict[str, Any]:
    """Check choices, plain types and lists, because argparse checks YAML values only if they are strings, and
    never against the choices.

    Returns the values as the command line would give them: a number as text if text is expected, and one
    value as a list of one if a list is expected.
    """
    taken: dict[str, Any] = {}
    choices = {one.name: one.metadata["choices"] for one in fields(kind) if "choices" in one.metadata}
    for name, kinds in kinds_of(kind).items():
        value = recipe.get(name)
        if value is not None and value not in choices.get(name, [value]):
            known = ", ".join(map(str, choices[name]))
            raise InputError(f"{path}: key {name!r} is {value!r}; expected one of {known}")
        if value is None or len(kinds) != 1:
            continue
        place = f"{path}: key {name!r} is"
        if get_origin(kinds[0]) is list:
            taken[name] = _as_list(value, get_args(kinds[0])[0], place)
        elif kinds[0] in PLAIN and not isinstance(value, str):
            taken[name] = _plain(value, kinds[0], place)
    return taken


def _plain(value: Any, kind: type, place: str) -> Any:
    """The value, if it fits a plain type. Raises InputError otherwise."""
    if not isinstance(value, PLAIN[kind]) or (isinstance(value, bool) and kind is not bool):
        raise InputError(f"{place} {value!r}; expected {kind.__name__}")
    return str(value) if kind is str else value


def _as_list(value: Any, kind: Any, place: str) -> list[Any]:
    """A list, or one value as a list of one.

    Raises InputError for a value of the wrong kind, and for several words in one string.
    """
    parts = re.split(r"[,\s]+", value.strip()) if isinstance(value, str) else []
    if len(parts) > 1 and all(re.fullmatch(r"[\w.:-]+", part) for part in parts):  # otherwise it is a pattern
        raise InputError(f"{place} {value!r}; expected a list, such as [{', '.join(parts)}]")
    values = value if isinstance(value, list) else [value] if value != "" else []
    if kind is float:
        values = [_number(one, place) for one in values]
    return [_plain(one, kind, place) for one in values] if kind in PLAIN else values


def _number(value: Any, place: str) -> Any:
    """A string as a number, as on the command line. Raises InputError if it is not a number."""
    try:
        return float(value) if isinstance(value, str) else value
    except ValueError:
        raise InputError(f"{place} {value!r}; expected float") from None
