"""Commands in processes that start at once: forks of a process that has imported grail.

A fresh interpreter takes six seconds to import torch, transformers and PEFT, and the tests start
fifty processes. This is the fork server of Python's ``multiprocessing``.
"""

from __future__ import annotations

import gc
import multiprocessing
import os
import socket
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


def both(main, *arguments, folder):
    """Call ``main(*arguments)`` in two processes that know of each other, without a GPU.

    Returns their exit codes, and what each has said.
    """
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    logs = [folder / f"log.{rank}" for rank in (0, 1)]
    started = [
        start(_member, rank, port, main, *arguments, log=log) for rank, log in enumerate(logs)
    ]
    codes = [exit_code(process) for process in started]
    return codes, [log.read_text() for log in logs]


def _member(rank, port, main, *arguments):
    """Be one of the two processes: what torchrun says in variables."""
    os.environ |= dict.fromkeys(("RANK", "LOCAL_RANK"), str(rank))
    os.environ |= dict.fromkeys(("WORLD_SIZE", "LOCAL_WORLD_SIZE"), "2")
    os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port)}
    os.environ["ACCELERATE_USE_CPU"] = "true"
    return main(*arguments)


def torchrun(script, folder):
    """Run ``script FOLDER`` in two processes of the launcher, which import everything anew."""
    # Not `accelerate launch --cpu`: without MPI it starts one, whatever --num_processes is.
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node=2"]
    environment = os.environ | {"ACCELERATE_USE_CPU": "true"}
    subprocess.run([*command, script, str(folder)], env=environment, check=True)


def _logged(log, environment, main, *arguments):
    """Send what this process writes to a file, and exit with the number that ``main`` returns."""
    gc.freeze()  # or looking for garbage would touch, and so copy, all that was imported
    os.environ |= environment
    tempfile.tempdir = None
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(descriptor, stream)
    sys.exit(main(*arguments))
