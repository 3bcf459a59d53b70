"""Make data/tiny: problem sets, and tiny Qwen3 models with their tokenizer, pre-trained from scratch.

    python scripts/make_data/pretrain_tiny.py --config recipes/tiny/pretrain.yaml [--models explorer] \\
        [--rows FOLDER] [--compile]

Every model sees a fixed set of plain problems with worked solutions for many epochs, and a set of prompts
with references. The loss covers only the solution. Some plain solutions start from a wrong number. The number
is not trained on, but its honest check is, so the models learn to check. Solutions with references follow one
of two habits: to take the number of one reference and keep it whatever its check says, or to go on until a
number passes. tiny_rows.py draws all of this. The curve is written beside each model as curve.json;
data/tiny/README.md has the results.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import logging
import math
import time
from collections.abc import Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_rows import (
    ModelConfig,
    PretrainConfig,
    Rows,
    curve_tales,
    kept_rows,
    make_rows,
    pretrained_on,
    train_tokenizer,
    validation_rows,
    write_sets,
)
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from a2r_train.prompts import PromptConfig, Prompter

log = logging.getLogger("pretrain_tiny")


def batches(
    rows: Rows, n: int, size: int, device: str, seed: int
) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless epochs over the first n rows as (ids, labels), both [size, width]; labels are -100 outside the
    trained part.
    """
    rng = np.random.default_rng(seed)
    ids, start, end = (
        torch.from_numpy(a[:n].astype(np.int32)).to(device) for a in (rows.ids, rows.start, rows.end)
    )
    while True:
        order = torch.from_numpy(rng.permutation(len(ids))).to(device)
        # Sort rows by length within blocks of eight batches, to reduce padding.
        blocks = [block[end[block].argsort()].split(size) for block in order.split(8 * size)]
        for pick in (pick for block in blocks for pick in (block[i] for i in rng.permutation(len(block)))):
            if len(pick) < size:
                continue
            batch = ids[pick, : int(end[pick].max())].long()
            at = torch.arange(batch.shape[1], device=device)
            inside = (at >= start[pick, None]) & (at < end[pick, None])
            yield batch, torch.where(inside, batch, -100)


def build(shape: ModelConfig, config: PretrainConfig) -> Qwen3ForCausalLM:
    torch.manual_seed(config.seed)
    return Qwen3ForCausalLM(
        Qwen3Config(
            vocab_size=config.vocab_size, hidden_size=shape.hidden_size,
            intermediate_size=3 * shape.hidden_size,
            num_hidden_layers=shape.layers, num_attention_heads=shape.heads,
            num_key_value_heads=shape.kv_heads, head_dim=32,
            max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=None, eos_token_id=2,
            pad_token_id=0,
        )
    )  # fmt: skip


