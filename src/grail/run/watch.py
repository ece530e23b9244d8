"""The processes of a run watch each other: one that is gone is named, and not waited for."""

import os
import secrets
import signal
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import Client, Connection, Listener, wait
from typing import Any

from accelerate.utils import broadcast_object_list

from grail.errors import DivergenceError, LostError

NEWS = 5.0
"""Seconds that a process which failed waits for news of the others."""
PATIENCE = 60.0
"""Seconds that a process has to fail by itself once another is gone: NCCL would wait for days."""

_STRANGE = (OSError, EOFError, AuthenticationError, ValueError)
"""How a handshake fails with whoever is no process of the run."""

GONE = (
    "process {} of {} is gone: killed, out of memory, or its machine is. Start the same command "
    "again: it goes on from the last finished stage or saved step."
)
ENDED = "process {} of {} has ended with an error, which it has told: mend that, and start again."


@contextmanager
def watched(index: int, count: int) -> Iterator[None]:
    """End the block where another process is gone, of ``count``; alone, nothing is done.

    Raises:
        LostError: naming who is gone, in place of the errors that this causes here.
    """
    if count == 1:
        yield
        return
    watch = _Watch(index, count)
    try:
        yield
    except DivergenceError:
        raise
    except (RuntimeError, KeyboardInterrupt) as error:  # a collective fails in many ways
        failed, before = isinstance(error, RuntimeError), _ignore_sigterm()
        watch.news.wait(NEWS if failed else NEWS / 10)
        if watch.gone or (watch.ended and failed):
            raise LostError(watch.told()) from error
        if before is not None:
            signal.signal(signal.SIGTERM, before)
        raise
    finally:
        watch.end()


def _ignore_sigterm() -> Any:
    """Let no SIGTERM come before the message: a launcher sends it to all when one is gone."""
    if threading.current_thread() is threading.main_thread():
        return signal.signal(signal.SIGTERM, signal.SIG_IGN)
    return None


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
        self.lines: dict[Connection, int] = {}
        listener = key = None
        if index == 0:
            key = secrets.token_bytes(32)
            listener = Listener(("", 0), backlog=count, authkey=key)
        port, key = broadcast_object_list([listener and listener.address[1], key])
        if listener is None:
            self._call((os.environ["MASTER_ADDR"], port), key)
        threading.Thread(target=self._listen, args=(listener,), daemon=True).start()

    def _call(self, place: tuple[str, int], key: bytes) -> None:
        """Connect with the first process, and tell it this one's number."""
        try:
            line = Client(place, authkey=key)
            line.send_bytes(str(self.index).encode())
            self.lines = {line: 0}
        except _STRANGE as error:
            warnings.warn(
                f"process {self.index} cannot reach process 0 at {place[0]}:{place[1]} ({error}): "
                "where one is killed, it depends on the launcher whether the others end.",
                stacklevel=2,
            )

    def told(self) -> str:
        """Return who is gone, or has ended, in a sentence."""
        numbers = ", ".join(map(str, sorted(self.gone or self.ended)))
        return (GONE if self.gone else ENDED).format(numbers, self.count)

    def end(self) -> None:
        """Tell the others that this process ends by itself, or who made it end."""
        self.over.set()
        for number in sorted(self.gone):
            self._tell(number, "gone")
        self._tell(self.index, "ended")

    def _listen(self, listener: Listener | None) -> None:
        """Hear of the others until all have ended; leave if this process then hangs."""
        if listener:
            with listener:
                while len(self.lines) < self.count - 1:
                    with suppress(*_STRANGE):  # others may knock at an open port
                        line = listener.accept()
                        self.lines[line] = int(line.recv_bytes())
        left = dict(self.lines)
        while left and not self.gone:
            for line in wait(list(left)):
                assert isinstance(line, Connection)
                try:
                    number, _, what = line.recv_bytes().decode().partition(" ")
                except (EOFError, OSError):
                    number, what = str(left[line]), "gone"
                (self.gone if what == "gone" else self.ended).add(int(number))
                self.news.set()
                if int(number) == left[line]:
                    del left[line]
        if self.gone and not self.over.wait(PATIENCE):
            sys.stderr.write(f"grail: stopped: {self.told()}\n")
            sys.stderr.flush()
            self._tell(min(self.gone), "gone")
            os._exit(1)

    def _tell(self, number: int, what: str) -> None:
        for line in list(self.lines):
            with suppress(OSError):
                line.send_bytes(f"{number} {what}".encode())
