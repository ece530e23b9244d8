"""Every setting: valid defaults, and errors that say key, what was given, what is allowed."""

import copy
from pathlib import Path
from typing import get_args

import pytest
from pydantic import BaseModel, ValidationError

from grail.config.run import Config, Measured, parse_config
from grail.config.schema import named_fields
from grail.config.teach import Teach
from grail.config.unlearning import Reset
from grail.errors import InputError

SIDES = {"unlearn": {"train": "u.jsonl"}, "retain": {"train": "r.jsonl"}}
SMALLEST = {"domains": {"privacy": SIDES}, "output": "runs/x"}


def with_value(key, value, raw=SMALLEST):
    """Return the smallest configuration with one key (dotted) set."""
    raw = copy.deepcopy(raw)
    *sections, last = key.split(".")
    place = raw
    for section in sections:
        place = place.setdefault(section, {})
    place[last] = value
    return raw


def error_of(raw):
    with pytest.raises(InputError) as error:
        parse_config(raw)
    return str(error.value)


def leaves(section=Config, path=()):
    """Yield the dotted key of every setting."""
    for name, field in named_fields(section).items():
        options = [field.annotation, *get_args(field.annotation)]
        inner = [o for o in options if isinstance(o, type) and issubclass(o, BaseModel)]
        if inner and name != "domains":
            yield from leaves(inner[0], (*path, name))
        else:
            yield ".".join((*path, name))


KEYS = [key for key in leaves() if key != "made_with"]


def test_the_smallest_configuration_is_valid_and_complete():
    config = parse_config(SMALLEST)
    assert config.seed == 0
    assert config.domains["privacy"].retain.train == str(Path.cwd() / "r.jsonl")
    assert config.domains["privacy"].retain.val is None
    assert config.made_with is None


def test_the_defaults_of_the_paper():
    settings = parse_config(SMALLEST).localization
    assert (settings.k_op_ur, settings.k_op_rr) == (0.10, 0.20)
    assert (settings.method, settings.freeze) == ("grail", "static")
    assert settings.keep_op_ur is settings.keep_op_rr is True
    assert parse_config(SMALLEST).importance.labels == "random"
    assert parse_config(SMALLEST).importance.trials == 3


def test_every_default_passes_its_own_check():
    dump = parse_config(SMALLEST).model_dump()
    assert parse_config(dump) == parse_config(SMALLEST)
    assert parse_config(parse_config(SMALLEST).model_dump(mode="json")) == parse_config(SMALLEST)


def test_parse_does_not_change_what_it_reads():
    raw = with_value("model.lora.r", 4)
    before = copy.deepcopy(raw)
    parse_config(raw)
    assert raw == before


