"""The README: short, and every command in it runs."""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

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


EXTRAS = ("beartype", "datasets", "lm_eval", "matplotlib", "pyarrow", "tensorboard", "triton")
"""Modules of the optional dependencies (pyproject.toml)."""

INSTALLED = f"""
import json, sys
sys.modules.update(dict.fromkeys({EXTRAS}))  # importing one is an error
import grail
from grail.cli.main import main
assert grail.__file__.startswith(sys.argv[1]), grail.__file__
for words in json.load(sys.stdin):
    if code := main(words):
        sys.exit(f"{{words}}: exit code {{code}}")
"""


def installed(place, source):
    """Build the package from a copy of what it is built from, and install it alone."""
    pytest.importorskip("hatchling", reason="the package cannot be built without its build backend")
    source.mkdir()
    shutil.copytree(ROOT / "src", source / "src")
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    install = ["install", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    pip = [sys.executable, "-m", "pip", *install, "--target", str(place), str(source)]
    subprocess.run(pip, check=True, capture_output=True, text=True)


def test_every_command_of_grail_runs_in_its_order_from_an_installed_package_without_extras(
    tmp_path, tiny_config, tiny_model_folder
):
    """In a folder of their own, with nothing of the source tree on the path.

    The five ahead go from two files to an attested model; the last is a run of all stages.
    """
    place, work = tmp_path / "installed", tmp_path / "work"
    installed(place, tmp_path / "source")
    shutil.copytree(tiny_model_folder, work / "my-model")
    write_rows(work, "csv")
    commands = [shlex.split(line)[1:] for line in starting("grail")]
    assert [word for word, *_ in commands[:5]] == ["init", "validate", "run", "audit", "attest"]
    done = subprocess.run(
        [sys.executable, "-c", INSTALLED, str(place)],
        input=json.dumps([*commands, ["run", str(tiny_config())]]),
        cwd=work,
        text=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(place)},
    )
    assert done.returncode == 0, done.stderr
    assert (work / "cleaned").is_dir()
    attested = json.loads((work / "runs" / "erase" / "attestation.json").read_text())
    assert attested["request"] == "2026-017"
    version = next(place.glob("grail_unlearning-*.dist-info")).name.split("-")[1]
    assert attested["made_with"]["grail"] == version.removesuffix(".dist")


@pytest.mark.parametrize("command", starting("make"))
def test_every_target_of_make_is_there(command):
    subprocess.run([*command.split(), "--dry-run"], cwd=ROOT, check=True, capture_output=True)


def test_what_is_installed_is_what_the_project_says():
    (command,) = starting("python")
    assert "-m pip install" in command
    named = re.search(r"-c (\S+) -e \.", command)
    assert (ROOT / named[1]).is_file()
