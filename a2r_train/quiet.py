"""What libraries say that nobody can act on who trains or asks a model; all else is shown."""

from __future__ import annotations

import logging
import os
import sys
import warnings

# TRL and peft ask transformers by a name that it has changed.
WARNINGS = ("`is_gradient_checkpointing` is deprecated",)
# By logger: deepspeed is installed, and there is no GPU, which `use_cpu` and torch say themselves.
LOGGED = {"DeepSpeed": ("Setting accelerator to CPU",)}
# Read by huggingface_hub, and through it by transformers, and by datasets, as they are imported.
BARS = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")


def hide_warnings() -> None:
    """For the rest of the process."""
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    for name in LOGGED:
        logging.getLogger(name).addFilter(_shown)


def hide_bars() -> None:
    """Where no terminal shows them, in this process and those that it starts; in a file each would be a line
    for every step.
    """
    if not sys.stderr.isatty():
        for name in BARS:
            os.environ.setdefault(name, "1")


def _shown(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(LOGGED.get(record.name, ()))