# key, a value that is not allowed, what the message must hold besides key and value
BAD = [
    ("localization.k_op_ur", 0, "greater than 0"),
    ("localization.k_op_ur", 1.5, "less than or equal to 1"),
    ("localization.k_op_rr", float("nan"), ""),
    ("localization.k_op_rr", "a lot", "number"),
    ("localization.k_op_rr", True, "number"),
    ("localization.layer", "blok", "block, tensor or model"),
    ("localization.freeze", 3, "static or by_side"),
    ("localization.method", "", "not be empty"),
    ("localization.keep_op_ur", "perhaps", "boolean"),
    ("importance", None, "section"),
    ("model", "gpt2", "section"),
    ("model.dtype", "fp16", "auto, float32, bfloat16 or float16"),
    ("model.lora", 8, "section"),
    ("model.lora.r", 0, "greater than or equal to 1"),
    ("model.lora.dropout", 1, "less than 1"),
    ("model.lora.target_modules", 5, "a name or a list of names"),
    ("model.lora.target_modules", ["q_proj", 5], "a name or a list of names"),
    ("data.max_tokens", 7, "greater than or equal to 8"),
    ("data.max_rows", 0, "greater than or equal to 1"),
    ("teach.learning_rate", 0, "greater than 0"),
    ("teach.learning_rate", float("inf"), "finite"),
    ("teach.until", 0, "greater than 0"),
    ("importance.trials", 2.5, "integer"),
    ("importance.batch_tokens", "1024", "integer"),
    ("unlearning.epochs", True, "integer"),
    ("unlearning.optimizer", "adam", "adamw, sgd, adafactor or adamw8bit"),
    ("unlearning.unlearn_weight", -0.1, "greater than or equal to 0"),
    ("unlearning.retain_weight", -0.1, "greater than or equal to 0"),
    ("unlearning.until", 0.1, "section"),
    ("unlearning.until.row_accuracy", -1, "greater than or equal to 0"),
    ("unlearning.trackers", "tensorboard", "list"),
    ("unlearning.phases", [], "at least one"),
    ("unlearning.beta", 0, "greater than 0"),
    ("unlearning.delta", -1, "greater than or equal to 0"),
    ("unlearning.retain_rows", "ood", "domain or general"),
    ("unlearning.rectify", "perhaps", "boolean"),
    ("teach.seed", -1, "greater than or equal to 0"),
    ("importance.seed", 1.5, "integer"),
    ("evaluation.min_k", 0, "greater than 0"),
    ("evaluation.min_k", 20, "less than or equal to 1"),
    ("evaluation.retain_target", 101, "less than or equal to 100"),
    ("evaluation.general_tasks", "mmlu", "list"),
    ("evaluation.general_max_items", 0, "greater than or equal to 1"),
    ("audit.attacks", "prune", "list"),
    ("audit.relearn.steps", [5, 5], "grow from one number to the next"),
    ("domains", {}, "at least one"),
    ("domains", ["privacy"], "section"),
    ("domains.privacy.unlearn", "file.jsonl", "section"),
    ("domains.privacy.unlearn.train", None, "string"),
    ("domains.privacy.retain.val", 3, "string"),
    ("domains.privacy.unlearn.heldout", "", "not be empty"),
    ("domains.a b", SIDES, "letters, digits, - and _"),
    ("domains.a/b", SIDES, "letters, digits, - and _"),
    ("domains.general", SIDES, "not general"),
    ("general.train", "", "not be empty"),
    ("seed", -1, "greater than or equal to 0"),
    ("seed", 2**31, f"less than {2**31}"),
    ("seed", 0.5, "integer"),
    ("output", None, "string"),
]


@pytest.mark.parametrize(("key", "value", "allowed"), BAD)
def test_an_error_says_key_given_and_allowed(key, value, allowed):
    text = error_of(with_value(key, value))
    assert text.count("\n") == 0
    assert text.startswith(key)
    assert allowed in text
    shown = key.split(".")[-1] if value is SIDES else value
    assert f"got {shown!r}" in text
    for python in ("pydantic", "Input", "instance of", "dict", "[key]", "type="):
        assert python not in text


def test_only_the_unlearn_side_has_held_out_rows():
    config = parse_config(with_value("domains.privacy.unlearn.heldout", "h.jsonl"), Path("/data"))
    unlearn = config.domains["privacy"].unlearn.model_dump()
    assert unlearn == {"train": "/data/u.jsonl", "val": None, "heldout": "/data/h.jsonl"}
    text = error_of(with_value("domains.privacy.retain.heldout", "h.jsonl"))
    assert text.startswith("unknown key domains.privacy.retain.heldout.")
    assert text.endswith("Allowed in domains.privacy.retain: train, val.")


def test_a_long_value_is_cut():
    text = error_of(with_value("output", ["x" * 500]))
    assert len(text) < 150
    assert "..." in text


@pytest.mark.parametrize(
    ("key", "hint", "some_allowed"),
    [
        ("localizaton", "localization", "evaluation"),
        ("localization.k_op_urr", "k_op_ur", "keep_op_rr"),
        ("unlearning.epohcs", "epochs", "batch_size"),
        ("unlearning.until.row_acuracy", "row_accuracy", "domain_accuracy"),
        ("model.lora.alhpa", "alpha", "target_modules"),
        ("domains.privacy.unlern", "unlearn", "retain"),
        ("domains.privacy.unlearn.trian", "train", "val"),
    ],
)
def test_an_unknown_key_names_the_nearest_and_all_allowed(key, hint, some_allowed):
    text = error_of(with_value(key, 1))
    assert text.startswith(f"unknown key {key}. Did you mean '{hint}'? Allowed in ")
    section = ".".join(key.split(".")[:-1]) or "the configuration"
    assert f"Allowed in {section}: " in text
    assert some_allowed in text
    assert "made_with" not in text


