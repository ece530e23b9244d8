"""What is read of a plan, and the settings that plan and run share."""

import plans
import pytest
from peaks import write_settings

from grail.config.file import load_config
from grail.run.inputs import read_inputs


def test_the_middle_of_each_range_is_what_was_planned():
    total = {"seconds": [2.0, 8.0], "memory": [2**20, 4 * 2**20]}
    found = plans.planned({"total": total, "stages": []}, 1)
    assert (found["seconds"], found["memory"]) == (4.0, 2.0)
    ways = {"ways": [{"shards": 1}, {"shards": 2}], "unified": [5.0, 3 * 2**20]}
    assert plans.planned(ways, 2) == {"memory": 3.0, "seconds": None}


@pytest.mark.parametrize("name", plans.CASES)
def test_each_case_is_a_run(name, tiny_model_folder, tmp_path):
    sections, more, domains, _ = plans.CASES[name]
    model = {"name": str(tiny_model_folder)} | sections.get("model", {}) | more
    write_settings(tmp_path / "s.yaml", sections | {"model": model}, domains, rows=3, length=5)
    config = load_config(tmp_path / "s.yaml", [], str(tmp_path / "run"))
    samples = read_inputs(config).samples
    assert len(config.domains) == domains
    assert len({sample.prompt for sample in samples}) == len(samples) == 6 * domains
    assert {len(sample.completion) for sample in samples} == {5}
