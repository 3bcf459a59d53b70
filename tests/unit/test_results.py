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
from a2r_train.evaluate.pooled import pool
from a2r_train.evaluate.report.write import markdown

ROOT = Path(__file__).parents[2]
GSM8K = ["gsm8k/votes-8", "gsm8k/evaluation-0.5b"]
SECOND, THIRD = ["gsm8k-512/votes-8", "gsm8k-512/evaluation-0.5b"], ["gsm8k-512-5e-5/evaluation-0.5b"]
LARGER = ["gsm8k-1.5b/votes-8", "gsm8k-1.5b/evaluation-1.5b"]
LEVERS = ["gsm8k-levers/test"]
TRAINED, TRAINED_LARGER = ["gsm8k-trained/third-0.5b"], ["gsm8k-trained/first-1.5b"]
ANSWERS = ["gsm8k-answers/four-bundles", "gsm8k-answers/four-bundles-seed-1"]
CONTROL, BY_VOTE = "synthesizer/no_references", "synthesizer/no_references+vote"
PAGES = {
    name: f"docs/results/{name}.md"
    for name in (
        "gsm8k-0.5b",
        "gsm8k-0.5b-second-run",
        "gsm8k-0.5b-third-run",
        "gsm8k-1.5b",
        "answers-alone",
        "levers",
        "mawps",
        "small-to-big",
        "trained-explorer",
        "what-it-learns",
    )
}

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
    assert len(kept) == 14
    for path in kept:
        found = read_kept(str(path))
        assert re.fullmatch(r"openai/gsm8k:main:(test|train\[5120:5720\])", found.problems)
        assert all(re.fullmatch(rf"{problem}/[0-3]", identity) for identity, problem, _ in found.bundles)
        assert all(problem.isdigit() for _, problem, _ in found.bundles)
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
    assert complete == 18
    files = [path for path in (ROOT / "data").rglob("*") if path.is_file() and path.suffix != ".safetensors"]
    assert sum(path.stat().st_size for path in files) < 36e6


def interval(row: dict[str, Any]) -> str:
    return "{:.1f} ({:.1f} to {:.1f})".format(*(100 * row[key] for key in ("accuracy", "low", "high")))


def difference(row: dict[str, Any]) -> str:
    points = (100 * row[key] for key in ("difference", "low_holm", "high_holm"))
    return "{:+.1f} ({:.1f} to {:.1f})".format(*points)


def results_of(folder: str) -> dict[str, Any]:
    return dict(json.loads((ROOT / "data/results" / folder / "results.json").read_text()))


def table_of(page: str, head: str) -> tuple[list[str], list[list[str]]]:
    """The heads and the cells of the one table of this page whose heading begins so."""
    text = (ROOT / page).read_text(encoding="utf-8").replace("**", "")
    ((heads, body),) = re.findall(rf"^\| ({head} \|.*)\n\|[-|]+\n((?:\|.*\n)+)", text, re.MULTILINE)
    heading, *lines = (
        [cell.strip() for cell in line.strip("|").split("|")] for line in [heads, *body.splitlines()]
    )
    return heading, lines


def cells_of(page: str, head: str) -> list[list[str]]:
    """The cells of the table whose first column has this head."""
    return table_of(page, rf"{head} \| greedy \| T=0\.8")[1]


def test_every_page_is_in_the_index() -> None:
    page = (ROOT / "docs/results.md").read_text(encoding="utf-8")
    pages = {f"results/{path.name}" for path in (ROOT / "docs/results").iterdir()}
    assert set(re.findall(r"^\| \[.*\]\((.*)\) \|", page, re.MULTILINE)) == pages
    assert {f"docs/{name}" for name in pages} >= set(PAGES.values())


