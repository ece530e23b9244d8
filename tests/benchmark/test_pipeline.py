"""The naive pipeline, in this process, beside a run of grail."""

import json

import pytest
import yaml
from races import pipeline
from races.plan import QUICK

from grail.config.run import parse_config


def test_both_are_told_the_same_and_find_the_same(tmp_path):
    config = tmp_path / "run.yaml"
    given = pipeline._settings(QUICK, pipeline._model(QUICK, tmp_path))
    given["model"] |= {"dtype": "float32"}
    config.write_text(yaml.safe_dump(given | {"teach": None}))
    pipeline.by_grail(config, tmp_path / "grail")
    pipeline.by_parts(config, tmp_path / "naive")
    tables = pipeline.tables_of(tmp_path / "grail", tmp_path / "naive")
    assert {name for name in tables["vanilla"] if "NLL" in name} == {
        "privacy.unlearn.train.NLL",
        "privacy.retain.train.NLL",
    }
    for numbers in tables.values():
        for name, both in numbers.items():
            assert both["naive"] == pytest.approx(both["grail"], abs=1e-2), name
    before, after = (tables[model]["privacy.unlearn.train.NLL"] for model in tables)
    assert after["naive"] != before["naive"]


def test_the_settings_are_a_configuration(tmp_path):
    given = json.loads(json.dumps(pipeline._settings(QUICK, "smollm2-135m")))
    found = parse_config(given)
    assert found.unlearning.max_token_nll is found.unlearning.until.row_accuracy is None
