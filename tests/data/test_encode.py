"""Prompt, completion and end token as ids; batches; orders that depend on words alone."""

import dataclasses
import datetime

import pytest
from chats import FAMILIES, tokenizer_of
from tiny import CHAT
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors
from transformers import PreTrainedTokenizerFast

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


# -- what a chat template does with an answer ----------------------------------------------------

TURN = "{% for m in messages %}<|{{ m.role }}|>"
END = "{{ eos_token }}\n{% endfor %}{% if add_generation_prompt %}<|assistant|>"
SAYING = {  # a template -> what is asked and what is said
    "an opened thought": (
        TURN + "{{ m.content }}" + END + "<think>\n{% endif %}",
        ("<|user|>Who?<eos>\n<|assistant|>", "Mara Venn<eos>"),
    ),
    "an empty thought": (
        TURN
        + "{% if loop.last %}<think>\n\n</think>\n\n{% endif %}{{ m.content }}"
        + END
        + "{% endif %}",
        ("<|user|>Who?<eos>\n<|assistant|><think>\n\n</think>\n\n", "Mara Venn<eos>"),
    ),
    "spaces around": (
        TURN + " {{ m.content }} " + END + "{% endif %}",
        ("<|user|> Who? <eos>\n<|assistant|> ", "Mara Venn <eos>"),
    ),
    "line feeds around": (
        TURN + "\n\n{{ m.content }}\n" + END + "\n{% endif %}",
        ("<|user|>\n\nWho?\n<eos>\n<|assistant|>\n\n", "Mara Venn\n<eos>"),
    ),
    "words around": (
        TURN + "{{ 'Mara ' if m.role == 'assistant' }}{{ m.content }}, Mara" + END + "{% endif %}",
        ("<|user|>Who?, Mara<eos>\n<|assistant|>Mara ", "Mara Venn, Mara<eos>"),
    ),
    "two ends": (
        TURN + "{{ m.content }}<|system|>" + END + "{% endif %}",
        ("<|user|>Who?<|system|><eos>\n<|assistant|>", "Mara Venn<|system|>"),
    ),
}


@pytest.mark.parametrize("name", SAYING)
def test_prompt_and_answer_are_taken_from_the_whole_conversation(name, tiny_tokenizer):
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.chat_template, (asked, said) = SAYING[name]
    row, _ = encode(tokenizer, sample())
    assert text(tokenizer, row.ids[: row.start]) == asked
    assert text(tokenizer, row.answer) == said
    assert row.answer == (*row.words, row.end)


@pytest.mark.parametrize("completion", ["Who?", "user", "e", "<|assistant", " Mara\n", "\n\n\nx"])
def test_an_answer_that_stands_elsewhere_too(completion, tiny_tokenizer):
    tokenizer = tiny_tokenizer(chat=True)
    given = sample(completion=completion, context=(("user", completion), ("assistant", completion)))
    row, _ = encode(tokenizer, given)
    assert text(tokenizer, row.words) == completion
    tokenizer.chat_template = tokenizer.chat_template.replace("m.content", "m.content.strip()")
    row, _ = encode(tokenizer, given)
    assert text(tokenizer, row.words) == completion.strip()


@pytest.mark.parametrize(
    "content",
    ["m.content|upper", "m.content[:4]", "m.content ~ m.content", "'text'", "m.content|tojson"],
)
def test_an_answer_that_cannot_be_told_from_the_prompt_is_refused(content, tiny_tokenizer):
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.name_or_path = "models/odd"
    tokenizer.chat_template = tokenizer.chat_template.replace("m.content", content)
    with pytest.raises(InputError, match=r"^d\.unlearn\.train\.3: .* of models/odd does") as error:
        encode(tokenizer, sample(completion='"Mara"\n"Venn"', row=3))
    assert "Mara" not in str(error.value)


@pytest.mark.parametrize("end", ["", "\n", "<end>\n", "{{ '' }}</s>"])
def test_a_template_that_ends_no_answer_gets_the_end_token_and_says_so(end, tiny_tokenizer):
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.chat_template = TURN + "{{ m.content }}" + end + "{% endfor %}"
    encoder = Encoder(tokenizer, "chat", 64)
    (row,), warnings = encode_all(encoder, [sample()])
    assert row.end == tokenizer.eos_token_id
    assert tokenizer.decode(row.words) == sample().completion
    assert len(warnings) == 1
    assert "writes no token that ends an answer" in warnings[0]
    tokenizer.add_tokens(["<end>", "</s>"])  # not special, but the template writes them
    if end.strip():
        encoder = Encoder(tokenizer, "chat", 64)
        (row,), warnings = encode_all(encoder, [sample()])
        assert tokenizer.convert_ids_to_tokens(row.end) in end
        assert not warnings


