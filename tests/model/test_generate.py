"""Generation against reading the whole sequence again for every token, and each row alone."""

import dataclasses
import itertools

import pytest
import torch

from grail.model import generate as module
from grail.model.generate import (
    Edges,
    TextGenerator,
    end_tokens,
    generate,
    groups_of,
    most_new,
    streamed,
)

FAMILIES = ["llama", "qwen2", "gemma", "gemma2", "gpt_neox", "gpt2"]


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer):
    return tiny_tokenizer()


@pytest.fixture
def talker(tiny_model, tokenizer):
    return tiny_model("llama", lora=True, vocabulary=len(tokenizer), seed=4)


def by_hand(model, prompt, most, end):
    """Greedy decoding with the whole sequence read again for each token."""
    ids, out = list(prompt), []
    with torch.no_grad():
        for _ in range(most):
            best = int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax())
            if best == end:
                break
            out.append(best)
            ids.append(best)
    return out


PROMPTS = ["Hi", "Who wrote it?", "A rather long prompt, to be padded against", "x", "yes 1 2 3"]


@pytest.mark.parametrize("family", FAMILIES)
def test_a_padded_batch_generates_what_each_prompt_does_alone(family, tiny_model, tokenizer):
    model = tiny_model(family, vocabulary=len(tokenizer), seed=2).eval()
    prompts = [tokenizer(text)["input_ids"] for text in PROMPTS]
    most = [12, 3, 8, 1, 12]
    together = generate(model, prompts, most, tokenizer)
    assert any(together)
    for row, prompt, limit in zip(together, prompts, most, strict=True):
        assert row == generate(model, [prompt], [limit], tokenizer)[0]
        assert row == by_hand(model, prompt, limit, tokenizer.eos_token_id)


@pytest.mark.parametrize("family", FAMILIES)
def test_a_text_begins_with_a_token_that_it_may_begin_with(family, tiny_model, tokenizer):
    model = tiny_model(family, vocabulary=len(tokenizer)).eval()
    prompts, end = [[5, 6, 7], [9] * 6], tokenizer.eos_token_id
    free = generate(model, prompts, [5, 5], tokenizer)
    every = set(range(len(tokenizer)))
    for begins in ({17}, {17, 23, 40}, every - {text[0] for text in free if text} - {end}):
        found = generate(model, prompts, [5, 5], tokenizer, edges=Edges({end}, begins))
        for prompt, text in zip(prompts, found, strict=True):
            with torch.no_grad():
                logits = model(torch.tensor([prompt])).logits[0, -1]
            first = max(begins, key=lambda token, of=logits: float(of[token]))
            assert text == [first, *by_hand(model, [*prompt, first], 4, end)]
    assert generate(model, prompts, [5, 5], tokenizer, edges=Edges({end}, every)) == free


def test_generation_stops_at_the_end_token(talker, tokenizer):
    """Make a token that comes up in the free text the end token: rows must stop before it."""
    prompts = [tokenizer(text)["input_ids"] for text in PROMPTS]
    free = generate(talker, prompts, [12] * 5, tokenizer)
    end = free[0][4]

    class Other:
        pad_token_id, eos_token_id = tokenizer.pad_token_id, end

    cut = generate(talker, prompts, [12] * 5, Other())
    expected = [row[: row.index(end)] if end in row else row for row in free]
    assert len(cut[0]) <= 4
    assert cut == expected


@pytest.mark.parametrize("lora", [True, False])
@pytest.mark.parametrize("named", [None, 7, [7, "END"], ["END", 9]])
def test_every_token_that_the_models_authors_call_an_end_ends_a_text(
    named, lora, tiny_model, tokenizer
):
    model = tiny_model(lora=lora, vocabulary=len(tokenizer), seed=4)
    prompts = [tokenizer(text)["input_ids"] for text in PROMPTS]
    free = generate(model, prompts, [12] * 5, tokenizer)
    ids = (
        [free[0][4] if token == "END" else token for token in named]
        if isinstance(named, list)
        else named
    )
    inner = model.get_base_model() if lora else model
    inner.generation_config.eos_token_id = ids
    ends = {tokenizer.eos_token_id, *(ids if isinstance(ids, list) else [ids])} - {None}
    assert end_tokens(model, tokenizer) == ends
    cut = generate(model, prompts, [12] * 5, tokenizer)
    assert cut == [list(itertools.takewhile(lambda i: i not in ends, row)) for row in free]
    assert (cut[0] != free[0]) == ("END" in (named if isinstance(named, list) else []))


