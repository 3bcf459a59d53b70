"""Make data/tiny: problem sets, and tiny Qwen3 models with their tokenizer, pre-trained from nothing.

    python scripts/pretrain_tiny.py --config recipes/tiny/pretrain.yaml [--models explorer] [--rows FOLDER] [--compile]

Every model sees a fixed set of plain problems with worked solutions for many epochs, and a set of reference prompts; the loss
is on the solution alone. Some plain solutions begin with a wrong number, which is not trained on, while its honest check is: so
the models learn to check. Those who write under references have one of two habits: to take the number of one reference and
keep it whatever its check says, or to go on until a number holds (`with_references`). The curve is written beside each model
as curve.json; data/tiny/README.md says what came out.
"""

from __future__ import annotations

import argparse
import dataclasses
import itertools
import json
import logging
import math
import multiprocessing
import os
import random
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tiny_problems import Tale, draw
from tokenizers import Regex, Tokenizer, decoders, models, pre_tokenizers, trainers
from transformers import AutoTokenizer, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from a2r_train.config import check_keys, load_yaml
from a2r_train.prompts import PromptConfig, Prompter
from a2r_train.records import Problem, write

log = logging.getLogger("pretrain_tiny")

CHAT_TEMPLATE = (
    "{% for message in messages %}<|im_start|>{{ message['role'] }}\n{{ message['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)
# A number is one token; a word takes the space beside it along.
PIECES = r"\\[a-z]+\{|\d{1,3}| ?\p{L}+ ?|[^\s\p{L}\d\\]+ ?|\s+|\\"


@dataclass(frozen=True)
class ModelConfig:
    """One model: its Qwen3 shape (head_dim is 32, which vLLM serves on the CPU too), its data, rows a step, and steps.

    The learning rate falls along a cosine of `steps`.
    """

    layers: int
    hidden_size: int
    heads: int
    kv_heads: int
    n_plain: int
    n_reference: int
    batch_size: int
    reference_batch_size: int
    steps: int


@dataclass(frozen=True)
class PretrainConfig:
    """Settings of the pre-training, all but one the recipe's; counts in problems."""

    out: str
    prompt: str
    models: dict[str, ModelConfig]
    difficulties: tuple[float, ...]
    kinds: dict[str, float]
    seed: int
    n_train: int
    n_validation: int
    n_test: int
    n_test_held_out: int
    vocab_size: int
    wrong_share: float
    stubborn_share: float
    slips: float
    max_references: int
    max_tries: int
    learning_rate: float
    weight_decay: float
    warmup_steps: int
    eval_every: int
    n_curve: int
    n_measured: int = 300

    @staticmethod
    def load(path: str) -> PretrainConfig:
        recipe = load_yaml(path)
        check_keys(recipe, {field.name for field in dataclasses.fields(PretrainConfig)}, path)
        for settings in recipe["models"].values():
            check_keys(settings, {field.name for field in dataclasses.fields(ModelConfig)}, path)
        shapes = {name: ModelConfig(**settings) for name, settings in recipe.pop("models").items()}
        return PretrainConfig(models=shapes, **{**recipe, "difficulties": tuple(recipe["difficulties"])})


@dataclass
class Rows:
    """Token ids [n, length], padded on the right, and where the trained part of each row begins and ends."""

    ids: np.ndarray
    start: np.ndarray
    end: np.ndarray


def draw_new(rng: random.Random, n: int, taken: set[int], held_out: bool = False, **mix: Any) -> list[Tale]:
    """n problems that share template and numbers neither with each other nor with `taken`, to which they are added."""
    tales: list[Tale] = []
    while len(tales) < n:
        tale = draw(rng, **mix)
        if tale.held_out == held_out and tale.digest not in taken:
            taken.add(tale.digest)
            tales.append(tale)
    return tales


def curve_tales(config: PretrainConfig) -> list[Tale]:
    """Evenly drawn problems for the curve; the pre-training sees none of them."""
    return draw_new(random.Random(config.seed), config.n_curve, set())


def draw_sets(config: PretrainConfig, taken: set[int]) -> dict[str, list[Tale]]:
    """The problem sets by name; none of their problems is in another one or in `taken`."""
    rng, mix = random.Random(config.seed), {"difficulties": config.difficulties, "kinds": config.kinds}
    sizes = {"train": config.n_train, "validation": config.n_validation, "test": config.n_test}
    sets = {name: draw_new(rng, size, taken, **mix) for name, size in sizes.items()}
    return {**sets, "test_held_out": draw_new(rng, config.n_test_held_out, taken, held_out=True, **mix)}


def write_sets(config: PretrainConfig, taken: set[int]) -> None:
    """The shipped problem sets: the mix of the recipe, without any problem of the pre-training."""
    for name, tales in draw_sets(config, taken).items():
        write((as_problem(tale, name, i) for i, tale in enumerate(tales)), Path(config.out) / f"{name}.jsonl")


def as_problem(tale: Tale, name: str, index: int) -> Problem:
    return Problem(f"{name}-{index:05d}", tale.text, str(tale.answer), "math", tale.source)


def train_tokenizer(config: PretrainConfig, path: Path) -> None:
    """A byte-level BPE trained on the stories, so that any text can be encoded, and the numbers 0 to 399 are one token each."""
    rng = random.Random(config.seed + 1)
    tokenizer = Tokenizer(models.BPE())
    pieces = pre_tokenizers.Split(Regex(PIECES), behavior="isolated")
    byte_level = pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence([pieces, byte_level])
    tokenizer.decoder = decoders.ByteLevel()
    tales = [draw(rng) for _ in range(60_000)]
    numbers = [" ".join(map(str, range(400)))] * 400
    trainer = trainers.BpeTrainer(
        vocab_size=config.vocab_size,
        special_tokens=["<|endoftext|>", "<|im_start|>", "<|im_end|>"],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    texts = (f"user\n{t.text}\n[1] {t.solution()}\nassistant\n" for t in tales)
    tokenizer.train_from_iterator([*texts, *numbers], trainer)
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, eos_token="<|im_end|>", pad_token="<|endoftext|>", model_max_length=2048
    )
    fast.chat_template = CHAT_TEMPLATE
    fast.save_pretrained(path)


def rows_of(tales: list[Tale], prompter: Prompter, rng: random.Random, kind: str, config: PretrainConfig) -> Rows:
    """Rows of a kind: `plain`, of which a share begins with a wrong number, which is not trained on; or `reference`."""
    plain = kind == "plain"
    wrong = [plain and rng.random() < config.wrong_share for _ in tales]
    if plain:
        pairs = [
            (prompter.explorer(t.text), t.solution(t.wrong_guess(rng) if w else None))
            for t, w in zip(tales, wrong, strict=True)
        ]
    else:
        pairs = [with_references(tale, rng, prompter, config) for tale in tales]
    heads = prompter.tokenizer([prompter.text(chat) for chat, _ in pairs])["input_ids"]
    tails = prompter.tokenizer([solution + "<|im_end|>" for _, solution in pairs])["input_ids"]
    rows = [head + tail for head, tail in zip(heads, tails, strict=True)]
    width = max(map(len, rows))
    ids = np.array([row + [0] * (width - len(row)) for row in rows], dtype=np.uint16)
    start = np.array([len(head) + w for head, w in zip(heads, wrong, strict=True)])
    return Rows(ids, start, np.array([len(row) for row in rows]))


def examples(seed: int, n: int, kind: str, config: PretrainConfig, tokenizer: str, reserved: set[int]) -> Rows:
    """n training rows drawn with one seed; runs in a worker process."""
    rng = random.Random(seed)
    prompter = Prompter(AutoTokenizer.from_pretrained(tokenizer), PromptConfig.load(config.prompt))
    return rows_of(draw_rows(rng, n, reserved), prompter, rng, kind, config)


def draw_rows(rng: random.Random, n: int, reserved: set[int]) -> list[Tale]:
    """n problems to pre-train on; the same one may come twice, as it may in any large collection."""
    drawn = (draw(rng) for _ in itertools.count())
    return list(itertools.islice((t for t in drawn if not t.held_out and t.digest not in reserved), n))


def with_references(
    tale: Tale, rng: random.Random, prompter: Prompter, config: PretrainConfig
) -> tuple[list[dict[str, str]], str]:
    """The chat with references, and the solution that follows it.

    The references are by workers of a skill that is drawn anew for every problem: how often they begin with a wrong number, and
    how often a line goes wrong. A stubborn writer takes the number of one reference, checks it honestly, and keeps it. The
    others try some wrong numbers of the references, and end with the right one, which need not be a reference's.
    """
    wrong, slips = rng.random(), rng.random() * config.slips
    count = rng.randint(1, config.max_references)
    guesses = [tale.wrong_guess(rng) if rng.random() < wrong else tale.answer for _ in range(count)]
    texts = [tale.slipped(guess, rng, slips) for guess in guesses]
    chat = prompter.synthesizer(tale.text, texts, texts).chat
    if rng.random() < config.stubborn_share:
        return chat, tale.solution(rng.choice(guesses))
    others = list(dict.fromkeys(g for g in rng.sample(guesses, count) if g != tale.answer))
    before = others[: rng.randint(0, min(len(others), config.max_tries - 1))]
    return chat, tale.tries([*before, tale.answer])


def parts(config: PretrainConfig, kind: str) -> list[tuple[int, int]]:
    """(seed, size) of the parts in which the rows are drawn, enough for the model that needs most."""
    total = max(getattr(model, f"n_{kind}") for model in config.models.values())
    part = min(2500, total)
    return [(2 * (config.seed * 1_000_003 + i + 1) + (kind == "reference"), part) for i in range(-(-total // part))]


def make_rows(config: PretrainConfig, tokenizer: Path, reserved: set[int], kind: str) -> Rows:
    """Training rows for the model that needs most; the others take the first ones of them."""
    work = [(seed, n, kind, config, str(tokenizer), reserved) for seed, n in parts(config, kind)]
    with multiprocessing.get_context("spawn").Pool(os.cpu_count()) as pool:
        made = pool.starmap(examples, work, chunksize=4)
    width = max(rows.ids.shape[1] for rows in made)
    ids = np.concatenate([np.pad(rows.ids, ((0, 0), (0, width - rows.ids.shape[1]))) for rows in made])
    start, end = np.concatenate([rows.start for rows in made]), np.concatenate([rows.end for rows in made])
    return Rows(ids, start, end)


def pretrained_on(config: PretrainConfig) -> set[int]:
    """The digests of all pre-training and curve problems, drawn once more without rendering them."""
    reserved = {tale.digest for tale in curve_tales(config)}
    seeds = [part for kind in ("plain", "reference") for part in parts(config, kind)]
    return reserved | {tale.digest for seed, n in seeds for tale in draw_rows(random.Random(seed), n, reserved)}


def kept_rows(path: Path, make: Callable[[], Rows]) -> Rows:
    """The rows in `path`; made and written there if it does not exist."""
    if not path.exists():
        rows = make()
        np.savez_compressed(path, ids=rows.ids, start=rows.start, end=rows.end)
    return Rows(**np.load(path))


def batches(rows: Rows, n: int, size: int, device: str, seed: int) -> Iterator[tuple[torch.Tensor, torch.Tensor]]:
    """Endless epochs over the first n rows as (ids, labels), both [size, width]; labels are -100 where nothing is trained."""
    rng = np.random.default_rng(seed)
    ids, start, end = (torch.from_numpy(a[:n].astype(np.int32)).to(device) for a in (rows.ids, rows.start, rows.end))
    while True:
        order = torch.from_numpy(rng.permutation(len(ids))).to(device)
        # Rows of a length stand together, eight batches at a time, so that little is padded.
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
            vocab_size=config.vocab_size, hidden_size=shape.hidden_size, intermediate_size=3 * shape.hidden_size,
            num_hidden_layers=shape.layers, num_attention_heads=shape.heads, num_key_value_heads=shape.kv_heads, head_dim=32,
            max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=None, eos_token_id=2, pad_token_id=0,
        )
    )  # fmt: skip


def solution_logits(model: Any, ids: torch.Tensor, labels: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits [n, vocabulary] and targets [n] of the trained tokens alone, a third of the positions."""
    hidden = model.model(input_ids=ids, use_cache=False).last_hidden_state[:, :-1]
    inside = labels[:, 1:] != -100
    return model.lm_head(hidden[inside]).float(), labels[:, 1:][inside]


@torch.no_grad()
def measure(model: Any, rows: Rows, device: str) -> dict[str, float]:
    """Of the first trained token of each row (the answer): greedy accuracy and mean probability, which is pass@1 at T=1.

    `loss`: of all trained tokens. `all`: share of the rows whose trained tokens are all the likeliest ones; of rows with a
    wrong number, honest checks.
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

    def __init__(self, name: str, config: PretrainConfig, plain: Rows, reference: Rows, compiled: bool) -> None:
        self.name, self.config, self.shape = name, config, config.models[name]
        self.device = "cuda" if torch.cuda.is_available() else "cpu"
        self.model = build(self.shape, config).to(self.device)
        if compiled:
            for layer in self.model.model.layers:  # one after the other, so that all share what was compiled for the first
                layer.compile(dynamic=True)
        decay = [p for p in self.model.parameters() if p.ndim > 1]
        other = [p for p in self.model.parameters() if p.ndim == 1]
        groups = [{"params": decay, "weight_decay": config.weight_decay}, {"params": other, "weight_decay": 0.0}]
        self.optimizer = torch.optim.AdamW(groups, lr=config.learning_rate, betas=(0.9, 0.95), fused=True)
        self.sources = (
            batches(plain, self.shape.n_plain, self.shape.batch_size, self.device, config.seed),
            batches(reference, self.shape.n_reference, self.shape.reference_batch_size, self.device, config.seed),
        )
        self.curve: list[dict[str, float]] = []
        log.info("%s: %d parameters", name, self.model.num_parameters())

    def autocast(self) -> torch.autocast:
        return torch.autocast(self.device, torch.bfloat16)

    def step(self, step: int) -> list[torch.Tensor]:
        """One optimizer step on both sources; returns the two losses."""
        config, steps = self.config, self.shape.steps
        share = (step - config.warmup_steps) / max(1, steps - config.warmup_steps)
        scale = step / config.warmup_steps if share < 0 else 0.02 + 0.98 * 0.5 * (1 + math.cos(math.pi * share))
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

    def evaluate(self, step: int, losses: list[torch.Tensor], validation: dict[str, Rows]) -> dict[str, float]:
        row = {"step": step, "loss": losses[0].item(), "loss_with_references": losses[1].item()}
        with self.autocast():
            plain, reference, check = (measure(self.model, validation[k], self.device) for k in ("plain", "reference", "check"))
        row |= {"greedy": plain["greedy"], "pass@1": plain["pass@1"], "greedy_with_references": reference["greedy"]}
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
    """Train, and save at every evaluation: what is there is the newest."""
    config, last, began = run.config, run.shape.steps, time.monotonic()
    for step in range(1, last + 1):
        losses = run.step(step)
        if step % config.eval_every and step != last:
            continue
        row = run.evaluate(step, losses, validation)
        log.info("%s %.0f s %s", run.name, time.monotonic() - began, json.dumps(row))
        run.save(out / run.name, tokenizer)


def validation_rows(tales: list[Tale], prompter: Prompter, config: PretrainConfig) -> dict[str, Rows]:
    """The same problems as they are, with references, and begun with a wrong number."""
    rng = random.Random(7)
    kinds = {"plain": ("plain", 0.0), "reference": ("reference", 0.0), "check": ("plain", 1.0)}
    return {
        name: rows_of(tales, prompter, rng, kind, dataclasses.replace(config, wrong_share=share))
        for name, (kind, share) in kinds.items()
    }


def main() -> None:
    logging.basicConfig(level=logging.INFO, format="%(message)s")
    arguments = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    arguments.add_argument("--config", required=True)
    arguments.add_argument("--models", help="comma-separated names from the recipe; if left out, all of them and the sets")
    arguments.add_argument("--compile", action="store_true", help="torch.compile: a minute to begin, then faster on a GPU")
    arguments.add_argument("--rows", type=Path, default=Path("runs/tiny/pretrain"), help="keeps the drawn rows and tokenizer")
    given = arguments.parse_args()
    config = PretrainConfig.load(given.config)
    out, tokenizer, began = Path(config.out), given.rows / "tokenizer", time.monotonic()
    out.mkdir(parents=True, exist_ok=True)
    curve = curve_tales(config)
    reserved = {tale.digest for tale in curve}
    if not tokenizer.exists():
        train_tokenizer(config, tokenizer)
    plain = kept_rows(given.rows / "plain.npz", lambda: make_rows(config, tokenizer, reserved, "plain"))
    reference = kept_rows(given.rows / "reference.npz", lambda: make_rows(config, tokenizer, reserved, "reference"))
    log.info("data in %.0f s; plain rows %s, reference rows %s", time.monotonic() - began, plain.ids.shape, reference.ids.shape)
    if not given.models:
        write_sets(config, pretrained_on(config))
    prompter = Prompter(AutoTokenizer.from_pretrained(tokenizer), PromptConfig.load(config.prompt))
    validation = validation_rows(curve[: config.n_measured], prompter, config)
    for name in given.models.split(",") if given.models else config.models:
        pretrain(Pretraining(name, config, plain, reference, given.compile), out, tokenizer, validation)


if __name__ == "__main__":
    main()
