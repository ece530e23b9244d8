"""Child processes: order, how many at a time, outcomes; each is grail, and dies with its parent."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from grail import __version__
from grail.comparison import processes
from grail.comparison.processes import BOOT, Job, run_all, start, stop, tail, threads

SOURCE = str(Path(__file__).parents[2] / "src")
ENVIRONMENT = {key: value for key, value in os.environ.items() if key != "PYTHONPATH"}
pytestmark = pytest.mark.skipif(not hasattr(os, "wait4"), reason="needs wait4")


@pytest.fixture
def commands(monkeypatch):
    """Let a job's words be Python text: processes that need no grail."""
    real = subprocess.Popen

    def popen(command, **more):
        return real([sys.executable, "-c", *command[4:]], **more)

    monkeypatch.setattr(processes.subprocess, "Popen", popen)
    monkeypatch.setattr(processes, "POLL", 0.01)


@pytest.fixture
def stdin():
    """What a child reads while its parent lives: nothing."""
    alive, held = os.pipe()
    yield alive
    os.close(alive)
    os.close(held)


def jobs(tmp_path, *texts):
    return [Job((text,), tmp_path / str(i)) for i, text in enumerate(texts)]


def results(tmp_path, *texts, parallel=1):
    return {int(job.log.name): r for job, r in run_all(jobs(tmp_path, *texts), parallel)}


def test_results_and_logs(commands, tmp_path):
    texts = ("print('hello')", "import sys; sys.exit('no')", "import os; os.kill(os.getpid(), 9)")
    found = results(tmp_path, *texts, parallel=2)
    assert {number: result.code for number, result in found.items()} == {0: 0, 1: 1, 2: -9}
    assert (tmp_path / "0").read_text() == "hello\n"
    assert (tmp_path / "1").read_text() == "no\n"  # both streams
    assert all(result.seconds > 0 for result in found.values())


