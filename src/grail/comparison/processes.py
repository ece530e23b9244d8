"""Run commands of grail as child processes, several at a time; knows nothing of cells.

Also what such a child runs: grail, until it is done or its parent is gone.
"""

import os
import runpy
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Generator, Iterable
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

POLL = 0.1
"""Seconds between two looks at the children."""

GRACE = 10.0
"""Seconds that a child has to end after SIGTERM."""

RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes per unit of ``ru_maxrss``."""

BOOT = (
    "import sys; sys.path = [sys.argv.pop(1), *filter(None, sys.path)]; import grail; "
    "del sys.path[0]; from grail.comparison.processes import run_child; run_child()"
)
"""A child's first line. It imports this same grail, and takes the current folder off the import
path: a file there may be named like a library."""


@dataclass(frozen=True)
class Job:
    """One command: the words after ``grail``, and the file that takes its output."""

    words: tuple[str, ...]
    log: Path


@dataclass(frozen=True)
class ProcessResult:
    """How a child ended.

    Attributes:
        code: Its exit code; negative: the signal that ended it.
        seconds: Wall time.
        peak_bytes: Largest resident memory. Linux counts what the parent held when it started the
            child, so it is never less than that.
    """

    code: int
    seconds: float
    peak_bytes: int


def run_all(jobs: Iterable[Job], parallel: int) -> Generator[tuple[Job, ProcessResult], None, None]:
    """Run all jobs, at most ``parallel`` at a time; yield each with its result when it ends.

    A job is taken from ``jobs`` when its turn comes. Each has a GPU to itself as long as there are
    as many, and otherwise shares the one that is used least. Closing the generator, or an exception
    such as Ctrl-C, stops the children that still run.
    """
    waiting = iter(jobs)
    running: dict[Job, tuple[subprocess.Popen[bytes], float]] = {}
    gpus, taken = devices(), dict[Job, str]()
    alive, held = os.pipe()  # nothing is written: a child reads its end when this process dies
    try:
        while True:
            while len(running) < parallel and (job := next(waiting, None)):
                in_use = [taken[other] for other in running if other in taken]
                if gpus:
                    taken[job] = min(gpus, key=in_use.count)  # the first of those used least
                process = start(job, parallel, alive, taken.get(job))
                running[job] = process, time.monotonic()
            if not running:
                return
            for job, (process, began) in list(running.items()):
                pid, status, usage = os.wait4(process.pid, os.WNOHANG)
                if pid:
                    del running[job]
                    code = process.returncode = os.waitstatus_to_exitcode(status)
                    seconds = time.monotonic() - began
                    yield job, ProcessResult(code, seconds, usage.ru_maxrss * RSS_UNIT)
            time.sleep(POLL)
    finally:
        stop([process for process, _ in running.values()])
        os.close(held)
        os.close(alive)


def devices() -> list[str]:
    """Return the GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    given = os.environ.get("CUDA_VISIBLE_DEVICES")
    if given is not None:
        return [name.strip() for name in given.split(",") if name.strip()]
    import torch

    return [str(number) for number in range(torch.cuda.device_count())]


def start(
    job: Job, parallel: int, alive: int, device: str | None = None
) -> subprocess.Popen[bytes]:
    """Start a child in its own process group; ``alive`` becomes its standard input.

    It sees the GPU ``device`` alone; None: all that this process sees.
    """
    job.log.parent.mkdir(parents=True, exist_ok=True)
    source = str(Path(__file__).parents[2])
    job.log.unlink(missing_ok=True)  # it may be a hard link: never written into
    with job.log.open("wb") as log:
        return subprocess.Popen(
            [sys.executable, "-c", BOOT, source, *job.words],
            env=os.environ
            | {"OMP_NUM_THREADS": str(threads(parallel))}
            | ({} if device is None else {"CUDA_VISIBLE_DEVICES": device}),
            stdin=alive,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then stops them all
        )


def stop(processes: Iterable[subprocess.Popen[bytes]]) -> None:
    """End children and their own children: SIGTERM, and SIGKILL after ``GRACE`` seconds."""
    for process in processes:
        _signal(process, signal.SIGTERM)
    latest = time.monotonic() + GRACE
    for process in processes:
        with suppress(subprocess.TimeoutExpired):
            process.wait(max(0.0, latest - time.monotonic()))
        _signal(process, signal.SIGKILL)
        process.wait()


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, number)


def threads(parallel: int) -> int:
    """Return a child's share of the cores, or fewer if OMP_NUM_THREADS says so."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    share = max(1, (usable or 1) // parallel)
    limit = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(limit)) if limit.isdigit() and int(limit) else share


def tail(log: Path) -> str:
    """Return the messages of grail in the last five lines of a log, or else those lines."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    lines = [line for line in text.splitlines() if line.strip()][-5:]
    return "\n".join([line for line in lines if line.startswith("grail: ")] or lines)


def run_child() -> None:
    """Run ``grail`` with the words in ``sys.argv``; end this process group with its parent.

    The parent holds the other end of standard input, which the system closes when the parent dies,
    however it dies.
    """
    threading.Thread(target=_end_with_parent, daemon=True).start()
    runpy.run_module("grail", run_name="__main__")


def _end_with_parent() -> None:
    os.read(0, 1)
    os.killpg(0, signal.SIGKILL)
