"""Imports grail once and forks a child for whatever it is told to run (``forks.py``).

A fresh interpreter takes seconds to import torch and transformers; a fork of this one is as clean.
"""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import signal
import sys
import time
import traceback


def imported(path):
    """Import a file as a module of its own."""
    name = os.path.splitext(os.path.basename(path))[0]
    spec = importlib.util.spec_from_file_location(name, path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where dataclasses and forks of its functions look it up
    spec.loader.exec_module(module)
    return module


def _warm():
    import grail.cli.terminal
    import grail.run.pipeline

    grail.cli.terminal.quiet()  # its imports are shared, too
    for module in ("peft", "rouge_score.rouge_scorer"):
        importlib.import_module(module)  # what a run imports where it needs it, and then once each
    for module in ("AutoModelForCausalLM", "AutoTokenizer", "GenerationConfig", "LlamaForCausalLM"):
        getattr(importlib.import_module("transformers"), module)


def _child(order):
    """Be the process that was asked for; never returns."""
    log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
    for stream in (1, 2):
        os.dup2(log, stream)
    code = 70
    try:
        os.environ.update(order["environment"])
        main = imported(order["script"]).main
        code = main(*order["arguments"]) or 0
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)


def _waited(pid, seconds):
    """Return the exit code of a child; it is aborted where it takes longer than that."""
    latest = time.monotonic() + seconds
    while True:
        ended, status = os.waitpid(pid, os.WNOHANG)
        if ended:
            return os.waitstatus_to_exitcode(status)
        if time.monotonic() > latest:
            os.kill(pid, signal.SIGABRT)
            latest = float("inf")
        time.sleep(0.005)


def serve():
    """Answer orders, one a line: start a child (its pid), or wait for one (its exit code)."""
    _warm()
    for line in sys.stdin:
        order = json.loads(line)
        if "wait" in order:
            answer = _waited(order["wait"], order["seconds"])
        else:
            answer = os.fork() or _child(order)
        sys.stdout.write(f"{answer}\n")
        sys.stdout.flush()


if __name__ == "__main__":
    serve()
