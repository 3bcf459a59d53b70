"""report.html in a real headless Chromium: it filters, is readable on a phone and in the dark, runs no model
text.
"""

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from test_report import EVIL, bundle, results_of, synthesis

from a2r_train.evaluate.report import browser
from a2r_train.evaluate.report import write as report
from a2r_train.evaluate.rows import row as rows
from a2r_train.evaluate.rows.row import Row

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")

pytestmark = [
    pytest.mark.skipif(not CHROMIUM, reason="no chromium here: apt-get install chromium"),
]


@pytest.fixture(scope="module")
def page_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report whose every text tries to run a script; its four problems are one of each flip kind."""
    bundles = [
        bundle(f"right{EVIL}", ["5", "5", "5", "2"], "5"),
        bundle("kept", ["5", "5", "5", "2"], "5"),
        bundle("wrong", ["2", "2", "2", "5"], "5"),
        bundle("none", ["2", "3", "4", "1"], "5"),
    ]
    given = {
        "synthesizer/base": [synthesis(b, a) for b, a in zip(bundles, ["2", "5", "5", "1"], strict=True)],
        EVIL: [synthesis(b, "5") for b in bundles],
    }
    folder = tmp_path_factory.mktemp("report")
    report.write_report(
        folder, results_of(bundles), browser.browser(bundles, rows.bundle_votes(bundles), given)
    )
    return folder / "report.html"


@pytest.fixture(scope="module")
def chromium() -> Iterator[Any]:
    from playwright.sync_api import sync_playwright

    with sync_playwright() as playwright:
        started = playwright.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox"])
        yield started
        started.close()


class Opened:
    """A page, with everything that it complained of or asked the network for."""

    def __init__(self, chromium: Any, path: Path, **options: Any) -> None:
        self.page = chromium.new_page(**options)
        self.complaints: list[str] = []
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        self.page.on(
            "request", lambda request: request.url != path.as_uri() and self.complaints.append(request.url)
        )
        self.page.goto(path.as_uri())

    def shown(self) -> int:
        return int(self.page.locator("article:visible").count())


def test_it_loads_and_filters_without_a_complaint(chromium: Any, page_path: Path) -> None:
    opened = Opened(chromium, page_path)
    page = opened.page
    assert page.title() == "Evaluation"
    assert opened.shown() == 4
    for kind in ("wrong_to_right", "right_to_wrong", "right_to_right", "wrong_to_wrong"):
        page.select_option("#row", "synthesizer/base")
        page.select_option("#flip", kind)
        assert opened.shown() == 1
        assert page.locator("#count").inner_text() == "1 problems"
        shown = page.locator("article:visible [data-row='synthesizer/base']")
        assert shown.get_attribute("data-flip") == kind
    page.select_option("#row", "")
    page.select_option("#flip", "")
    assert opened.shown() == 4
    assert opened.complaints == []


def test_texts_of_models_are_text(chromium: Any, page_path: Path) -> None:
    opened = Opened(chromium, page_path)
    assert opened.page.locator("script").count() == 1
    assert EVIL in opened.page.locator("article pre").first.inner_text()
    assert EVIL in opened.page.locator("#row option").last.inner_text()
    opened.page.select_option("#row", EVIL)
    assert opened.shown() == 4
    assert opened.complaints == []


def test_a_script_that_got_in_would_be_noticed(chromium: Any, page_path: Path, tmp_path: Path) -> None:
    """The tests above can fail: the same page with one text unescaped speaks up."""
    broken = tmp_path / "broken.html"
    broken.write_text(
        page_path.read_text().replace("&lt;script&gt;alert(1)&lt;/script&gt;", "<script>alert(1)</script>")
    )
    assert "1" in Opened(chromium, broken).complaints


def test_a_phone_needs_no_sideways_scrolling(chromium: Any, page_path: Path) -> None:
    page = Opened(chromium, page_path, viewport={"width": 360, "height": 740}).page
    assert page.evaluate("document.documentElement.scrollWidth") <= 360
    assert page.locator("article [data-row]").first.bounding_box()["width"] <= 360
    wide = page.locator("article .texts > div").nth(0).bounding_box()
    below = page.locator("article .texts > div").nth(1).bounding_box()
    assert below["y"] > wide["y"]  # one under the other


@pytest.fixture(scope="module")
def full_path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with all usual rows, their costs, and accuracies that lie close to each other."""
    names = [
        "pass@1",
        "pass@4",
        "maj@4",
        "maj@equal_tokens",
        "maj@equal_cost",
        "explorer/greedy",
        "genselect",
    ]
    names += [f"synthesizer/{name}" for name in ("base", "alone", "sft", "no_references", "sft+grpo")]
    names += ["synthesizer/base@T", "synthesizer/no_references@T", "synthesizer/sft+grpo@T"]
    random = np.random.default_rng(0)
    table = [
        Row(name, (random.random(300) < 0.5 + 0.01 * at).astype(float), 9.0) for at, name in enumerate(names)
    ]
    cost = {name: {"flops": 1e12 * (1 + at % 3), "dollars": None} for at, name in enumerate(names)}
    folder = tmp_path_factory.mktemp("full")
    report.write_report(folder, report.build_results(table, diagnostics={"cost": cost}, draws=200))
    return folder / "report.html"


