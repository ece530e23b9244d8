"""Overrides: the order of layers, dotted keys, ``KEY=VALUE`` texts, and the way back."""

import copy

import pytest
from hypothesis import given
from hypothesis import strategies as st

from grail.config.merge import difference, flatten, merge, with_overrides
from grail.errors import InputError


def test_later_layers_win_and_dotted_keys_are_sections():
    merged = merge(
        {"a": {"x": 1, "y": {"p": 1, "q": 2}}, "b": None, "c": {"z": 1}},
        {"a.y.p": 5, "b": {"k": 1}},
        {"a": {"y.q": None}, "c": 3},
    )
    assert merged == {"a": {"x": 1, "y": {"p": 5, "q": None}}, "b": {"k": 1}, "c": 3}


def test_a_layer_is_not_changed():
    one, other = {"a": {"x": 1}}, {"a": {"x": 2}}
    merge(one, other)
    assert (one, other) == ({"a": {"x": 1}}, {"a": {"x": 2}})


def test_keys_that_are_not_words_stay_as_they_are():
    assert merge({1: 2, None: {"a.b": 3}}) == {1: 2, None: {"a": {"b": 3}}}


@pytest.mark.parametrize(
    "layer",
    [
        {"a": {"b": 1}, "a.b": 2},
        {"a.b": 1, "a": {"b": 1, "c": 2}},
        {"a": {"b": {"c": 1}}, "a.b": None},
        {"x": {"a.b.c": 1, "a": {"b.c": 2}}},
    ],
)
def test_one_layer_gives_a_key_once(layer):
    with pytest.raises(InputError, match=r"a\.b(\.c)? is given twice"):
        merge({"other": 1}, layer)


def test_layers_and_sections_may_share_keys():
    assert merge({"a.b": 1}, {"a": {"b": 2}}) == {"a": {"b": 2}}
    assert merge({"a.b": 1, "a-b": 2, "a": {"c": 3}}) == {"a": {"b": 1, "c": 3}, "a-b": 2}
    assert merge({"a": {}, "a.b": 1}) == {"a": {"b": 1}}


def test_flat_settings_have_dotted_keys_and_empty_sections():
    nested = {"a": {"x": 1, "y": {"p": None}}, "b": {}, "c": [1, {"d": 2}]}
    flat = {"a.x": 1, "a.y.p": None, "b": {}, "c": [1, {"d": 2}]}
    assert dict(flatten(nested)) == flat
    assert merge(flat) == nested


def test_a_text_replaces_what_its_key_held():
    settings = {"grid": {"a.b": [1]}, "seed": 5, "model": {"lora": None, "dtype": "auto"}}
    before = copy.deepcopy(settings)
    texts = ["grid={c.d: [1e-3]}", "seed = 6", "model.lora.r=3", "model.lora.r=4", "new.x=a=b"]
    assert with_overrides(settings, texts) == {
        "grid": {"c.d": [0.001]},
        "seed": 6,
        "model": {"lora": {"r": 4}, "dtype": "auto"},
        "new": {"x": "a=b"},
    }
    assert settings == before


def test_a_mapping_is_merged():
    settings = {"audit": {"max_rows": 3, "relearn": {"share": 0.5, "batch_size": 2}}}
    changed = with_overrides(settings, {"audit": {"relearn.share": 1.0}})
    assert changed == {"audit": {"max_rows": 3, "relearn": {"share": 1.0, "batch_size": 2}}}


@pytest.mark.parametrize("text", ["seed", "=3", "", "  =3"])
def test_a_text_without_key_or_value_is_refused(text):
    with pytest.raises(InputError, match=f"--set needs KEY=VALUE, got '{text}'"):
        with_overrides({}, [text])


@pytest.mark.parametrize("text", ["seed=[1", "seed={x: 1, x: 2}", "seed=2024-99-99"])
def test_a_value_that_is_no_yaml_is_refused(text):
    with pytest.raises(InputError, match="is not a valid YAML value"):
        with_overrides({}, [text])


def test_a_key_through_a_value_is_refused():
    with pytest.raises(InputError, match=r"^--set seed\.x=3: 'seed' is a value, not a section\.$"):
        with_overrides({"seed": 1}, ["seed.x=3"])


KEYS = st.sampled_from("abc")
LEAVES = st.none() | st.integers(0, 2)
SETTINGS = st.dictionaries(KEYS, LEAVES | st.dictionaries(KEYS, LEAVES, min_size=1))


@given(old=SETTINGS, new=SETTINGS)
def test_a_difference_turns_the_old_settings_into_the_new(old, new):
    """Up to keys of the old ones alone, which become null."""
    turned = dict(flatten(merge(old, difference(new, old))))
    for key, value in flatten(new):
        assert turned.get(key) == value
    assert all(turned[key] is None for key in turned.keys() - dict(flatten(new)).keys())


def test_equal_settings_do_not_differ():
    settings = {"a": {"x": 1, "y": {}}, "b": None}
    assert difference(settings, copy.deepcopy(settings)) == {}
