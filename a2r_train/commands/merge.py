"""`a2r merge`: a LoRA adapter folded into its base, or a GGUF file dequantised."""

from __future__ import annotations

import hashlib
import logging
from dataclasses import asdict, dataclass, field
from pathlib import Path

from a2r_train import output
from a2r_train.data.trained_on import NAME as TRAINED_ON
from a2r_train.errors import InputError
from a2r_train.models import (
    base_of,
    cannot_load,
    check_weights,
    load_model,
    load_tokenizer,
    model_file,
    source_of,
)
from a2r_train.records import write_text

log = logging.getLogger(__name__)
INPUTS = ("model",)


@dataclass
class MergeConfig:
    """`a2r merge`: a LoRA adapter, or a GGUF file -> a model folder, which trainers and vLLM can load."""

    model: str = field(
        metadata={"help": "the folder of a LoRA adapter, or a .gguf file, which is dequantised"}
    )
    output_dir: str = field(metadata={"help": "where the model is written"})
    sha256: str = field(
        default="", metadata={"help": "of the .gguf file: another file is an error; empty accepts any"}
    )
    dry_run: bool = field(default=False, metadata={"help": "show the resolved config, and stop"})


def merge(config: MergeConfig) -> Path:
    """Write the base of a LoRA adapter with the adapter folded in, and the adapter's prompt; or a GGUF file
    dequantised.

    The weights are bfloat16 where there is a GPU and float32 elsewhere. Raises InputError as `check_merge`,
    and for a folder that holds something else.
    """
    check_merge(config)
    tokenizer, folder = load_tokenizer(config.model), Path(config.output_dir)
    if output.prepare(folder, asdict(config), inputs=INPUTS):
        log.info("%s: done already", folder)
        return folder
    load_model(config.model).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    for name in ("prompt.yaml", TRAINED_ON):
        if kept := model_file(config.model, name):
            write_text(folder / name, kept.read_text(encoding="utf-8"))
    output.finish(folder)
    return folder


def check_folder(config: MergeConfig) -> None:
    """Raise InputError for the folder of another run."""
    output.check(config.output_dir, asdict(config), inputs=INPUTS)


def check_merge(config: MergeConfig) -> None:
    """Raise InputError for what is neither adapter nor GGUF file, and for a file of another sha256."""
    if base_of(config.model) == config.model and not config.model.endswith(".gguf"):
        raise InputError(
            f"{config.model}: no adapter_config.json; expected the folder of a LoRA adapter, or a .gguf file"
        )
    check_weights(config.model)
    _check_tied(config.model)
    if not config.sha256:
        return
    if not config.model.endswith(".gguf"):
        raise InputError(f"sha256: {config.model} is not a single file; leave the key out")
    with open(_gguf_file(config.model), "rb") as content:
        found = hashlib.file_digest(content, "sha256").hexdigest()
    if found != config.sha256:
        raise InputError(f"{config.model}: its sha256 is {found}; expected {config.sha256}")


def _check_tied(model: str) -> None:
    """Raise InputError for an adapter of the embedding or the LM head where these share one tensor."""
    from a2r_train.train.model import saved_adapter, tied_adapters

    if tied := tied_adapters(model, saved_adapter(model)):
        raise InputError(
            f"{model}: embedding and LM head share one tensor, and the adapter changes {' and '.join(tied)} "
            "alone, so it cannot be merged; load the adapter with its base"
        )


def _gguf_file(model: str) -> str:
    """The path of a GGUF file, after a download if it is on the hub."""
    from transformers.utils.hub import cached_file

    name, options = source_of(model)
    try:
        return str(cached_file(name, options["gguf_file"]))
    except OSError as error:
        raise cannot_load(model, error) from None
