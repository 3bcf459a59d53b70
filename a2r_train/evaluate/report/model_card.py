"""The evaluation in a checkpoint's README.md: the hub's model-index in its head, the table in its text."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from huggingface_hub import EvalResult, ModelCard, ModelCardData

from a2r_train.evaluate.config import EvaluateConfig, grpo_row
from a2r_train.evaluate.report.write import markdown
from a2r_train.records import write_text

log = logging.getLogger(__name__)
BEGIN, END = "<!-- a2r evaluation -->", "<!-- end of a2r evaluation -->"


def write_cards(config: EvaluateConfig, results: Mapping[str, Any]) -> None:
    """Put the results of every trained checkpoint that is a local folder into its card; one that cannot be
    written is named.
    """
    trained = {
        "synthesizer/sft": config.sft,
        grpo_row(config): config.grpo,
        "synthesizer/no_references": config.no_references,
    }
    for row, model in trained.items():
        if model and Path(model).is_dir():
            path = Path(model) / "README.md"
            try:
                text = card(path, row, config.bundles, results)
                if not path.exists() or path.read_text(encoding="utf-8") != text:
                    write_text(path, text)
            except OSError as error:
                log.warning("%s: the evaluation could not be added (%s)", path, error.strerror)


def card(path: Path, row: str, bundles: str, results: Mapping[str, Any]) -> str:
    """The card at `path`, or a new one, with this evaluation in the place of an earlier one."""
    found = (
        ModelCard.load(path, ignore_metadata_errors=True) if path.exists() else ModelCard("---\n{}\n---\n")
    )
    data = found.data.to_dict()
    for key in ("model-index", "model_name", "eval_results"):
        data.pop(key, None)
    evaluated = _eval_results(row, bundles, results)
    head = ModelCardData(**data, model_name=path.resolve().parent.name, eval_results=evaluated)
    before, _, rest = found.text.partition(BEGIN)
    after = rest.partition(END)[2]
    body = f"{before.rstrip()}\n\n{BEGIN}\n{markdown(dict(results))}{END}\n{after.lstrip()}".lstrip()
    return f"---\n{head.to_yaml()}\n---\n{body}"


def _eval_results(row: str, bundles: str, results: Mapping[str, Any]) -> list[EvalResult]:
    """Accuracy in %, greedy and at the recipe's temperature."""
    name = "/".join(Path(bundles.removesuffix(".xz")).with_suffix("").parts[-2:])
    return [
        EvalResult(
            task_type="text-generation",
            task_name="Synthesis over reference bundles",
            dataset_type="reference-bundles",
            dataset_name=name,
            metric_type="accuracy",
            metric_name=f"accuracy of {one['name']} in %",
            metric_value=round(100 * one["accuracy"], 2),
        )
        for one in results["rows"]
        if one["name"] in (row, f"{row}@T") and one["accuracy"] is not None
    ]
