"""The lock of a run directory: who holds it, what it sweeps away, and who may read what is made."""

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from grail.errors import InputError
from grail.run.lock import alone

SOURCE = str(Path(__file__).parents[2] / "src")
HOLD = (
    "import sys, pathlib; from grail.run.lock import alone\n"
    "with alone(pathlib.Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
)


def test_the_lock_dies_with_its_process(tmp_path):
    with subprocess.Popen(
        [sys.executable, "-c", HOLD, str(tmp_path)],
        env={**os.environ, "PYTHONPATH": SOURCE},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
    ) as other:
        assert other.stdout.readline() == b"held\n"
        with pytest.raises(InputError, match="another grail is at work in"), alone(tmp_path):
            raise AssertionError("two at work")
        other.kill()
    with alone(tmp_path):
        pass


def test_the_lock_is_let_go_and_leaves_no_folder_behind(tmp_path):
    folder = tmp_path / "runs" / "deep"
    with alone(folder):
        assert (folder / ".lock").exists()
        with pytest.raises(InputError, match=f"at work in {folder}.*--output"), alone(folder):
            raise AssertionError("two at work")
        assert (folder / ".lock").exists()
    assert not (tmp_path / "runs").exists()
    folder.mkdir(parents=True)
    with alone(folder):
        (folder / "config.yaml").touch()
    with alone(folder):
        pass
    assert (folder / "config.yaml").exists()


def test_the_lock_leaves_what_others_put_there(tmp_path):
    folder = tmp_path / "runs" / "deep"
    with alone(folder):
        (folder.parent / "theirs").touch()
    assert [path.name for path in folder.parent.iterdir()] == ["theirs"]


def test_without_locks_on_this_system_the_work_is_done_all_the_same(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "fcntl", None)
    with alone(tmp_path / "run"):
        assert not (tmp_path / "run").exists()


def test_what_killed_writes_left_is_removed_and_what_is_not_grails_stays(tmp_path):
    left = ["results.json", "evaluation/vanilla.json", "scores/a.unlearn.safetensors"]
    stays = ["train.jsonl.partial", "notes.txt.partial", "results.json", "evaluation/vanilla.json"]
    for name in (*(f"{name}.partial" for name in left), *stays):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    (tmp_path / "unlearned.checkpoint.partial").mkdir()
    (tmp_path / "unlearned.old").mkdir()  # killed between the two renames
    with alone(tmp_path):
        found = {f.relative_to(tmp_path).as_posix() for f in tmp_path.rglob("*") if f.is_file()}
    assert found == {*stays, ".lock"}
    assert (tmp_path / "unlearned").is_dir()
    assert not list(tmp_path.glob("*checkpoint*"))


def test_what_a_user_put_aside_stays(tmp_path):
    (tmp_path / "disk" / "scores").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "scores").symlink_to(tmp_path / "disk" / "scores")
    stays = ["disk/scores.old", "run/audit", "run/audit.old", "run/evaluation/mine.partial"]
    stays += ["run/scores/more.partial", "run/evaluation.old", "run/report.md.partial"]
    for name in stays:
        (tmp_path / name).mkdir(parents=True)
    (tmp_path / "run" / "results.json.old").touch()
    (tmp_path / "run" / "audit" / "notes.partial").touch()
    with alone(tmp_path / "run"):
        pass
    assert all((tmp_path / name).is_dir() for name in stays)
    assert (tmp_path / "run" / "results.json.old").exists()
    assert (tmp_path / "run" / "audit" / "notes.partial").exists()
    assert not (tmp_path / "run" / "results.json").exists()


@pytest.mark.parametrize(("private", "modes"), [(True, (0o700, 0o600)), (False, (0o755, 0o644))])
def test_what_is_made_inside_belongs_to_its_owner_alone(private, modes, tmp_path):
    before = os.umask(0o022)
    try:
        with alone(tmp_path / "run", private):
            (tmp_path / "run" / "deep").mkdir()
            (tmp_path / "run" / "config.yaml").touch()
        made = [tmp_path / "run" / name for name in ("deep", "config.yaml")]
        assert tuple(stat.S_IMODE(path.stat().st_mode) for path in made) == modes
        assert os.umask(0o022) == 0o022
    finally:
        os.umask(before)
