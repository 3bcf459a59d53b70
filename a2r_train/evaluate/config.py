"""The recipe of `a2r evaluate`: each row beyond the base ones is a switch."""

from __future__ import annotations

from dataclasses import dataclass, field, fields
from pathlib import Path

from a2r_train.config import check_least
from a2r_train.engines import EngineArguments, Sampling
from a2r_train.errors import InputError
from a2r_train.evaluate.rows.names import GRPO, SFT_GRPO
from a2r_train.verify.vote import check_agreement

DIAGNOSTICS = ("order", "k", "text", "truncated", "injected")


@dataclass
class EvaluateConfig(EngineArguments):
    """`a2r evaluate`: bundles and checkpoints -> results.json, report.md, report.html."""

    bundles: str = field(
        metadata={"help": "test bundles, or rollouts made elsewhere (columns problem, answer, text)"}
    )
    output_dir: str = field(metadata={"help": "where the results are written"})
    base: str = field(
        default="",
        metadata={"help": "the synthesizer before training; empty: only rows that need no generation"},
    )
    sft: str = field(default="", metadata={"help": "the SFT checkpoint; empty leaves its rows out"})
    grpo: str = field(
        default="",
        metadata={
            "help": "the GRPO checkpoint, trained after `sft` if that is set; empty leaves its rows out"
        },
    )
    no_references: str = field(default="", metadata={"help": "the control trained without references"})
    explorer: str = field(default="", metadata={"help": "the explorer, for its greedy row and the cost"})
    explorer_grpo: str = field(
        default="", metadata={"help": "the control: the explorer after RL on the same problems"}
    )
    monolith: str = field(default="", metadata={"help": "one bigger model that answers alone"})
    reward_model: str = field(
        default="", metadata={"help": "a sequence classifier with one score, for best-of-K"}
    )
    universal_self_consistency: bool = field(
        default=False, metadata={"help": "the base names the reference with the most common answer"}
    )
    genselect: bool = field(default=False, metadata={"help": "the base names the best reference"})
    self_refine: int = field(
        default=0, metadata={"help": "times the base rewrites its own greedy solution; 0 leaves the row out"}
    )
    methods_note: str = field(
        default="", metadata={"help": "a note beside the rows of self-consistency, GenSelect and self-refine"}
    )
    budgets: str = field(
        default="", metadata={"help": "factors of max_completion_tokens, such as 2,4, for rows /2x and /4x"}
    )
    rounds: int = field(
        default=0, metadata={"help": "rounds of recursive aggregation (T); 0 leaves the row out"}
    )
    rounds_population: int = field(
        default=8, metadata={"help": "solutions that each round reads and writes (N)"}
    )
    rounds_subset: int = field(default=4, metadata={"help": "references per synthesis in a round (K)"})
    adaptive_validation: str = field(
        default="", metadata={"help": "bundles on which the row adaptive finds its threshold"}
    )
    adaptive_first: int = field(default=2, metadata={"help": "rollouts before the row adaptive may stop"})
    adaptive_skip_agreement: float = field(
        default=1.0,
        metadata={"help": "the row adaptive makes no synthesis where this share of the references agrees"},
    )
    skip_agreement: float = field(
        default=0.0,
        metadata={
            "help": "as in solve and serve: where at least this share of the references agrees, their vote "
            "answers, and the synthesizers' rows are those of the whole system; 0: never"
        },
    )
    vote_fallback: bool = field(
        default=False,
        metadata={
            "help": "rows NAME+fallback: as in solve, the vote of the references answers where a synthesis "
            "cannot be read"
        },
    )
    diagnostics: str = field(
        default="", metadata={"help": f"comma-separated: {', '.join(DIAGNOSTICS)}; or all"}
    )
    k_sweep: str = field(
        default="1,2,4,8,16", metadata={"help": "numbers of references for diagnostic k; needs rollouts"}
    )
    prices: str = field(
        default="", metadata={"help": "YAML file: model -> {prompt, completion}, dollars per million tokens"}
    )
    label: str = field(
        default="is_correct",
        metadata={"help": "for rollouts made elsewhere: the column with their own verdict"},
    )
    k: int = field(default=4, metadata={"help": "for rollouts made elsewhere: references per bundle"})
    cards: bool = field(
        default=True,
        metadata={
            "help": "write the table into README.md of the trained checkpoints; an evaluation with "
            "max_bundles leaves a card as it is, and so does one of fewer problems than the card's"
        },
    )
    allow_overlap: bool = field(
        default=False,
        metadata={"help": "go on if test problems were trained on, with a red line in the report"},
    )
    rollouts: str = field(
        default="", metadata={"help": "all rollouts of the test problems, for the equal-budget majorities"}
    )
    temperature: float = field(
        default=1.0, metadata={"help": "temperature of the rows @T; 0 leaves them out"}
    )
    samples: int = field(default=1, metadata={"help": "syntheses per bundle in the rows @T"})
    max_completion_tokens: int = field(default=1024, metadata={"help": "a longer synthesis is cut off"})
    chunk_bundles: int = field(
        default=256,
        metadata={"help": "bundles per chunk (a file); a killed run loses those under way"},
    )
    max_bundles: int = field(default=0, metadata={"help": "use only the first N bundles; 0 uses all"})
    prompt: str = field(
        default="",
        metadata={
            "help": "a prompt file; if empty, the checkpoint's own, that of the bundles, or the default"
        },
    )
    prompt_override: bool = field(
        default=False,
        metadata={"help": "let `prompt` differ from the one that a checkpoint was trained with"},
    )
    chat_template_kwargs: str = field(
        default="",
        metadata={"help": "arguments of the chat template; empty for those of the bundles' task"},
    )
    trust_remote_code: bool = field(default=False, metadata={"help": "run code that comes with the models"})
    leave_out_bad_golds: bool = field(
        default=False,
        metadata={
            "help": "in rollouts made elsewhere: leave out problems whose gold the verifier cannot parse"
        },
    )
    draws: int = field(default=10_000, metadata={"help": "bootstrap resamples"})
    seed: int = field(default=0, metadata={"help": "seed of sampling and bootstrap"})
    dry_run: bool = field(default=False, metadata={"help": "show the resolved config and the rows, and stop"})


