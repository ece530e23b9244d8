"""Models and rows that race."""

import json

import pytest
from races.subjects import FILES, FOLDER, Subject, field_of, lengthened, samples_of

from grail.errors import InputError
from grail.model.forward import trainable


@pytest.fixture
def data(tmp_path):
    (tmp_path / FOLDER).mkdir()
    for side, file in FILES.items():
        lines = [json.dumps({"prompt": f"{side} {i}?", "completion": "yes"}) for i in range(3)]
        (tmp_path / FOLDER / file).write_text("\n".join(lines))
    return tmp_path


def test_where_the_rows_end_they_begin_again_under_other_keys(data):
    samples = samples_of(data, 10)
    assert [s.prompt for s in samples[:4]] == ["unlearn 0?", "retain 0?", "unlearn 1?", "retain 1?"]
    assert len({s.key for s in samples}) == 10
    assert samples[6].prompt == samples[0].prompt


def test_every_domain_holds_as_many_rows(data):
    samples = samples_of(data, 4, domains=3)
    assert len({s.key for s in samples}) == 12
    names = [s.domain for s in samples]
    assert {name: names.count(name) for name in names} == {
        "privacy": 4,
        "privacy-2": 4,
        "privacy-3": 4,
    }


def test_a_folder_without_the_rows_is_named(tmp_path):
    with pytest.raises(InputError, match=r"unlearn_train\.jsonl does not exist"):
        samples_of(tmp_path, 2)


@pytest.mark.parametrize("factor", [1, 2, 4])
def test_a_longer_row_has_the_same_prompt_and_a_repeated_answer(tiny_rows, factor):
    for row in tiny_rows(4):
        longer = lengthened(row, factor)
        assert len(longer.ids) == factor * len(row.ids)
        assert longer.ids[: len(row.ids)] == row.ids
        assert set(longer.answer) == set(row.answer)


def test_all_tokens_are_in_the_vocabulary_and_weights_can_be_put_back(data):
    field = field_of(Subject("tiny", "float32", "cpu"), data, 4)
    assert max(max(row.ids) for row in field.rows) < field.vocabulary
    assert any("lora_B" in name and p.any() for name, p in trainable(field.model).items())
    start = field.start()
    name, parameter = next(iter(trainable(field.model).items()))
    parameter.data.add_(1)
    assert not parameter.equal(start[name])
    field.put(start)
    assert parameter.equal(start[name])


def test_two_loads_are_the_same_model():
    one, two = (Subject("tiny", "float32", "cpu", full=True).policy() for _ in range(2))
    assert all(a.equal(b) for a, b in zip(one.parameters(), two.parameters(), strict=True))
    assert all(p.requires_grad for p in one.parameters())
