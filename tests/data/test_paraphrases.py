"""Other prompts of a row: what is read, what is refused, and what does not notice them."""

import json

import pytest

from grail.config.run import parse_config
from grail.data.samples import data_digest, load_samples, paraphrases_of
from grail.errors import InputError


@pytest.mark.parametrize(
    ("given", "found"),
    [
        ({}, ()),
        ({"paraphrases": None}, ()),
        ({"paraphrases": ""}, ()),
        ({"paraphrases": []}, ()),
        ({"paraphrases": ["a?", "b?"]}, ("a?", "b?")),
        ({"paraphrases": '["a?", "b?"]'}, ("a?", "b?")),
    ],
)
def test_a_list_of_prompts_is_read(given, found):
    assert paraphrases_of(given) == found


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("secret words", "as JSON in a CSV file"),
        ('{"a": 1}', "got dict"),
        (7, "got int"),
        (["a?", 3], r"paraphrases\[1\] must be a prompt"),
        ([" "], r"paraphrases\[0\] must be a prompt"),
    ],
)
def test_anything_else_is_refused_without_its_text(given, words):
    with pytest.raises(InputError, match=words) as error:
        paraphrases_of({"paraphrases": given})
    assert "secret" not in str(error.value)


LAYOUTS = [
    {"prompt": "q?", "completion": "x"},
    {"question": "q?", "answer": "x"},
    {"text": "q?", "labels": "x"},
    {"messages": [{"role": "user", "content": "q?"}, {"role": "assistant", "content": "x"}]},
]


def loaded(tmp_path, suffix, lines):
    file = tmp_path / f"rows{suffix}"
    file.write_text("\n".join(lines) + "\n")
    other = tmp_path / "other.jsonl"
    other.write_text('{"prompt": "p", "completion": "y"}\n')
    part = {"train": str(other)}
    domains = {"a": {"unlearn": {"train": str(file)}, "retain": part}}
    return load_samples(parse_config({"domains": domains, "output": "out"}))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_may_carry_them_and_digests_do_not_notice(tmp_path, layout):
    plain = loaded(tmp_path, ".jsonl", [json.dumps(layout)])
    more = loaded(tmp_path, ".jsonl", [json.dumps(layout | {"paraphrases": ["r?", "s?"]})])
    assert plain[0].paraphrases == ()
    assert more[0].paraphrases == ("r?", "s?")
    assert (more[0].prompt, more[0].completion) == ("q?", "x")
    assert data_digest(plain) == data_digest(more)


def test_a_csv_cell_holds_a_list(tmp_path):
    cell = '"[""r?"", ""s?""]"'
    found = loaded(tmp_path, ".csv", ["prompt,completion,paraphrases", f"q?,x,{cell}", "t?,z,"])
    assert [sample.paraphrases for sample in found[:2]] == [("r?", "s?"), ()]


def test_a_wrong_one_is_named_with_its_line(tmp_path):
    with pytest.raises(InputError, match=r"rows.jsonl line 1: paraphrases must be a list"):
        loaded(tmp_path, ".jsonl", [json.dumps(LAYOUTS[0] | {"paraphrases": 3})])
