"""A run in two processes without a launcher, one of which ends in Stage 3."""

from __future__ import annotations

import os
import signal
import time

import forks

from grail.cli.main import main
from grail.errors import InputError
from grail.run import watch
from grail.training.loop import Loop


def start_both(words, victim, parts, folder, how="killed"):
    """Start ``grail WORDS`` in two processes; return their exit codes and what each has said.

    Ahead of Stage 3's fourth step the victim dies without a word, or with a word ("error"). The
    other waits for it as long as it takes with "hanging".
    """
    return forks.both(_member, parts, (victim, how), words, folder=folder)


def _member(parts, fate, words):
    """Be one of the two processes."""
    index = int(os.environ["RANK"])
    os.environ |= {"FSDP_VERSION": "2", "ACCELERATE_USE_FSDP": str(parts).lower()}
    real, (victim, how) = Loop._step, fate
    watch.PATIENCE = 0.1 if how == "hanging" else watch.PATIENCE

    def step(self, rows, state, rate, files):
        if self.tracked and state.step == 3:
            if index == victim and how == "error":
                raise InputError("an own error")
            if index == victim:
                os.kill(os.getpid(), signal.SIGKILL)
            elif how == "hanging":
                time.sleep(forks.SECONDS)
        return real(self, rows, state, rate, files)

    Loop._step = step
    return main(words)