@pytest.mark.parametrize(
    ("page", "head", "folders", "rows"),
    [
        (
            PAGES["gsm8k-0.5b"],
            "row, first run",
            GSM8K,
            ["maj@8", "maj@equal_tokens", "synthesizer/sft+grpo", CONTROL],
        ),
        (
            PAGES["gsm8k-0.5b-second-run"],
            "row, at 512 tokens",
            SECOND,
            ["maj@8", "synthesizer/grpo", CONTROL],
        ),
        (
            PAGES["gsm8k-0.5b-third-run"],
            "row, third run",
            THIRD,
            ["maj@equal_tokens", "synthesizer/grpo", CONTROL],
        ),
        (PAGES["levers"], "row, half plain", LEVERS, ["maj@equal_tokens", "synthesizer/grpo", CONTROL]),
        (
            PAGES["gsm8k-1.5b"],
            "row, the 1.5B",
            LARGER,
            ["maj@8", "synthesizer/base", "synthesizer/grpo", CONTROL],
        ),
        (
            PAGES["trained-explorer"],
            "row, 1.5B over its trained control",
            TRAINED_LARGER,
            ["synthesizer/grpo", CONTROL],
        ),
        (
            PAGES["trained-explorer"],
            "row, 0.5B over its trained control",
            TRAINED,
            ["synthesizer/grpo", CONTROL],
        ),
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
    ("page", "head", "folder", "subject"),
    [
        (
            "gsm8k-0.5b",
            "first run: synthesizer/sft\\+grpo against",
            GSM8K[-1],
            "synthesizer/sft+grpo",
        ),
        (
            "gsm8k-0.5b-second-run",
            "second run: synthesizer/grpo against",
            SECOND[-1],
            "synthesizer/grpo",
        ),
        ("gsm8k-0.5b-third-run", "third run: synthesizer/grpo against", THIRD[-1], "synthesizer/grpo"),
        ("levers", "half plain: synthesizer/grpo against", LEVERS[-1], "synthesizer/grpo"),
        ("gsm8k-1.5b", "1.5B: synthesizer/grpo against", LARGER[-1], "synthesizer/grpo"),
        (
            "trained-explorer",
            "1.5B over its trained control: synthesizer/grpo against",
            TRAINED_LARGER[-1],
            "synthesizer/grpo",
        ),
        (
            "trained-explorer",
            "0.5B over its trained control: synthesizer/grpo against",
            TRAINED[-1],
            "synthesizer/grpo",
        ),
    ],
)
def test_the_pages_have_the_paired_differences_of_gsm8k(
    page: str, head: str, folder: str, subject: str
) -> None:
    paired = {(row["a"], row["b"]): row for row in results_of(folder)["paired"]}
    table = cells_of(PAGES[page], head)
    assert len(table) == 5
    for label, *values in table:
        for value, at in zip(values, ("", "@T"), strict=True):
            rival = re.split(r"[,:]", label)[0]
            row = paired[subject + at, rival + (at if "/" in rival else "")]
            assert value == difference(row), label


@pytest.mark.parametrize(
    ("page", "head", "folder", "held"),
    [
        ("gsm8k-0.5b", "first run", GSM8K[-1], 4),
        ("gsm8k-0.5b-second-run", "second run", SECOND[-1], 3),
        ("gsm8k-0.5b-third-run", "third run", THIRD[-1], 3),
        ("levers", "half plain", LEVERS[-1], 2),
        ("gsm8k-1.5b", "the 1.5B", LARGER[-1], 3),
        ("trained-explorer", "1.5B over its trained control", TRAINED_LARGER[-1], 3),
    ],
)
def test_the_tables_by_right_references_have_their_figures(
    page: str, head: str, folder: str, held: int
) -> None:
    """The rows that read references; what reads none is not in the diagnostics."""
    by_correct = results_of(folder)["diagnostics"]["by_correct"]
    heads, lines = table_of(PAGES[page], f"right of four, {head}")
    assert heads[1:] == [f"{right} ({one['n']})" for right, one in by_correct["maj@4"].items()]
    found = [line for line in lines if line[0] in by_correct]
    assert len(found) == held
    for name, *cells in found:
        assert cells == [f"{100 * one['accuracy']:.1f}" for one in by_correct[name].values()], name


@pytest.mark.parametrize(("head", "right"), [("none right", "0"), ("one right", "1")])
def test_the_tables_of_what_it_learns_have_their_figures(head: str, right: str) -> None:
    _, lines = table_of(PAGES["what-it-learns"], head)
    folders = [GSM8K, SECOND, THIRD, LEVERS, LARGER, TRAINED, TRAINED_LARGER]
    for (label, count, *cells, _), folder in zip(lines, folders, strict=True):
        by_correct = results_of(folder[-1])["diagnostics"]["by_correct"]
        trained = next(name for name in ("synthesizer/sft+grpo", "synthesizer/grpo") if name in by_correct)
        names = [*["maj@4"] * (right == "1"), "synthesizer/base", trained]
        assert cells == [f"{100 * by_correct[name][right]['accuracy']:.1f}" for name in names], label
        assert count == str(by_correct["maj@4"][right]["n"]), label


@pytest.mark.parametrize(
    ("head", "folder"),
    [
        ("first run", "mawps"),
        ("untrained", "mawps/untrained-512"),
        ("third run", "mawps/third-512"),
        ("the 1.5B", "mawps/1.5b"),
        ("0.5B over its trained control", "mawps/trained-0.5b"),
    ],
)
def test_the_tables_of_mawps_have_their_figures(head: str, folder: str) -> None:
    results = results_of(folder)
    rows = {row["name"]: row for row in results["rows"]}
    for label, *cells in cells_of(PAGES["mawps"], f"MAWPS, {head}"):
        if label.startswith("pass@"):
            names = label.removesuffix(" of the explorer").split(" / ")
            assert cells == ["", " / ".join(f"{100 * rows[name]['accuracy']:.1f}" for name in names)]
            continue
        name = label.partition(",")[0]
        at = [name, f"{name}@T"] if "/" in name else ["", name]
        assert cells == [interval(rows[one]) if one in rows else "" for one in at], label
    if head == "untrained":
        return
    _, lines = table_of(PAGES["mawps"], "MAWPS: synthesizer/grpo against")
    (cells,) = (line[1:] for line in lines if line[0] == head)
    paired = {(row["a"], row["b"]): row for row in results["paired"]}
    assert cells == [difference(paired["synthesizer/grpo", rival]) for rival in ("maj@4", CONTROL)]


def test_the_table_of_small_to_big_has_its_figures() -> None:
    """All but the one sampled row that is not kept."""

    def row(folder: str, name: str) -> dict[str, Any]:
        return next(row for row in results_of(folder)["rows"] if row["name"] == name)

    alone, over, four, eight = "synthesizer/alone", "synthesizer/base", "votes-1.5b-4", "votes-1.5b-8"
    short, long = "gsm8k/evaluation-1.5b", "gsm8k-1.5b/small-to-big"
    passes = [row(f"gsm8k/{four}", "pass@1"), row(f"gsm8k/{four}", "pass@4"), row(f"gsm8k/{eight}", "pass@8")]
    votes = [row(f"gsm8k/{four}", "maj@4"), row(f"gsm8k/{eight}", "maj@8")]
    cells = [cells for _, *cells in cells_of(PAGES["small-to-big"], "row")]
    assert cells == [
        [interval(row(short, alone)), interval(row(short, f"{alone}@T"))],
        [interval(row(short, over)), interval(row(short, f"{over}@T"))],
        ["", " / ".join(f"{100 * one['accuracy']:.1f}" for one in passes)],
        ["", " / ".join(map(interval, votes))],
        [interval(row(long, alone)), interval(row(LARGER[-1], f"{alone}@T"))],
        [interval(row(long, over)), ""],
        [interval(row(long, "synthesizer/grpo")), cells[-1][1]],
    ]


def test_the_table_of_the_readme_has_the_figures_of_its_runs() -> None:
    """Greedy: alone, untrained, the two votes, the control, trained."""
    text = (ROOT / "README.md").read_text(encoding="utf-8").replace("**", "")
    lines = [line for line in text.splitlines() if line.startswith("| ") and "GSM8K" in line]
    lines += [line for line in text.splitlines() if line.startswith("| the same, ")]
    runs = [
        (GSM8K[-1], "synthesizer/sft+grpo"),
        (LARGER[-1], "synthesizer/grpo"),
        (TRAINED_LARGER[-1], "synthesizer/grpo"),
        (ANSWERS, "synthesizer/grpo"),
    ]
    names = ("synthesizer/alone", "synthesizer/base", "maj@4", "maj@equal_tokens", CONTROL)
    for line, (folders, trained) in zip(lines, runs, strict=True):
        found = [
            {row["name"]: f"{100 * row['accuracy']:.1f}" for row in results_of(folder)["rows"]}
            for folder in ([folders] if isinstance(folders, str) else folders)
        ]
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        for cell, name in zip(cells[1:], (*names, trained), strict=True):
            assert cell == ", ".join(dict.fromkeys(by_name[name] for by_name in found)), line


def test_the_table_of_all_runs_has_their_figures() -> None:
    """The first table of docs/results.md, greedy: untrained, trained, the two votes, the control."""
    _, table = table_of("docs/results.md", "what was trained")
    runs = [
        (GSM8K, "synthesizer/sft+grpo"),
        (SECOND, "synthesizer/grpo"),
        (THIRD, "synthesizer/grpo"),
        (LEVERS, "synthesizer/grpo"),
        (LARGER, "synthesizer/grpo"),
        (TRAINED, "synthesizer/grpo"),
        (TRAINED_LARGER, "synthesizer/grpo"),
        *(([folder], "synthesizer/grpo") for folder in ANSWERS),
    ]
    for line, (folders, trained) in zip(table, runs, strict=True):
        by_name = {
            row["name"]: f"{100 * row['accuracy']:.1f}"
            for folder in folders
            for row in results_of(folder)["rows"]
        }
        names = ("synthesizer/alone", "synthesizer/base", trained, "maj@4", "maj@equal_tokens", CONTROL)
        assert line[1:] == [by_name.get(name, "–") for name in names]


def test_the_tables_of_answers_alone_have_their_figures() -> None:
    """Rows of the test set, the pooled seeds, and right references."""
    page, seeds = PAGES["answers-alone"], [results_of(folder) for folder in ANSWERS]
    rows = [{row["name"]: row for row in results["rows"]} for results in seeds]
    _, (_, *lines) = table_of(page, r"row \| seed 0")
    names = ("explorer/greedy", "maj@4", "maj@equal_tokens", CONTROL, BY_VOTE, "synthesizer/base")
    for (_, *cells), name in zip(lines, (*names, None, "synthesizer/grpo"), strict=True):
        other = results_of("gsm8k-trained/four-bundles-1.5b")["rows"]
        row = rows[0][name] if name else next(row for row in other if row["name"] == "synthesizer/grpo")
        assert (cells[0], cells[2]) == (interval(row), f"{row['tokens']:,.0f}")
        again = interval(rows[1][name]) if name else ""
        assert cells[1] == again or (cells[1], again) == ("", cells[0])
    _, pooled = table_of(page, "both, against")
    _, _, _, _, *made = pool([str(ROOT / "data/results" / folder) for folder in ANSWERS])
    assert [cells[1:] for cells in pooled] == [
        [cell.strip() for cell in line.strip("|").split("|")][1:] for line in made
    ]
    _, by_right = table_of(page, "right references of four")
    whole = results_of("gsm8k-trained/four-bundles-1.5b")
    columns = [(seeds[0], "maj@4"), (seeds[0], "synthesizer/base")]
    columns += [(results, "synthesizer/grpo") for results in (whole, *seeds)]
    for place, (results, name) in enumerate(columns, 2):
        found = results["diagnostics"]["by_correct"][name].values()
        assert [line[place] for line in by_right] == [f"{100 * one['accuracy']:.1f}" for one in found], name


def test_the_small_tables_of_answers_alone_have_their_figures() -> None:
    """Eight references, a better explorer, and validation by its kept answers."""
    page, untrained, trained = PAGES["answers-alone"], "synthesizer/base", "synthesizer/grpo"
    _, ((*eight, _),) = table_of(page, "maj@8")
    few = [results_of(f"gsm8k-answers/eight-references{end}")["rows"] for end in ("", "-seed-1")]
    few_rows = [{row["name"]: f"{100 * row['accuracy']:.1f}" for row in one} for one in few]
    assert eight == [few_rows[0]["maj@8"], few_rows[0][untrained], *(one[trained] for one in few_rows)]
    _, over = table_of(page, "over the control")
    better = [results_of(f"gsm8k-answers/over-control{end}")["rows"] for end in ("", "-seed-1")]
    better_rows = [{row["name"]: interval(row) for row in one} for one in better]
    assert [cells[1] for cells in over] == [
        *(better_rows[0][name] for name in ("maj@4", CONTROL)),
        *(one[trained] for one in better_rows),
    ]
    kept = ROOT / "data/results/gsm8k-answers/validation"
    right: dict[str, str] = {}
    for path in kept.glob("*.xz"):
        found = [row["verdict"] == "correct" for row in rows_of(path)]
        right[path.name.removesuffix(".jsonl.xz")] = f"{100 * sum(found) / len(found):.1f}"
    _, table = table_of(page, "model, reading answers alone")
    contested = ("explorer", "trained", "trained-seed-1", "control")
    assert [line[1] for line in table[1:5]] == [right[f"contested-{name}"] for name in contested]
    assert table[6][1] == right["contested-whole-solutions"]
    assert [line[2] for line in table[:4]] == [
        right[f"all-of-the-base-{name}"] for name in ("base", "explorer", "trained", "trained-seed-1")
    ]
    text = (ROOT / page).read_text(encoding="utf-8")
    assert (
        f"right in {right['unsolved-explorer']} % of the 225, and after GRPO in {right['unsolved-trained']}"
        in text
    )


def test_the_tables_of_the_panel_have_its_figures() -> None:
    results = results_of("gsm8k-trained/panel-0.5b")
    rows = {row["name"]: row for row in results["rows"]}
    _, panel = table_of(PAGES["trained-explorer"], "row of the panel")
    for label, *cells in panel:
        row = rows[label.partition(",")[0]]
        assert cells == [interval(row), f"{row['tokens']:,.0f}"], label
    assert len(panel) == 4
    _, sweep = table_of(PAGES["trained-explorer"], "k, trained on 4")
    assert sweep == [
        [str(one["k"]), interval(one), f"{100 * one['majority']:.1f}", f"{100 * one['oracle']:.1f}"]
        for one in results["diagnostics"]["k_sweep"]
    ]


def test_the_table_of_the_levers_has_their_figures() -> None:
    """Vote, greedy, sampled and their mean, of those validation tables alone that are kept."""
    _, lines = table_of(PAGES["levers"], r"setting \| vote")
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
