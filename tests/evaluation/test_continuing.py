"""Texts against those of each row alone, whoever shares a batch."""

import pytest

from grail.evaluation.continuing import Writer, groups_of, most_new
from grail.generation import Draw, generate


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