def test_an_unknown_key_like_no_other_gets_no_hint():
    text = error_of(with_value("model.lora.qqq", 1))
    assert (
        text
        == "unknown key model.lora.qqq. Allowed in model.lora: r, alpha, dropout, target_modules."
    )


def test_a_choice_gets_a_hint():
    assert error_of(with_value("localization.layer", "blok")).endswith("Did you mean 'block'?")
    assert error_of(with_value("data.template", "plian")).endswith("Did you mean 'plain'?")


@pytest.mark.parametrize(
    ("key", "given", "meant"),
    [
        ("localization.k_op_ur", 10, "0.1"),
        ("localization.k_op_rr", 20.0, "0.2"),
        ("unlearning.until.row_accuracy", 30, "0.3"),
        ("model.lora.dropout", 5, "0.05"),
    ],
)
def test_a_percentage_gets_the_fraction(key, given, meant):
    assert error_of(with_value(key, given)).endswith(f"Did you mean {meant}?")
    parse_config(with_value(key, float(meant)))


@pytest.mark.parametrize("given", [-10, 101, 0, "x"])
def test_what_is_no_percentage_gets_no_hint(given):
    assert "Did you mean" not in error_of(with_value("localization.k_op_ur", given))


@pytest.mark.parametrize("key", ["domains", "output"])
def test_what_has_no_default_is_asked_for(key):
    raw = {name: value for name, value in SMALLEST.items() if name != key}
    assert error_of(raw) == f"{key} is missing. Add it to the configuration."


@pytest.mark.parametrize("side", ["unlearn", "retain"])
def test_both_sides_are_needed(side):
    raw = {**SMALLEST, "domains": {"a": {s: v for s, v in SIDES.items() if s != side}}}
    assert error_of(raw).startswith(f"domains.a.{side} is missing")


def test_all_errors_are_told_at_once():
    raw = SMALLEST
    wrong = {
        "localization.k_op_ur": 10,
        "model.lora.rank": 3,
        "seed": -1,
        "unlearning.optimizer": "lion",
        "domains.a b": SIDES,
        "domains.privacy.retain.train": None,
        "vanilla": {"skip": True},
    }
    for key, value in wrong.items():
        raw = with_value(key, value, raw)
    lines = error_of(raw).splitlines()
    assert len(lines) == len(wrong)
    with pytest.raises(InputError) as error:
        parse_config(raw)
    assert error.value.problems == lines
    for key in wrong:
        assert any(line.removeprefix("unknown key ").startswith(key) for line in lines), key


@pytest.mark.parametrize("raw", [None, [], "text", 3])
def test_something_else_than_sections_is_refused(raw):
    assert repr(raw) in error_of(raw)


@pytest.mark.parametrize("key", [1, None, 2.5])
def test_keys_that_are_not_words(key):
    assert str(key) in error_of({**SMALLEST, key: 1})
    assert f"domains.{key}" in error_of({**SMALLEST, "domains": {key: SIDES}})


@pytest.mark.parametrize("name", ["a", "A-b_c", "3", "é", "General"])
def test_names_of_domains(name):
    assert list(parse_config({**SMALLEST, "domains": {name: SIDES}}).domains) == [name]


def test_domains_keep_their_order_and_number():
    names = ["z", "a", "m", "b", "y"]
    raw = {**SMALLEST, "domains": dict.fromkeys(names, SIDES)}
    assert list(parse_config(raw).domains) == names


