"""Kept evaluations: their table is made again from the stored syntheses, without a model, or by running them
again.

Many evaluations keep only their rollouts and no answers. Then only the rows that rest on rollouts are made.
"""

from __future__ import annotations

import json
import os
import re
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import Any

from a2r_train.config import check_keys
from a2r_train.data.read import read
from a2r_train.data.rollouts import judged, judged_bundles
from a2r_train.errors import InputError
from a2r_train.evaluate.answers import MANIFEST, Task, rejudged_syntheses
from a2r_train.evaluate.config import EvaluateConfig
from a2r_train.evaluate.kept_bundles import made_whole, rollouts_at
from a2r_train.evaluate.pooled import differing_scores
from a2r_train.evaluate.report.write import build_results, results_text
from a2r_train.evaluate.rows.panel import tasks
from a2r_train.evaluate.rows.row import Row, bundle_votes, majority_row, reference_rows
from a2r_train.evaluate.rows.selected import no_vote, selected_rows
from a2r_train.evaluate.rows.skipping import answers_to, is_skipping
from a2r_train.evaluate.run import answers_of, evaluate, read_inputs, summarise
from a2r_train.models import Size
from a2r_train.prompts import PromptConfig
from a2r_train.records import CHECK_VERDICT, Bundle, Rollout, Synthesis
from a2r_train.verify import Judgement

INPUTS = (
    "bundles",
    "rollouts",
    "adaptive_validation",
    "prices",
    "prompt",
)  # the files that a config may name
MOST_LISTED = 20
Json = dict[str, Any]


class Kept:
    """The answers of an earlier run, in place of `Generator`'s.

    Each is judged again; `differing` lists the verdicts that changed.
    """

    def __init__(self, config: EvaluateConfig, folder: Path) -> None:
        self.config, self.folder = config, folder
        self.seconds: dict[str, dict[str, Any]] = {}
        self.differing: list[str] = []
        self.manifest = load_json(folder / MANIFEST)
        self._found: dict[str, list[Synthesis]] = {}

    @property
    def has_answers(self) -> bool:
        """Whether answers are kept, or the recipe needs none."""
        return bool(self.manifest.get("tasks")) or not tasks(self.config)

    def syntheses(self, task: Task, bundles: Sequence[Bundle]) -> list[Synthesis]:
        """Raises InputError unless there is one synthesis for each sample of each bundle, in this order."""
        if task.name not in self._found:
            files = self._of("tasks", task.name)
            stored = [s for file in files for s in read(Synthesis, str(self.folder / file))]
            if is_skipping(self.config, task):
                stored = self._of_asked(task, stored, bundles)
            elif self.config.max_bundles:
                stored = stored[: len(bundles) * task.samples]
            if [(s.bundle_id, s.sample) for s in stored] != [
                (b.id, i) for b in bundles for i in range(task.samples)
            ]:
                raise InputError(
                    f"{self.folder}: the syntheses of {task.name} are not those "
                    "of its bundles; expected one for each sample of each bundle"
                )
            asked = [b for b in bundles for _ in range(task.samples)]
            self._found[task.name] = self._judged(task, stored, asked)
        return self._found[task.name]

    def _of_asked(
        self, task: Task, stored: Sequence[Synthesis], bundles: Sequence[Bundle]
    ) -> list[Synthesis]:
        """The answers to the bundles in which too few references agree by today's verifier, which need not be
        those of then.

        Raises InputError for one that nobody was asked about.
        """
        known = {bundle.id for bundle in bundles}
        found = [synthesis for synthesis in stored if synthesis.bundle_id in known]
        have = {(synthesis.bundle_id, synthesis.sample) for synthesis in found}
        for bundle in bundles:
            for sample in range(task.samples):
                if (bundle.id, sample) not in have:
                    raise InputError(
                        f"{self.folder}: no answer of {task.name} to bundle {bundle.id}, sample {sample}; if "
                        "its references agreed at that time, they do not agree now: evaluate again"
                    )
        return found

    def parameters(self, model: str) -> int:
        return int(self._of("parameters", model))

    def size(self, model: str) -> Size | None:
        known = self._of("sizes", model)
        return Size(**known) if known else None

    def prompt(self, model: str) -> PromptConfig:
        """The default prompt, unless the run read its texts by headings or a pattern."""
        return self._prompt(self.manifest.get("prompts", {}).get(model))

    def _prompt(self, keys: Json | None) -> PromptConfig:
        return PromptConfig.of(keys, str(self.folder / MANIFEST)) if keys else PromptConfig()

    @property
    def prompt_of_references(self) -> PromptConfig:
        """The prompt by which the answers in references and rollouts were read."""
        return self._prompt(self.manifest.get("prompt_of_references"))

    def judged_references(self, bundles: list[Bundle], path: str) -> list[Bundle]:
        """The bundles, their references judged again as the evaluation did, because majority and oracle rest
        on them. Those that nobody had judged before cannot differ.
        """
        anew = judged_bundles(bundles, path, self.prompt_of_references)
        pairs = [
            (f"bundle {bundle.id}, reference {at}", old, new)
            for bundle, other in zip(bundles, anew, strict=True)
            for at, (old, new) in enumerate(zip(bundle.references, other.references, strict=True), 1)
            if old.verdict != CHECK_VERDICT
        ]
        self._compare(
            [place for place, _, _ in pairs],
            [(old.answer, old.verdict) for _, old, _ in pairs],
            [Judgement(new.answer, new.verdict) for _, _, new in pairs],
        )
        return anew

    def judged_rollouts(self, stored: Sequence[Rollout], bundles: Sequence[Bundle]) -> list[Rollout]:
        """The rollouts, judged again; pass@k and the larger majorities rest on them."""
        found = judged(stored, {b.problem_id: b for b in bundles}, self.prompt_of_references)
        pairs = [(old, new) for old, new in zip(stored, found, strict=True) if old.verdict != CHECK_VERDICT]
        places = [f"rollout of problem {old.problem_id}, sample {old.sample}" for old, _ in pairs]
        anew = [Judgement(new.answer, new.verdict) for _, new in pairs]
        self._compare(places, [(old.answer, old.verdict) for old, _ in pairs], anew)
        return found

    def _judged(self, task: Task, stored: Sequence[Synthesis], asked: Sequence[Bundle]) -> list[Synthesis]:
        anew = rejudged_syntheses(self.prompt(task.model), stored, asked)
        places = [f"{task.name}: bundle {s.bundle_id}, sample {s.sample}" for s in stored]
        judgements = [Judgement(s.answer, s.verdict) for s in anew]
        self._compare(places, [(s.answer, s.verdict) for s in stored], judgements)
        return anew

    def _compare(
        self, places: Sequence[str], stored: Sequence[tuple[str, str]], anew: Sequence[Judgement]
    ) -> None:
        for place, (answer, verdict), now in zip(places, stored, anew, strict=True):
            if (answer, verdict) != (now.answer, now.verdict):
                self.differing.append(
                    f"{place}: stored {answer!r} {verdict}, judged {now.answer!r} {now.verdict}"
                )

    def _of(self, kind: str, name: str) -> Any:
        if name not in self.manifest.get(kind, {}):
            raise InputError(
                f"{self.folder / MANIFEST}: nothing under {kind}: {name!r}; it was not kept; evaluate again"
            )
        return self.manifest[kind][name]


