"""best-of-K: a reward model scores every reference, and the best one is the answer."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from a2r_train import __version__
from a2r_train.errors import InputError
from a2r_train.evaluate.rows.row import (
    Part,
    Row,
    asked_part,
    by_problem,
    mean_over_problems,
    reference_part,
    size_label,
)
from a2r_train.models import check_weights, load_tokenizer, model_hash, source_of
from a2r_train.prompts import Messages
from a2r_train.records import CORRECT, Bundle, write_text

Scored = list[tuple[float, int]]  # score and tokens read, by reference


def best_of_row(model: str, bundles: Sequence[Bundle], folder: Path, batch_size: int) -> Row:
    """The row. Scores are stored below `folder` under a hash of the model's files and of what it read.

    References that tie are equally likely.
    """
    asked = [[[b.problem, reference.text] for reference in b.references] for b in bundles]
    key = hashlib.sha256(json.dumps([model_hash(model), asked, __version__]).encode()).hexdigest()[:16]
    path = folder / "best-of" / f"{key}.json"
    if not path.exists():
        write_text(path, json.dumps(scores(model, bundles, batch_size)) + "\n")
    found: list[Scored] = json.loads(path.read_text())
    values = [_best(bundle, scored) for bundle, scored in zip(bundles, found, strict=True)]
    read = mean_over_problems(bundles, [sum(tokens for _, tokens in scored) for scored in found])
    references = reference_part(bundles)
    total = references.completions * references.completion_tokens + read
    parts = (references, *_parts(model, bundles, found))
    return Row(f"best-of-{size_label(bundles)}", by_problem(bundles, values), total, "", parts)


def _parts(model: str, bundles: Sequence[Bundle], found: Sequence[Scored]) -> list[Part]:
    """What it reads: each reference in a chat of its own, in which no token attends to another chat."""
    parts = []
    for at in range(max(map(len, found))):
        tokens = [float(scored[at][1]) if at < len(scored) else 0.0 for scored in found]
        share = mean_over_problems(bundles, [float(at < len(scored)) for scored in found])
        parts.append(asked_part(model, mean_over_problems(bundles, tokens), 0.0, share))
    return parts


def _best(bundle: Bundle, scored: Scored) -> float:
    top = max(score for score, _ in scored)
    tied = [r for (score, _), r in zip(scored, bundle.references, strict=True) if score == top]
    return float(np.mean([reference.verdict == CORRECT for reference in tied]))


def scores(model: str, bundles: Sequence[Bundle], batch_size: int = 32) -> list[Scored]:
    """One score for each reference, for the chat in which it answers the problem.

    Raises InputError for a model that cannot be loaded.
    """
    classifier, tokenizer = load_classifier(model), load_tokenizer(model)
    chats = [_chat(bundle, reference.text) for bundle in bundles for reference in bundle.references]
    texts = [str(tokenizer.apply_chat_template(chat, tokenize=False)) for chat in chats]
    ids = [tokenizer(text, add_special_tokens=False)["input_ids"] for text in texts]
    order = sorted(range(len(ids)), key=lambda i: len(ids[i]))
    flat: dict[int, tuple[float, int]] = {}
    for at in range(0, len(order), batch_size):
        pick = order[at : at + batch_size]
        found = _score(classifier, tokenizer, [ids[i] for i in pick])
        flat |= {i: (round(score, 6), len(ids[i])) for i, score in zip(pick, found, strict=True)}
    ends = np.cumsum([len(b.references) for b in bundles]).tolist()
    return [
        [flat[i] for i in range(end - len(b.references), end)] for b, end in zip(bundles, ends, strict=True)
    ]


def _chat(bundle: Bundle, text: str) -> Messages:
    return [{"role": "user", "content": bundle.problem}, {"role": "assistant", "content": text}]


def _score(classifier: Any, tokenizer: Any, ids: list[list[int]]) -> list[float]:
    import torch

    inputs = tokenizer.pad({"input_ids": ids}, padding_side="right", return_tensors="pt").to(
        classifier.device
    )
    with torch.inference_mode():
        logits = classifier(**inputs).logits
    return [float(score) for score in logits[:, 0].float().tolist()]


def check_classifier(model: str) -> None:
    """Raise InputError for what `check_weights` refuses, and unless the model is a sequence classifier with
    one score and has a chat template. No weights are loaded.
    """
    from transformers import AutoConfig

    check_weights(model)
    name, options = source_of(model)
    with _loading(model):
        config = AutoConfig.from_pretrained(name, **options)
    if config.num_labels != 1 or not any("Classification" in name for name in config.architectures or []):
        raise InputError(f"{model}: {config.architectures}; expected a sequence classifier with one score")
    if not load_tokenizer(model).chat_template:
        raise InputError(f"{model}: the tokenizer has no chat template; name a reward model with one")


def load_classifier(model: str) -> Any:
    """The reward model, on a GPU if there is one. Raises InputError for one that cannot be loaded."""
    import torch
    from transformers import AutoModelForSequenceClassification

    name, options = source_of(model)
    with _loading(model):
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(
            name, use_safetensors=True, **options
        )
    if loaded.config.pad_token_id is None:
        loaded.config.pad_token_id = loaded.config.eos_token_id
    return loaded.eval().to("cuda" if torch.cuda.is_available() else "cpu")


@contextmanager
def _loading(model: str) -> Iterator[None]:
    try:
        yield
    except (OSError, ValueError) as error:
        raise InputError(
            f"{model}: cannot be loaded as a reward model ({str(error).splitlines()[0][:160]})"
        ) from None
