"""A process of its own that gets one way ready and runs it when told."""

from __future__ import annotations

import contextlib
import io
import multiprocessing
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

import torch

from grail.cli.allocator import keep_freed
from grail.cli.terminal import quiet
from races.clock import Way, timed
from races.memory import extra_gib

PRELOADED = ["torch", "peft", "accelerate", "transformers.trainer"]
PRELOADED += ["transformers.models.llama.modeling_llama"]  # what every child would import anew


@dataclass(frozen=True)
class Run:
    """One run of a way: seconds, GiB beyond the start (None: not measured), and what it gave."""

    seconds: float
    extra_gib: float | None
    gave: Any


class Worker:
    """A child process with a model of its own, ready once the constructor returns.

    Args:
        make: Called in the child; returns the way, warmed up. Importable, as is all it is given.
        given: Its arguments.
        threads: Threads of the child.
        device: Where memory is measured.
    """

    def __init__(
        self, make: Callable[..., Way], *given: Any, threads: int = 0, device: str = "cpu"
    ) -> None:
        context = multiprocessing.get_context("forkserver")
        context.set_forkserver_preload(PRELOADED)
        self.pipe, theirs = context.Pipe()
        count = threads or torch.get_num_threads()
        self.process = context.Process(target=_serve, args=(theirs, make, given, count, device))
        self.process.start()
        theirs.close()
        self._answer()

    def begin(self) -> None:
        """Let the child run its way."""
        self.pipe.send(True)

    def end(self) -> Run:
        """Wait for the child and return what it measured."""
        return self._answer()

    def close(self) -> None:
        """Let the child end."""
        self.pipe.send(False)
        self.process.join()

    def _answer(self) -> Any:
        try:
            answer = self.pipe.recv()
        except EOFError:
            self.process.join()
            raise RuntimeError(f"a process ended with {self.process.exitcode}") from None
        if isinstance(answer, str):
            self.process.join()
            raise RuntimeError(answer)
        return answer


def alone(make: Callable[..., Way], *given: Any, device: str = "cpu") -> Run:
    """Run a way once in a fresh process."""
    worker = Worker(make, *given, device=device)
    worker.begin()
    found = worker.end()
    worker.close()
    return found


def start_to_finish(work: Callable[..., object], *given: Any, fresh: bool) -> float:
    """Return the seconds of a whole process that does ``work`` and ends.

    ``fresh``: with an interpreter of its own, whose imports count too.
    """
    context: Any = multiprocessing.get_context("spawn" if fresh else "forkserver")

    def way() -> None:
        process = context.Process(target=_work, args=(work, given, torch.get_num_threads()))
        process.start()
        process.join()
        if process.exitcode:
            raise RuntimeError(f"{work.__name__} ended with {process.exitcode}")

    return timed(way)


def _work(work: Callable[..., object], given: tuple[Any, ...], threads: int) -> None:
    quiet()
    keep_freed()  # both sides; not where memory is measured: there what was freed must not count
    torch.set_num_threads(threads)
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            work(*given)
    except BaseException:
        sys.stderr.write(said.getvalue())
        raise


def _serve(
    pipe: Connection, make: Callable[..., Way], given: tuple[Any, ...], threads: int, device: str
) -> None:
    quiet()
    torch.set_num_threads(threads)
    try:
        way = make(*given)
        pipe.send(True)
        while pipe.recv():
            pipe.send(_measured(way, device))
    except Exception:
        pipe.send(traceback.format_exc())


def _measured(way: Way, device: str) -> Run:
    kept: list[Any] = []
    extra = extra_gib(lambda: kept.append(timed(lambda: kept.append(way()))), device)
    gave, seconds = kept
    return Run(seconds, extra, gave)
