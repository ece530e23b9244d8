"""The mask of another run is taken to the bit, or refused before any work."""

import json

import pytest
import torch
import yaml

from grail.artifacts import read_mask, seal_of
from grail.cli.main import main
from grail.config.file import load_config
from grail.errors import InputError
from grail.localization.reused import check_fit, check_folder


def shapes_of(run):
    return {name: bits.shape for name, bits in read_mask(run / "mask.safetensors").frozen.items()}


def model_of(run):
    return yaml.safe_load((run / "config.yaml").read_text())["made_with"]["model"]


def test_a_run_takes_the_mask_of_another(finished_run, tiny_config, tmp_path, capsys):
    words = {"localization": {"from": str(finished_run)}, "seed": 1, "name": "second"}
    config = tiny_config(**words)
    assert main(["unlearn", str(config)]) == 0
    one, other = (read_mask(p / "mask.safetensors") for p in (finished_run, tmp_path / "second"))
    assert all(torch.equal(one.frozen[name], other.frozen[name]) for name in one.frozen)
    about = json.loads((tmp_path / "second" / "localization.json").read_text())
    seal = seal_of(finished_run / "mask.safetensors")
    assert about["from"] == {"run": "run", "mask": seal}
    assert about["model"]["frozen"] == one.counts()["frozen"] > 0
    proof = json.loads((tmp_path / "second" / "unlearned" / "stage.json").read_text())["freezing"]
    assert (proof["frozen"], proof["changed"]) == (about["model"]["frozen"], 0)
    again = load_config(tmp_path / "second")  # the run's own file says it too
    assert again.localization == load_config(config).localization
    assert again.localization.reused == str(finished_run)
    capsys.readouterr()
    assert main(["localize", str(config)]) == 0
    assert "kept localize" in capsys.readouterr().err


def test_a_mask_that_does_not_fit_is_refused(finished_run, tmp_path):
    shapes, model = shapes_of(finished_run), model_of(finished_run)
    run = str(finished_run)
    check_fit(run, model, shapes)
    name = min(shapes)
    with pytest.raises(InputError, match="is a run of another model"):
        check_fit(run, "other", shapes)
    for other in ({**shapes, name: (1, 1)}, {n: shapes[n] for n in shapes if n != name}):
        with pytest.raises(InputError, match=rf"1 tensors differ \(first: {name}\)"):
            check_fit(run, model, other)
    with pytest.raises(InputError, match="is no directory of a run that has made its mask"):
        check_folder(str(tmp_path))


def test_it_is_refused_before_any_work(finished_run, tiny_config, tmp_path, capsys):
    lora = {"name": "other", "model": {"lora": {"r": 3}}}
    config = tiny_config(localization={"from": str(finished_run)}, **lora)
    assert main(["run", str(config)]) == 2
    assert "about other entries than those that are trained here" in capsys.readouterr().err
    assert not (tmp_path / "other").exists()
    config = tiny_config(localization={"from": str(tmp_path / "nowhere")})
    assert main(["validate", str(config)]) == 2
    assert "localization.from: " in capsys.readouterr().err


def test_help_names_the_key_as_it_is_written(capsys):
    assert main(["settings", "localization.from"]) == 0
    assert "localization.from = null  (text or null)" in capsys.readouterr().out
