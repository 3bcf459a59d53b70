"""Engines turn chats into completions: `transformers` always works, `vllm` is fast, `openai` asks a server.

Every engine has `generate(chats, sampling, seeds) -> completions`, and `generate_batches`, which keeps it
busy between the chunks of a long work. It counts its own tokens.
"""

from a2r_train.engines.base import (
    ENGINE_KEYS,
    ENGINE_MAY_DIFFER,
    Completion,
    Engine,
    EngineArguments,
    Sampling,
    hardware,
    warn_failed,
)
from a2r_train.engines.load import begun_with, check_engine, load_engine, settled, switched

__all__ = [
    "ENGINE_KEYS",
    "ENGINE_MAY_DIFFER",
    "Completion",
    "Engine",
    "EngineArguments",
    "Sampling",
    "begun_with",
    "check_engine",
    "hardware",
    "load_engine",
    "settled",
    "switched",
    "warn_failed",
]
