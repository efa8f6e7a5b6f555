"""A picture of a session in a terminal: an SVG that scrolls through its text.

Run by hand, `python3 -m tools.recording docs/session.txt docs/session.svg`, from the root of the
tree. The rule: nothing is in the picture that is not in the text. A line that begins with "# " is a
command; before it the picture pauses.
"""

from __future__ import annotations

import sys
from html import escape
from pathlib import Path

COLUMNS, ROWS = 110, 26
WIDTH, HEIGHT = 8.05, 17  # of a character, in px, rounded up as browsers do
MARGIN = 12  # px
PROMPT = "# "
# Seconds: before a command, before a line of pvdump's image, before any other, at the end.
TYPED, TOLD, LINE, END = 1.6, 0.45, 0.07, 8.0
HEAD = """\
<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" font-family="DejaVu Sans \
Mono, Menlo, Consolas, monospace" font-size="13">
<style>
text {{ fill: #d0d0d0; white-space: pre }}
.c {{ fill: #8ae234; font-weight: bold }}
#t {{ transform: translateY({last}px); animation: s {seconds:.1f}s step-end infinite }}
@keyframes s {{
{frames}
}}
@media (prefers-reduced-motion) {{ #t {{ animation: none }} }}
</style>
<clipPath id="w"><rect x="{margin}" y="{margin}" width="{inner}" height="{window}"/></clipPath>
<rect width="100%" height="100%" rx="8" fill="#161616"/>
<g clip-path="url(#w)"><g id="t">
"""
TAIL = "</g></g>\n</svg>\n"


def svg(text: str) -> str:
    """Return the picture.

    Args:
        text: of the session; long lines are wrapped as a terminal does.
    """
    rows: list[tuple[str, bool]] = []
    stops: list[tuple[float, int]] = []  # at so many seconds, so many rows have been printed
    now = 0.0
    for line in text.splitlines():
        is_command = line.startswith(PROMPT)
        now += TYPED if is_command else TOLD if line.startswith("pvdump: ") else LINE
        rows += [
            (line[at : at + COLUMNS], is_command) for at in range(0, max(len(line), 1), COLUMNS)
        ]
        stops.append((now, len(rows)))
    seconds = now + END
    frames = [f"0% {{ transform: translateY({_shift(0)}px) }}"]
    for when, count in stops:
        at = f"{when / seconds * 100:.2f}%"
        frames.append(f"{at} {{ transform: translateY({_shift(count)}px) }}")
    head = HEAD.format(
        width=round(COLUMNS * WIDTH) + 2 * MARGIN,
        height=ROWS * HEIGHT + 2 * MARGIN,
        inner=round(COLUMNS * WIDTH),
        window=ROWS * HEIGHT,
        last=_shift(len(rows)),
        seconds=seconds,
        frames="\n".join(frames),
        margin=MARGIN,
    )
    return head + "".join(_row(number, *row) for number, row in enumerate(rows)) + TAIL


def _shift(count: int) -> int:
    """Return how far the text is moved, in px, when the last of so many rows is at the bottom."""
    return (ROWS - count) * HEIGHT


def _row(number: int, text: str, is_command: bool) -> str:
    kind = ' class="c"' if is_command else ""
    y = MARGIN + (number + 1) * HEIGHT - 4
    return f'<text x="{MARGIN}" y="{y}"{kind}>{escape(text, quote=False)}</text>\n'


def main(arguments: list[str]) -> int:
    """Make a picture of a text. Returns the exit code."""
    source, out = (Path(each) for each in arguments)
    out.write_text(svg(source.read_text(encoding="utf-8")), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
