"""The page of a report in a browser: what a reader sees, on a wide and on a narrow screen."""

import html
import json
import re
import struct
import zlib
from pathlib import Path
from types import SimpleNamespace

import pytest
from fixtures.reports import HOSTILE, MIB, report

from lab import browser
from pvdump.report.facts import Function, Memory
from pvdump.report.page import COLOURS, render
from pvdump.report.text import amount

WIDTHS = (1000, 400)
SCHEMES = ("light", "dark")
HEIGHT, MARGIN = 1100, 16  # pixels: of a picture; left and right of what is in the page
CONTRAST = 4.5  # least of text. Source: WCAG 2.2, success criterion 1.4.3.
CLASSES = {
    "free": 60 * MIB,
    "programs": 8 * MIB,
    "files": 12 * MIB,
    "shared, tmpfs": 4 * MIB,
    "slab": 6 * MIB,
    "page tables": 3 * MIB,
    "kernel stacks": 2 * MIB,
    "other kernel": 5 * MIB,
}
LONG = "entry_SYSCALL_64_after_hwframe_with_a_name_that_is_far_longer_than_a_narrow_screen_is_wide"
# Frames with the page, in each width and scheme; what is found in them.
WATCHER = """\
<!DOCTYPE html><meta charset="utf-8"><pre id="found"></pre>
<script>
const found = [];
function look(frame, width, scheme) {
  const inside = frame.contentDocument, root = inside.documentElement;
  const seen = inside.body.innerText;
  for (const each of inside.querySelectorAll("details")) each.open = true;
  const style = element => frame.contentWindow.getComputedStyle(element);
  const canvas = inside.createElement("p");
  canvas.style.background = "Canvas";
  inside.body.append(canvas);
  const paper = style(canvas).backgroundColor;
  canvas.remove();
  const cut = [], inks = {};
  for (const each of [root, ...inside.body.querySelectorAll("*")]) {
    const box = each.getBoundingClientRect();
    if (each.scrollWidth > each.clientWidth && style(each).display != "inline" || box.right > width)
      cut.push([each.tagName, each.textContent.slice(0, 60), each.scrollWidth, box.right]);
    if ([...each.childNodes].some(node => node.nodeType == 3 && node.data.trim()))
      inks[style(each).color] = each.tagName;
  }
  const box = element => { const b = element.getBoundingClientRect(); return [b.x, b.width]; };
  const bars = [...inside.querySelectorAll("rect")].map(each => [...box(each), style(each).fill]);
  const swatches = [...inside.querySelectorAll(".swatch")].map(e => style(e).backgroundColor);
  const picture = box(inside.querySelector("svg"));
  found.push({width, scheme, seen, cut, inks, paper, bars, swatches, picture,
              all: inside.body.innerText, sizes: [root.scrollWidth, root.clientWidth]});
  document.getElementById("found").textContent = JSON.stringify(found);
}
for (const width of WIDTHS) for (const scheme of SCHEMES) {
  const frame = document.createElement("iframe");
  frame.style = `width: ${width}px; height: 500px; border: 0; color-scheme: ${scheme}`;
  frame.onload = () => look(frame, width, scheme);
  frame.src = "report.html";
  document.body.append(frame);
}
</script>
"""


def written(folder: Path, text: str) -> Path:
    (folder / "report.html").write_text(text)
    return folder / "report.html"


def looked(folder: Path, text: str) -> list[SimpleNamespace]:
    """What is found in the page, in each width and scheme."""
    written(folder, text)
    script = WATCHER.replace("WIDTHS", str(list(WIDTHS))).replace("SCHEMES", str(list(SCHEMES)))
    (folder / "watcher.html").write_text(script)
    dom = browser.dom(folder / "watcher.html")
    (told,) = re.findall(r'<pre id="found">(.*?)</pre>', dom, re.DOTALL)
    found = [SimpleNamespace(**each) for each in json.loads(html.unescape(told))]
    ways = {(each.width, each.scheme) for each in found}
    assert ways == {(width, scheme) for width in WIDTHS for scheme in SCHEMES}
    return found


def crowded(text: str = "text") -> str:
    """A page with all classes of memory, long names and many registers."""
    made = report(text)
    assert made.crash.thread is not None
    made.memory = Memory(100 * MIB, CLASSES, 60 * MIB, MIB, MIB, 6 * MIB, 0, 0, 50 * MIB, 20 * MIB)
    stack = made.crash.thread.stack
    frame = Function(LONG, "0xffffffff81000030", 0x6E, 0xD8, "module_1", [f"{LONG}.c:7"] * 3)
    stack.frames.append(frame)
    made.crash.registers = {f"r{number}": hex((1 << 64) - number - 1) for number in range(27)}
    made.log = [f"[    1.000000] {LONG}: {LONG}", "[    1.000001] BUG: " + "ff " * 99]
    made.tasks += [made.tasks[0].__class__(**{**vars(made.tasks[0]), "comm": "W" * 15})]
    made.kernel.command_line = "quiet " * 60 + LONG
    return render(made)


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> list[SimpleNamespace]:
    return looked(tmp_path_factory.mktemp("page"), crowded())


def test_a_reader_sees_cause_stack_blocked_tasks_and_memory(found: list[SimpleNamespace]) -> None:
    for each in found:
        lines = each.seen.split("\n")
        assert lines[0] == "Oops: text"
        for line in (
            "The task that crashed, on CPU 1: text, PID 7",
            "#0  text+0x10/0x20 [text]  text.c:7",
            "blocked: stuck, PID 8",
            "Memory, 100 MiB",
            "20.0 MiB of 50.0 MiB committed",
        ):
            assert line in lines
        for name, size in CLASSES.items():
            assert f"{name}\t{amount(size)}\t{size / MIB:.1f}%" in each.seen


