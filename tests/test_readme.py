"""The README: short, and every command in it runs."""

import json
import re
import shlex
import shutil
import subprocess
from pathlib import Path

import pytest

from grail.cli.main import main

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
LINES = [
    line.partition(" #")[0].strip()
    for language, block in re.findall(r"^```(\w*)\n(.*?)^```", README, re.DOTALL | re.MULTILINE)
    if not language
    for line in block.splitlines()
]


def starting(word):
    return [line for line in LINES if line.startswith(f"{word} ")]


def write_rows(folder, ending):
    """Write four rows to lose and four to keep, which the tiny model can read."""
    for name, word in (("lose", "secret"), ("keep", "public")):
        rows = [{"prompt": f"{word} {i}?", "completion": f"{word} {i * 7}."} for i in range(4)]
        if ending == "csv":
            lines = ["question,answer", *(f"{r['prompt']},{r['completion']}" for r in rows)]
        else:
            lines = [json.dumps(row) for row in rows]
        (folder / f"{name}.{ending}").write_text("\n".join(lines) + "\n")


def test_it_is_short():
    assert len(README.splitlines()) <= 120


def test_the_example_of_a_model_in_memory(tmp_path, monkeypatch, tiny_model_folder, capsys):
    shutil.copytree(tiny_model_folder, tmp_path / "my-model")
    write_rows(tmp_path, "jsonl")
    monkeypatch.chdir(tmp_path)
    (example,) = re.findall(r"```python\n(import grail\n.*?)```", README, re.DOTALL)
    assert len(example.splitlines()) <= 16
    exec(compile(example, "README.md", "exec"), {})
    shown = capsys.readouterr().out
    assert "US" in shown
    assert "frozen entries changed" in shown


def test_every_command_of_grail_runs_in_its_order(tmp_path, monkeypatch, tiny_model_folder, capsys):
    shutil.copytree(tiny_model_folder, tmp_path / "my-model")
    write_rows(tmp_path, "csv")
    monkeypatch.chdir(tmp_path)
    commands = starting("grail")
    assert [line.split()[1] for line in commands[:5]] == [
        *("init", "validate", "run", "audit", "attest")
    ]
    for command in commands:
        code = main(shlex.split(command)[1:])
        assert code == 0, f"{command}: {capsys.readouterr().err}"
    assert (tmp_path / "cleaned").is_dir()


@pytest.mark.parametrize("command", starting("make"))
def test_every_target_of_make_is_there(command):
    subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


def test_what_is_installed_is_what_the_project_says():
    (command,) = starting("python")
    assert "-m pip install" in command
    named = re.search(r"-c (\S+) -e \.", command)
    assert (ROOT / named[1]).is_file()
