"""Killed at any moment, the same command ends in the same bytes; nothing half-written counts.

Run as a script, this file imports grail once and forks a child for every command that it is sent:
children kill themselves at the n-th write, step or batch.
"""

import importlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).parents[1]
MOMENTS = {
    "os.replace": "write",
    "pathlib.Path.rename": "move",
    "pathlib.Path.replace": "log",
    "grail.train.Loop._step": "step",
    "grail.importance.score.Scorer._batch": "score",
    "grail.pipeline.localize": "localize",
    "grail.evaluation.evaluate.collate": "read",
    "grail.evaluation.continuing.generate": "generate",
    "grail.pipeline.report": "report",
}
"""What can be interrupted, and what it is called here; each counts before and after."""


# -- the script: no test in it ------------------------------------------------------------------


def _watched(inner, name, happened):
    def outer(*arguments, **more):
        happened(f"before {name} {_place(arguments)}")
        made = inner(*arguments, **more)
        happened(f"after {name} {_place(arguments)}")
        return made

    return outer


def _place(arguments):
    paths = [Path(a).name for a in arguments if isinstance(a, str | Path)]
    return paths[-1] if paths else ""


def _child(order):
    """Run one command; die by SIGKILL at the moment that was asked for."""
    from grail.cli import main

    count = 0

    def happened(name):
        nonlocal count
        count += 1
        with open(order["events"], "a") as file:
            file.write(name + "\n")
        if count == order["kill"] or (order["at"] and re.fullmatch(order["at"], name)):
            os.kill(os.getpid(), signal.SIGKILL)

    for dotted, name in MOMENTS.items():
        owner, _, attribute = dotted.rpartition(".")
        module, _, kind = owner.rpartition(".") if owner[-1:].isalpha() else ("", "", "")
        try:
            place = importlib.import_module(owner)
        except ModuleNotFoundError:
            place = getattr(importlib.import_module(module), kind)
        setattr(place, attribute, _watched(getattr(place, attribute), name, happened))
    return main(order["arguments"])