def solution_logits(model: Any, ids: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [n, vocabulary] and targets [n] of only the trained tokens, a third of the positions."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    inside = labels[:, 1:] != -100
    return model.lm_head(hidden[inside]).float(), labels[:, 1:][inside]


@torch.no_grad()
def measure(model: Any, rows: Rows, device: str) -> dict[str, float]:
    """Greedy accuracy and mean probability (pass@1 at T=1) of each row's first trained token, the answer.

    `loss`: over all trained tokens. `all`: share of rows whose trained tokens are all the most likely ones;
    for rows with a wrong number these are honest checks.
    """
    ids, labels = next(batches(rows, len(rows.ids), len(rows.ids), device, 0))
    logits, target = solution_logits(model, ids, labels)
    row = (labels[:, 1:] != -100).nonzero()[:, 0]
    first = torch.cat([torch.ones_like(row[:1], dtype=torch.bool), row[1:] != row[:-1]])
    right = logits.argmax(-1) == target
    wrong_rows = torch.zeros(len(ids), device=device).index_add_(0, row, (~right).float())
    probability = logits.softmax(-1).gather(1, target[:, None])[:, 0]
    return {
        "greedy": right[first].float().mean().item(),
        "pass@1": probability[first].mean().item(),
        "all": (wrong_rows == 0).float().mean().item(),
        "loss": torch.nn.functional.cross_entropy(logits, target).item(),
    }


class Pretraining:
    """One model in training: its optimizer, its two sources of rows, and its curve."""

    def __init__(
        self, name: str, config: PretrainConfig, plain: Rows, reference: Rows, compiled: bool
    ) -> None:
        self.name, self.config, self.shape = name, config, config.models[name]
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = build(self.shape, config).to(self.device)
        if compiled:
            # Layer by layer, so that all share the code compiled for the first.
            for layer in self.model.model.layers:
                layer.compile(dynamic=True)
        decay = [p for p in self.model.parameters() if p.ndim > 1]
        other = [p for p in self.model.parameters() if p.ndim == 1]
        groups = [
            {"params": decay, "weight_decay": config.weight_decay},
            {"params": other, "weight_decay": 0.0},
        ]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95), fused=True)
        self.sources = (
            batches(plain, self.shape.n_plain, self.shape.batch_size, self.device, config.seed),
            batches(
                reference, self.shape.n_reference, self.shape.reference_batch_size, self.device, config.seed
            ),
        )
        self.curve: list[dict[str, float]] = []
        log.info("%s: %d parameters", name, self.model.num_parameters())

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device, torch.bfloat16)

    def step(self, step: int) -> list[torch.Tensor]:
        """One optimizer step on both sources; returns the two losses."""
        config, steps = self.config, self.shape.steps
        share = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
        scale = (
            step / config.warmup_steps if share < 0 else 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share))
        )
        for group in self.optimizer.param_groups:
            group["lr"] = config.learning_rate * scale
        losses = []
        for source in self.sources:
            ids, labels = next(source)
            with self.autocast():
                loss = torch.nn.functional.cross_entropy(*solution_logits(self.model, ids, labels))
            loss.backward()
            losses.append(loss.detach())
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.optimizer.step()
        self.optimizer.zero_grad(set_to_none=True)
        return losses

    def evaluate(
        self, step: int, losses: list[torch.Tensor], validation: dict[str, Rows]
    ) -> dict[str, float]:
        row = {"step": step, "loss": losses[0].item(), "loss_with_references": losses[1].item()}
        with self.autocast():
            plain, reference, check = (
                measure(self.model, validation[k], self.device) for k in ("plain", "reference", "check")
            )
        row |= {
            "greedy": plain["greedy"],
            "pass@1": plain["pass@1"],
            "greedy_with_references": reference["greedy"],
        }
        row["validation_loss_with_references"] = reference["loss"]
        self.curve.append({**row, "honest_checks": check["all"]})
        return self.curve[-1]

    def save(self, path: Path, tokenizer: Path) -> None:
        copy = build(self.shape, self.config).to(torch.bfloat16)
        copy.load_state_dict(self.model.state_dict())
        copy.save_pretrained(path)
        AutoTokenizer.from_pretrained(tokenizer).save_pretrained(path)
        (path / "prompt.yaml").write_text(PromptConfig.load(self.config.prompt).dump())
        (path / "curve.json").write_text(json.dumps(self.curve, indent=1) + "\n")


def pretrain(run: Pretraining, out: Path, tokenizer: Path, validation: dict[str, Rows]) -> None:
    """Train, and save at every evaluation; the newest state overwrites the last."""
    config, last, began = run.config, run.shape.steps, time.monotonic()
    for step in range(1, last + 1):
        losses = run.step(step)
        if step % config.eval_every and step != last:
            continue
        row = run.evaluate(step, losses, validation)
        log.info("%s %.0f s %s", run.name, time.monotonic() - began, json.dumps(row))
        run.save(out / run.name, tokenizer)


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    arguments.add_argument("--config", required=True)
    arguments.add_argument(
        "--models", help="comma-separated names from the recipe; default: all models, and the problem sets"
    )
    arguments.add_argument(
        "--compile",
        action="store_true",
        help="use torch.compile: a minute at the start, then faster on a GPU",
    )
    arguments.add_argument(
        "--rows",
        type=Path,
        default=Path("runs/tiny/pretrain"),
        help="folder that caches the drawn rows and the tokenizer",
    )
    given = arguments.parse_args()
    config = PretrainConfig.load(given.config)
    digest = hashlib.sha256(json.dumps(asdict(config), sort_keys=True, default=str).encode()).hexdigest()
    rows = given.rows / digest[:12]  # another recipe has other rows
    out, tokenizer, began = Path(config.out), rows / "tokenizer", time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    curve = curve_tales(config)
    reserved = {tale.digest for tale in curve}
    if not tokenizer.exists():
        train_tokenizer(config, tokenizer)
    plain = kept_rows(rows / "plain.npz", lambda: make_rows(config, tokenizer, reserved, "plain"))
    reference = kept_rows(rows / "reference.npz", lambda: make_rows(config, tokenizer, reserved, "reference"))
    log.info(
        "data in %.0f s; plain rows %s, reference rows %s",
        time.monotonic() - began,
        plain.ids.shape,
        reference.ids.shape,
    )
    if not given.models:
        write_sets(config, pretrained_on(config))
    prompter = Prompter(AutoTokenizer.from_pretrained(tokenizer), PromptConfig.load(config.prompt))
    validation = validation_rows(curve[: config.n_measured], prompter, config)
    for name in given.models.split(",") if given.models else config.models:
        pretrain(Pretraining(name, config, plain, reference, given.compile), out, tokenizer, validation)


if __name__ == "__main__":
    main()
