"""The recipe of `a2r probe`."""

from __future__ import annotations

from dataclasses import dataclass, field

from a2r_train.config import check_least
from a2r_train.engines import EngineArguments, Sampling
from a2r_train.errors import InputError


@dataclass
class ProbeConfig(EngineArguments):
    """`a2r probe`: rollouts, and an untrained synthesizer -> probe.json, probe.md, report.html."""

    rollouts: str = field(
        metadata={"help": "rollouts, ours or made elsewhere (columns problem, answer, text)"}
    )
    output_dir: str = field(metadata={"help": "where the results are written"})
    problems: str = field(
        default="",
        metadata={
            "help": "the problems; may be empty if each row has problem and answer or, without `model`, if "
            "the rollouts have verdicts"
        },
    )
    model: str = field(
        default="", metadata={"help": "the untrained synthesizer; empty: only what the rollouts say"}
    )
    monolith: str = field(
        default="",
        metadata={"help": "a larger model; the cost of one of its answers is compared; empty for `model`"},
    )
    explorer: str = field(
        default="", metadata={"help": "the explorer, for its size; empty for the name in the rollouts"}
    )
    leave_out_bad_golds: bool = field(
        default=False,
        metadata={"help": "leave out problems whose gold the verifier cannot parse"},
    )
    k: int = field(default=4, metadata={"help": "references per bundle"})
    accuracy: float = field(
        default=0.75,
        metadata={
            "help": "of the selector: how often it picks the right one of a right and a wrong reference"
        },
    )
    bundles_per_problem: int = field(
        default=1, metadata={"help": "in the planned evaluation, for the differences that it can detect"}
    )
    max_bundles: int = field(
        default=200, metadata={"help": "bundles that the model answers, one per problem; 0 uses all"}
    )
    max_pairs: int = field(
        default=100,
        metadata={"help": "pairs of a right and a wrong solution that the model sees in both orders"},
    )
    samples: int = field(
        default=2, metadata={"help": "sampled answers per bundle, for the groups with signal; at least 2"}
    )
    temperature: float = field(
        default=1.0, metadata={"help": "temperature of the sampled answers; 0 leaves them out"}
    )
    max_completion_tokens: int = field(default=1024, metadata={"help": "a longer answer is cut off"})
    prompt: str = field(
        default="",
        metadata={"help": "a prompt file; if empty, the model's own, that of the data, or the default"},
    )
    chat_template_kwargs: str = field(
        default="",
        metadata={"help": "arguments of the chat template; empty for those of the data's task"},
    )
    columns: str = field(
        default="{}",
        metadata={"help": "names of columns, such as {text: output}, for the files that have them"},
    )
    verifier: str = field(
        default="",
        metadata={
            "help": "verifier of all rows; if empty, that of the rollouts, else each row's own, else math"
        },
    )
    trust_remote_code: bool = field(default=False, metadata={"help": "run code that comes with the model"})
    draws: int = field(default=2000, metadata={"help": "bootstrap resamples"})
    seed: int = field(default=0, metadata={"help": "seed of bundles, sampling and bootstrap"})
    dry_run: bool = field(
        default=False, metadata={"help": "show the resolved config and what would be asked, and stop"}
    )


def check(config: ProbeConfig) -> None:
    """Raise InputError for a value that makes no sense."""
    check_least(config, k=2, bundles_per_problem=1, max_bundles=0, max_pairs=0, samples=2, draws=1)
    config.check_engine_arguments()
    Sampling(config.temperature, max_completion_tokens=config.max_completion_tokens)
    if not 0.5 <= config.accuracy < 1:
        raise InputError(f"accuracy is {config.accuracy:g}; expected 0.5 or more, and less than 1")
    if config.model and config.max_bundles and config.max_bundles < 2:
        raise InputError(f"max_bundles is {config.max_bundles}; expected at least 2, or 0 for all")
