"""A run in two processes without a launcher, one of which kills itself in Stage 3."""

from __future__ import annotations

import os
import signal
import socket

import forks

from grail.cli.main import main
from grail.training.loop import Loop


def start_both(words, victim, parts, folder):
    """Start ``grail WORDS`` in two processes; return their exit codes and what each has said."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    logs = [folder / f"log.{index}" for index in (0, 1)]
    started = [
        forks.start(_member, index, port, parts, victim, words, log=log)
        for index, log in enumerate(logs)
    ]
    codes = [forks.exit_code(process) for process in started]
    return codes, [log.read_text() for log in logs]


def _member(index, port, parts, victim, words):
    """Be one of two processes; the victim dies without a word ahead of Stage 3's fourth step."""
    os.environ |= {name: str(index) for name in ("RANK", "LOCAL_RANK")}
    os.environ |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE", "FSDP_VERSION"), "2")
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ |= {"ACCELERATE_USE_CPU": "true", "ACCELERATE_USE_FSDP": str(parts).lower()}
    real = Loop._step

    def step(self, rows, state, rate, files):
        if self.tracked and index == victim and state.step == 3:
            os.kill(os.getpid(), signal.SIGKILL)
        return real(self, rows, state, rate, files)

    Loop._step = step
    return main(words)