@pytest.mark.parametrize("key", KEYS)
def test_no_setting_can_be_changed_afterwards(key):
    place = parse_config(SMALLEST)
    *sections, last = key.split(".")
    for section in sections:
        if (free := {"reset": Reset(), "teach": Teach(), "check": Measured(rows="f")}).get(section):
            place = free[section]  # null, or none with a name
        else:
            place = getattr(place, section)
    with pytest.raises(ValidationError, match="frozen"):
        setattr(place, {"from": "reused"}.get(last, last), None)


@pytest.mark.parametrize("key", [key for key in KEYS if key != "domains"])
def test_every_key_is_named_when_it_is_wrong(key):
    """No setting takes a value of any kind: a date, for one, is never allowed."""
    text = error_of(with_value(key, {"not": "this"}))
    assert text.startswith(key)


def test_an_entry_of_a_list_is_named_by_its_place():
    text = error_of(with_value("evaluation.general_tasks", ["mmlu", ""]))
    assert text == "evaluation.general_tasks.1 should not be empty, got ''."


def test_two_configurations_share_nothing_that_can_be_changed():
    one, two = parse_config(SMALLEST), parse_config(SMALLEST)
    one.unlearning.trackers.append("x")
    one.evaluation.general_tasks.append("x")
    one.audit.attacks.append("x")
    assert two.unlearning.trackers == two.evaluation.general_tasks == []
    assert "x" not in two.audit.attacks
    assert parse_config(SMALLEST).unlearning.trackers == []


def test_numbers_may_be_written_as_yaml_reads_them():
    assert (
        parse_config(with_value("unlearning.learning_rate", "2e-3")).unlearning.learning_rate
        == 2e-3
    )
    assert parse_config(with_value("unlearning.retain_weight", 2)).unlearning.retain_weight == 2.0


@pytest.mark.parametrize(
    ("key", "attribute"),
    [
        ("model.lora", "lora"),
        ("unlearning.max_token_nll", "max_token_nll"),
        ("unlearning.max_grad_norm", "max_grad_norm"),
        ("general.train", "train"),
        ("data.max_rows", "max_rows"),
    ],
)
def test_null_switches_off(key, attribute):
    assert (
        getattr(getattr(parse_config(with_value(key, None)), key.split(".")[0]), attribute) is None
    )


def test_float16_is_for_a_frozen_base_only():
    raw = with_value("model.dtype", "float16")
    parse_config(raw)
    text = error_of(with_value("model.lora", None, raw))
    assert text.startswith("model")
    assert "float16 cannot train all weights" in text
    for dtype in ("auto", "float32", "bfloat16"):
        parse_config(with_value("model", {"lora": None, "dtype": dtype}))


@pytest.mark.parametrize("section", ["teach", "unlearning"])
def test_full_weights_have_a_learning_rate_of_their_own(section):
    def rate(**raw):
        return getattr(parse_config(SMALLEST | {"teach": True} | raw), section).learning_rate

    adapter = rate()
    full = rate(model={"lora": None})
    assert full < adapter / 10
    assert rate(model={"lora": None}, **{section: {"learning_rate": 0.5}}) == 0.5
    assert rate(model={"lora": {"r": 2}}) == adapter


@pytest.mark.parametrize(
    ("section", "name"), [("teach", "vanilla_seed"), ("importance", "label_seed")]
)
def test_a_stages_seed_is_its_own_or_the_runs(section, name):
    taught = SMALLEST | {"teach": True, "seed": 7}
    assert getattr(parse_config(taught), name) == 7
    for seed in (0, 3):
        config = parse_config(taught | {section: {"seed": seed}})
        assert getattr(config, name) == seed
        others = {"vanilla_seed", "label_seed"} - {name}
        assert [getattr(config, other) for other in others] == [7]
        assert config.seed == 7


def test_dotted_keys_are_sections_in_sections():
    raw = {**SMALLEST, "unlearning.until.row_accuracy": 0.3, "unlearning": {"epochs": 2}}
    unlearning = parse_config(raw).unlearning
    assert (unlearning.until.row_accuracy, unlearning.epochs) == (0.3, 2)
    assert error_of({**SMALLEST, "unlearning.epohcs": 2}).startswith(
        "unknown key unlearning.epohcs"
    )
