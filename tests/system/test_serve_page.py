"""The page at / in a real headless Chromium: references arrive, the synthesis streams, votes and cost."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
from faulty_upstream import Body, saying
from pairs import Served, forever, references, served
from playwright.sync_api import expect
from test_browser import CHROMIUM, chromium

from a2r_train.inference.price import Price

pytestmark = [pytest.mark.skipif(not CHROMIUM, reason="no chromium here: apt-get install chromium")]
__all__ = ["chromium"]  # the fixture
EVIL = "<img src=x onerror=alert(1)><script>alert(1)</script>"


def slowly(body: Body) -> list[str]:
    return [rf"Weighing both, it is \boxed{{4}} {EVIL}"] * body["n"]


@pytest.fixture
def pair() -> Iterator[Served]:
    with served(saying(references, 0.05), saying(slowly, 0.2)) as one:
        keys = one.endpoint.config
        one.endpoint.pair.prices = {keys.explorer: Price(1, 2), keys.synthesizer: Price(3, 4)}
        yield one


class Opened:
    """The page, with everything that it complained of, and whom it asked."""

    def __init__(self, chromium: Any, url: str, **options: Any) -> None:
        self.page = chromium.new_page(**options)
        self.complaints: list[str] = []
        self.asked: set[str] = set()
        self.page.on("console", lambda message: self.complaints.append(message.text))
        self.page.on("pageerror", lambda error: self.complaints.append(str(error)))
        self.page.on("dialog", lambda dialog: (self.complaints.append(dialog.message), dialog.dismiss()))
        self.page.on("request", lambda request: self.asked.add(request.url))
        self.page.goto(url)

    def ask(self, question: str) -> None:
        self.page.fill("#question", question)
        self.page.click("#ask")


def test_references_arrive_before_the_synthesis_streams_and_votes_and_cost_are_shown(
    chromium: Any, pair: Served
) -> None:
    opened = Opened(chromium, f"{pair.url}/")
    page = opened.page
    expect(page.locator("#models")).to_contain_text("synthesizes")
    opened.ask("How many are there?")
    page.wait_for_selector("article[data-answer='3']")
    assert page.locator("article.waiting").count() > 0  # others are on their way
    assert page.locator("#text").inner_text() == ""
    expect(page.locator("#text")).to_contain_text("Weighing")
    assert "boxed" not in page.locator("#text").inner_text()  # it streams
    expect(page.locator("#state")).to_have_text("the synthesizer answered", timeout=20000)
    assert page.locator("article").count() == page.locator("article pre").count() == 4
    assert page.locator("article.lead").count() == 3
    assert page.locator("#text").inner_text() == slowly({"n": 1})[0]  # markup is text
    assert page.locator("#votes > div").all_inner_texts() == ["3\n3", "4\n1"]
    cost = page.locator("#cost").inner_text()
    assert "stage 1\t10\t8" in cost
    assert "dollars" in cost
    assert opened.complaints == []
    assert {url.removeprefix(pair.url) for url in opened.asked} - {"data:,"} <= {
        "/", "/v1/models", "/v1/chat/completions"
    }  # fmt: skip
    body = pair.explorer.seen[0].body
    assert "How many are there?" in json.dumps(body["messages"])
    assert body["n"] == 4


def test_stop_ends_the_request_upstream(chromium: Any) -> None:
    with served(synthesizer=forever) as pair:
        page = Opened(chromium, f"{pair.url}/").page
        page.fill("#question", "How long?")
        page.click("#ask")
        expect(page.locator("#text")).to_contain_text("word")
        page.click("#stop")
        expect(page.locator("#state")).to_have_text("stopped")
        page.wait_for_timeout(1000)
        assert pair.synthesizer.seen[0].ended == "left"


def test_a_key_and_an_error_are_said(chromium: Any) -> None:
    with served(key="geheim", tries=1) as pair:
        opened = Opened(chromium, f"{pair.url}/")
        page = opened.page
        page.wait_for_selector("#key_label:not([hidden])")
        page.fill("#key", "geheim")
        opened.ask("How many?")
        expect(page.locator("#state")).to_have_text("the synthesizer answered", timeout=20000)
        pair.explorer.fault = lambda: "503"
        opened.ask("And now?")
        expect(page.locator("#error")).to_contain_text("injected 503")


@pytest.mark.parametrize(
    ("share", "said"),
    [(0.75, "the references agree, so their answer stands"), (1.0, "the vote answered")],
)
def test_the_page_says_when_the_synthesizer_did_not_answer(chromium: Any, share: float, said: str) -> None:
    """Three of four references agree; the synthesizer's text has no answer."""
    with served(synthesizer=saying(lambda body: ["No idea"] * body["n"]), skip_agreement=share) as pair:
        opened = Opened(chromium, f"{pair.url}/")
        opened.ask("How many?")
        expect(opened.page.locator("#state")).to_have_text(said, timeout=20000)
        assert opened.complaints == []


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_phone_needs_no_sideways_scrolling(chromium: Any, scheme: str) -> None:
    with served() as pair:
        opened = Opened(chromium, f"{pair.url}/", viewport={"width": 360, "height": 740}, color_scheme=scheme)
        opened.ask("x" * 300)
        expect(opened.page.locator("#votes > div")).to_have_count(2)
        assert opened.page.evaluate("document.documentElement.scrollWidth") <= 360
