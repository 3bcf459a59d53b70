"""On the path of a process, it is as where vllm is not installed: TRL imports vllm with GRPO, used or not,
and that takes longer than such a process then works.
"""

import importlib.util

_find = importlib.util.find_spec
importlib.util.find_spec = lambda name, package=None: None if name == "vllm" else _find(name, package)