# The numbers of all rows depend on these. All other keys only add rows or change no number, so they may
# differ when a run is continued.
_FIXED = (
    *(
        "bundles",
        "rollouts",
        "temperature",
        "samples",
        "max_completion_tokens",
        "max_bundles",
        "prompt",
        "chat_template_kwargs",
        "engine",
    ),
    *("dtype", "chunk_bundles", "seed", "k", "label", "skip_agreement", "leave_out_bad_golds"),
)
MAY_DIFFER = tuple(f.name for f in fields(EvaluateConfig) if f.name not in _FIXED)


def check(config: EvaluateConfig) -> None:
    """Raise InputError for a value that makes no sense, and for a row whose input is not named."""
    check_least(config, samples=1, chunk_bundles=1, max_bundles=0, draws=1, k=1, self_refine=0, rounds=0)
    config.check_engine_arguments()
    check_least(config, adaptive_first=1, rounds_subset=1)
    check_least(config, rounds_population=config.rounds_subset)
    Sampling(config.temperature, max_completion_tokens=config.max_completion_tokens)
    numbers(config.budgets, "budgets")
    chosen = diagnostics_of(config)
    for row, asked in (
        ("universal_self_consistency", config.universal_self_consistency),
        ("genselect", config.genselect),
        ("self_refine", config.self_refine),
        ("rounds", config.rounds),
        ("adaptive_validation", config.adaptive_validation),
        ("diagnostics", chosen),
    ):
        if asked and not config.base:
            raise InputError(f"{row}: needs a synthesizer; name it with `base:`")
    for key in ("adaptive_skip_agreement", "skip_agreement"):
        check_agreement(key, getattr(config, key))
    for key in ("skip_agreement", "vote_fallback"):
        if getattr(config, key) and not (config.base or config.sft or config.grpo):
            raise InputError(f"{key}: needs a synthesizer; name it with `base:`, `sft:` or `grpo:`")
    if config.skip_agreement and chosen:
        raise InputError("skip_agreement: diagnostics ask about every bundle; remove one of the two keys")
    if config.rounds and not config.temperature:
        raise InputError("rounds: its syntheses are sampled; expected a temperature above 0")
    if "k" in chosen and not config.rollouts:
        raise InputError("diagnostics: k needs `rollouts:` to make bundles of other sizes")
    if config.prices and not Path(config.prices).is_file():
        raise InputError(
            f"prices {config.prices}: no such file; expected YAML with "
            "model: {prompt: 0.1, completion: 0.4}"
        )


def grpo_row(config: EvaluateConfig) -> str:
    """The name of the row of `grpo`; it says whether SFT came first."""
    return SFT_GRPO if config.sft else GRPO


def diagnostics_of(config: EvaluateConfig) -> list[str]:
    """The diagnostics that the recipe asks for. Raises InputError for an unknown name."""
    if config.diagnostics == "all":
        return [name for name in DIAGNOSTICS if name != "k" or config.rollouts]
    asked = [name.strip() for name in config.diagnostics.split(",") if name.strip()]
    for name in asked:
        if name not in DIAGNOSTICS:
            raise InputError(f"diagnostics: unknown name {name!r}; expected {', '.join(DIAGNOSTICS)}, or all")
    return asked


def numbers(text: str, key: str) -> list[int]:
    """A comma-separated list of whole numbers of at least 1. Raises InputError for anything else."""
    parts = [part.strip() for part in str(text).split(",") if part.strip()]
    if not all(part.isdigit() and int(part) for part in parts):
        raise InputError(f"{key} {text!r}: expected whole numbers such as 2,4")
    return [int(part) for part in parts]
