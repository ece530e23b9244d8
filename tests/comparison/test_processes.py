"""Child processes: order, how many at a time, outcomes, and that none outlives the parent."""

import os
import signal
import subprocess
import sys

import pytest

from grail.comparison import processes as runner
from grail.comparison.processes import Job, run_all, start, stop, tail, threads

pytestmark = pytest.mark.skipif(not hasattr(os, "wait4"), reason="needs wait4")


@pytest.fixture
def commands(monkeypatch):
    """Let a job's words be Python text: processes that need no grail."""
    real = subprocess.Popen

    def popen(command, **more):
        return real([sys.executable, "-c", *command[4:]], **more)

    monkeypatch.setattr(runner.subprocess, "Popen", popen)
    monkeypatch.setattr(runner, "POLL", 0.01)


def jobs(tmp_path, *texts):
    return [lambda i=i, t=t: Job((t,), tmp_path / str(i)) for i, t in enumerate(texts)]


def test_outcomes_and_logs(commands, tmp_path):
    found = {}
    texts = ("print('hello')", "import sys; sys.exit('no')", "import os; os.kill(os.getpid(), 9)")
    run_all(jobs(tmp_path, *texts), 2, found.__setitem__)
    assert {number: outcome.code for number, outcome in found.items()} == {0: 0, 1: 1, 2: -9}
    assert (tmp_path / "0").read_text() == "hello\n"
    assert (tmp_path / "1").read_text() == "no\n"  # both streams
    assert all(outcome.seconds > 0 for outcome in found.values())


def test_a_log_that_is_linked_elsewhere_is_not_written_into(commands, tmp_path):
    (tmp_path / "adopted").write_text("of another cell\n")
    os.link(tmp_path / "adopted", tmp_path / "0")
    run_all(jobs(tmp_path, "print('mine')"), 1, lambda *_: None)
    assert (tmp_path / "0").read_text() == "mine\n"
    assert (tmp_path / "adopted").read_text() == "of another cell\n"


def test_peak_memory_is_what_the_system_says_of_the_child(commands, tmp_path, monkeypatch):
    real, found, said = os.wait4, {}, []

    def wait4(*given):
        said.append(real(*given))
        return said[-1]

    monkeypatch.setattr(runner.os, "wait4", wait4)
    run_all(jobs(tmp_path, "pass"), 1, found.__setitem__)
    assert found[0].peak_bytes == said[-1][2].ru_maxrss * runner.RSS_UNIT
    child = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    run_all(jobs(tmp_path, f"x = b'1' * (1 << 26); {child}"), 1, found.__setitem__)
    told = int((tmp_path / "0").read_text()) * runner.RSS_UNIT
    assert 1 << 26 < told <= found[0].peak_bytes < told + (1 << 24)


def test_never_more_than_asked_for_and_in_order(commands, tmp_path):
    running, most, order = set(), [], []

    def job(number):
        def make():
            running.add(number)
            order.append(number)
            most.append(len(running))
            return Job(("pass",), tmp_path / str(number))

        return make

    run_all([job(n) for n in range(5)], 2, lambda number, _: running.discard(number))
    assert (max(most), order) == (2, [0, 1, 2, 3, 4])


def test_an_exception_stops_all_children(commands, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(
        runner, "start", lambda *a, real=start: started.append(real(*a)) or started[-1]
    )

    def interrupted(number, outcome):
        raise KeyboardInterrupt

    texts = ("pass", "import time; time.sleep(600)")
    with pytest.raises(KeyboardInterrupt):
        run_all(jobs(tmp_path, *texts), 2, interrupted)
    assert started[1].returncode == -signal.SIGKILL


def test_a_stopped_child_takes_its_own_children_along(commands, tmp_path):
    text = (
        "import subprocess, sys; p = subprocess.Popen([sys.executable, '-c', "
        "'import time; time.sleep(600)']); print(p.pid, flush=True); p.wait()"
    )
    process = start(Job((text,), tmp_path / "log"), 1)
    while not (tmp_path / "log").read_text().strip():
        pass
    stop(process)
    inner = int((tmp_path / "log").read_text())
    while _alive(inner):  # the kernel takes a moment
        pass


def _alive(pid):
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


@pytest.mark.parametrize(
    ("asked", "parallel", "count"), [("", 1, 8), ("", 3, 2), ("", 9, 1), ("4", 1, 4), ("9", 1, 8)]
)
def test_threads(asked, parallel, count, monkeypatch):
    monkeypatch.setattr(runner.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert threads(parallel) == count


def test_tail_prefers_the_message(tmp_path):
    log = tmp_path / "log"
    log.write_text("a\nb\n\ngrail: stopped: NaN\n")
    assert tail(log) == "grail: stopped: NaN"
    log.write_text("\n".join("abcdefgh"))
    assert tail(log) == "d\ne\nf\ng\nh"
    assert tail(tmp_path / "none") == ""