@dataclass(frozen=True)
class Compared:
    """A row of a kept table, and its accuracy in a new one; None if the new one lacks it."""

    name: str
    accuracy: float | None
    low: float | None
    high: float | None
    new: float | None
    same: str = ""  # how many verdicts stayed the same, if the row is a model's answers to the bundles

    @property
    def inside(self) -> bool:
        """Whether the new accuracy lies in the kept interval."""
        if self.new is None or self.low is None or self.high is None:
            return self.new is self.accuracy is None
        return self.low <= self.new <= self.high


@dataclass(frozen=True)
class Rescored:
    """Rows that were made again, rows whose answers are not kept, and what differs; [] for the same bytes."""

    rows: list[str]
    others: list[str]
    said: list[str]


def find_evaluations(root: str | Path) -> list[Path]:
    """The folders with a results.json, at any depth. Raises InputError if there is none."""
    found = sorted(path.parent for path in Path(root).rglob("results.json"))
    if not found:
        raise InputError(f"{root}: no evaluation below it; expected folders with results.json")
    return found


@contextmanager
def opened(folder: Path) -> Iterator[tuple[Json, EvaluateConfig]]:
    """The kept results, and their config with whole bundles, which exist until the context ends."""
    kept = load_json(folder / "results.json")
    with tempfile.TemporaryDirectory() as made:
        yield kept, made_whole(config_of(folder, kept), Path(made))


def rescore(folder: Path) -> Rescored:
    """Make results.json again from the stored data, and say what differs from the kept file.

    The input files are those that the manifest names, relative to the evaluation, else those that the config
    names, relative to the working directory. Without a manifest, only the table is kept. Entries that a file
    of an earlier version lacks are not compared. Raises InputError if something is missing.
    """
    if not (folder / MANIFEST).is_file():
        return Rescored([], [row["name"] for row in load_json(folder / "results.json")["rows"]], [])
    with opened(folder) as (kept, config):
        bundles, rollouts, outside = read_inputs(config, rollouts_at)
        work = Kept(config, folder)
        if not outside:
            bundles, rollouts = _judged_inputs(work, bundles, rollouts)
        if not work.has_answers:
            return _of_rollouts(config, work, kept, bundles, rollouts)
        if config.adaptive_validation:
            path = config.adaptive_validation
            work.judged_references(read(Bundle, path), path)
        results, rows = _made_of(config, work, bundles, rollouts, outside)
    results["setup"]["config"] = kept["setup"]["config"]  # it names the input files by their first paths
    if "overlap" in kept:  # what the models were trained on is recorded with them
        results["overlap"] = kept["overlap"]
    results = _as_kept(kept, _without_later_rows(kept, results, rows, config))
    said = _listed(work.differing + differing_scores(folder, rows))
    if results_text(results).encode() != (folder / "results.json").read_bytes():
        said += _listed(differences(kept, results)) or ["results.json: the same values in other bytes"]
    return Rescored([row["name"] for row in results["rows"]], [], said)


