"""The page of a report: whole, harmless whatever the guest wrote, loading nothing."""

import re
from html.parser import HTMLParser

import pytest
from fixtures.reports import HOSTILE, report

from pvdump.report.page import WIDTH, render


class Page(HTMLParser):
    """A page, read back: its elements, its attributes, its text; it is well formed."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag != "meta":
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.text += data


@pytest.fixture
def page() -> Page:
    return Page(render(report()))


def test_it_says_why_where_and_with_what_stack(page: Page) -> None:
    for part in (
        "Oops: text",
        "The task that crashed, on CPU 1: text, PID 7",
        "#0  text+0x10/0x20 [text]  text.c:7",
        "... why it ends: text",
        "blocked: stuck, PID 8",
        "3: 1 blocked, 1 running, 1 sleeping",
        "text (O)",
        "2023-11-14 22:13:20 UTC",
        "1 h 2 min",
        "The dump is incomplete",
        "[    1.000000] text",
        "lacks text",
    ):
        assert part in page.text


def test_hostile_text_is_shown_and_does_nothing() -> None:
    page = Page(render(report(HOSTILE)))
    assert {tag for tag, _ in page.elements} == {tag for tag, _ in Page(render(report())).elements}
    assert "<script>alert(1)</script>&\"'" in page.text
    assert r"\x1b]0;title\x07\x1b[2J\r\n\u202e\udcff" in page.text


def test_no_control_character_is_in_it() -> None:
    assert not re.search(
        r"[\x00-\x09\x0b-\x1f\x7f-\x9f\u202e\ud800-\udfff]", render(report(HOSTILE))
    )


def test_nothing_is_loaded_and_no_script_may_run(page: Page) -> None:
    attributes = [name for _, found in page.elements for name in found]
    assert {"src", "href", "srcset", "action", "onload", "onerror"}.isdisjoint(attributes)
    policy = [found["content"] for tag, found in page.elements if "http-equiv" in found]
    assert policy == ["default-src 'none'; style-src 'unsafe-inline'"]
    assert "url(" not in render(report())


def test_the_picture_of_the_memory_has_a_part_for_each_class(page: Page) -> None:
    parts = [found for tag, found in page.elements if tag == "rect"]
    assert [float(part["width"] or "") for part in parts] == [WIDTH * n / 100 for n in (60, 30, 10)]
    assert [float(part["x"] or "") for part in parts] == [0, WIDTH * 0.6, WIDTH * 0.9]


def test_what_could_not_be_had_leaves_no_empty_part() -> None:
    bare = report()
    bare.memory, bare.tasks, bare.blocked, bare.modules = None, [], [], []
    bare.crash.thread, bare.crash.others, bare.crash.registers = None, [], {}
    text = Page(render(bare)).text
    for title in ("Memory", "Tasks", "Modules", "Registers", "The task that crashed"):
        assert title not in text
