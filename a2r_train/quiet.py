"""Hides messages of libraries that a user of this package cannot act on; all others are shown."""

from __future__ import annotations

import logging
import os
import sys
import warnings

# TRL and peft use a name that transformers has deprecated.
WARNINGS = ("`is_gradient_checkpointing` is deprecated",)
# By logger: deepspeed is installed without a GPU, which `use_cpu` and torch say themselves.
LOGGED = {"DeepSpeed": ("Setting accelerator to CPU",)}
# Read on import by huggingface_hub, through it by transformers, and by datasets.
BARS = ("HF_HUB_DISABLE_PROGRESS_BARS", "HF_DATASETS_DISABLE_PROGRESS_BARS")


def hide_warnings() -> None:
    """Hide them for the rest of the process."""
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    for name in LOGGED:
        logging.getLogger(name).addFilter(_shown)


def hide_bars() -> None:
    """Hide progress bars if no terminal shows them, in this process and those that it starts; in a file, each
    step would be a line.
    """
    if not sys.stderr.isatty():
        for name in BARS:
            os.environ.setdefault(name, "1")


def _shown(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(LOGGED.get(record.name, ()))
