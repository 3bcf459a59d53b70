"""The command `a2r`. Nothing heavy is imported before a verb is chosen."""

from __future__ import annotations

import json
import logging
import sys
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer

from a2r_train.errors import InputError
from a2r_train.paths import TINY_PAIR

if TYPE_CHECKING:
    from rich.console import Console

    from a2r_train.inference.two_stage import Answer

HELP = """Train a synthesizer for two-stage reasoning, and measure whether the training paid off.

Try it with the models in this repository: a2r run recipes/tiny. With your own data:
a2r init mine --data problems.jsonl --model MODEL, then a2r run mine.
"""
app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False)
PIPELINE, TRAIN, USE, INSPECT = "Pipeline", "Train", "Use", "Inspect"
EXTRA = {"allow_extra_args": True, "ignore_unknown_options": True}
RECIPE = {
    **EXTRA,
    "help_option_names": [],
}  # --help is left to the recipe's parser, which knows the keys
# Options may be spelt with underscores, as in recipes, or with dashes.
EITHER = {"token_normalize_func": lambda name: name.replace("_", "-")}


def _version(asked: bool) -> None:
    if asked:
        from a2r_train import __version__

        sys.stdout.write(f"a2r-train {__version__}\n")
        raise typer.Exit


@app.callback(help=HELP)
def _a2r(
    version: Annotated[
        bool, typer.Option("--version", callback=_version, is_eager=True, help="print the version and exit")
    ] = False,
) -> None: ...


@app.command(context_settings=RECIPE, rich_help_panel=PIPELINE)
def explore(context: typer.Context) -> None:
    """problems -> rollouts: sample and verify n solutions per problem."""
    from a2r_train.data.explore import ExploreConfig
    from a2r_train.data.explore import explore as stage

    _stage(ExploreConfig, stage, context.args)


@app.command(context_settings=RECIPE, rich_help_panel=PIPELINE)
def bundle(context: typer.Context) -> None:
    """rollouts -> bundles: group, mix, decontaminate and split rollouts, and write a dataset card."""
    from a2r_train.data.bundle import BundleConfig
    from a2r_train.data.bundle import bundle as stage

    _stage(BundleConfig, stage, context.args)


@app.command(context_settings=RECIPE, rich_help_panel=PIPELINE)
def evaluate(context: typer.Context) -> None:
    """bundles and checkpoints -> results.json, report.md, report.html."""
    from a2r_train.evaluate import EvaluateConfig
    from a2r_train.evaluate import evaluate as stage

    _stage(EvaluateConfig, stage, context.args)


@app.command(context_settings=RECIPE, rich_help_panel=INSPECT)
def probe(context: typer.Context) -> None:
    """Predict whether training a synthesizer pays off, from rollouts and optionally an untrained model."""
    from a2r_train.evaluate.probe.config import ProbeConfig
    from a2r_train.evaluate.probe.page import table
    from a2r_train.evaluate.probe.run import probe as stage

    _stage(ProbeConfig, stage, context.args, table)


AccelerateConfig = Annotated[
    str, typer.Option(help="a config of accelerate, or a name in accelerate_configs; empty: one process")
]
Processes = Annotated[
    int, typer.Option(help="training processes, one per GPU; 0: the number in the accelerate config")
]


@app.command(context_settings={**RECIPE, **EITHER}, rich_help_panel=TRAIN)
def sft(context: typer.Context, accelerate_config: AccelerateConfig = "", processes: Processes = 0) -> None:
    """bundles -> a synthesizer, fine-tuned on verified answers; other options are passed to the trainer."""
    _train("sft", context.args, accelerate_config, processes)


@app.command(context_settings={**RECIPE, **EITHER}, rich_help_panel=TRAIN)
def grpo(context: typer.Context, accelerate_config: AccelerateConfig = "", processes: Processes = 0) -> None:
    """bundles -> a synthesizer, trained by GRPO with a verifiable reward; options as for sft."""
    _train("grpo", context.args, accelerate_config, processes)


