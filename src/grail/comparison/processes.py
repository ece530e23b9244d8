"""Child processes side by side: started, waited for, measured, stopped; knows nothing of cells.

One thread does all: on Linux a child that is bound to its parent is bound to the thread that
started it.
"""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

POLL = 0.1
"""Seconds between two looks at the children: nothing beside a run's minutes."""

RSS_UNIT = 1 if sys.platform == "darwin" else 1024
"""Bytes in which the system counts ``ru_maxrss``."""

TAIL, MESSAGE = 5, "grail: "


@dataclass(frozen=True)
class Job:
    """One command: the words behind ``grail``, and the file that takes all it says."""

    words: tuple[str, ...]
    log: Path


@dataclass(frozen=True)
class ProcessResult:
    """How a child ended.

    Attributes:
        code: Its exit code; negative: the signal that ended it.
        seconds: Wall time.
        peak_bytes: Largest resident memory. Never less than what this process held when it started
            the child: Linux counts that in.
    """

    code: int
    seconds: float
    peak_bytes: int


@dataclass
class _Child:
    number: int
    process: subprocess.Popen[bytes]
    began: float = field(default_factory=time.monotonic)


def run_all(
    jobs: Sequence[Callable[[], Job]],
    parallel: int,
    ended: Callable[[int, ProcessResult], None],
) -> None:
    """Run all jobs, at most ``parallel`` at a time, in order; hand each outcome to ``ended``.

    Args:
        jobs: Called when their turn comes: each makes its folder ready and says what to run.
        parallel: How many run side by side; each gets its share of the cores as threads.
        ended: Called with the place in ``jobs`` and the outcome. Whatever it raises, and Ctrl-C,
            stops all children.
    """
    waiting = list(enumerate(jobs))[::-1]
    running: list[_Child] = []
    try:
        while waiting or running:
            while waiting and len(running) < parallel:
                number, make = waiting.pop()
                running.append(_Child(number, start(make(), parallel)))
            for child in list(running):
                outcome = _ended(child)
                if outcome is not None:
                    running.remove(child)
                    ended(child.number, outcome)
            if running:
                time.sleep(POLL)
    finally:
        for child in running:
            stop(child.process)


def run(job: Job) -> ProcessResult:
    """Run one job with all cores."""
    found: list[ProcessResult] = []
    run_all([lambda: job], 1, lambda _, outcome: found.append(outcome))
    return found[0]


def start(job: Job, parallel: int) -> subprocess.Popen[bytes]:
    """Start a child in a process group of its own, bound to this process where possible."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, "-m", "grail.comparison.child", str(os.getpid()), *job.words]
    environment = os.environ | {"OMP_NUM_THREADS": str(threads(parallel))}
    job.log.unlink(missing_ok=True)  # it may be linked from elsewhere
    with job.log.open("wb") as log:
        return subprocess.Popen(
            command,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=subprocess.STDOUT,
            start_new_session=True,  # Ctrl-C reaches the parent alone, which then stops them all
        )


def stop(process: subprocess.Popen[bytes]) -> None:
    """End a child with all of its own; a run goes on from its last checkpoint."""
    with suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()


def threads(parallel: int) -> int:
    """Return a child's share of the cores, or fewer if OMP_NUM_THREADS says so."""
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    share = max(1, (usable or 1) // parallel)
    asked = os.environ.get("OMP_NUM_THREADS", "")
    return min(share, int(asked)) if asked.isdigit() and int(asked) else share


def _ended(child: _Child) -> ProcessResult | None:
    """Return how a child ended; None if it has not."""
    pid, status, usage = os.wait4(child.process.pid, os.WNOHANG)
    if not pid:
        return None
    code = os.waitstatus_to_exitcode(status)
    child.process.returncode = code  # already waited for: subprocess must not do it again
    return ProcessResult(code, time.monotonic() - child.began, usage.ru_maxrss * RSS_UNIT)


def tail(log: Path, count: int = TAIL) -> str:
    """Return the message that a log ends with, or its last lines if there is none."""
    try:
        text = log.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
    lines = [line for line in text.splitlines() if line.strip()][-count:]
    told = [line for line in lines if line.startswith(MESSAGE)]
    return "\n".join(told or lines)
