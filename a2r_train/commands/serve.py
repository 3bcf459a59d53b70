"""`a2r serve`: the pair as an endpoint."""

from __future__ import annotations

import importlib.util
import sys

from a2r_train.errors import InputError
from a2r_train.evaluate.cost import load_prices
from a2r_train.inference.serve.config import ServeConfig

PACKAGES = ("starlette", "uvicorn", "prometheus_client")


def serve(config: ServeConfig) -> int:
    """Serve until a signal, or print what would be started; returns the exit status.

    Raises InputError for a wrong key, and if a package of the extra `serve` is missing.
    """
    missing = [name for name in PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f"serve needs {', '.join(missing)}: install the extra with `pip install -e '.[serve]'`"
        )
    from a2r_train.inference.serve import run

    prices = load_prices(config.prices)
    if config.dry_run:
        _preview(config)
        return 0
    return run.serve(config, prices)


def _preview(config: ServeConfig) -> None:
    import torch

    from a2r_train.inference.serve.child import command, plans
    from a2r_train.inference.serve.run import prompters
    from a2r_train.records import Reference

    made = prompters(config)
    shown = made.synthesizer.synthesizer("What is 12 * 13?", [Reference(r"\boxed{156}", "156")] * config.k)
    wanted = plans(config)
    for plan in wanted:
        words = command(plan, 0, not torch.cuda.is_available(), config.gpu_memory_utilization / len(wanted))
        sys.stdout.write(f"starts: {' '.join(words[1:])}\n")
    for stage in ("explorer", "synthesizer"):
        if url := getattr(config, f"{stage}_url"):
            sys.stdout.write(f"asks: {getattr(config, stage)} at {url}\n")
    sys.stdout.write(f"listens: http://{config.host}:{config.port}/v1 as {config.name}\n")
    sys.stdout.write(f"one prompt of stage 2:\n{made.synthesizer.text(shown.chat)}\n")