# Bundles and rollouts as kept, both judged again, and what differed. Only those of the last evaluation,
# because they are large.
_last: list[tuple[list[Bundle], list[Rollout], list[Bundle], list[Rollout], list[str]]] = []


def _judged_inputs(
    work: Kept, bundles: list[Bundle], stored: list[Rollout]
) -> tuple[list[Bundle], list[Rollout]]:
    """References and rollouts judged again; consecutive evaluations that share them are judged once."""
    if _last and _last[0][:2] == (bundles, stored):
        work.differing += _last[0][4]
    else:
        path = work.config.bundles
        anew = work.judged_references(bundles, path), work.judged_rollouts(stored, bundles)
        _last[:] = [(bundles, stored, *anew, list(work.differing))]
    return _last[0][2:4]


def _of_rollouts(
    config: EvaluateConfig, work: Kept, kept: Json, bundles: Sequence[Bundle], rollouts: Sequence[Rollout]
) -> Rescored:
    """The rows that need no answers; at an equal budget, the number of votes is the kept one."""
    rows = reference_rows(bundles, bundle_votes(bundles), rollouts)
    rows += selected_rows(bundles) if no_vote(bundles) else []
    for row in kept["rows"]:
        if voters := re.match(r"m=(\d+)", row["note"]):
            rows.append(majority_row(row["name"], bundles, rollouts, int(voters[1])))
    made = build_results(rows, seed=config.seed, draws=config.draws)["rows"]
    anew = {row["name"]: row for row in _as_kept(kept, {"rows": made})["rows"]}
    changed = [(row["name"], _changed(row, anew[row["name"]])) for row in kept["rows"] if row["name"] in anew]
    said = [f"row {name}: {what}" for name, what in changed if what]
    others = [row["name"] for row in kept["rows"] if row["name"] not in anew]
    return Rescored([name for name, _ in changed], others, _listed(work.differing) + said)


def _without_later_rows(kept: Json, new: Json, rows: Sequence[Row], config: EvaluateConfig) -> Json:
    """The results without the rows that later versions add: each would change the correction of all pairs."""
    known = {row["name"] for row in kept["rows"]}
    if later := [row.name for row in rows if row.name not in known]:
        parts = {
            part: {key: value for key, value in one.items() if key not in later}
            if isinstance(one, dict)
            else one
            for part, one in new["diagnostics"].items()
        }
        few = [row for row in rows if row.name in known]
        made = build_results(few, setup=new["setup"], diagnostics=parts, seed=config.seed, draws=config.draws)
        return {**new, **made}
    return new


def _as_kept(kept: Json, new: Json) -> Json:
    """Without what later versions add to the kept file: fields of a row or comparison, and entries."""
    found: Json = {}
    for part, value in new.items():
        if part not in kept:
            continue
        if isinstance(value, list):
            known = {key for one in kept[part] for key in one}
            found[part] = [{key: v for key, v in one.items() if key in known} for one in value]
        else:
            found[part] = {key: v for key, v in value.items() if key in kept[part]}
    return found


def regenerate(
    folder: Path, output_dir: str, changes: Mapping[str, str], max_bundles: int = 0, problems: str = ""
) -> list[Compared]:
    """Run a kept evaluation again into another folder, and compare its rows with the kept ones.

    `changes` are values of the config, such as paths of models; keys that the kept config leaves empty stay
    empty. With `max_bundles`, only the first bundles are answered; they are compared with the kept answers to
    the same bundles, whose intervals are wider. `problems` is the set from which the texts of kept bundles
    are read; "" for the set that they name. Whole bundles are written beside the other folder.
    """
    kept = load_json(folder / "results.json")
    inputs = Path(output_dir).with_name(f"{Path(output_dir).name}-inputs")
    config = made_whole(config_of(folder, kept), inputs, problems)
    if max_bundles:
        config = replace(config, max_bundles=max_bundles)
        bundles, stored, outside = read_inputs(config)
        work = Kept(config, folder)
        bundles = work.judged_references(bundles, config.bundles)
        kept, _ = _made_of(config, work, bundles, work.judged_rollouts(stored, bundles), outside)
    given = {key: value for key, value in changes.items() if value and getattr(config, key)}
    again = replace(config, **given, output_dir=output_dir, cards=False)  # type: ignore[arg-type]
    new = {row["name"]: row["accuracy"] for row in evaluate(again)["rows"]}
    same = _same_verdicts(Kept(config, folder), Kept(again, Path(output_dir)))
    return [
        Compared(r["name"], r["accuracy"], r["low"], r["high"], new.get(r["name"]), same.get(r["name"], ""))
        for r in kept["rows"]
    ]


