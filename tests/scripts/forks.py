"""Commands in processes that start at once: forks of a process that has imported grail.

A fresh interpreter takes six seconds to import torch, transformers and PEFT, and the tests start
fifty processes. This is the fork server of Python's ``multiprocessing``.
"""

from __future__ import annotations

import multiprocessing
import os
import subprocess
import sys
import tempfile
from multiprocessing import forkserver

SECONDS = 240
"""A process that takes longer hangs, and is killed."""

PRELOADED = ["grail.run.pipeline", "peft", "rouge_score.rouge_scorer"]
PRELOADED += [f"transformers.models.auto.{name}" for name in ("modeling_auto", "tokenization_auto")]
PRELOADED += ["transformers.models.llama.modeling_llama"]

_CONTEXT = multiprocessing.get_context("forkserver")
_CONTEXT.set_forkserver_preload(PRELOADED)


def serve():
    """Start the process that forks, unless it runs; its own environment is that of now."""
    forkserver.ensure_running()


def start(main, *arguments, log):
    """Start ``main(*arguments)``, a function of a module, in a process that writes to ``log``.

    The process has other hashes of text than this one, and with them another order of sets. Its
    environment is that of now, also for where temporary files go.
    """
    process = _CONTEXT.Process(target=_logged, args=(log, dict(os.environ), main, *arguments))
    process.start()
    return process


def exit_code(process):
    """Wait for a process and return its exit code; negative: the signal that ended it."""
    process.join(SECONDS)
    process.kill()  # nothing happens to one that has ended
    process.join()
    return process.exitcode


def run(main, *arguments, log):
    """Call ``main(*arguments)`` in a process that writes to ``log``; return its exit code."""
    return exit_code(start(main, *arguments, log=log))


def torchrun(script, folder):
    """Run ``script FOLDER`` in two processes that know of each other, without a GPU."""
    # Not `accelerate launch --cpu`: without MPI it starts one, whatever --num_processes is.
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true"}
    subprocess.run([*command, script, str(folder)], env=environment, check=True)


def _logged(log, environment, main, *arguments):
    """Send what this process writes to a file, and exit with the number that ``main`` returns."""
    os.environ |= environment
    tempfile.tempdir = None
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.exit(main(*arguments))