def test_lists_that_are_closed_open(found: list[SimpleNamespace]) -> None:
    for each in found:
        row = f"{'W' * 15}\t7\t"
        assert row in each.all
        assert each.seen.count(row) == each.all.count(row) - 1


def test_bars_are_as_wide_as_their_part_of_the_memory(found: list[SimpleNamespace]) -> None:
    for each in found:
        left, width = each.picture
        assert each.width * 0.9 < width <= each.width
        for (x, size, colour), part, swatch in zip(
            each.bars, CLASSES.values(), each.swatches, strict=True
        ):
            # A browser counts in parts of a pixel.
            assert size == pytest.approx(width * part / sum(CLASSES.values()), abs=0.1)
            assert x == pytest.approx(left, abs=0.1)
            assert colour == swatch
            left += size
        assert len(each.bars) == len(each.swatches) == len(CLASSES) == len(set(each.swatches))


def test_nothing_is_cut_off_and_nothing_must_be_scrolled_aside(
    found: list[SimpleNamespace], tmp_path: Path
) -> None:
    for each in (*found, *looked(tmp_path, crowded(HOSTILE))):
        assert each.cut == []
        assert each.sizes == [each.width, each.width]


def test_text_stands_out_from_the_paper_in_light_and_in_dark(found: list[SimpleNamespace]) -> None:
    papers = {each.scheme: each.paper for each in found}
    assert luminance(papers["light"]) > 0.9
    assert luminance(papers["dark"]) < 0.1
    for each in found:
        assert len(each.inks) == 3
        for ink, tag in each.inks.items():
            assert (tag, contrast(ink, each.paper) >= CONTRAST) == (tag, True)


def test_nothing_is_asked_of_the_network(tmp_path: Path) -> None:
    image = '<img src="http://127.0.0.1:9/image">'
    control = tmp_path / "control.html"
    control.write_text(image)
    assert browser.requests(control) == ["http://127.0.0.1:9/image"]
    page = written(tmp_path, crowded(HOSTILE))
    assert browser.requests(page) == []
    # Nor where the escaping failed.
    page.write_text(page.read_text().replace("</body>", f"{image}</body>"))
    assert image in page.read_text()
    assert browser.requests(page) == []


def test_the_picture_has_each_class_in_its_part_of_the_bar(tmp_path: Path) -> None:
    width = min(WIDTHS)
    made = report()
    made.memory = Memory(100 * MIB, CLASSES, 60 * MIB, MIB, MIB, 6 * MIB, 0, 0, 50 * MIB, 20 * MIB)
    out = tmp_path / "page.png"
    browser.screenshot(written(tmp_path, render(made)), out, width, HEIGHT)
    rows = pixels(out.read_bytes())
    assert (len(rows), {len(row) for row in rows}) == (HEIGHT, {width})
    colours = [bytes.fromhex(colour[1:]) for colour in COLOURS]
    # The bar is where most of a row is of these colours.
    row = max(rows, key=lambda row: sum(map(row.count, colours)))
    for colour, size in zip(colours, CLASSES.values(), strict=True):
        # Of two parts the pixel between them is mixed.
        wanted = (width - 2 * MARGIN) * size / sum(CLASSES.values())
        assert abs(row.count(colour) - wanted) <= 2


def luminance(colour: str) -> float:
    """The relative luminance of rgb(r, g, b). Source: WCAG 2.2, definition."""
    parts = [int(part) / 255 for part in re.findall(r"\d+", colour)[:3]]
    linear = [p / 12.92 if p <= 0.04045 else ((p + 0.055) / 1.055) ** 2.4 for p in parts]
    return sum(weight * p for weight, p in zip((0.2126, 0.7152, 0.0722), linear, strict=True))


def contrast(one: str, other: str) -> float:
    low, high = sorted((luminance(one), luminance(other)))
    return (high + 0.05) / (low + 0.05)


def pixels(raw: bytes) -> list[list[bytes]]:
    """The pixels of a PNG of 8 bits a channel, without their opacity. Source: PNG, clause 9."""
    at, data, head = 8, b"", (0, 0, 0, 0)
    while at < len(raw):
        size, kind = struct.unpack_from(">I4s", raw, at)
        if kind == b"IHDR":
            head = struct.unpack_from(">IIBB", raw, at + 8)
        elif kind == b"IDAT":
            data += raw[at + 8 : at + 8 + size]
        at += size + 12
    width, height, bits, kind = head
    assert (bits, kind in (2, 6)) == (8, True)
    step = 3 if kind == 2 else 4
    flat, before, rows = zlib.decompress(data), bytearray(width * step), []
    for number in range(height):
        start = number * (width * step + 1)
        line = bytearray(flat[start + 1 : start + 1 + width * step])
        unfilter(flat[start], line, before, step)
        rows.append([bytes(line[x : x + 3]) for x in range(0, len(line), step)])
        before = line
    return rows


def unfilter(kind: int, line: bytearray, above: bytearray, step: int) -> None:
    """Undo a filter of PNG's on a line: 0 none, 1 left, 2 above, 3 mean, 4 Paeth's."""
    if kind == 2:
        line[:] = bytes(one + other & 0xFF for one, other in zip(line, above, strict=True))
    elif kind:
        for at, value in enumerate(line):
            left = line[at - step] if at >= step else 0
            guess = left if kind == 1 else (left + above[at]) // 2
            if kind == 4:
                corner = above[at - step] if at >= step else 0
                whole = left + above[at] - corner
                guess = min((left, above[at], corner), key=lambda near: abs(whole - near))
            line[at] = value + guess & 0xFF
