"""The processes of a run watch each other: one that is gone is named, and not waited for."""

from __future__ import annotations

import os
import secrets
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from multiprocessing.connection import Client, Connection, Listener, wait

from accelerate.utils import broadcast_object_list

from grail.errors import LostError

NEWS = 5.0
"""Seconds that a process which failed waits for news of the others."""
PATIENCE = 60.0
"""Seconds that a process has to fail by itself once another is gone: NCCL would wait for days."""

GONE = (
    "process {} of {} is gone: killed, out of memory, or its machine is. Start the same command "
    "again: it goes on from the last finished stage or saved step."
)
ENDED = "process {} of {} has ended with an error, which it has told: mend that, and start again."


@contextmanager
def watched(index: int, count: int) -> Iterator[None]:
    """End the block where another process is gone.

    Args:
        index: This process's number.
        count: How many there are; alone, nothing is done.

    Raises:
        LostError: naming who is gone, in place of the errors that this causes here.
    """
    if count == 1:
        yield
        return
    watch = _Watch(index, count)
    try:
        yield
    except (RuntimeError, KeyboardInterrupt) as error:  # a collective fails in many ways
        with _undisturbed():
            watch.news.wait(NEWS)
        if watch.gone or (watch.ended and isinstance(error, RuntimeError)):
            raise LostError(watch.told()) from error
        raise
    finally:
        watch.end()


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Let no SIGTERM end the block: a launcher sends it to all when one is gone."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGTERM, before)


class _Watch:
    """A connection of each process to the first, which the system closes when a process dies.

    Attributes:
        gone: Whose connection was closed before they said that they end.
        ended: Who has said so.
        news: Set when there is one of them.
    """

    def __init__(self, index: int, count: int) -> None:
        self.index, self.count, self.over = index, count, threading.Event()
        self.gone, self.ended, self.news = set[int](), set[int](), threading.Event()
        host, key = os.environ["MASTER_ADDR"], secrets.token_bytes(32)
        listener = Listener((host, 0), backlog=count, authkey=key) if index == 0 else None
        place = [(listener.address[1], key) if listener else None]
        (port, key), *_ = broadcast_object_list(place)
        if listener:
            # each says its number first
            lines = [listener.accept() for _ in range(count - 1)]
            self.lines = {line: line.recv() for line in lines}
            listener.close()
        else:
            line = Client((host, port), authkey=key)
            line.send(index)
            self.lines = {line: 0}
        threading.Thread(target=self._listen, daemon=True).start()

    def told(self) -> str:
        """Return who is gone, or has ended, in a sentence."""
        numbers = ", ".join(map(str, sorted(self.gone or self.ended)))
        return (GONE if self.gone else ENDED).format(numbers, self.count)

    def end(self) -> None:
        """Tell the others that this process ends by itself, or who made it end."""
        self.over.set()
        for number in sorted(self.gone):
            self._tell(list(self.lines), ("gone", number))
        self._tell(list(self.lines), ("ended", self.index))

    def _listen(self) -> None:
        """Hear of the others until all have ended; leave if this process then hangs."""
        left = dict(self.lines)
        while left and not self.gone:
            for line in wait(list(left)):
                assert isinstance(line, Connection)
                try:
                    what, number = line.recv()
                except (EOFError, OSError):
                    what, number = "gone", left[line]
                getattr(self, what).add(number)
                self.news.set()
                if number == left[line]:
                    del left[line]
        if self.gone and not self.over.wait(PATIENCE):
            sys.stderr.write(f"grail: stopped: {self.told()}\n")
            sys.stderr.flush()
            self._tell(list(left), ("gone", min(self.gone)))
            os._exit(1)

    def _tell(self, lines: Sequence[Connection], what: tuple[str, int]) -> None:
        for line in lines:
            with suppress(OSError):
                line.send(what)
