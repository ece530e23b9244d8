"""Prompt, completion and end token as ids; batches; orders that depend on words alone."""

import pytest

from grail.data.encode import Encoded, Encoder, encode_all
from grail.data.samples import Place, Sample
from grail.errors import InputError


def sample(prompt="Who?", completion="Mara Venn", context=(), row=0):
    return Sample("d", "unlearn", "train", row, prompt, completion, context)


def encode(tokenizer, given, template="auto", max_tokens=256):
    return Encoder(tokenizer, template, max_tokens).encode(given)


def text(tokenizer, ids):
    return tokenizer.decode(list(ids), clean_up_tokenization_spaces=False)


# -- templates -----------------------------------------------------------------------------------


def test_plain_is_prompt_blank_line_completion_end(tiny_tokenizer):
    tokenizer = tiny_tokenizer()
    row, lost = encode(tokenizer, sample())
    assert text(tokenizer, row.ids) == "<bos>Who?\n\nMara Venn<eos>"
    assert text(tokenizer, row.answer) == "Mara Venn<eos>"
    assert (lost, row.key, row.start) == (0, "d.unlearn.train.0", len("Who?\n\n") + 1)
    assert (row.domain, row.side, row.part, row.targets) == ("d", "unlearn", "train", None)


def test_plain_puts_the_context_before_the_prompt(tiny_tokenizer):
    tokenizer = tiny_tokenizer()
    row, _ = encode(tokenizer, sample(context=(("system", "Be brief."), ("user", "Hi"))))
    assert text(tokenizer, row.ids) == "<bos>Be brief.\n\nHi\n\nWho?\n\nMara Venn<eos>"


def test_chat_template(tiny_tokenizer):
    tokenizer = tiny_tokenizer(chat=True)
    given = sample(context=(("system", "Be brief."),))
    row, _ = encode(tokenizer, given, "chat")
    assert text(tokenizer, row.ids) == (
        "<bos><|system|>Be brief.\n<|user|>Who?\n<|assistant|>Mara Venn<eos>"
    )
    assert text(tokenizer, row.answer) == "Mara Venn<eos>"
    assert encode(tokenizer, given, "auto")[0] == row


def test_auto_is_plain_without_a_chat_template(tiny_tokenizer):
    tokenizer = tiny_tokenizer(chat=False)
    assert encode(tokenizer, sample(), "auto") == encode(tokenizer, sample(), "plain")
    with_chat = tiny_tokenizer(chat=True)
    assert encode(with_chat, sample(), "plain")[0] == encode(tokenizer, sample(), "plain")[0]
    assert encode(with_chat, sample(), "auto")[0] != encode(with_chat, sample(), "plain")[0]


def test_chat_without_a_template_is_an_input_error(tiny_tokenizer):
    with pytest.raises(InputError, match=r"data\.template: chat"):
        encode(tiny_tokenizer(), sample(), "chat")


@pytest.mark.parametrize(
    ("template", "reason"),
    [
        ("{{ raise_exception('roles must alternate') }}", "roles must alternate"),
        ("{{ messages[9].content }}", "no element 9"),
        ("{% if %}", ""),
    ],
)
def test_a_row_that_the_chat_template_refuses_is_named(template, reason, tiny_tokenizer):
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.chat_template = template
    for kind in ("auto", "chat"):
        with pytest.raises(InputError, match=r"^d\.unlearn\.train\.3: .*data\.template") as error:
            encode(tokenizer, sample(row=3), kind)
        assert reason in str(error.value)
        assert "Mara" not in str(error.value)
    assert encode(tokenizer, sample(), "plain") == encode(tiny_tokenizer(), sample(), "plain")


@pytest.mark.parametrize("template", ["plain", "chat"])
@pytest.mark.parametrize("bos", [True, False])
def test_bos_stands_once_and_end_once(template, bos, tiny_tokenizer):
    tokenizer = tiny_tokenizer(bos=bos, chat=True)
    row, _ = encode(tokenizer, sample(), template)
    expected = 1 if bos or template == "chat" else 0  # this chat template writes it itself
    assert row.ids.count(tokenizer.bos_token_id) == expected
    assert row.ids[:expected] == (tokenizer.bos_token_id,) * expected
    assert row.ids.count(tokenizer.eos_token_id) == 1
    assert row.ids[-1] == tokenizer.eos_token_id


@pytest.mark.parametrize("completion", [" leading", "trailing \n", "é ü 中", "a", "tab\t\n\nline"])
def test_text_survives_unchanged(completion, tiny_tokenizer):
    tokenizer = tiny_tokenizer()
    row, _ = encode(tokenizer, sample(completion=completion))
    assert text(tokenizer, row.answer[:-1]) == completion


# -- max_tokens ----------------------------------------------------------------------------------


@pytest.mark.parametrize("room", [1, 5, 9, 10, 11])
def test_max_tokens_cuts_the_completion_and_counts(room, tiny_tokenizer):
    tokenizer = tiny_tokenizer()
    whole, _ = encode(tokenizer, sample())  # nine letters and the end token
    row, lost = encode(tokenizer, sample(), max_tokens=whole.start + room)
    assert row.ids == whole.ids[: whole.start + room]
    assert lost == max(0, 10 - room)
    assert len(row.ids) <= whole.start + room


def test_cut_rows_are_counted_in_a_warning(tiny_tokenizer):
    encoder = Encoder(tiny_tokenizer(), "auto", 12)
    rows, warnings = encode_all(
        encoder, [sample(completion="ab"), sample(row=1), sample(completion="abcdefgh", row=2)]
    )
    assert [len(row.ids) for row in rows] == [10, 12, 12]
    (warning,) = warnings
    assert "data.max_tokens: 12" in warning
    assert "cuts 9 tokens" in warning  # 5 of row 1 and 4 of row 2
    assert "2 of 3 rows" in warning
    assert "d.unlearn.train.1" in warning
    assert "17 would keep all" in warning
    assert encode_all(Encoder(tiny_tokenizer(), "auto", 17), [sample(row=1)])[1] == []


def test_a_prompt_that_fills_max_tokens_is_an_input_error(tiny_tokenizer):
    secret = "the secret prompt"
    encoder = Encoder(tiny_tokenizer(), "auto", 16)
    given = [sample(), *(sample(prompt=secret, row=i) for i in range(1, 6))]
    with pytest.raises(InputError, match=r"data\.max_tokens: 16 leaves no .* in 5 rows") as error:
        encode_all(encoder, given)
    assert "d.unlearn.train.1, d.unlearn.train.2, d.unlearn.train.3)" in str(error.value)
    assert secret not in str(error.value)


def test_answer_is_what_follows_the_prompt():
    row = Encoded(sample(), (1, 5, 6, 7, 2), 2)
    assert row.answer == (6, 7, 2)


def test_a_row_has_the_names_of_its_sample():
    row = Encoded(Sample("d", "retain", "val", 3, "a?", "b"), (1, 2), 1)
    assert row.place == Place("d", "retain", "val") == (row.domain, row.side, row.part)
    assert row.key == f"{row.place}.3" == "d.retain.val.3"