@app.command(context_settings=EXTRA, rich_help_panel=TRAIN)
def check(context: typer.Context) -> None:
    """Preflight of a training recipe: one green, yellow or red line per check; exit status 2 on red.

    Takes the same options as the trainer.
    """
    from a2r_train.commands.check import check as preflight

    sys.exit(preflight(context.args))


@app.command(context_settings=EITHER, rich_help_panel=PIPELINE)
def run(
    recipes: Annotated[
        str, typer.Argument(help="a folder of recipes: merge, explore, bundle, sft, grpo, evaluate")
    ],
    accelerate_config: AccelerateConfig = "",
    processes: Processes = 0,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="list the stages, what is done and what would fail, then exit")
    ] = False,
) -> None:
    """Run all stages of a recipe folder in order, skipping finished ones."""
    from a2r_train.commands.run import run as run_stages

    run_stages(recipes, accelerate_config, processes, dry_run)


@app.command(context_settings=EITHER, rich_help_panel=PIPELINE)
def init(
    folder: Annotated[str, typer.Argument(help="the folder of recipes to write")],
    data: Annotated[str, typer.Option(help="your problems: JSONL, CSV, Parquet, or a data set on the hub")],
    model: Annotated[str, typer.Option(help="the model to train: a folder, or a model on the hub")],
    explorer: Annotated[str, typer.Option(help="the model of stage 1; empty: the model to train")] = "",
    columns: Annotated[
        str,
        typer.Option(
            help="column names, such as {problem: prompt}; columns that you do not name are guessed"
        ),
    ] = "{}",
    test_share: Annotated[
        float, typer.Option(help="share of the problems to test on; 0: a quarter, at most 500")
    ] = 0.0,
    leave_out_bad_golds: Annotated[
        bool, typer.Option("--leave-out-bad-golds", help="leave out problems whose gold cannot be parsed")
    ] = False,
    reference: Annotated[
        str,
        typer.Option(
            help="what the synthesizer sees of a reference: solution, or answer for its answer alone"
        ),
    ] = "solution",
) -> None:
    """Write commented recipes for your own problems and model, ready for `a2r run`."""
    from a2r_train.commands.init import init as write

    sys.stdout.write(
        write(folder, data, model, explorer, columns, test_share, leave_out_bad_golds, reference)
    )


@app.command(context_settings=RECIPE, rich_help_panel=TRAIN)
def export(context: typer.Context) -> None:
    """bundles -> prompts and a reward for `trl grpo`, and the command that trains on them."""
    from a2r_train.commands.export import ExportConfig
    from a2r_train.commands.export import export as write
    from a2r_train.config import parse

    named = ["--bundles"] if context.args and not context.args[0].startswith("-") else []
    (config,) = parse([ExportConfig], [*named, *context.args])
    sys.stdout.write(f"{write(config)}\n")


@app.command(rich_help_panel=PIPELINE)
def gather(
    shards: Annotated[list[str], typer.Argument(help="the output folders of explore's shards")],
    output: Annotated[str, typer.Argument(help="the folder to write")],
) -> None:
    """Join the folders of explore's shards into one, with no chunk missing or duplicated."""
    from a2r_train.commands.gather import gather as join

    sys.stdout.write(f"{join(shards, output)}\n")


@app.command(context_settings=RECIPE, rich_help_panel=USE)
def merge(context: typer.Context) -> None:
    """Merge a LoRA adapter into its base, or dequantise a GGUF file -> a model folder."""
    from a2r_train.commands.merge import MergeConfig
    from a2r_train.commands.merge import merge as fold

    _stage(MergeConfig, fold, context.args)


@app.command(rich_help_panel=INSPECT)
def plot(run: Annotated[str, typer.Argument(help="the output folder of sft or grpo")]) -> None:
    """Draw a run's curves into its folder."""
    from a2r_train.commands.plot import plot as draw

    sys.stdout.write(f"{draw(run)}\n")


