"""On the path of every process that a test starts, which then starts in three quarters of the time.

Garbage is looked for more seldom: while torch, TRL or vLLM is imported, that took a fifth of the time. And
the list of all installed packages, which transformers and TRL each make for themselves, is made once.

With A2R_TEST_WITHOUT_VLLM it is as where vllm is not installed: TRL imports vllm with GRPO, used or not, and
that takes longer than such a process then works.
"""

import functools
import gc
import importlib.metadata
import importlib.util
import os

gc.set_threshold(10_000)
importlib.metadata.packages_distributions = functools.cache(importlib.metadata.packages_distributions)
if os.environ.get("A2R_TEST_WITHOUT_VLLM"):
    _find = importlib.util.find_spec
    importlib.util.find_spec = lambda name, package=None: None if name == "vllm" else _find(name, package)
