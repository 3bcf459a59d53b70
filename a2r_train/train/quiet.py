"""Warnings of libraries that nobody can act on who trains; all others are shown."""

from __future__ import annotations

import logging
import warnings

# TRL and peft ask transformers by a name that it has changed.
WARNINGS = ("`is_gradient_checkpointing` is deprecated",)
# By logger: deepspeed is installed, and there is no GPU, which `use_cpu` and torch say themselves.
LOGGED = {"DeepSpeed": ("Setting accelerator to CPU",)}


def hide_warnings() -> None:
    """For the rest of the process."""
    for message in WARNINGS:
        warnings.filterwarnings("ignore", message=message)
    for name in LOGGED:
        logging.getLogger(name).addFilter(_shown)


def _shown(record: logging.LogRecord) -> bool:
    return not record.getMessage().startswith(LOGGED.get(record.name, ()))
