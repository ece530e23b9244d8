"""Commands killed at random moments, again and again: each must end as if nothing had happened.

    python tests/scripts/soak.py --run 200 --compare 50 --audit 50

A command runs in a fork of this process, which has imported everything, in a process group of its
own; the group gets SIGKILL at a random moment, and the same command is started again until it ends.
Then every file must hold the bytes of an uninterrupted one (times apart), and nothing half-written
may be left. Beside kills: files that may not grow (a full disk), files of the run that vanish while
it works, and two commands in one folder. They may fail, with one message; the next must succeed.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any, NoReturn

sys.path.insert(0, str(Path(__file__).parents[1]))
import conftest
import forks
import tiny

from grail.cli.main import main as grail
from grail.comparison import processes
from grail.comparison.processes import _end_with_parent
from grail.files import PARTIAL, dump_yaml, parse_yaml

LEFT = re.compile(r"\.(partial|old|checkpoint)(/|$)")
TIMES = re.compile(
    rb'"(minutes|seconds)": ?\{[^}]*\}|'  # a mean over seeds
    rb'"(seconds|wall_seconds|minutes|peak_bytes|resumed|sha256|results)": ?[^,}\]\n]*|'
    rb"minutes[\s\S]*"  # of a table of costs, and all below it
)
SKIPPED = ("manifest.json", ".lock", "log", "comparison.html", "comparison.md", "comparison.tex")
SKIPPED += ("comparison.csv", "cell.json")
"""They hold times, or the digests of files that do."""
_NEEDED = (".lock", "config.yaml", "cell.yaml", "train.jsonl", "vanilla.train.jsonl")
"""Without the first three a folder is not taken for a run's, and nothing in it is touched. A log
that is gone, or what was written of one, stays gone: it is not made without the training."""


class Forked:
    """What ``subprocess.Popen`` would be of a child: a fork that runs grail."""

    def __init__(self, words: list[str], log: Path, before: Callable[[], None]) -> None:
        self.returncode: int | None = None
        sys.stdout.flush()
        self.pid = os.fork()
        if not self.pid:
            _become(words, log, before)
        with suppress(OSError):  # whoever comes first: it may be killed at once
            os.setpgid(self.pid, self.pid)

    def wait(self, timeout: float | None = None) -> int:
        latest = time.monotonic() + (600 if timeout is None else timeout)
        while self.returncode is None:
            pid, status = os.waitpid(self.pid, os.WNOHANG)
            if pid:
                self.returncode = os.waitstatus_to_exitcode(status)
            elif time.monotonic() > latest:
                raise subprocess.TimeoutExpired(str(self.pid), timeout or 0)
            else:
                time.sleep(0.002)
        return self.returncode


def _become(words: list[str], log: Path, before: Callable[[], None]) -> NoReturn:
    """Be a process that runs grail and writes to ``log``; never return."""
    code = 70
    try:
        os.setpgid(0, 0)
        out = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(out, stream)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        before()
        os.closerange(3, 1024)  # the parent's end of pipes, and its locks
        code = grail(words)
    except SystemExit as error:
        code = error.code if isinstance(error.code, int) else 1
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        sys.stdout.flush()
        os._exit(code)


def child_of_comparison(job: processes.Job, parallel: int, alive: int, *_: Any) -> Forked:
    """Stand in for ``processes.start``: the child needs not import torch anew."""
    job.log.parent.mkdir(parents=True, exist_ok=True)
    job.log.unlink(missing_ok=True)

    def before() -> None:
        import threading

        os.dup2(alive, 0)
        threading.Thread(target=_end_with_parent, daemon=True).start()

    return Forked(list(job.words), job.log, before)


class Soak:
    """One command: how it starts, what an uninterrupted one ends with, and how long it takes."""

    def __init__(self, folder: Path, prepare: Callable[[Path], list[str]], draw: random.Random):
        self.folder, self.prepare, self.draw = folder, prepare, draw
        self.log = folder / "log.txt"
        self.counts: Counter[str] = Counter()
        self.output = folder / "output"
        began = time.monotonic()
        self._finish(self._fresh())
        self.seconds = time.monotonic() - began
        self.expected = contents(self.output)

    def _fresh(self) -> list[str]:
        shutil.rmtree(self.output, ignore_errors=True)
        return self.prepare(self.output)

    def start(self, words: list[str], before: Callable[[], None] = lambda: None) -> Forked:
        return Forked(words, self.log, before)

    def _finish(self, words: list[str]) -> None:
        if code := self.start(words).wait():
            raise AssertionError(f"{words}: exit code {code}: {self.log.read_text()[-3000:]}")

    def check(self, words: list[str]) -> None:
        """Let the command end, and compare what it ends with."""
        self._finish(words)
        found = contents(self.output)
        names = found.keys() | self.expected.keys()
        other = sorted(name for name in names if found.get(name) != self.expected.get(name))
        left = sorted(
            name
            for path in self.output.rglob("*")
            if LEFT.search(name := path.relative_to(self.output).as_posix())
        )
        if other or left:
            kept = tempfile.mkdtemp(prefix="grail-soak-find-")
            shutil.copytree(self.output, kept, symlinks=True, dirs_exist_ok=True)
            raise AssertionError(f"differing: {other[:9]}, left: {left[:9]}; kept in {kept}")
        self.counts["ends, each the same"] += 1

    def kills(self, wanted: int) -> None:
        """Kill at random moments; a command that ends before its moment is compared at once."""
        words = self._fresh()
        while self.counts["kills"] < wanted:
            process = self.start(words)
            try:
                code = process.wait(self.draw.uniform(0, 1.1 * self.seconds))
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
                self.counts["kills"] += 1
                continue
            if code:
                raise AssertionError(f"exit code {code}: {self.log.read_text()[-3000:]}")
            self.check(words)
            words = self._fresh()
        self.check(words)

    def failure(self, name: str, before: Callable[[], None], meddle: Callable[[], None]) -> None:
        """Start under a limit, meddle, let it end: done or one message. The next one succeeds."""
        words = self._fresh()
        process = self.start(words, before)
        meddle()
        code, said = process.wait(), self.log.read_text(errors="replace")
        if code not in (0, 1, 2) or "Traceback" in said or (code and "grail: " not in said):
            raise AssertionError(f"{name}: exit code {code}: {said[-3000:]}")
        self.counts[f"{name}: {'done' if code == 0 else 'one message'}"] += 1
        self.check(words)

    def full_disk(self) -> None:
        """No file may grow over a limit, as on a disk that fills up."""
        most = int(2 ** self.draw.uniform(12, 17))  # the messages must fit into the log

        def limit() -> None:
            signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
            resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))

        self.failure("full disk", limit, lambda: None)

    def vanished(self) -> None:
        """A file of the run is deleted while the command works."""

        def remove() -> None:
            time.sleep(self.draw.uniform(0, self.seconds))
            inside = self.output / ("audit" if self.log.parent.name == "audit" else "")
            files = [f for f in inside.rglob("*") if f.is_file() and PARTIAL not in str(f)]
            files = [f for f in files if not f.name.startswith(_NEEDED)]
            if files:
                self.draw.choice(sorted(files)).unlink(missing_ok=True)

        self.failure("vanished file", lambda: None, remove)

    def two_at_once(self) -> None:
        """A second command in the same folder is refused, or finds the work done."""
        words = self._fresh()
        first, other = self.start(words), self.folder / "other.txt"
        time.sleep(self.draw.uniform(0, 0.8 * self.seconds))
        second = Forked(words, other, lambda: None)
        codes = (first.wait(), second.wait())
        said = other.read_text() + self.log.read_text()
        if "Traceback" in said or 0 not in codes or not set(codes) <= {0, 2}:
            raise AssertionError(f"two at once: exit codes {codes}: {said[-3000:]}")
        self.counts[f"two at once: {'one refused' if 2 in codes else 'both done'}"] += 1
        self.check(words)


def contents(folder: Path) -> dict[str, bytes]:
    """Return name -> bytes of all files, times left out."""
    files = [f for f in sorted(folder.rglob("*")) if f.is_file() and f.name not in SKIPPED]
    files = [f for f in files if f.suffix != ".log"]  # of children: what they kept of earlier ones
    own = ".cells/*/vanilla.train.jsonl"  # a cell has it if the model that it shares was deleted
    files = [f for f in files if not f.match(own)]
    return {f.relative_to(folder).as_posix(): TIMES.sub(b"", f.read_bytes()) for f in files}


class World:
    """A tiny model with rows, and how each command is prepared in an output folder."""

    def __init__(self, folder: Path) -> None:
        model, tokenizer = folder / "model", tiny.tiny_tokenizer()
        tiny.tiny_model(lora=False, tied=False, vocabulary=len(tokenizer)).save_pretrained(model)
        tokenizer.save_pretrained(model)
        audit = {"relearn": {"steps": [1, 2], "batch_size": 2}, "max_rows": 4}
        make = conftest._tiny_config(folder, model)
        shown = conftest.SMALL["evaluation"] | {"show_text": True, "every": 2}
        self.config = make(domains=("a",), rows=4, evaluation=shown, audit=audit)
        self.folder, self.finished = folder, folder / "finished"
        raw: dict[str, Any] = parse_yaml(self.config.read_text())
        del raw["output"]
        raw["teach"] |= {"epochs": 1}
        raw["evaluation"] = {"generate": False}
        methods = {"one": {}, "two": {"preset": "ascent"}}
        content = {"base": raw, "methods": methods, "figures": [], "output": "-"}
        self.comparison = folder / "comparison.yaml"
        self.comparison.write_text(dump_yaml(content))

    def run(self, output: Path) -> list[str]:
        return ["run", str(self.config), "--output", str(output)]

    def compare(self, output: Path) -> list[str]:
        return ["compare", str(self.comparison), "--output", str(output)]

    def audit(self, output: Path) -> list[str]:
        """Prepare a copy of one finished run, the same every time, in its place."""
        if not self.finished.exists():
            words = self.run(output)
            if Forked(words, self.folder / "made.txt", lambda: None).wait():
                raise AssertionError((self.folder / "made.txt").read_text())
            shutil.copytree(output, self.finished)
        shutil.copytree(self.finished, output, dirs_exist_ok=True)
        return ["audit", str(output)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    for name, count in (("run", 200), ("compare", 50), ("audit", 50), ("failures", 20)):
        parser.add_argument(f"--{name}", type=int, default=count, metavar="N")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))  # with its counts
    for name in [*forks.PRELOADED, "grail.audit.audit", "grail.comparison.compare"]:
        __import__(name)
    processes.start = child_of_comparison  # type: ignore[assignment]
    memory = Path("/dev/shm") if Path("/dev/shm").is_dir() else None
    folder = Path(tempfile.mkdtemp(prefix="grail-soak-", dir=memory))
    world, draw = World(folder), random.Random(options.seed)
    try:
        for name in ("run", "compare", "audit"):
            if not (wanted := getattr(options, name)):
                continue
            (folder / name).mkdir()
            began, soak = time.monotonic(), Soak(folder / name, getattr(world, name), draw)
            try:
                soak.kills(wanted)
                for _ in range(options.failures if name == "run" else options.failures // 4):
                    soak.full_disk()
                    soak.vanished()
                    soak.two_at_once()
            finally:
                took = time.monotonic() - began
                sys.stdout.write(f"{name}: {json.dumps(soak.counts)}, {took:.0f} s\n")
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