def _serve():
    import grail.pipeline
    import grail.terminal

    grail.terminal.quiet()  # its imports are shared, too
    for module in ("peft", "rouge_score.rouge_scorer"):
        importlib.import_module(module)  # what a run imports where it needs it, and then once each
    for module in ("AutoModelForCausalLM", "AutoTokenizer", "GenerationConfig", "LlamaForCausalLM"):
        getattr(importlib.import_module("transformers"), module)
    for line in sys.stdin:
        order = json.loads(line)
        pid = os.fork()
        if not pid:
            log = os.open(order["log"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
            os.dup2(log, 1)
            os.dup2(log, 2)
            code = 70
            try:
                code = _child(order)
            except BaseException:
                import traceback

                traceback.print_exc()
            finally:
                sys.stdout.flush()
                sys.stderr.flush()
                os._exit(code)
        status = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
        sys.stdout.write(json.dumps(status) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    _serve()
    sys.exit()


# -- the tests ----------------------------------------------------------------------------------

import pytest  # noqa: E402
import yaml  # noqa: E402

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork and SIGKILL")
KILLED = -9
SECONDS = re.compile(rb'"seconds": [0-9.]+')


def files(folder):
    """Name -> bytes; what names the output or the time counts for nothing."""
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes().replace(bytes(folder), b"RUN")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name != ".lock"
    }
    return {name: SECONDS.sub(b"", content) for name, content in found.items()}


def differing(one, other):
    return sorted(n for n in one.keys() | other.keys() if one.get(n) != other.get(n))


@pytest.fixture(scope="module")
def environment(tmp_path_factory):
    nowhere = str(tmp_path_factory.mktemp("no-git"))
    return {**os.environ, "PYTHONPATH": str(ROOT / "src"), "GIT_DIR": nowhere}


@pytest.fixture(scope="module")
def server(environment):
    """The script above."""
    with subprocess.Popen(
        [sys.executable, __file__],
        env=environment,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    ) as process:
        yield process
        process.stdin.close()


def _caller(server, folder):
    """Return a function that runs a command; ``folder`` takes what it says and goes through."""

    def call(*arguments, kill=None, at=None):
        order = {
            "arguments": [str(word) for word in arguments],
            "kill": kill,
            "at": at,
            "events": str(folder / "events"),
            "log": str(folder / "log"),
        }
        (folder / "events").unlink(missing_ok=True)
        server.stdin.write(json.dumps(order) + "\n")
        server.stdin.flush()
        return json.loads(server.stdout.readline())

    return call


@pytest.fixture
def grail(server, tmp_path):
    """Run a command in a process of its own; returns its exit code, or -9."""
    return _caller(server, tmp_path)


@pytest.fixture
def said(tmp_path):
    """What the last command wrote, and the moments it went through."""

    def read():
        events = tmp_path / "events"
        lines = events.read_text().splitlines() if events.exists() else []
        return (tmp_path / "log").read_text(), lines

    return read


@pytest.fixture(scope="module")
def uninterrupted(module_config, server, tmp_path_factory):
    """A run in a folder of its own, and its configuration."""
    config = module_config(localization={"freeze": "by_side"}, evaluation={"show_text": True})
    folder = tmp_path_factory.mktemp("uninterrupted")
    code = _caller(server, folder)("run", config, "--output", folder / "whole")
    assert code == 0, (folder / "log").read_text()
    return folder / "whole", config


@pytest.fixture
def whole(uninterrupted, tmp_path):
    """The files of an uninterrupted run, and its configuration; a copy of it is ``whole``."""
    folder, config = uninterrupted
    own = tmp_path / "whole"
    shutil.copytree(folder, own)
    for file in own.rglob("*"):
        if file.is_file() and bytes(folder) in (content := file.read_bytes()):
            file.write_bytes(content.replace(bytes(folder), bytes(own)))
    return files(folder), config


STAGE_ENDS = [
    "before write config.yaml",
    "after move vanilla.checkpoint",
    "before move vanilla.checkpoint.old",
    "after log vanilla.train.jsonl",
    "before move vanilla",
    "before score ",
    "before write privacy.retain.safetensors",
    "after write copyright.unlearn.safetensors",
    "after localize ",
    "after write localization.json",
    "after write mask.unlearn.safetensors",
    "before write mask.safetensors",
    "after move unlearned.checkpoint.old",
    "after log train.jsonl",
    "after move unlearned",
    "after generate ",
    "after write vanilla.json",
    "before write unlearned.json",
    "after write samples.jsonl",
    "after write results.json",
    "after write report.md",
]


def test_killed_at_the_borders_of_all_stages(whole, grail, said, tmp_path):
    """One directory, killed at one moment after the other, ends as the uninterrupted one."""
    expected, config = whole
    command = ("run", config, "--output", tmp_path / "run")
    for moment in STAGE_ENDS:
        assert grail(*command, at=re.escape(moment)) == KILLED, (moment, *said())
    assert grail(*command) == 0, said()[0]
    assert not differing(expected, files(tmp_path / "run"))


def test_killed_again_and_again(whole, grail, said, tmp_path):
    """Steps and batches, wherever the count happens to fall."""
    expected, config = whole
    command = ("run", config, "--output", tmp_path / "run")
    kinds = set()
    for more in range(25):  # a side's scores are made in one go: each life is a little longer
        code = grail(*command, kill=30 + 2 * more)
        if code == 0:
            break
        assert code == KILLED, said()[0]
        kinds.add(said()[1][-1].split()[1])
    assert code == 0
    assert len(kinds) > 2
    assert not differing(expected, files(tmp_path / "run"))


def test_killed_from_outside_while_unlearning(whole, environment, grail, tmp_path):
    expected, config = whole
    words = ["run", str(config), "--output", str(tmp_path / "run")]
    process = subprocess.Popen(
        [sys.executable, "-m", "grail", *words],
        env={**environment, "PYTHONHASHSEED": "5"},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
    )
    for line in process.stderr:
        if line.startswith("unlearn: started"):
            break
    time.sleep(0.05)
    process.kill()
    process.stderr.close()
    assert process.wait() == KILLED
    assert grail(*words) == 0
    assert not differing(expected, files(tmp_path / "run"))


def test_a_changed_run_that_is_killed_shows_no_old_results(whole, grail, said, tmp_path):
    _, config = whole
    command = ("run", config, "--output", tmp_path / "whole")
    change = ("--set", "unlearning.learning_rate=0.02")
    assert grail(*command, *change, at="before step .*") == KILLED
    settings = yaml.safe_load((tmp_path / "whole" / "config.yaml").read_text())
    assert settings["unlearning"]["learning_rate"] == 0.02
    assert not (tmp_path / "whole" / "results.json").exists()
    assert grail(*command, *change) == 0
    assert grail("run", config, "--output", tmp_path / "fresh", *change) == 0
    assert not differing(files(tmp_path / "fresh"), files(tmp_path / "whole"))


def test_half_files_are_made_again(whole, grail, said, tmp_path):
    expected, config = whole
    folder = tmp_path / "whole"
    command = ("run", config, "--output", folder)
    names = [n for n in expected if not any(w in n for w in ("model", "adapter_config", "token"))]
    logs = {"train.jsonl", "vanilla.train.jsonl"}
    for name in sorted(set(names) - logs - {"config.yaml"}):
        content = (folder / name).read_bytes()
        (folder / name).write_bytes(content[: len(content) // 2])
        assert grail(*command) == 0, (name, said()[0])
        assert not differing(expected, files(folder)), name


def test_without_a_whole_config_the_folder_is_not_taken_for_a_run(whole, grail, said, tmp_path):
    """Half of it says nothing of grail, and the files may be anybody's: nothing is touched."""
    _, config = whole
    folder = tmp_path / "whole"
    file = folder / "config.yaml"
    content = file.read_bytes()
    file.write_bytes(content[: len(content) // 2])
    before = files(folder)
    assert grail("run", config, "--output", folder) == 2
    assert "no config.yaml that a run has written" in said()[0]
    assert not differing(before, files(folder))


def test_half_files_beside_the_whole_ones_are_ignored(whole, grail, said, tmp_path):
    expected, config = whole
    folder = tmp_path / "run"
    for name in expected:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / f"{name}.partial").write_bytes(expected[name][: len(expected[name]) // 2])
    for name in ("vanilla", "unlearned", "vanilla.checkpoint"):
        (folder / f"{name}.partial").mkdir()
        (folder / f"{name}.partial" / "stage.json").write_text('{"inp')
    (folder / "vanilla.checkpoint").mkdir()
    for name in ("vanilla", "unlearned"):  # a folder that was filled without its stamp
        (folder / name / "adapter_model.safetensors").write_bytes(b"half")
    (folder / "config.yaml").write_text("made_with: {grail: older}\n")  # all else is lost
    assert grail("run", config, "--output", folder) == 0, said()[0]
    found = {n: content for n, content in files(folder).items() if ".partial" not in n}
    assert not differing(expected, found)


def test_damaged_weights_and_logs_are_named(whole, grail, said, tmp_path):
    _, config = whole
    folder = tmp_path / "whole"
    (folder / "evaluation" / "unlearned.json").unlink()
    file = folder / "unlearned" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    assert grail("run", config, "--output", folder) == 2
    assert "unlearned is damaged" in said()[0]
    assert "Traceback" not in said()[0]
    assert not (folder / "results.json").exists()
