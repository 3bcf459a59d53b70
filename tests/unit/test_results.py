"""The results in data/results: no text of others among them, and the tables of the pages have their
figures.
"""

import json
import lzma
import re
from pathlib import Path
from typing import Any

import pytest

from a2r_train.evaluate.kept_bundles import read_kept
from a2r_train.evaluate.report.write import markdown

ROOT = Path(__file__).parents[2]
GSM8K = ["gsm8k/votes-8", "gsm8k/evaluation-0.5b"]
SECOND, THIRD = ["gsm8k-512/votes-8", "gsm8k-512/evaluation-0.5b"], ["gsm8k-512-5e-5/evaluation-0.5b"]
LARGER = ["gsm8k-1.5b/votes-8", "gsm8k-1.5b/evaluation-1.5b"]
LEVERS = ["gsm8k-levers/test"]
TRAINED, TRAINED_LARGER = ["gsm8k-trained/third-0.5b"], ["gsm8k-trained/first-1.5b"]
CONTROL = "synthesizer/no_references"


TEXTS = {"problem", "question", "solution", "prompt", "input"}  # columns that may hold a text of others


def rows_of(path: Path) -> list[dict[str, Any]]:
    data = lzma.decompress(path.read_bytes()) if path.suffix == ".xz" else path.read_bytes()
    return [json.loads(line) for line in data.splitlines()]


def test_no_kept_file_has_a_column_of_problems_texts() -> None:
    """Problems are named by set and id; what is text is our models' words: `text` of rollouts and answers."""
    files = [
        path
        for folder in ("data/results", "data/gsm8k-0.5b")
        for path in (ROOT / folder).rglob("*.jsonl*")
        if path.is_file()
    ]
    assert len(files) > 30
    for path in files:
        rows = rows_of(path)
        columns = {name for row in rows for name in row}
        assert not columns & TEXTS, path
        words = {
            name for row in rows for name, value in row.items() if isinstance(value, str) and " " in value
        }
        assert words <= {"text", "answer", "run"}, path
        assert all(isinstance(value, str | int | float) for row in rows for value in row.values()), path
    for path in (ROOT / "data/results/golds").iterdir():
        assert all(row.keys() == {"problem_id", "answer", "verifier"} for row in rows_of(path))
        assert all(re.fullmatch(r"-?[\d.]+", row["answer"]) for row in rows_of(path))


def test_kept_bundles_and_reports_have_no_texts() -> None:
    kept = sorted((ROOT / "data/results").rglob("*.kept.json"))
    assert len(kept) == 10
    for path in kept:
        found = read_kept(str(path))
        assert found.problems == "openai/gsm8k:main:test"
        assert all(identity == f"{problem}/0" and problem.isdigit() for identity, problem, _ in found.bundles)
        assert all(isinstance(sample, int) for _, _, samples in found.bundles for sample in samples)
    assert not list((ROOT / "data/results").rglob("report.html"))  # its browser shows problems
    for path in (ROOT / "data/results").rglob("results.json"):  # all that report.md is made from
        results = json.loads(path.read_text(encoding="utf-8"))
        assert "outside" not in results["diagnostics"], path
        assert path.with_name("report.md").read_text(encoding="utf-8") == markdown(results), path


def test_what_an_evaluation_names_is_there() -> None:
    """So that `a2r rescore data/results`, which tests/system runs, needs nothing else; the weight is held."""
    complete = 0
    for path in sorted((ROOT / "data/results").rglob("manifest.json")):
        manifest = json.loads(path.read_text(encoding="utf-8"))
        named = [
            *manifest["inputs"].values(),
            *(name for names in manifest["tasks"].values() for name in names),
        ]
        assert all((path.parent / name).is_file() for name in named), path
        complete += bool(manifest["tasks"])
    assert complete == 3
    files = [path for path in (ROOT / "data").rglob("*") if path.is_file() and path.suffix != ".safetensors"]
    assert sum(path.stat().st_size for path in files) < 34e6


def results_of(folder: str) -> dict[str, Any]:
    return dict(json.loads((ROOT / "data/results" / folder / "results.json").read_text()))


