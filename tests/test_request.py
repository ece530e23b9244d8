"""One person's request with the shipped defaults, and a later one that goes on from its result."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from grail.cli.main import main
from grail.config.file import load_config

FAMILIES = ("llama", "qwen2")
ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
SOURCES = {"src", "pyproject.toml", "README.md", "LICENSE"}


def rows_of(file, first, last):
    return "".join(file.read_text().splitlines(keepends=True)[first:last])


@pytest.fixture(scope="module", params=FAMILIES)
def company(request, tmp_path_factory, tiny_model, tiny_tokenizer, module_config):
    """A model that knows eight rows about people and eight that must stay."""
    folder = tmp_path_factory.mktemp(request.param)
    tokenizer = tiny_tokenizer()
    tiny_model(request.param, lora=False, vocabulary=len(tokenizer)).save_pretrained(
        folder / "base"
    )
    tokenizer.save_pretrained(folder / "base")
    config = module_config(
        domains=("company",),
        rows=8,
        val=0,
        name=f"company-{request.param}",
        model={"name": str(folder / "base"), "lora": None},
        teach={"epochs": 120, "learning_rate": 0.01, "batch_size": 8, "until": 1.0},
    )
    assert main(["vanilla", str(config)]) == 0
    shutil.copytree(config.parent / f"company-{request.param}" / "vanilla", folder / "known")
    for side in ("unlearn", "retain"):
        data = config.parent / "data" / f"company_{side}_train.jsonl"
        shutil.copy(data, folder / f"{side}.jsonl")
    return folder


def requested(folder, name, model, first, **sections):
    """Ask for four of the eight rows to be lost; everything else is the default."""
    (folder / f"{name}.jsonl").write_text(rows_of(folder / "unlearn.jsonl", first, first + 4))
    domains = {
        "person": {"unlearn": {"train": f"{name}.jsonl"}, "retain": {"train": "retain.jsonl"}}
    }
    settings = {
        "model": {"name": str(model)},
        "domains": domains,
        "data": {"template": "plain"},
        "evaluation": {"max_new_tokens": 6},
        **sections,
    }
    file = folder / f"{name}.yaml"
    file.write_text(yaml.safe_dump(settings | {"output": str(folder / name)}))
    assert main(["run", str(file)]) == 0
    rows = json.loads((folder / name / "results.json").read_text())["rows"]
    return {
        tuple(r[k] for k in ("model", "domain", "side", "part", "metric")): r["value"] for r in rows
    }


@pytest.fixture(scope="module")
def first(company):
    return requested(company, "first", company / "known", 0)


def test_four_rows_are_forgotten_and_the_others_kept_by_default(company, first):
    config = load_config(company / "first.yaml")
    assert (config.preset, config.teach) == ("request", None)
    found = {m: first[m, "person", "unlearn", "train", "US"] for m in ("vanilla", "unlearned")}
    assert found["vanilla"] < 5
    assert found["unlearned"] >= 85
    assert first["unlearned", "person", "retain", "train", "RS"] >= 95
    general = {m: first[m, "general", "general", "val", "NLL"] for m in ("vanilla", "unlearned")}
    assert general["unlearned"] <= general["vanilla"] + 0.1
    steps = json.loads((company / "first" / "evaluation" / "steps.json").read_text())
    assert 0 < steps["kept"] <= 100
    report = (company / "first" / "report.md").read_text()
    assert "forgotten" in report
    written = json.loads((company / "first" / "rewrites.json").read_text())["rows"]
    assert written == []  # the base under the adapter knows the rows: it must not guess


def test_a_later_request_goes_on_from_the_last_result_and_says_that_the_first_held(company, first):
    domain = {"check": {"earlier": {"rows": "first.jsonl"}}}
    second = requested(company, "second", company / "first" / "unlearned", 4, **domain)
    before, after = (second[m, "earlier", "check", "val", "RS"] for m in ("vanilla", "unlearned"))
    assert before == pytest.approx(100 - first["unlearned", "person", "unlearn", "train", "US"])
    assert after <= before + 25  # of four rows of few tokens
    nll = {m: second[m, "earlier", "check", "val", "NLL"] for m in ("vanilla", "unlearned")}
    assert nll["unlearned"] >= nll["vanilla"] - 0.2
    assert second["vanilla", "person", "unlearn", "train", "US"] < 30
    assert second["unlearned", "person", "unlearn", "train", "US"] >= 80
    assert second["unlearned", "person", "retain", "train", "RS"] >= 95
    assert "earlier, only measured" in (company / "second" / "report.md").read_text()


INSTALLED = """
import sys
import grail
from grail.cli.main import main
assert grail.__file__.startswith(sys.argv[1]), grail.__file__
for line in sys.stdin.read().splitlines():
    if code := main(line.split()):
        sys.exit(f"{line}: exit code {code}")
"""


def test_five_commands_of_an_installed_package_go_from_two_files_to_an_attested_model(
    tmp_path, tiny_model_folder
):
    """In a folder of their own, with nothing of the source tree on the path."""
    pytest.importorskip("hatchling", reason="the package cannot be built without its build backend")
    place = tmp_path / "installed"
    install = ["install", "--no-deps", "--no-build-isolation", "--no-index", "--quiet"]
    source = shutil.copytree(
        ROOT,
        tmp_path / "source",
        ignore=lambda folder, names: set(names) - SOURCES if folder == str(ROOT) else set(),
    )
    pip = [sys.executable, "-m", "pip", *install, "--target", str(place), str(source)]
    subprocess.run(pip, check=True, capture_output=True, text=True)
    work = tmp_path / "work"
    shutil.copytree(tiny_model_folder, work / "my-model")
    for name in ("lose", "keep"):
        lines = [f"{name} {i}?,{name} {i * 7}." for i in range(4)]
        (work / f"{name}.csv").write_text("\n".join(["question,answer", *lines]) + "\n")
    commands = re.findall(r"^grail ((?:init|validate|run|audit|attest) [^#\n]*)", README, re.M)
    assert len(commands) == 5
    done = subprocess.run(
        [sys.executable, "-c", INSTALLED, str(place)],
        input="\n".join(commands),
        cwd=work,
        text=True,
        capture_output=True,
        env=os.environ | {"PYTHONPATH": str(place)},
    )
    assert done.returncode == 0, done.stderr
    attested = json.loads((work / "runs" / "erase" / "attestation.json").read_text())
    assert attested["request"] == "2026-017"
    version = next(place.glob("grail_unlearning-*.dist-info")).name.split("-")[1]
    assert attested["made_with"]["grail"] == version.removesuffix(".dist")
