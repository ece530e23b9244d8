"""What a command says at its end: the same numbers as text and as JSON, from files alone."""

import json
import math

import pytest

from grail.cli import output as endings
from grail.files import write_json
from grail.importance.self_check import Agreement
from grail.results import Result, make_results, write_results


@pytest.fixture
def folder(tmp_path):
    rows = []
    for model, us, rs in (("vanilla", 1.0, 99.0), ("unlearned", 91.25, 87.5)):
        rows.append(Result(model, "privacy", "unlearn", "train", "US", us, 4))
        rows.append(Result(model, "privacy", "retain", "train", "RS", rs, 4))
    write_results(tmp_path / "results.json", make_results(rows, {"frozen": 3, "changed": 0}, ""))
    return tmp_path


def test_text_and_json_say_the_same(folder, capsys):
    endings.results(folder, as_json=False)
    text = capsys.readouterr().out
    endings.results(folder, as_json=True)
    found = json.loads(capsys.readouterr().out)
    assert "91.2" in text
    assert "87.5" in text
    assert text.rstrip().endswith(f"no report of these results yet: grail report {folder}")
    assert [row["value"] for row in found["rows"]] == [1.0, 99.0, 91.25, 87.5]
    for sentence in found["verdict"]:
        assert f"- {sentence}"[:60] in text
    assert "general" not in found


def test_a_report_is_named_and_general_ability_is_shown_if_it_is_there(folder, capsys):
    (folder / "report.html").touch()
    estimate = {"value": 25.0, "stderr": 2.5}
    models = dict.fromkeys(("vanilla", "unlearned", "difference"), estimate)
    tasks = [{"task": "race", "metric": "acc", "n": 300, **models}]
    average = {"tasks": 1, "metric": "acc", **models}
    general = {"tasks": tasks, "average": average, "harness": "lm-eval 0"}
    write_json(folder / "general.json", general)
    endings.results(folder, as_json=False)
    text = capsys.readouterr().out
    assert "25.0 ± 2.5" in text
    assert text.rstrip().endswith(f"report: {folder / 'report.html'}")
    endings.results(folder, as_json=True)
    assert json.loads(capsys.readouterr().out)["general"] == general


def test_where_a_stage_has_written(tmp_path, capsys):
    (tmp_path / "survivors.safetensors").touch()
    for stage, name in endings._OUTPUTS.items():
        endings.files(tmp_path, stage, as_json=False)
        assert capsys.readouterr().out == f"wrote: {tmp_path / name}\n"
        endings.files(tmp_path, stage, as_json=True)
        found = json.loads(capsys.readouterr().out)
        assert found == {"output": str(tmp_path), stage: str(tmp_path / name)}


def test_without_a_reset_there_are_no_survivors(tmp_path, capsys):
    endings.files(tmp_path, "reset", as_json=False)
    assert "unlearning.reset is null" in capsys.readouterr().out
    endings.files(tmp_path, "reset", as_json=True)
    assert json.loads(capsys.readouterr().out)["reset"] is None


@pytest.mark.parametrize(("worst", "code"), [(1e-6, 0), (2e-5, 1), (math.inf, 1)])
def test_an_agreement_decides_the_code(worst, code, capsys):
    assert endings.agreement(Agreement(worst, "w.mean", 3, "torch.float64"), True) == code
    assert json.loads(capsys.readouterr().out)["worst"] == (worst if worst < 1 else None)


@pytest.mark.parametrize(
    ("own", "jaccard", "ends"),
    [
        ("bfloat16", 0.95, "and so does the mask. Set model.dtype: float32."),
        ("float16", 0.9899, "and so does the mask. Set model.dtype: float32."),
        ("float32", 0.95, "and so does the mask."),
        ("bfloat16", 0.99, "index of 0.990 with those of float64."),
        (
            "bfloat16",
            None,
            "What bfloat16 does to the top sets was not compared: the model is too large.",
        ),
    ],
)
def test_the_precision_is_said_and_where_it_matters_what_to_set(own, jaccard, ends, capsys):
    found = Agreement(0.0, "w.mean", 1, "torch.float64", f"torch.{own}", jaccard)
    assert endings.agreement(found, False) == 0
    assert capsys.readouterr().out.rstrip().endswith(ends)
    assert endings.agreement(found, True) == 0
    facts = json.loads(capsys.readouterr().out)
    assert (facts["own"], facts["jaccard"]) == (f"torch.{own}", jaccard)
