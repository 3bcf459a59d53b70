"""Recipes: one YAML file plus command-line overrides, read into dataclasses with strict keys.

TRL's parser does the typing and the merging; this module refuses what it would let pass: misspelt keys, keys
written twice, and values of the wrong shape. Every mistake is one InputError that names the file and the key.
"""

from __future__ import annotations

import difflib
import importlib
import importlib.util
import json
import os
import sys
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import fields
from pathlib import Path
from typing import Any, NoReturn

import yaml

from a2r_train.errors import InputError

# Keys of TRL, and what their values need that is not installed with this package; one of several is enough.
PACKAGES: dict[tuple[str, Any], tuple[str, ...]] = {
    ("report_to", "wandb"): ("wandb",),
    ("report_to", "trackio"): ("trackio",),
    ("report_to", "tensorboard"): ("tensorboard", "tensorboardX"),
    ("attn_implementation", "flash_attention_2"): ("flash_attn", "kernels"),
    ("load_in_4bit", True): ("bitsandbytes",),
    ("load_in_8bit", True): ("bitsandbytes",),
    ("use_liger_kernel", True): ("liger_kernel",),
}


TASK_FILE = "task.yaml"
TASK_KEYS = ("prompt", "verifier", "columns", "chat_template_kwargs")


def parse(types: Sequence[Any], argv: Sequence[str] | None = None) -> tuple[Any, ...]:
    """Read `--config recipe.yaml` and `--key value` overrides into one instance of each dataclass.

    Raises InputError for a missing file, an unknown or repeated key (naming the nearest right one), a value
    of the wrong type, and one that needs a package that is not installed.
    """
    from trl.scripts.utils import TrlParser

    class Parser(TrlParser):
        def error(self, message: str) -> NoReturn:
            raise InputError(message.replace("the following arguments are required", "missing"))

    arguments = list(sys.argv[1:] if argv is None else argv)
    if {"-h", "--help"} & {*arguments}:
        Parser(types, prog=_command(), usage="%(prog)s --config RECIPE [--key value ...]").print_help()
        raise SystemExit(0)
    path, arguments = take_config(arguments)
    recipe, path = load_yaml(path) if path else {}, path or "command line"
    known = {field.name for kind in types for field in fields(kind) if field.init}
    check_keys(recipe, known, path)
    recipe = {**task_keys(path, recipe, known), **recipe}
    given = [a[2:].partition("=")[0].replace("-", "_") for a in arguments if a.startswith("--")]
    check_keys(given, known, "command line")
    parser = Parser(dataclass_types=list(types), allow_abbrev=False)
    written = {
        field.name for kind in types for field in fields(kind) if str(field.default).startswith("{")
    }  # as JSON
    recipe = {
        key: json.dumps(value) if key in written and isinstance(value, dict) else value
        for key, value in recipe.items()
    }
    for kind in types:
        recipe = {**recipe, **_checked(kind, recipe, path)}
    parser.set_defaults_with_config(**recipe)
    try:
        configs = tuple(parser.parse_args_into_dataclasses(args=arguments))
    except (ValueError, TypeError) as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}") from None
    for config in configs:
        _check_packages(config)
    return configs


def task_keys(path: str, recipe: Mapping[str, Any], known: set[str]) -> dict[str, Any]:
    """The keys that `task.yaml` beside a recipe sets for all recipes of its folder, those that this stage
    knows.

    Raises InputError for another key, and for one that the recipe sets to something else.
    """
    place = Path(path).parent / TASK_FILE
    if not path.endswith((".yaml", ".yml")) or not place.is_file():
        return {}
    task = load_yaml(str(place))
    check_keys(task, set(TASK_KEYS), str(place))
    for key in task.keys() & recipe.keys():
        if recipe[key] != task[key]:
            raise InputError(
                f"{path}: {key} is {recipe[key]!r}, and {place} says {task[key]!r}; say it there alone"
            )
    return {key: value for key, value in task.items() if key in known}


def load_dotted(path: str, key: str) -> Any:
    """What `package.module.name` or `package.module:name` names; the working directory is on the import path.

    Raises InputError where there is no such module or name.
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
    """Raise InputError for a number of a config that is below the least that makes sense."""
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
    """The path of `--config PATH` or `--config=PATH`, "" where there is none, and the other arguments."""
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
    """As the user typed it: a program, and the verb of `a2r`."""
    return " ".join([Path(sys.argv[0]).name, *(word for word in sys.argv[1:2] if not word.startswith("-"))])


class _UniqueKeys(yaml.SafeLoader):
    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for key in keys:
            if keys.count(key) > 1:
                raise yaml.YAMLError(
                    f"key {key!r} is written twice, at line {node.start_mark.line + 1} and after"
                )
        return super().construct_mapping(node, deep)


def load_yaml(path: str) -> dict[str, Any]:
    """A YAML mapping, safely loaded.

    Raises InputError for a missing or broken file, or one that is no mapping.
    """
    try:
        with open(path, encoding="utf-8") as file:
            content = yaml.load(file, Loader=_UniqueKeys) or {}
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a YAML recipe") from None
    except yaml.YAMLError as error:
        raise InputError(f"{path}: {' '.join(str(error).split())}") from None
    if not isinstance(content, dict):
        raise InputError(f"{path}: expected `key: value` lines, found a {type(content).__name__}")
    return content


def check_keys(keys: Iterable[str], known: set[str], place: str) -> None:
    """Raise InputError for a key that is not known, naming the nearest one that is."""
    for key in keys:
        if str(key) not in known:
            near = difflib.get_close_matches(str(key), sorted(known), n=1, cutoff=0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"the keys are {', '.join(sorted(known))[:300]}"
            raise InputError(f"{place}: unknown key {key!r}; {hint}")


def _checked(kind: type, recipe: dict[str, Any], path: str) -> dict[str, str]:
    """A YAML value passes argparse unseen unless it is a string, so the plain types are checked here.

    Returns the numbers that stand where a text is expected as text, as on the command line.
    """
    texts: dict[str, str] = {}
    plain: dict[str, tuple[type, ...]] = {
        "int": (int,),
        "float": (int, float),
        "bool": (bool,),
        "str": (str, int, float),
    }
    for field in fields(kind):
        hint = str(getattr(field.type, "__name__", field.type)).removesuffix(" | None")
        value = recipe.get(field.name)
        if hint not in plain or value is None or isinstance(value, str):
            continue
        if not isinstance(value, plain[hint]) or (isinstance(value, bool) and hint != "bool"):
            raise InputError(f"{path}: key {field.name!r} is {value!r}; expected {hint}")
        if hint == "str":
            texts[field.name] = str(value)
    return texts
