"""A report as one HTML file, which needs nothing else and opens without a network.

Used by command.py. The rules: all text is escaped where it goes into the page, since the crashed
guest could write anything; there is no script; the picture of the memory is SVG in the page.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from html import escape

from ..streams import one_line
from .facts import LEAST, Crash, Memory, Report, Task, Thread
from .text import STATES, amount, duration, moment, named, stack_lines

USERS = 20
WIDTH, HEIGHT = 960, 36  # of the picture
# Of each class of memory, in their order.
COLOURS = (
    "#9ec5a5",
    "#4e79a7",
    "#76b7b2",
    "#59a1b5",
    "#f28e2b",
    "#edc948",
    "#b07aa1",
    "#8c6d5a",
)
# No script, and nothing from elsewhere, even where the escaping failed.
POLICY = "default-src 'none'; style-src 'unsafe-inline'"
STYLE = """
:root { color-scheme: light dark; --line: #8884; --dim: #666; --bad: #c62828; }
@media (prefers-color-scheme: dark) { :root { --dim: #aaa; --bad: #ff8a80; } }
body { font: 15px/1.5 system-ui, sans-serif; margin: 2rem auto; max-width: 62rem; padding: 0 1rem; }
body { overflow-wrap: anywhere; }
h1 { font-size: 1.4rem; color: var(--bad); margin-bottom: 0; }
h2 { font-size: 1.05rem; margin: 2rem 0 .5rem; border-bottom: 1px solid var(--line); }
pre, .registers { font: 12.5px/1.45 ui-monospace, monospace; margin: 0; }
pre { white-space: pre-wrap; }
.registers span { display: inline-block; white-space: pre; }
table { border-collapse: collapse; }
th, td { text-align: left; vertical-align: top; padding: 0 1.5rem 0 0; }
th { font-weight: normal; color: var(--dim); overflow-wrap: normal; }
.n { text-align: right; font-variant-numeric: tabular-nums; }
td.n { white-space: nowrap; }
@media (max-width: 40rem) { th, td { padding-right: .6rem; } table { font-size: 13px; } }
svg { width: 100%; height: auto; display: block; margin: .5rem 0; }
summary { cursor: pointer; }
.swatch { display: inline-block; width: .8rem; height: .8rem; margin-right: .4rem; }
.dim { color: var(--dim); }
.warn { color: var(--bad); }
"""


def render(report: Report) -> str:
    """Return the page."""
    title = f"{report.kernel.release}: {report.crash.reason or 'crash dump'}"
    parts = [
        "<!DOCTYPE html>",
        '<html lang="en"><head><meta charset="utf-8">',
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">',
        '<meta name="viewport" content="width=device-width, initial-scale=1">',
        f"<title>{_safe(title)}</title><style>{STYLE}</style></head><body>",
        f"<h1>{_safe(report.crash.reason or 'The log does not say why it crashed')}</h1>",
        *_head(report),
        *_crash(report.crash),
        *(_memory(report.memory) if report.memory else ()),
        *_tasks(report),
        *_modules(report),
        *_lines("The end of the log", report.log),
        *_lines("Not in this report", report.missing),
        "</body></html>",
    ]
    return "\n".join(parts) + "\n"


def _safe(text: str) -> str:
    """Make text of any origin a part of the page."""
    return escape(one_line(text))


def _head(report: Report) -> Iterator[str]:
    kernel = report.kernel
    facts = [
        ("dump", f"{report.vmcore}, {amount(report.size)}"),
        ("kernel", f"{kernel.release} {kernel.version}"),
        ("host name", kernel.hostname),
        ("crashed at", moment(kernel.crashed_at) if kernel.crashed_at else ""),
        ("uptime", "" if kernel.uptime is None else duration(kernel.uptime)),
        ("CPUs", str(kernel.cpus)),
        ("load", " ".join(f"{each:.2f}" for each in kernel.load)),
        ("tainted", kernel.taints or ("no" if report.source != LEAST else "")),
        ("command line", kernel.command_line),
        ("read by", report.source),
    ]
    yield _table((), [[name, value] for name, value in facts if value], header=True)
    if report.incomplete:
        yield '<p class="warn">The dump is incomplete: part of the memory is missing.</p>'


def _crash(crash: Crash) -> Iterator[str]:
    yield from _lines("Why", crash.lines)
    if crash.thread is not None:
        title = f"The task that crashed, on CPU {crash.cpu}: {named(crash.thread.task)}"
        yield f"<h2>{_safe(title)}</h2>{_stack(crash.thread)}"
    if crash.registers:
        pairs = (f"{name:>8} {value:<18}" for name, value in crash.registers.items())
        spans = " ".join(f"<span>{_safe(pair)}</span>" for pair in pairs)
        yield f"<h2>Registers of CPU {crash.cpu}</h2>"
        yield f'<div class="registers">{spans}</div>'
    for thread in crash.others:
        yield f"<h2>{_safe(f'On CPU {thread.task.cpu}: {named(thread.task)}')}</h2>{_stack(thread)}"


def _tasks(report: Report) -> Iterator[str]:
    if not report.tasks:
        return
    counts = [f"{n} {STATES.get(state, state)}" for state, n in report.states().items()]
    yield f"<h2>Tasks</h2><p>{len(report.tasks)}: {_safe(', '.join(counts))}</p>"
    for thread in report.blocked:
        yield f"<details open><summary>blocked: {_safe(named(thread.task))}</summary>"
        yield f"{_stack(thread)}</details>"
    heads = ("name", "PID", "in memory", "virtual")
    users = report.users(USERS)
    if users:
        yield "<h2>Processes with most memory</h2>"
        yield _table(heads, [_row(task) for task in users], sizes=(2, 3))
    table = _table(
        (*heads, "parent", "CPU", "state"),
        [[*_row(task), task.ppid, task.cpu, task.state] for task in report.tasks],
        sizes=(2, 3),
    )
    yield f"<details><summary>all tasks</summary>{table}</details>"


def _row(task: Task) -> list[object]:
    return [task.comm, task.pid, task.resident, task.virtual]


def _memory(memory: Memory) -> Iterator[str]:
    yield f"<h2>Memory, {amount(memory.total)}</h2>"
    yield f'<svg viewBox="0 0 {WIDTH} {HEIGHT}" role="img" aria-label="memory by its use">'
    at, rows = 0.0, []
    for (name, size), colour in zip(memory.classes.items(), COLOURS):
        share = size / memory.total if memory.total else 0
        label = f"{name}: {amount(size)}, {share:.0%}"
        yield (
            f'<rect x="{at:.2f}" y="0" width="{share * WIDTH:.2f}" height="{HEIGHT}" '
            f'fill="{colour}"><title>{_safe(label)}</title></rect>'
        )
        at += share * WIDTH
        swatch = f'<span class="swatch" style="background:{colour}"></span>'
        rows.append(
            f'<tr><td>{swatch}{_safe(name)}</td><td class="n">{amount(size)}</td>'
            f'<td class="n">{share:.1%}</td></tr>'
        )
    yield f"</svg><table>{''.join(rows)}</table>"
    promised = f"{amount(memory.committed)} of {amount(memory.commit_limit)} committed"
    swap = f"; {amount(memory.swap_used)} of {amount(memory.swap_total)} swap used"
    yield f'<p class="dim">{promised}{swap if memory.swap_total else ""}</p>'


def _modules(report: Report) -> Iterator[str]:
    if report.modules:
        tainting = [f"{module.name} ({module.taints})" for module in report.tainting()]
        yield f"<h2>Modules</h2><p>Tainting: {_safe(', '.join(tainting) or 'none')}</p>"
        table = _table(
            ("name", "size", "taints"),
            [[each.name, each.size, each.taints] for each in report.modules],
            sizes=(1,),
        )
        count = len(report.modules)
        yield f"<details><summary>all {count} modules</summary>{table}</details>"


def _stack(thread: Thread) -> str:
    return f"<pre>{_text(stack_lines(thread.stack))}</pre>"


def _lines(title: str, lines: Iterable[str]) -> Iterator[str]:
    text = _text(lines)
    if text:
        yield f"<h2>{_safe(title)}</h2><pre>{text}</pre>"


def _text(lines: Iterable[str]) -> str:
    return "\n".join(map(_safe, lines))


def _table(
    heads: Sequence[str],
    rows: Sequence[list[object]],
    header: bool = False,
    sizes: Sequence[int] = (),
) -> str:
    """Make a table; numbers stand to the right.

    Args:
        heads: of the columns, [] for none.
        rows: of it.
        header: whether each row's first cell is its name.
        sizes: numbers of the columns that are bytes.
    """
    numbers = [isinstance(value, int) for value in rows[0]] if rows else []
    made = []
    if heads:
        titles = (_cell("th", head, number) for head, number in zip(heads, numbers))
        made.append(f"<tr>{''.join(titles)}</tr>")
    for row in rows:
        cells = []
        for place, (value, number) in enumerate(zip(row, numbers)):
            tag = "th" if header and not place else "td"
            text = amount(value) if place in sizes and isinstance(value, int) else str(value)
            cells.append(_cell(tag, text, number))
        made.append(f"<tr>{''.join(cells)}</tr>")
    return f"<table>{''.join(made)}</table>"


def _cell(tag: str, text: str, number: bool) -> str:
    kind = ' class="n"' if number else ""
    return f"<{tag}{kind}>{_safe(text)}</{tag}>"
