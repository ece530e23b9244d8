"""The processes of a run watch each other: one that is gone is named, and not waited for."""

import os
import secrets
import signal
import socket
import struct
import sys
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from multiprocessing import AuthenticationError
from multiprocessing.connection import (
    Client,
    Connection,
    answer_challenge,
    deliver_challenge,
    wait,
)
from typing import Any

from accelerate.utils import broadcast_object_list

from grail.errors import DivergenceError, LostError

NEWS = 5.0
"""Seconds that a process which failed waits for news of the others."""
PATIENCE = 60.0
"""Seconds that a process has to fail by itself once another is gone: NCCL would wait for days."""

GREETING = 30
"""Seconds that a caller has for each of its three words; meanwhile it delays nobody."""
_POLL = 0.1
"""Seconds from the last process's call to hearing it, at most."""

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
        server = key = None
        if index == 0:
            key, server = secrets.token_bytes(32), socket.create_server(("", 0), backlog=count)
        port, key = broadcast_object_list([server and server.getsockname()[1], key])
        if server is None:
            self._call((os.environ["MASTER_ADDR"], port), key)
        threading.Thread(target=self._listen, args=(server, key), daemon=True).start()

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

    def _welcome(self, server: socket.socket, key: bytes) -> None:
        """Wait until all processes have called.

        Others may knock at an open port and say nothing: each caller is met in a thread of its own,
        so that nobody waits for another.
        """
        with server:
            while len(self.lines) < self.count - 1:
                if wait([server], _POLL):
                    with suppress(OSError):
                        caller, _ = server.accept()
                        threading.Thread(target=self._meet, args=(caller, key), daemon=True).start()

    def _meet(self, caller: socket.socket, key: bytes) -> None:
        """Take a caller who proves to know the key, and says its number, for a process."""
        option = (socket.SOL_SOCKET, socket.SO_RCVTIMEO)
        with caller:
            line = Connection(os.dup(caller.fileno()))
            try:
                caller.setsockopt(*option, struct.pack("ll", GREETING, 0))
                deliver_challenge(line, key)
                answer_challenge(line, key)
                number = int(line.recv_bytes())
                caller.setsockopt(*option, struct.pack("ll", 0, 0))  # then news may take days
            except _STRANGE:
                line.close()
            else:
                self.lines[line] = number

    def _listen(self, server: socket.socket | None, key: bytes) -> None:
        """Hear of the others until all have ended; leave if this process then hangs."""
        if server:
            self._welcome(server, key)
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
