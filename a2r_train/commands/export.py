"""`a2r export`: bundles as the data set that `trl grpo` reads, with the command that trains on it.

For those who want TRL's own script, with only the prompts and the reward from this package.
"""

from __future__ import annotations

import hashlib
import json
import shlex
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from a2r_train import output
from a2r_train.errors import InputError
from a2r_train.records import write_text
from a2r_train.train.arguments import BundleArguments, ModelArguments
from a2r_train.train.bundles import TrainingBundles, load_bundles
from a2r_train.train.grpo import dataset_of

REWARD = "a2r_train.train.rewards.verifiable_reward"
CARD = """\
---
configs:
- config_name: {digest}
  data_files:
  - split: train
    path: train.jsonl
---
# Prompts of {bundles}

{rows} rows for `trl grpo`, rendered for {model}: `prompt` as messages, and the columns that the reward
`{reward}` reads. Made by `a2r export`.

    {command}
"""


@dataclass
class ExportConfig:
    """`a2r export`: bundles -> train.jsonl, which `trl grpo` takes as its data set."""

    bundles: str = field(metadata={"help": "training bundles"})
    output_dir: str = field(metadata={"help": "where train.jsonl is written"})
    model: str = field(metadata={"help": "the model to train; its tokenizer measures the prompts"})
    prompt: str = field(
        default="",
        metadata={"help": "a prompt file; empty for that of the model, the bundles, or the default"},
    )
    prompt_override: bool = field(
        default=False, metadata={"help": "allow `prompt` to differ from the one the model was trained with"}
    )
    chat_template_kwargs: str = field(
        default="",
        metadata={"help": "arguments of the chat template; empty for those of the bundles' task"},
    )
    plain_share: float = field(
        default=0.0, metadata={"help": "share of the bundles that are shown as the problem alone"}
    )
    max_bundles: int = field(default=0, metadata={"help": "use only the first N; 0 uses all"})
    dry_run: bool = field(default=False, metadata={"help": "show the first row and the command, and stop"})


def export(config: ExportConfig) -> str:
    """Write the data set, and return the command that trains on it. Raises InputError for wrong input."""
    data = BundleArguments(
        config.bundles,
        config.prompt,
        config.prompt_override,
        plain_share=config.plain_share,
        max_bundles=config.max_bundles,
    )
    model = ModelArguments(model_name_or_path=config.model)
    bundles = load_bundles(data, model, template_kwargs=config.chat_template_kwargs)
    rows = rows_of(bundles, config.model)
    command = trl_command(config, bundles)
    if config.dry_run:
        return f"{json.dumps(rows[0], ensure_ascii=False, indent=1)}\n{command}"
    folder = Path(config.output_dir)
    text = "".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows)
    done = output.prepare(folder, asdict(config), inputs=("bundles", "prompt"))
    if done and (folder / "train.jsonl").read_text(encoding="utf-8") != text:
        raise InputError(
            f"{folder}: the prompt or the tokenizer has changed since this run; name another output folder, "
            "or remove this one"
        )
    if not done:
        write_text(folder / "train.jsonl", text)
        write_text(folder / "README.md", _card(config, len(rows), command, text))
        output.finish(folder, {"rows": len(rows)})
    return command


def rows_of(bundles: TrainingBundles, model: str) -> list[dict[str, Any]]:
    """The rows that GRPO trains on here, and what the reward needs besides."""
    prompter = bundles.prompter
    more = {"opened": prompter.complete(""), "answer_pattern": prompter.config.answer_pattern}
    more |= {"sections": json.dumps(found)} if (found := prompter.config.sections) else {}
    if prompter.loses_thinking:
        more["thinking"] = json.dumps({"model": model, "markers": prompter.config.thinking})
    return [{**row, **more} for row in dataset_of(bundles)]


def trl_command(config: ExportConfig, bundles: TrainingBundles) -> str:
    """The command that trains on the data set; sizes and rates are TRL's own."""
    arguments = {
        "model_name_or_path": config.model,
        "dataset_name": config.output_dir,
        "reward_funcs": REWARD,
        "output_dir": f"{config.output_dir}-trained",
        "max_completion_length": 1024,
    }
    if kwargs := bundles.template_arguments():
        arguments["chat_template_kwargs"] = json.dumps(kwargs)
    words = [word for key, value in arguments.items() for word in (f"--{key}", str(value))]
    return shlex.join(["trl", "grpo", *words])


def _card(config: ExportConfig, rows: int, command: str, text: str) -> str:
    """The card. Its config is named by the content, or `datasets` would take rows of an earlier folder of
    this name.
    """
    digest = f"rows-{hashlib.sha256(text.encode()).hexdigest()[:12]}"
    named = {"bundles": config.bundles, "model": config.model, "reward": REWARD}
    return CARD.format(rows=rows, command=command, digest=digest, **named)
