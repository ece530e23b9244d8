"""Presets: each is a valid configuration, and gives way to what the file says."""

import copy

import pytest

from grail.config.localization import Localization, Memflex
from grail.config.merge import merge
from grail.config.presets import PRESETS, with_preset
from grail.config.run import parse_config
from grail.config.schema import named_fields
from grail.config.unlearning import PUBLISHED_WEIGHTS, Unlearning, Until
from grail.errors import InputError
from grail.localization.localizers import LOCALIZERS, check_method
from grail.unlearning.objectives import make_objective

SIDES = {"unlearn": {"train": "u.jsonl"}, "retain": {"train": "r.jsonl"}}
SMALLEST = {"domains": {"privacy": SIDES}, "output": "runs/x"}


def parsed(preset, **sections):
    return parse_config(SMALLEST | {"preset": preset} | sections)


@pytest.mark.parametrize("name", PRESETS)
def test_every_preset_is_a_valid_configuration(name):
    config = parsed(name)
    assert config.preset == name
    assert config.localization.method in LOCALIZERS
    check_method(config.localization)
    for section, values in PRESETS[name].items():  # what it says is what one gets
        resolved = getattr(config, section).model_dump()
        if values.get("layer") == "auto":  # what it means is settled
            values = values | {"layer": "tensor"}
        for key, value in values.items():
            assert resolved[key] == value


@pytest.mark.parametrize("name", PRESETS)
def test_a_resolved_configuration_resolves_to_itself(name):
    config = parsed(name)
    assert parse_config(config.model_dump(mode="json", exclude={"made_with"})) == config


METHOD = {"objective", "retain_rows", "beta", "delta", "rectify", "phases", "until"}
METHOD |= {"unlearn_weight", "retain_weight", "general_weight", "max_token_nll"}
METHOD |= {"reset", "teacher", "rewrites", "guesses", "wordings", "examples"}
METHOD |= {"retain_ratio", "stop"}
PACE = {"optimizer", "momentum", "learning_rate", "schedule", "warmup", "weight_decay"}
PACE |= {"max_grad_norm", "epochs", "batch_size", "accumulation", "checkpoint_steps", "trackers"}


@pytest.mark.parametrize("name", PRESETS)
def test_a_preset_gives_every_key_of_a_method(name):
    """A new key of ``unlearning`` has to be put into one of the two groups."""
    assert set(Unlearning.model_fields) == METHOD | PACE
    assert set(PRESETS[name]["unlearning"]) == METHOD
    assert set(PRESETS[name]["unlearning"]["until"]) == set(Until.model_fields)
    assert set(PRESETS[name]["localization"]) == set(named_fields(Localization))
    assert set(PRESETS[name]["localization"]["memflex"]) == set(Memflex.model_fields)


@pytest.mark.parametrize("name", PRESETS)
@pytest.mark.parametrize("below", PRESETS)
def test_nothing_of_another_preset_is_left_under_it(name, below):
    assert merge(PRESETS[below], PRESETS[name]) == PRESETS[name]


def test_masks_under_the_same_training():
    """Rows that are compared for their masks differ in nothing else."""
    want = {
        "grail": {},
        "grail-by-side": {"freeze": "by_side"},
        "grail-signed": {"statistic": "z_mean", "layer": "tensor"},
        "without-op-ur": {"keep_op_ur": False},
        "without-op-rr": {"keep_op_rr": False},
        "no-mask": {"method": "none"},
        "random-mask": {"method": "random"},
        "magnitude-mask": {"method": "magnitude"},
        "damage-budget": {"method": "damage_budget"},
    }
    plain = parsed("grail")
    bounded = parsed("grail-plus")
    assert bounded.unlearning == parsed("no-mask-plus").unlearning != plain.unlearning
    assert bounded.localization == plain.localization
    assert bounded.unlearning.max_token_nll is not None
    assert bounded.unlearning.until == plain.unlearning.until
    assert bounded.unlearning.general_weight > 0
    for name, differences in want.items():
        config = parsed(name)
        assert config.unlearning == plain.unlearning
        assert config.localization == plain.localization.model_copy(update=differences)
    assert plain.unlearning.max_token_nll is None
    assert plain.unlearning.retain_weight == 2.0


def test_memflex_comes_with_relative_and_with_published_thresholds():
    relative, published = parsed("memflex"), parsed("memflex-published")
    assert relative.unlearning == published.unlearning
    assert relative.unlearning.unlearn_weight == 0.4
    assert relative.localization.memflex.thresholds == "quantile"
    found = published.localization.memflex
    assert (found.thresholds, found.cosine, found.magnitude) == ("absolute", 0.94, 5e-4)