@app.command(context_settings=RECIPE, rich_help_panel=INSPECT)
def grid(context: typer.Context) -> None:
    """explorers x synthesizers: one evaluation per pair, and a map of accuracy and cost."""
    from a2r_train.commands.grid import GridConfig
    from a2r_train.commands.grid import grid as pairs

    _stage(GridConfig, pairs, context.args)


@app.command(context_settings=RECIPE, rich_help_panel=INSPECT)
def rescore(context: typer.Context) -> None:
    """Check stored evaluations by judging every answer again; --regenerate asks the models again."""
    from a2r_train.commands.rescore import main as check_kept

    sys.exit(check_kept(context.args))


@app.command(context_settings=RECIPE, rich_help_panel=INSPECT)
def compare(context: typer.Context) -> None:
    """Compare the final synthesizers of several stored evaluations, with paired intervals."""
    from a2r_train.commands.compare import main as lay_beside

    sys.exit(lay_beside(context.args))


@app.command(rich_help_panel=INSPECT)
def pool(
    folders: Annotated[list[str], typer.Argument(help="output folders of `a2r evaluate`")],
    row: Annotated[str, typer.Option(help="the row to compare; empty: the trained synthesizer")] = "",
    against: Annotated[
        str, typer.Option(help="rows to compare it with, comma-separated; empty: base, votes and control")
    ] = "",
) -> None:
    """Pool evaluations of several training runs or test sets: differences over all their problems."""
    from a2r_train.evaluate.pooled import pool as differences

    rivals = [name.strip() for name in against.split(",") if name.strip()]
    sys.stdout.write("\n".join(differences(folders, row, rivals)) + "\n")


@app.command(context_settings=EITHER, rich_help_panel=USE)
def solve(
    question: Annotated[str, typer.Argument(help="a question; leave out with --file")] = "",
    explorer: Annotated[str, typer.Option(help="the model of stage 1; empty: the synthesizer")] = "",
    synthesizer: Annotated[
        str, typer.Option(help="the model of stage 2; empty: the explorer; both empty: the pair in data/tiny")
    ] = "",
    file: Annotated[
        str, typer.Option(help="a file of problems instead of one question; its references are used, if any")
    ] = "",
    columns: Annotated[str, typer.Option(help="the file's column names, such as {problem: prompt}")] = "{}",
    engine: Annotated[str, typer.Option(help="the engine: transformers, vllm or openai")] = "transformers",
    endpoint: Annotated[str, typer.Option(help="base URLs of the servers for openai, comma-separated")] = "",
    k: Annotated[int, typer.Option(help="number of references")] = 4,
    temperature: Annotated[float, typer.Option(help="temperature of the explorer")] = 1.0,
    max_completion_tokens: Annotated[
        int, typer.Option(help="longest completion of either model, in tokens")
    ] = 1024,
    prompt: Annotated[
        str, typer.Option(help="a prompt file; empty: the checkpoint's own, or else the default")
    ] = "",
    skip_agreement: Annotated[
        float, typer.Option(help="if at least this share of references agrees, give their answer; 0: never")
    ] = 0.0,
    seed: Annotated[int, typer.Option(help="seed of the sampling")] = 0,
) -> None:
    """Answer one question and show the references, or a file of problems with one JSON line each."""
    from rich.console import Console

    from a2r_train.data.read import FLAG, Columns
    from a2r_train.data.task import prompt_of
    from a2r_train.engines import Sampling
    from a2r_train.inference.adaptive import Adaptive
    from a2r_train.inference.solve import answers, read_questions
    from a2r_train.inference.two_stage import TwoStage

    if bool(question) == bool(file):
        raise InputError("solve: expected either a question or --file")
    if not (explorer or synthesizer):
        explorer, synthesizer = TINY_PAIR
    explorer = explorer or synthesizer  # never mix the toy with the user's own model
    synthesizer = synthesizer or explorer
    named = replace(Columns.parse(columns, ("references",)), key=FLAG)
    questions = read_questions(file, named) if file else []
    loop = TwoStage(
        None if questions and questions[0].references else explorer,
        synthesizer,
        engine=engine,
        endpoint=endpoint,
        k=k,
        prompt=prompt_of(synthesizer, prompt) if prompt else None,
        exploring=Sampling(temperature, max_completion_tokens=max_completion_tokens),
        synthesising=Sampling(0.0, max_completion_tokens=max_completion_tokens),
        seed=seed,
        adaptive=Adaptive(first=k, skip_agreement=skip_agreement) if skip_agreement else None,
    )
    for row in answers(loop, questions):
        sys.stdout.write(json.dumps(row, ensure_ascii=False) + "\n")
        sys.stdout.flush()
    if question:
        _show(loop.solve(question), Console())