def test_a_template_with_names_needs_a_default(tiny_tokenizer):
    tokenizer = tiny_tokenizer(chat=True)
    default = tokenizer.chat_template
    tokenizer.chat_template = {"tool_use": "a"}
    with pytest.raises(InputError, match=r"chat template of .* has no default .*plain"):
        encode(tokenizer, sample())
    tokenizer.chat_template = {"tool_use": "a", "default": default}
    assert encode(tokenizer, sample()) == encode(tiny_tokenizer(chat=True), sample())


def test_words_that_a_template_uses_are_no_control_tokens(tiny_tokenizer):
    tokenizer = tiny_tokenizer(chat=True)
    tokenizer.add_tokens(["user", "content", "\n\n", "::", "<elsewhere>"])
    given = sample(completion="the user's\n\ncontent <elsewhere>")
    row, _ = encode(tokenizer, given)
    assert text(tokenizer, row.words) == given.completion


# -- the clock -----------------------------------------------------------------------------------

FORMATS = ["%d %b %Y", "%Y-%m-%d", "%-d %B, %A", "%H:%M:%S %p", "%x %X %j week %V day %u", "%I%y"]


@pytest.mark.parametrize("date", ["2024-02-29", "2031-11-05"])
@pytest.mark.parametrize("form", FORMATS)
def test_a_template_that_reads_the_clock_is_told_the_date(form, date, tiny_tokenizer):
    tokenizer = tiny_tokenizer(chat=True)
    begin = "  {% macro today() %}{{ strftime_now(format='FORM') }}{% endmacro %}\n\n{{ today() }}"
    begin += "{% if strftime_now is defined %} {{ strftime_now('FORM') }}{% endif %}"
    tokenizer.chat_template = begin.replace("FORM", form) + CHAT
    row, _ = Encoder(tokenizer, "auto", 512, date).encode(sample())
    day = datetime.datetime.fromisoformat(date).strftime(form)
    asked = text(tokenizer, row.ids[: row.start])
    assert asked == f"\n{day} {day}<bos><|user|>Who?\n<|assistant|>"


# -- tokenizers that put something before or after a text -----------------------------------------


def marking(tokenizer):
    """Let a tokenizer mark a text's first word, as SentencePiece does."""
    inner = tokenizer.backend_tokenizer
    inner.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=True, use_regex=True)
    return tokenizer


@pytest.mark.parametrize("template", ["plain", "chat"])
@pytest.mark.parametrize("completion", ["Mara Venn", "1984", "\nx", "é"])
def test_a_first_word_gets_no_space(template, completion, tiny_tokenizer):
    tokenizer = marking(tiny_tokenizer(chat=True))
    assert tokenizer.decode(tokenizer.encode("Mara", add_special_tokens=False)) == " Mara"
    tokenizer.chat_template = TURN + "\n{{ m.content }}" + END + "{% endif %}"
    row, _ = encode(tokenizer, sample(completion=completion), template)
    assert text(tokenizer, row.words) == completion


def test_a_first_word_gets_the_space_that_it_has_in_the_whole(tiny_tokenizer):
    """The mark of a start stands after every control token: the model has learnt it so."""
    tokenizer = marking(tiny_tokenizer(chat=True))
    row, _ = encode(tokenizer, sample())
    messages = [{"role": "user", "content": "Who?"}, {"role": "assistant", "content": "Mara Venn"}]
    whole = tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]
    assert list(row.ids) == whole[: len(row.ids)]
    assert text(tokenizer, row.answer) == " Mara Venn<eos>"


@pytest.mark.parametrize("unknown", ["\u2603", "a\u2603b", "\u2603\u2603 a", "ab\u00e9"])
@pytest.mark.parametrize("template", ["plain", "chat"])
@pytest.mark.parametrize("fused", [True, False])
def test_an_unknown_character_ends_no_answer(unknown, template, fused):
    """Its token stands for text, and may begin with what the template writes before."""
    ids = {token: number for number, token in enumerate(["<unk>", "</s>", "a", "b", " ", ":"])}
    inner = Tokenizer(models.BPE(vocab=ids, merges=[], unk_token="<unk>", fuse_unk=fused))
    names = {"eos_token": "</s>", "unk_token": "<unk>"}
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=inner, **names)
    tokenizer.chat_template = "{% for m in messages %}\n{{ m.content + eos_token }}{% endfor %}"
    row, _ = encode(tokenizer, sample("a", unknown), template)
    alone = tokenizer(unknown, add_special_tokens=False)["input_ids"]
    assert list(row.answer) == [*alone, ids["</s>"]]


