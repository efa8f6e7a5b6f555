"""Progress of long work, one line a stage: a bar on a terminal, plain lines in a log.

Called by whatever takes longer than a few seconds (image, lab, demo, the command line). The work
gets a display and says what it does; it never prints by itself. Take `progress: Display = NULL`:

    with progress.stage("dump", total=size) as stage:    # bytes, shown in MiB and MiB/s
        stage.advance(len(block))
        stage.note("xvdb: 16 requests in flight")        # its step, beside the bar
    with progress.stage("compile", total=93, unit="files") as stage: ...
    with progress.stage("boot Xen") as stage: ...        # nothing to count: only the time

The rule: on a terminal a stage keeps its line when it ends; in a log it writes a line each ten
seconds and one when it ends, so that both can be read afterwards.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from rich.console import Console
from rich.progress import BarColumn, ProgressColumn, TextColumn
from rich.progress import Progress as Bars
from rich.progress import Task as Bar
from rich.table import Column
from rich.text import Text

MIB = 1 << 20
LOG_EVERY = 10.0  # seconds


class Stage:
    """One stage under way. Subclasses show it; by itself it only counts."""

    def __init__(self, name: str, total: float | None, unit: str) -> None:
        self.name = name
        self.total = total
        self.unit = unit
        self.done = 0.0
        self.text = ""
        self.started = time.monotonic()

    def advance(self, amount: float = 1) -> None:
        """Count `amount` more: bytes when the unit is MiB, else things."""
        self.done += amount
        self.show()

    def note(self, text: str) -> None:
        """Show the step that the stage is at or, as its last note, its result."""
        self.text = text
        self.show()

    def expect(self, total: float) -> None:
        """Give the total when it becomes known only on the way."""
        self.total = total
        self.show()

    def show(self) -> None:
        """Redraw the stage."""

    def amounts(self) -> str:
        """Return text such as "12.0/64.0 MiB  8.1 MiB/s", or "" when nothing was counted."""
        if not self.total and not self.done:
            return ""
        if self.unit != "MiB":
            total = f"/{self.total:.0f}" if self.total else ""
            return f"{self.done:.0f}{total} {self.unit}"
        total = f"/{self.total / MIB:.1f}" if self.total else ""
        rate = self.done / MIB / max(time.monotonic() - self.started, 1e-3)
        return f"{self.done / MIB:.1f}{total} MiB  {rate:.1f} MiB/s"


class Display:
    """A display that shows nothing; the base of those that do."""

    @contextmanager
    def stage(self, name: str, total: float | None = None, unit: str = "MiB") -> Iterator[Stage]:
        """Show a stage of the work.

        name: two words at most ("boot guest").
        total: how much there is to do, bytes when unit is MiB, else a count; None: unknown.
        """
        yield Stage(name, total, unit)

    def __enter__(self) -> Display:
        return self

    def __exit__(self, *exc: object) -> None:
        pass


NULL = Display()


class LogStage(Stage):
    """A stage that prints a line when it ends, and one each LOG_EVERY s until then."""

    stream: TextIO
    printed: float

    def show(self) -> None:
        now = time.monotonic()
        if now - self.printed >= LOG_EVERY:
            self.printed = now
            self.line("...")

    def line(self, state: str) -> None:
        """Print a line with the stage's state."""
        seconds = f"{time.monotonic() - self.started:.1f} s"
        parts = [f"{self.name:<14} {state:<7} {seconds:>8}", self.amounts(), self.text]
        print("  ".join(part for part in parts if part), file=self.stream, flush=True)


class LogDisplay(Display):
    """Plain lines, for a file or a pipe."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream

    @contextmanager
    def stage(self, name: str, total: float | None = None, unit: str = "MiB") -> Iterator[Stage]:
        stage = LogStage(name, total, unit)
        stage.stream = self.stream
        stage.printed = stage.started
        try:
            yield stage
        except BaseException:
            stage.line("FAILED")
            raise
        stage.line("done")


class BarStage(Stage):
    """A stage that is shown as a bar."""

    bars: Bars
    bar: Bar

    def show(self) -> None:
        self.bars.update(
            self.bar.id,
            completed=self.done,
            total=self.total,
            amounts=self.amounts(),
            note=self.text,
        )


class Seconds(ProgressColumn):
    """Time a stage has taken, with tenths: most stages of a build are short."""

    def render(self, task: Bar) -> Text:
        """Return the seconds of a stage."""
        return Text(f"{task.finished_time or task.elapsed or 0.0:6.1f} s")


class Facts(ProgressColumn):
    """Amounts and the note, one after the other; shortened where the terminal is narrow."""

    def render(self, task: Bar) -> Text:
        """Return the amounts and the note of a stage."""
        amounts, note = task.fields["amounts"], task.fields["note"]
        return Text.assemble(amounts, "  " if amounts and note else "", (note, "dim"))


def whole() -> Column:
    """Return a column that is never shortened."""
    return Column(no_wrap=True, overflow="ignore")


class BarDisplay(Display):
    """A line with a bar a stage, for a terminal."""

    def __init__(self, stream: TextIO) -> None:
        self.bars = Bars(
            TextColumn("{task.fields[mark]} {task.description:<14}", table_column=whole()),
            BarColumn(bar_width=12, table_column=whole()),
            Seconds(table_column=whole()),
            Facts(table_column=Column(no_wrap=True, overflow="ellipsis", ratio=1)),
            console=Console(file=stream),
            expand=True,
        )

    @contextmanager
    def stage(self, name: str, total: float | None = None, unit: str = "MiB") -> Iterator[Stage]:
        stage = BarStage(name, total, unit)
        stage.bars = self.bars
        number = self.bars.add_task(name, total=total, mark=" ", amounts="", note="")
        stage.bar = next(task for task in self.bars.tasks if task.id == number)
        try:
            yield stage
        except BaseException:
            self.bars.update(number, mark="[red]x[/]")
            self.bars.stop_task(number)
            raise
        stage.show()
        # A bar whose total never became known ends full as well.
        end = stage.done or 1
        self.bars.update(number, mark="[green]+[/]", total=end, completed=end)

    def __enter__(self) -> Display:
        self.bars.start()
        return self

    def __exit__(self, *exc: object) -> None:
        self.bars.stop()


def display(stream: TextIO | None = None) -> Display:
    """Return the display that fits `stream` (default: standard output); use it as a context."""
    stream = stream or sys.stdout
    return BarDisplay(stream) if stream.isatty() else LogDisplay(stream)
