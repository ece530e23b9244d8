"""Killed at any moment, the same command ends in the same bytes; nothing half-written counts.

Every command is a process (``scripts/forks.py``) that kills itself at the n-th write, step or
batch (``scripts/interrupted.py``).
"""

import re
import time

import forks
import interrupted
import pytest
import yaml

KILLED = -9
SECONDS = re.compile(rb'"seconds": [0-9.]+')


def files(folder):
    """Name -> bytes; what names the output or the time counts for nothing."""
    found = {
        path.relative_to(folder).as_posix(): path.read_bytes().replace(bytes(folder), b"RUN")
        for path in sorted(folder.rglob("*"))
        if path.is_file() and path.name not in (".lock", "manifest.json")
    }
    return {name: SECONDS.sub(b"", content) for name, content in found.items()}


def differing(one, other):
    return sorted(n for n in one.keys() | other.keys() if one.get(n) != other.get(n))


def _caller(folder):
    """Return a function that runs a command; ``folder`` takes what it says and goes through."""

    def call(*arguments, kill=None, at=None):
        (folder / "events").unlink(missing_ok=True)
        words = [str(word) for word in arguments]
        return forks.run(interrupted.main, words, kill, at, folder / "events", log=folder / "log")

    return call


@pytest.fixture
def grail(tmp_path):
    """Run a command in a process of its own; returns its exit code, or -9."""
    return _caller(tmp_path)


@pytest.fixture
def said(tmp_path):
    """What the last command wrote, and the moments it went through."""

    def read():
        events = tmp_path / "events"
        lines = events.read_text().splitlines() if events.exists() else []
        return (tmp_path / "log").read_text(), lines

    return read


@pytest.fixture(scope="module")
def uninterrupted(module_config, tmp_path_factory):
    """A run in a folder of its own, and its configuration."""
    config = module_config(localization={"freeze": "by_side"}, evaluation={"show_text": True})
    folder = tmp_path_factory.mktemp("uninterrupted")
    code = _caller(folder)("run", config, "--output", folder / "whole")
    assert code == 0, (folder / "log").read_text()
    return folder / "whole", config


@pytest.fixture
def whole(uninterrupted, copied_run, tmp_path):
    """The files of an uninterrupted run, and its configuration; a copy of it is ``whole``."""
    folder, config = uninterrupted
    copied_run(folder, folder.parent, tmp_path)
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


def test_killed_from_outside_while_unlearning(whole, grail, tmp_path):
    expected, config = whole
    words = ["run", str(config), "--output", str(tmp_path / "run")]
    log, events = tmp_path / "other.log", tmp_path / "other.events"
    process = forks.start(interrupted.main, words, None, None, events, log=log)
    latest = time.monotonic() + 120
    while not (log.exists() and "unlearn: started" in log.read_text()):
        assert time.monotonic() < latest, log.read_text()
        time.sleep(0.01)
    time.sleep(0.05)
    process.kill()
    assert forks.exit_code(process) == KILLED
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
    names = sorted(set(names) - logs - {"config.yaml"})
    for pair in zip(names, names[len(names) // 2 :], strict=False):  # each in one pair, or in two
        for name in pair:
            content = (folder / name).read_bytes()
            (folder / name).write_bytes(content[: len(content) // 2])
        assert grail(*command) == 0, (pair, said()[0])
        assert not differing(expected, files(folder)), pair


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


def test_damaged_weights_are_named_and_made_again(whole, grail, said, tmp_path):
    expected, config = whole
    folder = tmp_path / "whole"
    (folder / "evaluation" / "unlearned.json").unlink()
    file = folder / "unlearned" / "adapter_model.safetensors"
    file.write_bytes(file.read_bytes()[:-8])
    assert grail("run", config, "--output", folder) == 0
    assert f"{file} is not as grail wrote it" in said()[0]
    assert not differing(expected, files(folder))


HEAL = {"objective": "distill", "reset": {"share": 0.5}, "general_weight": 0.5}
HEAL |= {"rewrites": 4, "guesses": 1, "examples": 1}


RESET = [
    "before write rewrites.json",
    "after write rewrites.json",
    "before write survivors.safetensors",
    "after write survivors.safetensors",
    "after move unlearned.checkpoint",
]


def test_a_reset_that_was_killed_ends_in_the_same_bytes(grail, module_config, said, tmp_path):
    """One directory, killed at one moment after the other, as above."""
    config = module_config(name="healed", unlearning=HEAL)
    assert grail("run", config, "--output", tmp_path / "whole") == 0, said()
    command = ("run", config, "--output", tmp_path / "run")
    for moment in RESET:
        assert grail(*command, at=re.escape(moment)) == KILLED, (moment, *said())
    assert grail(*command) == 0, said()
    assert not differing(files(tmp_path / "whole"), files(tmp_path / "run"))
