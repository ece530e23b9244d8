"""The section teach, its switch, and what is said of its old name."""

import pytest
import yaml

from grail.config.file import load_config, run_settings, write
from grail.config.run import FULL_WEIGHTS_RATE, Config, parse_config
from grail.config.teach import Teach, upgraded
from grail.errors import InputError

SIDES = {"unlearn": {"train": "a.jsonl"}, "retain": {"train": "b.jsonl"}}


def parsed(**sections) -> Config:
    return parse_config({"domains": {"d": SIDES}, "output": "o", **sections})


@pytest.mark.parametrize("given", [{}, {"teach": None}, {"teach": False}])
def test_a_model_is_taken_as_it_is_unless_teaching_is_asked_for(given):
    config = parsed(**given)
    assert (config.teach, config.teaches, config.adapter) == (None, False, None)
    assert parsed(seed=3).vanilla_seed == 3
    assert parsed(seed=3, importance={"seed": 4}).vanilla_seed == 4


def test_true_is_the_section_with_its_defaults():
    assert parsed(teach=True) == parsed(teach={})
    assert parsed(teach=True).teach == Teach()
    assert parsed(teach=True).teaches
    whole = parsed(teach=True, model={"lora": None})
    assert whole.teach == Teach(learning_rate=FULL_WEIGHTS_RATE)
    given = parsed(teach={"learning_rate": 0.5}, model={"lora": None}).teach
    assert given == Teach(learning_rate=0.5)
    assert parsed(teach={"seed": 5}, importance={"seed": 4}).vanilla_seed == 5


def test_an_adapter_is_what_was_taught():
    config = parsed(teach={"adapter": "/x"})
    assert (config.teaches, config.adapter) == (False, "/x")


def test_a_switch_can_be_a_section_on_the_command_line(tmp_path):
    file = tmp_path / "a.yaml"
    file.write_text(yaml.safe_dump({"domains": {"d": SIDES}, "teach": True}))
    teach = load_config(file, ["teach.epochs=3"]).teach
    assert teach == Teach(epochs=3)


@pytest.mark.parametrize(
    ("old", "wanted"),
    [
        ({"skip": True}, "Leave the section vanilla out"),
        ({"epochs": 3}, "called teach now"),
        (None, "called teach now"),
        ({"skip": False}, "called teach now"),
    ],
)
def test_the_old_name_is_refused_with_the_new_one_beside_all_other_problems(old, wanted):
    with pytest.raises(InputError, match=wanted) as error:
        parsed(vanilla=old, seed=-1)
    assert len(error.value.problems) == 2


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"skip": True, "epochs": 24}, None),
        ({"skip": False, "epochs": 3}, Teach(epochs=3)),
        ({"skip": False, "adapter": "/x"}, Teach(adapter="/x")),
    ],
)
def test_a_finished_run_of_before_is_still_read(tmp_path, old, new):
    write(tmp_path / "config.yaml", parsed(), {"torch": "2.9"})
    raw = run_settings(tmp_path)
    del raw["teach"]
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(raw | {"vanilla": old}))
    assert load_config(tmp_path).teach == new
    assert upgraded({"seed": 1}) == {"seed": 1}


def test_a_finished_run_with_the_lens_of_older_audits_is_read():
    old = {"audit": {"lens_rows": 16, "samples": 2}, "teach": None}
    assert upgraded(old) == {"audit": {"samples": 2}, "teach": None}
    assert "lens_rows" in old["audit"], "what was given stays"
