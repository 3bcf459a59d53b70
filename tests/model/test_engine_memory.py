"""An engine that is no longer used gives its memory back, even where a reference cycle holds it."""

import gc
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from conftest import bundle_with

from a2r_train.config import parse
from a2r_train.engines import EngineArguments, load_engine
from a2r_train.records import Problem, write
from a2r_train.train import sft, targets
from a2r_train.train.bundles import load_bundles


@pytest.fixture(autouse=True)
def no_collection() -> Iterator[None]:
    """Nothing is collected by chance."""
    gc.disable()
    yield
    gc.enable()


def cyclic(*args: Any, **more: Any) -> Any:
    engine: Any = load_engine(*args, **more)
    engine.itself = engine
    return engine


def test_before_the_next_engine(tiny: str) -> None:
    engine = cyclic(tiny, EngineArguments(engine="transformers"))
    held = weakref.ref(engine)
    del engine
    assert held() is not None
    load_engine(tiny, EngineArguments(engine="transformers"))
    assert held() is None


def test_before_sft_trains_on_what_it_sampled(
    tiny: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    engines = []

    def load(*args: Any, **more: Any) -> Any:
        engine = cyclic(*args, **more)
        engines.append(weakref.ref(engine))
        return engine

    monkeypatch.setattr(targets, "load_engine", load)
    monkeypatch.setattr(targets, "select", lambda made, *_: made[:1])
    bundles = tmp_path / "bundles.jsonl"
    write([bundle_with(Problem(f"p{i}", f"{i}?", "5"), ("5", "7"), f"b{i}") for i in range(4)], bundles)
    keys = {
        "bundles": bundles,
        "model_name_or_path": tiny,
        "output_dir": tmp_path / "sft",
        "target_engine": "transformers",
        "max_target_tokens": 4,
        "use_cpu": "true",
    }
    argv = [text for key, value in keys.items() for text in (f"--{key}", str(value))]
    data, args, model = parse(sft.ARGUMENTS, argv)
    assert len(targets.sample_targets(args, model, load_bundles(data, model))) == 1
    assert [engine() for engine in engines] == [None]