def _same_verdicts(kept: Kept, again: Kept) -> dict[str, str]:
    """By task, how many verdicts are the same in both, such as `60 of 64`; {} if none are kept."""
    if not kept.has_answers:
        return {}
    found, config = {}, kept.config
    bundles = judged_bundles(read_inputs(config)[0], config.bundles, kept.prompt_of_references)
    for task in tasks(kept.config):
        pairs = zip(answers_to(kept, task, bundles), answers_to(again, task, bundles), strict=True)
        equal = [one.verdict == other.verdict for one, other in pairs]
        found[task.name] = f"{sum(equal)} of {len(equal)}"
    return found


def _made_of(
    config: EvaluateConfig, work: Kept, bundles: Sequence[Bundle], rollouts: Sequence[Rollout], outside: Json
) -> tuple[Json, list[Row]]:
    """Results and rows from kept answers. Raises InputError if they are not enough."""
    if config.reward_model:
        raise InputError(
            f"{work.folder}: the scores of its reward model are not kept; evaluate again with that model"
        )
    results, _, rows = summarise(config, work, bundles, rollouts, answers_of(config, work, bundles), outside)
    return results, rows


def config_of(folder: Path, results: Mapping[str, Any]) -> EvaluateConfig:
    """The config of the results, with the input files that are kept with them.

    Raises InputError for results of another command.
    """
    place = f"{folder / 'results.json'}: setup.config"
    values = (results.get("setup") or {}).get("config")
    if not isinstance(values, dict) or "bundles" not in values:
        raise InputError(f"{place}: not of `a2r evaluate`; name a folder that it wrote")
    check_keys(values, {f.name for f in fields(EvaluateConfig)}, place)
    inputs = load_json(folder / MANIFEST).get("inputs", {})
    check_keys(inputs, set(INPUTS), f"{folder / MANIFEST}: inputs")
    found = {key: os.path.normpath(folder / path) for key, path in inputs.items()}
    return EvaluateConfig(**{**values, **found, "output_dir": str(folder)})


def differences(kept: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """One line for each row, comparison or other entry that differs between two results."""
    named = [({_name(one): one for one in given["rows"] + given["paired"]}) for given in (kept, new)]
    said = [
        f"{name}: {_changed(named[0].get(name), named[1].get(name))}" for name in {**named[0], **named[1]}
    ]
    for part in ("diagnostics", "setup"):
        before, after = kept[part], new[part]
        said += [f"{part}.{key}: {_changed(before.get(key), after.get(key))}" for key in {**before, **after}]
    return [line for line in said if not line.endswith(": ")]


def load_json(path: Path) -> Json:
    """Raises InputError for a missing file, and for anything but a JSON object."""
    try:
        found = json.loads(path.read_text(encoding="utf-8"))
    except OSError as error:
        raise InputError(f"{path}: {error.strerror}; expected a file of a kept evaluation") from None
    except json.JSONDecodeError as error:
        raise InputError(f"{path}: not valid JSON ({error.msg})") from None
    if not isinstance(found, dict):
        raise InputError(f"{path}: a JSON {type(found).__name__}; expected an object")
    return found


def _name(entry: Mapping[str, Any]) -> str:
    return f"row {entry['name']}" if "name" in entry else f"comparison of {entry['a']} and {entry['b']}"


def _changed(before: Any, after: Any) -> str:
    """What differs, in one line; "" if nothing does."""
    if before == after:
        return ""
    if not isinstance(before, dict) or not isinstance(after, dict):
        return f"{_short(before)} kept, {_short(after)} anew"
    keys = [key for key in {**before, **after} if before.get(key) != after.get(key)]
    nested = any(isinstance(before.get(key), dict | list) for key in keys)
    said = [
        str(key) if nested else f"{key} {_short(before.get(key))} kept, {_short(after.get(key))} anew"
        for key in keys
    ]
    return "; ".join(said)


def _short(value: Any) -> str:
    text = json.dumps(value, ensure_ascii=False)
    return text if len(text) <= 60 else f"{text[:57]}..."


def _listed(lines: Sequence[str]) -> list[str]:
    more = len(lines) - MOST_LISTED
    return [*lines[:MOST_LISTED], *([f"and {more} more"] if more > 0 else [])]