def test_the_release_as_a_whole():
    """What its two halves change of GRAIL, and the weights of its training script."""
    whole, grail = parsed("grail-release"), parsed("grail")
    halves = {"freeze": parsed("grail-by-side").localization.freeze}
    signed = parsed("grail-signed").localization
    halves |= {"statistic": signed.statistic, "layer": signed.layer}
    assert whole.localization == grail.localization.model_copy(update=halves)
    assert whole.unlearning == grail.unlearning.model_copy(update={"unlearn_weight": 0.4})


@pytest.mark.parametrize("objective", PUBLISHED_WEIGHTS)
def test_a_published_objective_has_a_preset(objective):
    name = objective.replace("_", "-")
    found = parsed(name)
    assert found.unlearning == Unlearning(objective=objective)
    weights = found.unlearning.unlearn_weight, found.unlearning.retain_weight
    assert weights == PUBLISHED_WEIGHTS[objective]
    assert found.localization == parsed("no-mask").localization
    assert make_objective(found.unlearning).terms
    masked = parsed(name, localization={"method": "grail"})  # any objective, any mask
    assert masked.unlearning == found.unlearning
    assert masked.localization == parsed("grail").localization


def test_the_file_has_the_last_word():
    config = parsed(
        "grail-signed",
        localization={"layer": "block", "k_op_ur": 0.3},
        unlearning={"until": {"row_accuracy": 0.2}, "epochs": 5},
    )
    own = config.localization
    assert (own.layer, own.k_op_ur, own.statistic) == ("block", 0.3, "z_mean")
    assert config.unlearning.until.row_accuracy == 0.2
    assert (config.unlearning.epochs, config.unlearning.max_token_nll) == (5, None)


def test_one_value_of_a_group_within_a_group_leaves_the_others():
    found = parsed("memflex-published", localization={"memflex": {"cosine": 0.92}})
    own = found.localization.memflex
    assert (own.thresholds, own.cosine, own.magnitude) == ("absolute", 0.92, 5e-4)


def test_sections_that_are_empty_or_null_are_filled():
    assert parsed("random-mask", localization={}).localization.method == "random"
    assert parsed("random-mask", localization=None).localization.method == "random"


def test_what_is_no_section_is_left_for_the_check_of_values():
    with pytest.raises(InputError, match="localization should be a section"):
        parsed("grail", localization="grail")


def test_neither_the_file_nor_the_preset_is_changed():
    raw = SMALLEST | {"preset": "memflex-published", "localization": {"memflex": {"cosine": 0.5}}}
    before = copy.deepcopy((raw, PRESETS))
    with_preset(raw)
    assert (raw, PRESETS) == before


def test_without_a_preset_nothing_is_filled_in():
    for own in ({"unlearning": {"objective": "ascent"}}, {"teach": True}, {"teach": {}}):
        raw = SMALLEST | own
        assert with_preset(raw) is raw
        assert with_preset(raw | {"preset": None}) == raw | {"preset": None}


@pytest.mark.parametrize("given", ["grial", "GRAIL-signd", "", 3, ["grail"]])
def test_an_unknown_preset_names_the_key_and_the_allowed(given):
    with pytest.raises(InputError) as error:
        parsed(given)
    text = str(error.value)
    assert f"preset: {given!r} is unknown." in text
    assert all(name in text for name in PRESETS)
    assert ("Did you mean 'grail'?" in text) == (given in ("grial", ["grail"]))


def test_resets_under_the_same_training():
    """The controls of a reset differ from it in what survives, and in nothing else."""
    flagship = parsed("reset-and-heal")
    for name, change in (("reset-random", {"keep": "random"}), ("reset-all", {"share": 1.0})):
        config = parsed(name)
        reset = flagship.unlearning.reset.model_copy(update=change)
        assert config.unlearning == flagship.unlearning.model_copy(update={"reset": reset})
        assert config.localization == flagship.localization
    assert parsed("distill").unlearning.reset is None
    assert parsed("grail").unlearning.reset is None


@pytest.mark.parametrize(
    ("given", "preset"),
    [
        ({}, "request"),
        ({"teach": None, "unlearning": {"epochs": 3}}, "request"),
        ({"preset": "grail"}, "grail"),
        ({"unlearning": {"objective": "npo"}}, None),
        ({"teach": True}, None),
        ({"teach": {}}, None),
        ({"teach": False}, "request"),
        ({"teach": {"epochs": 3}}, None),
    ],
)
def test_a_given_model_has_the_preset_of_a_request_unless_something_else_is_asked(given, preset):
    config = parse_config(SMALLEST | given)
    assert config.preset == preset
    assert (config.unlearning.stop is not None) == (preset == "request")
    assert parse_config(config.model_dump(mode="json", exclude={"made_with"})) == config