def cells_of(page: str, head: str) -> list[list[str]]:
    """The cells of the table whose first column has this head."""
    text = (ROOT / page).read_text(encoding="utf-8").replace("**", "")
    (table,) = re.findall(rf"^\| {head} \| greedy \| T=0\.8 \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]


@pytest.mark.parametrize(
    ("page", "head", "folders", "rows"),
    [
        (
            "docs/results.md",
            "row, first run",
            GSM8K,
            ["maj@8", "maj@equal_tokens", "synthesizer/sft+grpo", CONTROL],
        ),
        ("docs/results.md", "row, at 512 tokens", SECOND, ["maj@8", "synthesizer/grpo", CONTROL]),
        ("docs/results.md", "row, third run", THIRD, ["maj@equal_tokens", "synthesizer/grpo", CONTROL]),
        ("docs/results.md", "row, half plain", LEVERS, ["maj@equal_tokens", "synthesizer/grpo", CONTROL]),
        (
            "docs/results.md",
            "row, the 1.5B",
            LARGER,
            ["maj@8", "synthesizer/base", "synthesizer/grpo", CONTROL],
        ),
        (
            "docs/results.md",
            "row, 1.5B over its trained control",
            TRAINED_LARGER,
            ["synthesizer/grpo", CONTROL],
        ),
        ("docs/results.md", "row, 0.5B over its trained control", TRAINED, ["synthesizer/grpo", CONTROL]),
    ],
)
def test_the_pages_have_the_figures_of_gsm8k(
    page: str, head: str, folders: list[str], rows: list[str]
) -> None:
    """Each row of the accuracy tables."""
    by_name = {row["name"]: row for folder in folders for row in results_of(folder)["rows"]}
    cost = {
        name: one["flops"]
        for folder in folders
        for name, one in results_of(folder)["diagnostics"]["cost"].items()
    }

    def shown(name: str, cell: str) -> str:
        row = by_name[name]
        interval = f" ({100 * row['low']:.1f} to {100 * row['high']:.1f})"
        return f"{100 * row['accuracy']:.1f}" + (interval if "(" in cell else "")

    found = []
    for label, greedy, sampled, tokens, *flops in cells_of(page, head):
        names = re.split(r",| of | which", label)[0].split(" / ")
        found += names
        if "synthesizer" in label:
            assert (greedy, sampled) == (shown(names[0], greedy), shown(f"{names[0]}@T", sampled)), label
        else:
            assert (greedy, sampled) == ("", " / ".join(shown(name, sampled) for name in names)), label
        assert tokens == " / ".join(dict.fromkeys(f"{by_name[name]['tokens']:,.0f}" for name in names)), label
        if flops:
            assert flops == [
                " / ".join(dict.fromkeys(f"{cost[name] / 1e12:.1f}" for name in names)) + "e12"
            ], label
    assert set(rows) <= set(found)


@pytest.mark.parametrize(
    ("head", "folder", "subject", "rivals"),
    [
        ("first run: synthesizer/sft\\+grpo against", GSM8K[-1], "synthesizer/sft+grpo", 5),
        ("third run: synthesizer/grpo against", THIRD[-1], "synthesizer/grpo", 5),
        ("half plain: synthesizer/grpo against", LEVERS[-1], "synthesizer/grpo", 5),
        ("1.5B: synthesizer/grpo against", LARGER[-1], "synthesizer/grpo", 5),
        (
            "1.5B over its trained control: synthesizer/grpo against",
            TRAINED_LARGER[-1],
            "synthesizer/grpo",
            5,
        ),
        ("0.5B over its trained control: synthesizer/grpo against", TRAINED[-1], "synthesizer/grpo", 5),
    ],
)
def test_the_pages_have_the_paired_differences_of_gsm8k(
    head: str, folder: str, subject: str, rivals: int
) -> None:
    paired = {(row["a"], row["b"]): row for row in results_of(folder)["paired"]}
    table = cells_of("docs/results.md", head)
    assert len(table) == rivals
    for label, *values in table:
        for value, at in zip(values, ("", "@T"), strict=True):
            rival = re.split(r"[,:]", label)[0]
            row = paired[subject + at, rival + (at if "/" in rival else "")]
            points = [100 * row[key] for key in ("difference", "low_holm", "high_holm")]
            assert value == "{:+.1f} ({:.1f} to {:.1f})".format(*points), label


def test_the_table_of_the_readme_has_the_figures_of_its_runs() -> None:
    """Greedy: untrained, the vote, the control, trained."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("**", "")
    lines = [line for line in text.splitlines() if line.startswith("| ") and "GSM8K" in line]
    lines += [line for line in text.splitlines() if line.startswith("| the same over its trained control")]
    runs = [
        (GSM8K[-1], "synthesizer/sft+grpo"),
        (LARGER[-1], "synthesizer/grpo"),
        (TRAINED_LARGER[-1], "synthesizer/grpo"),
    ]
    for line, (folder, trained) in zip(lines, runs, strict=True):
        by_name = {row["name"]: f"{100 * row['accuracy']:.1f}" for row in results_of(folder)["rows"]}
        names = ("synthesizer/base", "maj@4", CONTROL, trained)
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        assert cells[1:] == [by_name[name] for name in names], line


def test_the_table_of_all_runs_has_their_figures() -> None:
    """The first table of docs/results.md, greedy: untrained, trained, the two votes, the control."""
    text = (ROOT / "docs/results.md").read_text(encoding="utf-8").replace("**", "")
    (table,) = re.findall(r"^\| what was trained \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    runs = [
        (GSM8K, "synthesizer/sft+grpo"),
        (SECOND, "synthesizer/grpo"),
        (THIRD, "synthesizer/grpo"),
        (LEVERS, "synthesizer/grpo"),
        (LARGER, "synthesizer/grpo"),
        (TRAINED, "synthesizer/grpo"),
        (TRAINED_LARGER, "synthesizer/grpo"),
    ]
    for line, (folders, trained) in zip(table.splitlines(), runs, strict=True):
        by_name = {
            row["name"]: f"{100 * row['accuracy']:.1f}"
            for folder in folders
            for row in results_of(folder)["rows"]
        }
        names = ("synthesizer/alone", "synthesizer/base", trained, "maj@4", "maj@equal_tokens", CONTROL)
        assert [cell.strip() for cell in line.strip("|").split("|")][1:] == [by_name[name] for name in names]


def test_the_tables_of_the_panel_have_its_figures() -> None:
    results = results_of("gsm8k-trained/panel-0.5b")
    rows = {row["name"]: row for row in results["rows"]}

    def shown(one: dict[str, Any]) -> str:
        return "{:.1f} ({:.1f} to {:.1f})".format(*(100 * one[key] for key in ("accuracy", "low", "high")))

    text = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    panel, sweep = (
        re.findall(rf"^\| {head} \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)[0].splitlines()
        for head in ("row of the panel", "k, trained on 4")
    )
    for line in panel:
        label, *cells = (cell.strip() for cell in line.strip("|").split("|"))
        row = rows[label.partition(",")[0]]
        assert cells == [shown(row), f"{row['tokens']:,.0f}"], label
    assert [[cell.strip() for cell in line.strip("|").split("|")] for line in sweep] == [
        [str(one["k"]), shown(one), f"{100 * one['majority']:.1f}", f"{100 * one['oracle']:.1f}"]
        for one in results["diagnostics"]["k_sweep"]
    ]


def test_the_table_of_the_levers_has_their_figures() -> None:
    """Vote, greedy, sampled and their mean, of those validation tables alone that are kept."""
    text = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    (table,) = re.findall(r"^\| setting \| vote \|.*\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    lines = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    folders = {
        path.parent.name for path in (ROOT / "data/results/gsm8k-levers/validation").rglob("results.json")
    }
    assert {line[0] for line in lines} == folders
    for name, vote, greedy, sampled, mean, *_ in lines:
        rows = {row["name"]: row["accuracy"] for row in results_of(f"gsm8k-levers/validation/{name}")["rows"]}
        final = next(row for row in ("synthesizer/grpo", "synthesizer/sft") if row in rows)
        values = [rows["maj@4"], rows[final], rows[f"{final}@T"], (rows[final] + rows[f"{final}@T"]) / 2]
        assert [float(cell) for cell in (vote, greedy, sampled, mean)] == pytest.approx(
            [100 * value for value in values], abs=0.0501
        )