@app.command(context_settings=RECIPE, rich_help_panel=USE)
def serve(context: typer.Context) -> None:
    """Serve the pair as one OpenAI-compatible endpoint; vLLM is started for models without a URL."""
    from a2r_train.commands.serve import serve as listen
    from a2r_train.config import parse
    from a2r_train.inference.serve.config import ServeConfig

    (config,) = parse([ServeConfig], context.args)
    sys.exit(listen(config))


def main() -> None:
    """Entry point of the console script: user errors become one line and exit status 2."""
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    for name in ("httpx2", "transformers", "filelock"):
        logging.getLogger(name).setLevel(logging.WARNING)

    from a2r_train import process
    from a2r_train.quiet import hide_bars, hide_warnings

    hide_bars()
    hide_warnings()
    sys.exit(process.run(app))


def _stage(kind, stage, arguments: list[str], shown=None) -> None:  # type: ignore[no-untyped-def]
    """Run a stage; `shown` renders its results, by default as those of an evaluation."""
    from rich.console import Console

    from a2r_train.config import parse
    from a2r_train.evaluate.report.terminal import table
    from a2r_train.output import stamp

    (config,) = parse([kind], arguments)
    before = stamp(config.output_dir)
    if config.dry_run:
        from a2r_train.commands.dry_run import preview

        preview(config, Console())
        return
    result = stage(config)
    if before and stamp(config.output_dir) == before:  # it has already logged that it was done
        return
    if isinstance(result, dict):
        Console().print((shown or table)(result))
        sys.stdout.write(f"{config.output_dir}/report.html\n")
    else:
        sys.stdout.write(f"{result}\n")


def _train(verb: str, arguments: list[str], accelerate_config: str, processes: int) -> None:
    from a2r_train.commands.run import train

    if {"-h", "--help"} & {*arguments}:
        sys.stdout.write(f"a2r {verb} [--accelerate_config FILE] [--processes N], and the trainer's own:\n")
        sys.stdout.flush()
    sys.exit(train(verb, arguments, accelerate_config, processes))


def _show(answer: Answer, console: Console) -> None:
    from rich.columns import Columns
    from rich.markup import escape
    from rich.panel import Panel

    from a2r_train.inference.work import SYNTHESIZER

    panels = [
        Panel(escape(reference.text), title=f"reference {number}", subtitle=escape(reference.answer))
        for number, reference in enumerate(answer.references, 1)
    ]
    console.print(Columns(panels))
    title = "synthesis" if answer.answered_by == SYNTHESIZER else "answer of the references"
    console.print(Panel(escape(answer.text), title=title, subtitle=escape(answer.answer)))
    tokens = ", ".join(f"{stage} {count}" for stage, count in answer.tokens.items())
    console.print(f"[bold]{escape(answer.answer)}[/bold]   tokens: {tokens}   {answer.seconds:.1f} s")


if __name__ == "__main__":
    main()
