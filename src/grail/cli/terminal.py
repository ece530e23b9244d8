"""Progress bars with remaining time, tables, and quiet libraries, for the terminal."""

import logging
import os
import time
import warnings
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rich.box import SIMPLE_HEAD
from rich.cells import cell_len
from rich.console import Console
from rich.markup import escape
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    TextColumn,
    TimeElapsedColumn,
)
from rich.table import Table as RichTable

from grail.cli.signs import plain
from grail.progress import Tick
from grail.reporting.tables import Table

_WORD = 12  # columns that a text has room for at least, where its words are as long
_QUIET = {
    "TOKENIZERS_PARALLELISM": "false",
    "TRANSFORMERS_VERBOSITY": "error",
    "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    "TQDM_DISABLE": "1",
}

RECENT = 20
"""Ticks whose rate tells the time left: the first ones of a stage are often the slowest."""


class Terminal:
    """A listener that shows a bar per stage; plain lines where the console is not a terminal."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)

    @contextmanager
    def stage(self, name: str) -> Iterator[Tick]:
        """Show a bar with elapsed and remaining time; at the end a line with the duration."""
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
        text = f"[dim]kept[/] {escape(name)} (finished before, same inputs)"
        self.console.print(text, highlight=False)

    def warn(self, text: str) -> None:
        """Show a warning; a path in it is never broken over lines."""
        text = escape(plain(text))
        self.console.print(f"[yellow]warning:[/] {text}", highlight=False, soft_wrap=True)

    @contextmanager
    def _bar(self, name: str) -> Iterator[Tick]:
        name_and_bar = (TextColumn("{task.description}"), BarColumn(bar_width=24))
        times = (TimeElapsedColumn(), TextColumn("{task.fields[left]}"))
        note = TextColumn("[dim]{task.fields[note]}")
        columns = (*name_and_bar, MofNCompleteColumn(), *times, note)
        with Progress(*columns, console=self.console, transient=True) as progress:
            task = progress.add_task(escape(name), total=None, left="", note="")
            pace = Pace()

            def tick(done: int, total: int, note: str) -> None:
                left = pace.left(done, total)
                progress.update(task, completed=done, total=total, left=left, note=escape(note))

            yield tick

    def _plain(self, name: str) -> Tick:
        """Print one line a minute, so that a log file shows the progress."""
        last, pace = time.monotonic(), Pace()

        def tick(done: int, total: int, note: str) -> None:
            nonlocal last
            left = pace.left(done, total)
            if time.monotonic() - last < 60 or not done:
                return
            last = time.monotonic()
            line = ", ".join(text for text in (f"{name}: {done}/{total}", left, note) if text)
            self.console.print(line, highlight=False, markup=False)

        return tick


class Pace:
    """The time that a stage will still take, by the rate of its last ticks.

    What was done before the first tick (by a process that was killed, while a model was loaded)
    says nothing of the rate.
    """

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque(maxlen=RECENT)

    def left(self, done: int, total: int) -> str:
        """Return the time left as words; "" while no rate is known."""
        if self._seen and done < self._seen[-1][1]:
            self._seen.clear()  # another count has begun
        self._seen.append((time.monotonic(), done))
        (began, first), (now, _) = self._seen[0], self._seen[-1]
        if done == first:
            return ""
        return f"{duration((now - began) / (done - first) * (total - done))} left"


def duration(seconds: float) -> str:
    """Return seconds as "8 s" or "2 min 5 s"."""
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest} s" if minutes else f"{rest} s"


def render(table: Table, room: int) -> RichTable:
    """Return a table for a terminal of so many columns; texts are never markup.

    No cell is cut: a word that is too long goes on in the next line. Figures stay in one piece
    where that leaves room for the texts.
    """
    style: dict[str, Any] = {"title_justify": "left", "box": SIMPLE_HEAD, "pad_edge": False}
    shown = RichTable(title=escape(plain(table.title)), padding=(0, 1, 0, 0), **style)
    columns, least = list[tuple[str, int]](), len(table.columns) + 2  # a blank each, and the edges
    for number, heading in enumerate(map(plain, table.columns)):
        cells = [plain(row[number]) for row in table.rows]
        figures = number > 0 and not any(map(_is_text, cells))
        pieces = cells if figures else [word for cell in cells for word in cell.split()]
        longest = max(map(cell_len, (*pieces, *heading.split())), default=1)
        least += longest if figures else min(longest, _WORD)
        columns.append((heading, longest if figures else 0))
    for heading, width in columns:
        justify: Any = "right" if width else "left"
        fixed = width if width and least <= room else None
        shown.add_column(escape(heading), justify=justify, overflow="fold", width=fixed)
    for row in table.rows:
        shown.add_row(*(escape(plain(cell)) for cell in row))
    return shown


def _is_text(cell: str) -> bool:
    return sum(map(str.isalpha, cell)) > len(cell) / 2


def quiet() -> None:
    """Silence the progress bars and advice of other libraries."""
    for name, value in _QUIET.items():
        os.environ.setdefault(name, value)
    warnings.filterwarnings("ignore")
    logging.getLogger().setLevel(logging.ERROR)
    from transformers.utils import logging as transformers_logging

    transformers_logging.set_verbosity_error()
    transformers_logging.disable_progress_bar()
