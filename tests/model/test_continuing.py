"""Texts against those of each row alone, whoever shares a batch."""

import dataclasses

import pytest

from grail.model import generate as continuing
from grail.model.generate import Draw, Writer, generate, groups_of, most_new


@pytest.fixture(scope="module")
def writer(tiny_model, tiny_tokenizer):
    tokenizer = tiny_tokenizer()
    return lambda size: Writer(tiny_model(vocabulary=len(tokenizer)), tokenizer, 9, size)


def alone(writer, row):
    prompt, most = [row.ids[: row.start]], [most_new(row, writer.limit)]
    (ids,) = generate(writer.model, prompt, most, writer.tokenizer)
    return writer.tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("size", [1, 2, 10])
def test_texts_come_in_the_order_of_the_rows(size, writer, tiny_rows):
    rows, told = [*tiny_rows(5), *tiny_rows(2)], []  # two of them stand there twice
    texts = writer(size).continued(rows, told.append)
    assert texts == [alone(writer(size), row) for row in rows]
    assert len(set(texts)) > 1
    assert told == [*range(size, len(rows), size), len(rows)]


def test_a_row_that_stands_there_often_is_sampled_anew(writer, tiny_rows):
    rows = tiny_rows(1, answer=(6, 6)) * 6
    texts = writer(2).continued(rows, lambda _: None, Draw(1.0, 0))
    assert len(set(texts)) > 2
    assert texts == writer(2).continued(rows, lambda _: None, Draw(1.0, 0))


def test_rows_of_similar_answers_share_a_batch(tiny_rows):
    rows = tiny_rows(7)
    groups = groups_of(rows, 3)
    assert [len(group) for group in groups] == [3, 3, 1]
    lengths = [len(rows[i].answer) for group in groups for i in group]
    assert lengths == sorted(lengths)
    assert sorted(i for group in groups for i in group) == list(range(7))


@pytest.mark.parametrize("size", [1, 3])
def test_what_is_known_of_a_text_is_not_made_again(size, writer, tiny_rows, monkeypatch):
    """Answers that begin as the model's own text does, for 0 to 4 tokens, and then leave it."""
    own, rows, known = writer(size), [], {}
    for many, row in enumerate(tiny_rows(5, answer=(6, 6))):
        prompt = row.ids[: row.start]
        (made,) = generate(own.model, [prompt], [9], own.tokenizer)
        made = made[:many]
        rest = [1 + token % 2 for token in row.answer[len(made) :]]
        rows.append(dataclasses.replace(row, ids=(*prompt, *made, *rest)))
        known[row.key] = len(made)
    plain, read = own.continued(rows, lambda _: None), []

    def spy(model, prompts, *others):
        read.extend(tuple(prompt) for prompt in prompts)
        return generate(model, prompts, *others)

    monkeypatch.setattr(continuing, "generate", spy)
    assert own.continued(rows, lambda _: None, known=known) == plain
    assert sorted(read) == sorted(row.ids[: row.start + known[row.key]] for row in rows)
    assert max(known.values()) > 2


def test_a_text_that_is_known_to_its_end_is_not_made_at_all(writer, tiny_rows, monkeypatch):
    own, told = writer(2), []
    end = own.tokenizer.eos_token_id
    ended, cut = tiny_rows(2, answer=(6, 6))
    ended = dataclasses.replace(ended, ids=(*ended.ids[: ended.start], 40, 41, end))
    cut = dataclasses.replace(cut, ids=(*cut.ids[: cut.start], *range(40, 60)))  # beyond the limit
    monkeypatch.setattr(continuing, "generate", None)
    known = {ended.key: 3, cut.key: 20}
    texts = own.continued([ended, cut], told.append, known=known)
    assert texts == [own.tokenizer.decode(ids) for ids in ([40, 41], range(40, 49))]
    assert told == [2]