def test_padding_token_may_be_the_end_token(talker, tokenizer):
    class Same:
        pad_token_id = eos_token_id = tokenizer.eos_token_id

    prompts = [tokenizer(text)["input_ids"] for text in PROMPTS]
    found = generate(talker, prompts, [6] * 5, Same())
    assert found == generate(talker, prompts, [6] * 5, tokenizer)


@pytest.mark.parametrize("lora", [True, False])
def test_what_the_models_authors_prefer_is_not_greedy(lora, tiny_model, tokenizer):
    model = tiny_model(lora=lora, vocabulary=len(tokenizer), seed=4)
    prompts = [tokenizer(text)["input_ids"] for text in PROMPTS]
    plain = generate(model, prompts, [10] * 5, tokenizer)
    inner = model.get_base_model() if lora else model
    inner.generation_config.update(
        repetition_penalty=50.0,
        suppress_tokens=sorted({i for row in plain for i in row}),
        do_sample=True,
    )
    kept = inner.generation_config
    assert generate(model, prompts, [10] * 5, tokenizer) == plain
    assert inner.generation_config is kept


@pytest.mark.parametrize("training", [True, False])
def test_generation_restores_the_mode_even_after_an_exception(training, talker, tokenizer):
    talker.train(training)
    generate(talker, [[3, 4]], [2], tokenizer)
    assert talker.training is training
    with pytest.raises(IndexError):
        generate(talker, [[10**6]], [2], tokenizer)
    assert talker.training is training
    assert all(m.training is training for m in talker.modules())


# -- texts of rows -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def generator(tiny_model, tokenizer):
    return lambda size: TextGenerator(tiny_model(vocabulary=len(tokenizer)), tokenizer, 9, size)


def alone(generator, row):
    prompt, most = [row.ids[: row.start]], [most_new(row, generator.limit)]
    (ids,) = generate(generator.model, prompt, most, generator.tokenizer)
    return generator.tokenizer.decode(ids, skip_special_tokens=True)


@pytest.mark.parametrize("size", [1, 2, 10])
def test_texts_come_in_the_order_of_the_rows(size, generator, tiny_rows):
    rows, told = [*tiny_rows(5), *tiny_rows(2)], []  # two of them stand there twice
    texts = generator(size).texts(rows, told.append)
    assert texts == [alone(generator(size), row) for row in rows]
    assert len(set(texts)) > 1
    assert told == [*range(size, len(rows), size), len(rows)]


def test_a_row_that_stands_there_often_is_sampled_anew(generator, tiny_rows):
    rows = tiny_rows(1, answer=(6, 6)) * 6
    texts = generator(2).texts(rows, lambda _: None, 0)
    assert len(set(texts)) > 2
    assert texts == generator(2).texts(rows, lambda _: None, 0)


def test_rows_of_similar_answers_share_a_batch(tiny_rows):
    rows = tiny_rows(7)
    groups = groups_of(rows, 3)
    assert [len(group) for group in groups] == [3, 3, 1]
    lengths = [len(rows[i].answer) for group in groups for i in group]
    assert lengths == sorted(lengths)
    assert sorted(i for group in groups for i in group) == list(range(7))


@pytest.mark.parametrize("size", [1, 3])
def test_what_is_known_of_a_text_is_not_made_again(size, generator, tiny_rows, monkeypatch):
    """Answers that begin as the model's own text does, for 0 to 4 tokens, and then leave it."""
    own, rows, known = generator(size), [], {}
    for many, row in enumerate(tiny_rows(5, answer=(6, 6))):
        prompt = row.ids[: row.start]
        (made,) = generate(own.model, [prompt], [9], own.tokenizer)
        made = made[:many]
        rest = [1 + token % 2 for token in row.answer[len(made) :]]
        rows.append(dataclasses.replace(row, ids=(*prompt, *made, *rest)))
        known[rows[-1]] = len(made)
    plain, read = own.texts(rows, lambda _: None), []

    def spy(model, prompts, *others):
        read.extend(tuple(prompt) for prompt in prompts)
        return generate(model, prompts, *others)

    monkeypatch.setattr(module, "generate", spy)
    assert own.texts(rows, lambda _: None, known=known) == plain
    assert sorted(read) == sorted(row.ids[: row.start + known[row]] for row in rows)
    assert max(known.values()) > 2


