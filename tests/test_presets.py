"""A preset fills in what the file leaves out, and nothing else."""

import copy

import pytest

from grail.config import Config, parse
from grail.errors import InputError
from grail.localization.localizers import LOCALIZERS
from grail.presets import PRESETS, with_preset
from grail.unlearning.objectives import OBJECTIVES, make_objective

SIDES = {"unlearn": {"train": "u.jsonl"}, "retain": {"train": "r.jsonl"}}
SMALLEST = {"domains": {"privacy": SIDES}, "output": "runs/x"}
LOCALIZERS_TO_COME = {"memflex"}


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_valid_configuration(name):
    made = parse(SMALLEST | {"preset": name})
    for section, values in PRESETS[name].items():
        for key, value in values.items():
            found = getattr(getattr(made, section), key)
            if key == "until":
                assert (found.row_accuracy, found.domain_accuracy) == (None, None)
            else:
                assert found == value
    assert made.unlearning.objective in OBJECTIVES
    assert make_objective(made.unlearning).terms
    assert made.localization.method in set(LOCALIZERS) | LOCALIZERS_TO_COME
    others = set(Config.model_fields) - set(PRESETS[name]) - {"preset"}
    plain = parse(SMALLEST)
    assert all(getattr(made, other) == getattr(plain, other) for other in others)


def test_the_files_own_values_come_first():
    raw = SMALLEST | {"preset": "grail", "unlearning": {"epochs": 3, "max_token_nll": 5.0}}
    before = copy.deepcopy(raw)
    made = parse(raw)
    assert raw == before
    assert (made.unlearning.epochs, made.unlearning.max_token_nll) == (3, 5.0)
    assert made.unlearning.until.row_accuracy is None  # the preset's
    assert made.localization.method == "grail"


def test_a_filled_section_is_not_the_table_itself():
    filled = with_preset({"preset": "grail"})
    filled["unlearning"]["epochs"] = 99
    assert "epochs" not in PRESETS["grail"]["unlearning"]


def test_a_section_that_is_none_is_left_to_the_check():
    with pytest.raises(InputError, match="unlearning should be a section"):
        parse(SMALLEST | {"preset": "grail", "unlearning": 3})


def test_without_a_preset_nothing_is_filled_in():
    assert with_preset(SMALLEST) is SMALLEST
    assert with_preset({"preset": None}) == {"preset": None}


@pytest.mark.parametrize("name", ["grial", "", 3, ["grail"], {"grail": 1}])
def test_an_unknown_preset_is_named(name):
    with pytest.raises(InputError, match=r"^preset: .* is unknown") as error:
        with_preset({"preset": name})
    assert all(preset in str(error.value) for preset in PRESETS)
    if name == "grial":
        assert "Did you mean 'grail'?" in str(error.value)


@pytest.mark.parametrize("name", PRESETS)
def test_the_methods_of_the_paper_know_no_bound_and_no_rule(name):
    settings = parse(SMALLEST | {"preset": name}).unlearning
    if settings.objective != "exact":
        assert settings.max_token_nll is None
        assert (settings.until.row_accuracy, settings.until.domain_accuracy) == (None, None)