OVERLAPS = """() => {
  const found = [];
  for (const svg of document.querySelectorAll("svg")) {
    const boxes = [...svg.querySelectorAll("text")].map((t) => [t.textContent, t.getBoundingClientRect()]);
    for (const [i, [a, p]] of boxes.entries()) for (const [b, q] of boxes.slice(i + 1)) {
      const wide = Math.min(p.right, q.right) - Math.max(p.left, q.left);
      const high = Math.min(p.bottom, q.bottom) - Math.max(p.top, q.top);
      if (p.width && q.width && wide > 1 && high > 2) found.push(a.trim() + " | " + b.trim());
    }
    for (const [a, p] of boxes) if (p.width && p.right > window.innerWidth) found.push(a.trim() + " is cut");
  }
  return found;
}"""


@pytest.mark.parametrize("width", [1300, 420])
def test_no_labels_lie_over_each_other_or_leave_the_page(chromium: Any, full_path: Path, width: int) -> None:
    page = Opened(chromium, full_path, viewport={"width": width, "height": 900}).page
    assert page.evaluate(OVERLAPS) == []
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    assert page.locator("svg:visible").count() == page.locator("figure").count() == 3
    smallest = page.evaluate(
        "Math.min(...[...document.querySelectorAll('svg text')].map((t) => t.getBoundingClientRect().height)"
        ".filter((height) => height))"
    )
    assert smallest >= 8  # pixels


@pytest.mark.parametrize(("width", "height"), [(1300, 900), (420, 900)])
def test_the_first_screen_says_whether_training_paid(
    chromium: Any, full_path: Path, width: int, height: int
) -> None:
    page = Opened(chromium, full_path, viewport={"width": width, "height": height}).page
    sentence, forest = page.locator(".answer").bounding_box(), page.locator("figure").first.bounding_box()
    assert page.locator(".answer").inner_text().count(". ") <= 1  # at most two sentences
    assert sentence["y"] + sentence["height"] < forest["y"]
    assert forest["y"] + forest["height"] <= height


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_stands_out_in_the_light_and_in_the_dark(chromium: Any, page_path: Path, scheme: str) -> None:
    page = Opened(chromium, page_path, color_scheme=scheme).page
    color = "element => [getComputedStyle(element).color, getComputedStyle(document.body).backgroundColor]"
    for selector in ("body", "td", "pre", ".good", ".bad", "svg text"):
        ink, paper = (_luminance(rgb) for rgb in page.locator(selector).first.evaluate(color))
        assert (max(ink, paper) + 0.05) / (min(ink, paper) + 0.05) >= 4.5, selector  # WCAG 2 AA
        assert (paper < 0.2) == (scheme == "dark")
    fills = page.locator("svg text").first.evaluate("element => getComputedStyle(element).fill")
    assert _luminance(fills) == pytest.approx(_luminance(page.locator("body").evaluate(color)[0]), abs=0.01)


def _luminance(rgb: str) -> float:
    """Relative luminance of `rgb(r, g, b)` (WCAG 2)."""
    parts = [float(part) / 255 for part in rgb[rgb.index("(") + 1 : -1].split(",")[:3]]
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in parts]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
