"""Engines turn chats into completions: `transformers` always works, `openai` asks a server.

Every engine has one method, `generate(chats, sampling, seeds) -> completions`, and counts its own tokens.
"""

from a2r_train.engines.base import Completion, Engine, Sampling, check_engine, load_engine

__all__ = ["Completion", "Engine", "Sampling", "check_engine", "load_engine"]
