"""Runs in two processes, with copies and with parts of a model (FSDP2), against one process."""

import json
import subprocess
import sys
from pathlib import Path

import forks
import in_parts
import pytest
import torch
from safetensors.torch import load_file

from grail.artifacts import check, read_mask
from grail.cli.main import main
from grail.config.file import load_config
from grail.errors import InputError
from grail.run.together import refuse_in_parts

CHECK_RUN = Path(__file__).parents[3] / "shared" / "tools" / "check_run.py"
KINDS = {"copies": False, "parts": True}
MODELS = {
    "adapter": {},
    "full": {
        "model": {"lora": None},
        "teach": False,
        "unlearning": {"objective": "npo", "optimizer": "sgd"},
    },
}
LIMITS = {"adapter": 0.02, "full": 1e-5}
"""Relative to the largest entry. AdamW turns rounding of a gradient near 0 into whole steps."""


@pytest.fixture(scope="module")
def runs(module_config):
    """Runs of one process and of two: their folder."""
    files = {name: module_config(name=name, **sections) for name, sections in MODELS.items()}
    folder = files["full"].parent
    words = [
        [fsdp, "run", str(file), "--output", str(folder / f"{name}-{kind}")]
        for name, file in files.items()
        for kind, fsdp in KINDS.items()
    ]
    (folder / "runs.json").write_text(json.dumps(words))
    forks.torchrun(in_parts.__file__, folder)
    for file in files.values():
        assert main(["run", str(file)]) == 0
    return folder


def close(a, b, limit):
    assert a.keys() == b.keys()
    for name in a:
        largest = max(float(b[name].abs().max()), 1e-8)
        assert float((a[name] - b[name]).abs().max()) < limit * largest, name


@pytest.mark.slow
@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("kind", KINDS)
def test_two_processes_make_the_files_of_one(kind, model, runs):
    one, two = runs / model, runs / f"{model}-{kind}"
    weights = "model.safetensors" if model == "full" else "adapter_model.safetensors"
    for name in ("vanilla", "unlearned"):
        assert {f.name for f in (two / name).iterdir()} == {f.name for f in (one / name).iterdir()}
        if name == "vanilla" or model == "full":
            pair = [load_file(folder / name / weights) for folder in (two, one)]
            close(*pair, LIMITS[model])
    for file in (one / "scores").iterdir():
        assert check(two / "scores" / file.name)["samples"] == check(file)["samples"]
        if model == "full":
            close(load_file(two / "scores" / file.name), load_file(file), LIMITS[model])
    results = [json.loads((folder / "results.json").read_text()) for folder in (one, two)]
    assert results[1]["freezing"]["changed"] == 0
    assert results[1]["freezing"]["frozen"] > 0
    assert results[1]["freezing"]["moved"] > 0
    if model == "full":  # the same vanilla weights
        masks = [read_mask(folder / "mask.safetensors").frozen for folder in (one, two)]
        assert all(torch.equal(masks[0][n], masks[1][n]) for n in masks[0])
        rows = [[r for r in result["rows"] if r["metric"] == "PPL"] for result in results]
        assert rows[0]
        for a, b in zip(*rows, strict=True):
            assert a["value"] == pytest.approx(b["value"], rel=1e-3)
    assert (two / "report.html").is_file()


@pytest.mark.slow
@pytest.mark.skipif(not CHECK_RUN.is_file(), reason="needs shared/")
@pytest.mark.parametrize("model", MODELS)
def test_the_independent_check_passes(model, runs):
    command = [sys.executable, str(CHECK_RUN), str(runs / f"{model}-parts")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize(
    ("sections", "named"),
    [
        ({"importance": {"gradients": "loop"}}, "importance.gradients: loop"),
        ({"localization": {"method": "magnitude"}}, "localization.method: magnitude"),
        ({"unlearning": {"optimizer": "adafactor"}}, "unlearning.optimizer: adafactor"),
        ({"unlearning": {"optimizer": "adamw8bit"}}, "unlearning.optimizer: adamw8bit"),
        ({"evaluation": {"retain_target": 90}}, "evaluation.retain_target"),
        ({"unlearning": {"objective": "exact"}}, "unlearning.objective: exact"),
    ],
)
def test_what_a_model_in_parts_cannot_do_is_refused_by_name(sections, named, tiny_config):
    refuse_in_parts(load_config(tiny_config()))
    with pytest.raises(InputError, match=named):
        refuse_in_parts(load_config(tiny_config(**sections)))