@pytest.mark.parametrize("known", [0, 2, 3])
def test_a_rows_own_end_token_ends_its_text(known, generator, tiny_rows):
    """The end of a turn may be another token than the tokenizer's end of a text."""
    own, (row,) = generator(2), tiny_rows(1, answer=(6, 6))
    prompt = row.ids[: row.start]
    (made,) = generate(own.model, [prompt], [6], own.tokenizer)
    at = max(made.index(token) for token in made)
    assert at
    told = dataclasses.replace(row, ids=(*prompt, *made[: at + 1]), end=made[at])
    (text,) = own.texts([told], lambda _: None, known={told: min(known, at + 1)})
    assert text == own.tokenizer.decode(made[:at])
    assert told.words == tuple(made[:at])


def test_a_text_that_is_known_to_its_end_is_not_made_at_all(generator, tiny_rows, monkeypatch):
    own, told = generator(2), []
    end = own.tokenizer.eos_token_id
    ended, cut = tiny_rows(2, answer=(6, 6))
    ended = dataclasses.replace(ended, ids=(*ended.ids[: ended.start], 40, 41, end))
    cut = dataclasses.replace(cut, ids=(*cut.ids[: cut.start], *range(40, 60)))  # beyond the limit
    monkeypatch.setattr(module, "generate", None)
    known = {ended: 3, cut: 20}
    texts = own.texts([ended, cut], told.append, known=known)
    assert texts == [own.tokenizer.decode(ids) for ids in ([40, 41], range(40, 49))]
    assert told == [2]


def test_a_batch_never_asks_for_positions_that_no_row_of_it_needs(tiny_model, tokenizer):
    """A long prompt with a short answer beside a short prompt with a long answer."""
    model = tiny_model("gpt2", vocabulary=len(tokenizer), n_positions=24)
    prompts, most = [[1, *range(10, 29)], [1, 9]], [4, 20]
    batch = generate(model, prompts, most, tokenizer)
    for prompt, limit, found in zip(prompts, most, batch, strict=True):
        assert found == generate(model, [prompt], [limit], tokenizer)[0]


@pytest.mark.parametrize(
    ("sharing", "sizes"), [("any", [4]), ("equal", [1, 2, 1]), ("none", [1, 1, 1, 1])]
)
def test_a_batch_is_parted_as_the_model_allows(sharing, sizes, talker, tokenizer, monkeypatch):
    prompts = [[1, 8, 9], [1, 7], [1, 6, 5], [1, 2, 3, 4]]
    whole = generate(talker, prompts, [5, 6, 7, 8], tokenizer)
    monkeypatch.setattr(module, "shares", lambda model, pad: sharing)
    parts = module._parts(talker, prompts, [5, 6, 7, 8], 0)
    assert sorted(map(len, parts)) == sorted(sizes)
    assert sorted(i for part in parts for i in part) == [0, 1, 2, 3]
    assert generate(talker, prompts, [5, 6, 7, 8], tokenizer) == whole


def test_a_streamed_text_is_the_text_in_pieces(talker, tokenizer, tiny_rows):
    rows = tiny_rows(4, prompt=(3, 9), answer=(8, 9))
    generator = TextGenerator(talker, tokenizer, 12, 1)
    for row in rows:
        pieces = []
        text = streamed(generator, row, pieces.append)
        prompt = row.ids[: row.start]
        ends = Edges(end_tokens(talker, tokenizer, [row]))
        (ids,) = generate(talker, [prompt], [12], tokenizer, None, ends)
        assert text == "".join(pieces) == tokenizer.decode(ids, skip_special_tokens=True)
        assert "" not in pieces
    one, same, other = (streamed(generator, rows[0], len, seed) for seed in (3, 3, 4))
    assert one == same != other
