"""Measure what the transformers engine saves when finished completions leave the batch (`leave`), and when
others take their places (`refill`), compared with a fixed batch (`stay`).

    python scripts/benchmarks/bench_leaving.py --rows 32                        # two CPU cores: three minutes
    python scripts/benchmarks/bench_leaving.py --rows 660 --model MODEL_0.5B    # a GPU

Prompts are as long as with four references, so that each step mainly reads the batch's KV cache. Without
--model the model is random, and enough tokens end a completion to give a mean length of about --mean. `same`
counts equal completions.
"""

import argparse
import json
import random
import tempfile
import time

import torch
from transformers import Qwen2Config, Qwen2ForCausalLM

from a2r_train.engines import Completion, EngineArguments, Sampling
from a2r_train.engines import transformers as engines
from a2r_train.models import load_tokenizer

TOKENIZER = "data/tiny/synthesizer"


def random_model(folder: str) -> str:
    """Write a model of four layers, whose weights are small compared with a batch's KV cache."""
    tokenizer = load_tokenizer(TOKENIZER)
    torch.manual_seed(0)
    config = Qwen2Config(
        vocab_size=len(tokenizer), hidden_size=256, intermediate_size=512, num_hidden_layers=4,
        num_attention_heads=8,
        num_key_value_heads=4, max_position_embeddings=8192, tie_word_embeddings=True,
        eos_token_id=tokenizer.eos_token_id,
    )  # fmt: skip
    Qwen2ForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def measure(
    model: str, rows: int, batches: int, prompt_tokens: int, tokens: int, mean: int
) -> dict[str, object]:
    """Measure the seconds of each way, and how many completions are the same."""
    engine = engines.TransformersEngine(model, EngineArguments(batch_size=rows))
    usual = engine.model.generation_config.eos_token_id
    size = len(engine.tokenizer)
    ends = random.Random(0).sample(range(size // 2), max(1, round(size / mean)))
    engine.model.generation_config.eos_token_id = [*ends, *(usual if isinstance(usual, list) else [usual])]
    count = rows * batches
    words = random.Random(1).choices(["3", "7", "apples"], k=count * prompt_tokens)
    chats = [
        [{"role": "user", "content": " ".join(words[i * prompt_tokens :][: prompt_tokens // 2])}]
        for i in range(count)
    ]
    made: dict[str, list[Completion]] = {}
    found: dict[str, object] = {"device": str(engine.device), "rows": rows, "completions": count}
    ways = {
        "stay": (tokens, 2.0),
        "leave": (engines.GO_ON_TOKENS, 2.0),
        "refill": (engines.GO_ON_TOKENS, engines.REFILL_SHARE),
    }
    for name, (engines.GO_ON_TOKENS, engines.REFILL_SHARE) in ways.items():
        engine.generate(chats[:rows], Sampling(max_completion_tokens=1), range(rows))
        began = time.perf_counter()
        made[name] = engine.generate(chats, Sampling(max_completion_tokens=tokens), range(count))
        found[f"{name}_s"] = round(time.perf_counter() - began, 2)
    lengths = [completion.completion_tokens for completion in made["leave"]]
    found |= {
        "prompt_tokens": made["leave"][0].prompt_tokens,
        "mean": round(sum(lengths) / count),
        "longest": max(lengths),
        "same": sum(len(set(ways)) == 1 for ways in zip(*made.values(), strict=True)),
    }
    return found


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--model", default="", help="a model folder; empty: a random model")
    parser.add_argument("--rows", type=int, default=96, help="completions per batch")
    parser.add_argument("--batches", type=int, default=4, help="number of batches")
    parser.add_argument("--prompt_tokens", type=int, default=1400)
    parser.add_argument("--tokens", type=int, default=512, help="the longest completion")
    parser.add_argument(
        "--mean", type=int, default=120, help="approximate mean tokens per completion of a random model"
    )
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        model = given.model or random_model(folder)
        print(
            json.dumps(
                measure(model, given.rows, given.batches, given.prompt_tokens, given.tokens, given.mean)
            )
        )


if __name__ == "__main__":
    main()