def test_each_child_has_a_device_of_its_own(commands, tmp_path, monkeypatch):
    """Three jobs, two at a time, on three GPUs of which the second is not ours."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0, 2")
    text = "import os, time; print(os.environ['CUDA_VISIBLE_DEVICES']); time.sleep(0.3)"
    assert len(results(tmp_path, text, text, text, text, parallel=2)) == 4
    used = [(tmp_path / str(i)).read_text().strip() for i in range(4)]
    assert sorted(used) == ["0", "0", "2", "2"]
    assert set(used[:2]) == {"0", "2"}, "side by side"


def test_without_gpus_a_child_sees_what_its_parent_sees(commands, tmp_path, monkeypatch):
    monkeypatch.setattr("torch.cuda.device_count", lambda: 3)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    assert processes.devices() == ["0", "1", "2"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    text = "import os; print(repr(os.environ['CUDA_VISIBLE_DEVICES']))"
    results(tmp_path, text)
    assert (tmp_path / "0").read_text().strip() == "''"


def test_a_log_that_is_linked_elsewhere_is_not_written_into(commands, tmp_path):
    (tmp_path / "linked").write_text("of another cell\n")
    os.link(tmp_path / "linked", tmp_path / "0")
    results(tmp_path, "print('mine')")
    assert (tmp_path / "0").read_text() == "mine\n"
    assert (tmp_path / "linked").read_text() == "of another cell\n"


def test_peak_memory_is_what_the_system_says_of_the_child(commands, tmp_path, monkeypatch):
    real, said = os.wait4, []

    def wait4(*given):
        said.append(real(*given))
        return said[-1]

    monkeypatch.setattr(processes.os, "wait4", wait4)
    found = results(tmp_path, "pass")
    assert found[0].peak_bytes == said[-1][2].ru_maxrss * processes.RSS_UNIT
    child = "import resource; print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    found = results(tmp_path, f"x = b'1' * (1 << 26); {child}")
    told = int((tmp_path / "0").read_text()) * processes.RSS_UNIT
    assert 1 << 26 < told <= found[0].peak_bytes < told + (1 << 24)


def test_never_more_than_asked_for_and_in_order(commands, tmp_path):
    running, most, order = set(), [], []

    def taken():
        for job in jobs(tmp_path, *["pass"] * 5):
            running.add(job)
            order.append(int(job.log.name))
            most.append(len(running))
            yield job

    for job, _ in run_all(taken(), 2):
        running.discard(job)
    assert (max(most), order) == (2, [0, 1, 2, 3, 4])


def test_an_exception_stops_all_children(commands, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(
        processes, "start", lambda *a, real=start: started.append(real(*a)) or started[-1]
    )

    def interrupted(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(processes.os, "wait4", interrupted)
    with pytest.raises(KeyboardInterrupt):
        results(tmp_path, *["import time; time.sleep(600)"] * 2, parallel=2)
    assert [process.returncode for process in started] == [-signal.SIGTERM] * 2


def test_closing_the_generator_stops_all_children(commands, tmp_path, monkeypatch):
    started = []
    monkeypatch.setattr(
        processes, "start", lambda *a, real=start: started.append(real(*a)) or started[-1]
    )
    running = run_all(jobs(tmp_path, "pass", "import time; time.sleep(600)"), 2)
    next(running)
    running.close()
    assert started[1].returncode == -signal.SIGTERM


STUBBORN = """
import signal, subprocess, sys, time
signal.signal(signal.SIGTERM, lambda *_: print("asked", flush=True))
p = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
print(p.pid, flush=True)
while True: time.sleep(600)
"""


def test_a_child_is_asked_to_end_first_and_takes_its_own_children_along(
    commands, tmp_path, stdin, monkeypatch
):
    monkeypatch.setattr(processes, "GRACE", 0.5)
    process = start(Job((STUBBORN,), tmp_path / "log"), 1, stdin)
    while not (tmp_path / "log").read_text().strip():
        pass
    stop([process])
    assert process.returncode == -signal.SIGKILL
    inner, asked = (tmp_path / "log").read_text().split()
    assert asked == "asked"
    while _alive(int(inner)):  # the kernel takes a moment
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
    monkeypatch.setattr(processes.os, "sched_getaffinity", lambda _: set(range(8)), raising=False)
    monkeypatch.setenv("OMP_NUM_THREADS", asked)
    assert threads(parallel) == count


def test_tail_prefers_the_message(tmp_path):
    log = tmp_path / "log"
    log.write_text("a\nb\n\ngrail: stopped: NaN\n")
    assert tail(log) == "grail: stopped: NaN"
    log.write_text("\n".join("abcdefgh"))
    assert tail(log) == "d\ne\nf\ng\nh"
    assert tail(tmp_path / "none") == ""


def test_a_child_becomes_the_command():
    command = [sys.executable, "-c", BOOT, SOURCE, "--version"]
    with subprocess.Popen(
        command, env=ENVIRONMENT, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        assert process.stdout.read() == f"grail {__version__}\n"
        assert process.wait() == 0


def test_a_file_of_the_current_folder_is_never_imported(tmp_path):
    for name in ("yaml", "secrets", "runpy", "grail"):
        (tmp_path / f"{name}.py").write_text("raise SystemExit('executed')")
    command = [sys.executable, "-c", BOOT, SOURCE, "settings", "none"]
    with subprocess.Popen(
        command,
        env=ENVIRONMENT,
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    ) as process:
        message = process.stderr.read()
        assert message.startswith("grail: error: settings: unknown key 'none'.")
        assert process.wait() == 2


def test_a_child_dies_with_a_killed_parent():
    word = "import grail.comparison.processes as own, os, time; own.runpy.run_module = "
    word += "lambda *a, **b: (print(os.getpid(), flush=True), time.sleep(600)); own.run_child()"
    parent = (
        "import os, subprocess, sys\n"
        "alive, held = os.pipe()\n"
        f"subprocess.run([sys.executable, '-c', {word!r}], stdin=alive, start_new_session=True)\n"
    )
    with subprocess.Popen(
        [sys.executable, "-c", parent],
        env=ENVIRONMENT | {"PYTHONPATH": SOURCE},
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        assert int(process.stdout.readline()) > 0
        process.kill()
        assert process.stdout.read() == ""  # ends only when the child, which holds it, has ended
        assert process.wait() == -signal.SIGKILL