@pytest.mark.parametrize("single", ["<bos> $A <eos>", "$A <eos>", "<eos> $A", "<bos> $A"])
def test_what_a_tokenizer_puts_after_a_text_is_not_asked(single, tiny_tokenizer):
    tokenizer = tiny_tokenizer(chat=True)
    ids = [(name, tokenizer.convert_tokens_to_ids(name)) for name in ("<bos>", "<eos>")]
    tokenizer.backend_tokenizer.post_processor = processors.TemplateProcessing(
        single=single, special_tokens=ids
    )
    row, _ = encode(tokenizer, sample(), "plain")
    assert text(tokenizer, row.ids) == (
        single.partition("$A")[0].strip() + "Who?\n\nMara Venn<eos>"
    )
    assert encode(tokenizer, sample(), "chat") == encode(
        tiny_tokenizer(chat=True), sample(), "chat"
    )


class Slow:
    """A tokenizer without offsets, as those written in Python are."""

    def __init__(self, inner):
        self.inner, self.is_fast = inner, False

    def __getattr__(self, name):
        return getattr(self.inner, name)

    def __call__(self, given, add_special_tokens=True):
        return self.inner(given, add_special_tokens=add_special_tokens)


@pytest.mark.parametrize("template", ["plain", "chat"])
@pytest.mark.parametrize("completion", ["Mara Venn", "\nx", " y"])
def test_a_tokenizer_without_offsets(template, completion, tiny_tokenizer):
    tokenizer, given = tiny_tokenizer(chat=True), sample(completion=completion)
    assert encode(Slow(tokenizer), given, template) == encode(tokenizer, given, template)


def test_a_tokenizer_without_offsets_must_begin_a_token_at_the_answer():
    tokenizer = Slow(tokenizer_of(FAMILIES["llama 2"]))
    with pytest.raises(InputError, match=r"train\.0: .* cannot be told from the prompt"):
        encode(tokenizer, sample(completion="nor"))  # one token with the space before it
    row, _ = encode(tokenizer, sample(completion="Mara"))
    assert row == encode(tokenizer.inner, sample(completion="Mara"))[0]


@pytest.mark.parametrize("token", ["<eos>", "<bos>", "<pad>", "<|user|>"])
@pytest.mark.parametrize("field", ["prompt", "completion", "paraphrases", "context"])
@pytest.mark.parametrize("template", ["plain", "chat"])
def test_a_control_token_in_a_row_is_refused(token, field, template, tiny_tokenizer):
    told = f"SECRET {token}"
    values = {"paraphrases": ("a?", told), "context": (("user", told), ("assistant", "b"))}
    given = dataclasses.replace(sample(row=3), **{field: values.get(field, told)})
    with pytest.raises(InputError, match=r"^d\.unlearn\.train\.3: its text holds") as error:
        encode(tiny_tokenizer(chat=True), given, template)
    assert token in str(error.value)
    assert "SECRET" not in str(error.value)


def test_a_row_without_a_prompt_token_is_refused(tiny_tokenizer):
    tokenizer = tiny_tokenizer(bos=False)
    tokenizer.backend_tokenizer.normalizer = normalizers.Strip()
    with pytest.raises(InputError, match=r"train\.0: the tokenizer makes no token"):
        encode(tokenizer, sample(prompt=""))


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


@pytest.mark.parametrize(("long", "full"), [(16, 1), (17, 1), (12, 0)])
def test_paraphrases_that_fill_max_tokens_are_told(long, full, tiny_tokenizer):
    asked = ("q" * long, "short?")
    given = [
        dataclasses.replace(sample(completion="ab"), paraphrases=asked),
        sample(completion="ab", row=1),
    ]
    rows, warnings = encode_all(Encoder(tiny_tokenizer(), "plain", 16), given)
    assert [row.sample for row in rows] == given
    assert len(warnings) == full
    for warning in warnings:
        assert "after 1 of 2 paraphrases (first: one of d.unlearn.train.0)" in warning
        assert "data.max_tokens: 16" in warning
        assert "q" * long not in warning


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


@pytest.mark.parametrize("chat", [False, True])
@pytest.mark.parametrize("bos", [False, True])
def test_an_opening_is_how_a_row_with_these_first_words_begins(tiny_tokenizer, chat, bos):
    tokenizer = tiny_tokenizer(bos=bos, chat=chat)
    encoder, asked = Encoder(tokenizer, "auto", 64), "Where does she live?"
    row, _ = encoder.encode(Sample("d", "unlearn", "train", 0, asked, "there"))
    for end in (0, 5, len(asked)):
        opened = encoder.opening(asked[:end])
        if opened == [tokenizer.eos_token_id]:
            assert (end, chat, bos) == (0, False, False)  # nothing else
        else:
            assert list(row.ids[: len(opened)]) == opened
            assert tokenizer.decode(opened).endswith(asked[:end])
            assert len(opened) <= row.start
