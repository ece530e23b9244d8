"""How a run looks in a terminal: bars with remaining time, tables, and quiet libraries."""

from __future__ import annotations

import logging
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import contextmanager

from rich.box import SIMPLE_HEAD
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.table import Table as RichTable

from grail.progress import Tick
from grail.reporting.tables import Table


class Terminal:
    """A listener that draws a bar per stage on stderr; plain lines where that is no terminal."""

    def __init__(self, console: Console) -> None:
        self.console = console

    @contextmanager
    def stage(self, name: str) -> Iterator[Tick]:
        """Show a stage's bar, elapsed and remaining time; leave a line with its duration."""
        began = time.monotonic()
        if self.console.is_terminal:
            with self._bar(name) as tick:
                yield tick
        else:
            self.console.print(f"{name}: started", highlight=False, markup=False)
            yield self._plain(name)
        seconds = time.monotonic() - began
        self.console.print(f"[green]done[/] {escape(name)} ({duration(seconds)})", highlight=False)

    def skipped(self, name: str) -> None:
        """Say that a stage is finished already."""
        self.console.print(
            f"[dim]kept[/] {escape(name)} (finished before, same inputs)", highlight=False
        )

    def warn(self, text: str) -> None:
        """Say what the user should know."""
        self.console.print(f"[yellow]warning:[/] {escape(text)}", highlight=False)

    @contextmanager
    def _bar(self, name: str) -> Iterator[Tick]:
        columns = (
            TextColumn("{task.description}"),
            BarColumn(bar_width=24),
            MofNCompleteColumn(),
            TimeElapsedColumn(),
            TextColumn("left:"),
            TimeRemainingColumn(),
            TextColumn("[dim]{task.fields[note]}"),
        )
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(escape(name), total=None, note="")

            def tick(done: int, total: int, note: str) -> None:
                progress.update(task, completed=done, total=total, note=escape(note))

            yield tick

    def _plain(self, name: str) -> Tick:
        """Print a line a minute, so that a log file shows that work goes on."""
        began = last = time.monotonic()

        def tick(done: int, total: int, note: str) -> None:
            nonlocal last
            now = time.monotonic()
            if now - last < 60 or not done:
                return
            last = now
            left = duration((now - began) / done * (total - done))
            line = f"{name}: {done}/{total}, {left} left, {note}"
            self.console.print(line, highlight=False, markup=False)

        return tick


def duration(seconds: float) -> str:
    """Return seconds as "8 s" or "2 min 5 s"."""
    whole = round(seconds)
    return f"{whole} s" if whole < 60 else f"{whole // 60} min {whole % 60} s"


def render(table: Table) -> RichTable:
    """Return a table for the terminal; its texts are shown as they are, not as markup."""
    shown = RichTable(
        title=escape(table.title),
        title_justify="left",
        box=SIMPLE_HEAD,
        padding=(0, 1, 0, 0),
        pad_edge=False,
    )  # narrow enough for 80 columns
    for number, column in enumerate(table.columns):
        shown.add_column(escape(column), justify="left" if number < 2 else "right")
    for row in table.rows:
        shown.add_row(*map(escape, row))
    return shown


def quiet() -> None:
    """Keep the libraries' own bars and advice out of the output."""
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    os.environ.setdefault("TRANSFORMERS_VERBOSITY", "error")
    os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    os.environ.setdefault("TQDM_DISABLE", "1")
    warnings.filterwarnings("ignore")
    logging.getLogger().setLevel(logging.ERROR)
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
