"""The evaluation in a checkpoint's README.md: the model-index in its metadata, the table in its text."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from a2r_train.evaluate.config import EvaluateConfig, grpo_row
from a2r_train.evaluate.overlap import overlap_lines
from a2r_train.evaluate.report.tables import sections, skip_agreement_of
from a2r_train.evaluate.report.words import headline
from a2r_train.evaluate.report.write import markdown_section
from a2r_train.evaluate.rows.names import CONTROL, SFT, TRAINED
from a2r_train.records import write_text

log = logging.getLogger(__name__)
IN_CARDS = ("Accuracy", "Paired differences")
BEGIN, END = "<!-- a2r evaluation -->", "<!-- end of a2r evaluation -->"


def write_cards(config: EvaluateConfig, results: Mapping[str, Any]) -> None:
    """Put the results of every trained checkpoint that is a local folder into its card.

    Cards that are left as they are (`reason_to_leave`) or cannot be written are named, each in one line.
    """
    trained = {
        SFT: config.sft,
        grpo_row(config): config.grpo,
        CONTROL: config.no_references,
    }
    for row, model in trained.items():
        if model and Path(model).is_dir():
            path = Path(model) / "README.md"
            try:
                if reason := reason_to_leave(path, config, _problems(results, row)):
                    log.warning("%s: not updated: %s", path, reason)
                    continue
                text = card(path, row, config.bundles, results)
                if not path.exists() or path.read_text(encoding="utf-8") != text:
                    write_text(path, text)
            except OSError as error:
                log.warning("%s: the evaluation could not be added (%s)", path, error.strerror)


def reason_to_leave(path: Path, config: EvaluateConfig, problems: int) -> str:
    """Why an evaluation must not replace that of a card; "" if it may."""
    if config.max_bundles:
        return f"this evaluation used only the first {config.max_bundles} bundles (max_bundles)"
    data: Any = _load(path).data
    there = max((evaluated_problems(one) for one in data.eval_results or []), default=0)
    if there > problems:
        return f"it holds an evaluation of {there} problems, and this one has {problems}"
    return ""


def evaluated_problems(result: EvalResult) -> int:
    """The size of the test set behind a result of the model index; 0 if unknown."""
    return int((result.dataset_args or {}).get("problems", 0))


def card(path: Path, row: str, bundles: str, results: Mapping[str, Any]) -> str:
    """The card at `path`, or a new one, with this evaluation in place of an earlier one."""
    loaded: Any = _load(path)
    data = loaded.data.to_dict()
    for key in ("model-index", "model_name", "eval_results"):
        data.pop(key, None)
    evaluated = _eval_results(row, bundles, results)
    head = ModelCardData(**data, model_name=path.resolve().parent.name, eval_results=evaluated)
    before, _, rest = loaded.text.partition(BEGIN)
    after = rest.partition(END)[2]
    table = f"{BEGIN}\n{_table(bundles, results)}{END}"
    text = f"{before.rstrip()}\n\n{table}\n\n{after.lstrip()}".strip()
    return f"---\n{head.to_yaml()}\n---\n{text}\n"


def _load(path: Path) -> ModelCard:
    return ModelCard.load(path, ignore_metadata_errors=True) if path.exists() else ModelCard("---\n{}\n---\n")


def _table(bundles: str, results: Mapping[str, Any]) -> str:
    """What a reader on the hub looks for: the sentence at the top, accuracies, and their differences."""
    chosen = [section for section in sections(results) if section.title in IN_CARDS]
    first = [f"**{headline(results)}**", *(f"**{line}**" for line in overlap_lines(results))]
    setup = f"On `{bundles}`: {results['setup'].get('protocol', '')}."
    return "\n\n".join([*first, setup, *(markdown_section(section, 3) for section in chosen)]) + "\n"


def _problems(results: Mapping[str, Any], row: str) -> int:
    return next((one["n"] for one in results["rows"] if one["name"] in (row, f"{row}@T")), 0)


def _eval_results(row: str, bundles: str, results: Mapping[str, Any]) -> list[EvalResult]:
    """Accuracy in %, greedy and at the recipe's temperature."""
    name = "/".join(Path(bundles.removesuffix(".xz")).with_suffix("").parts[-2:])
    share = skip_agreement_of(results)
    of_system = f" with skip_agreement {share:g}" if share and row in TRAINED else ""
    return [
        EvalResult(
            task_type="text-generation",
            task_name="Synthesis over reference bundles",
            dataset_type="reference-bundles",
            dataset_name=name,
            dataset_args={"problems": one["n"]},
            metric_type="accuracy",
            metric_name=f"accuracy of {one['name']}{of_system} in %",
            metric_value=round(100 * one["accuracy"], 2),
        )
        for one in results["rows"]
        if one["name"] in (row, f"{row}@T") and one["accuracy"] is not None
    ]
