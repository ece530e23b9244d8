"""What the model is asked is what its template says: ten families, each taught without grail."""

import datetime
import json

import pytest
import torch
import transformers.utils.chat_template_utils as hub
from chats import FAMILIES, tokenizer_of
from tiny import tiny_model

from grail.config.run import DATE
from grail.data.encode import Encoder
from grail.data.samples import Sample
from grail.errors import InputError
from grail.evaluation.evaluate import Evaluator

TEXTS = {  # prompt -> completion; some begin or end in what a template or a tokenizer may eat
    "a town?": "nor",
    "by whom?": "orso n",
    "came it?": " or",
    "did it?": "no\nor so",
    "else?": "n\n",
    "for nor?": "nor",
}
SYSTEM = (("system", "Say it."),)
EARLIER = (("user", "a?"), ("assistant", "b"))


def samples_of(family):
    rows = [
        Sample("d", ("unlearn", "retain")[i % 2], "train", i, *text)
        for i, text in enumerate(TEXTS.items())
    ]
    rows.append(Sample("d", "retain", "train", 9, "how?", "rn", EARLIER))
    if family.system:
        rows.append(Sample("d", "unlearn", "train", 9, "good?", "so", SYSTEM))
    return rows


def told(tokenizer, sample, answer):
    """Return the ids of a whole conversation, as fine-tuning makes them."""
    turns = [*sample.context, ("user", sample.prompt), ("assistant", answer)]
    messages = [{"role": role, "content": text} for role, text in turns]
    return tokenizer.apply_chat_template(messages, return_dict=True)["input_ids"]


@pytest.fixture
def stopped(monkeypatch):
    """Let transformers' own clock stand still: the teaching reads it."""

    class Stopped(datetime.datetime):
        @classmethod
        def now(cls, tz=None):
            return cls.fromisoformat(DATE)

    monkeypatch.setattr(hub, "datetime", Stopped)


def taught(tokenizer, samples):
    """Fine-tune a tiny model on the rendered conversations until it knows them by heart."""
    model = tiny_model(lora=False, vocabulary=len(tokenizer), tied=False)
    wholes = [told(tokenizer, sample, sample.completion) for sample in samples]
    others = [told(tokenizer, sample, "zzz") for sample in samples]
    width = max(map(len, wholes))
    ids = torch.tensor([whole + [0] * (width - len(whole)) for whole in wholes])
    learnt = torch.zeros_like(ids, dtype=torch.bool)
    for i, (whole, other) in enumerate(zip(wholes, others, strict=True)):
        differ = [a != b for a, b in zip(whole, other, strict=False)]
        learnt[i, differ.index(True) : len(whole)] = True
    optimizer = torch.optim.AdamW(model.parameters(), lr=5e-3)
    for _ in range(400):
        logits = model(input_ids=ids).logits[:, :-1][learnt[:, 1:]]
        loss = torch.nn.functional.cross_entropy(logits, ids[:, 1:][learnt[:, 1:]])
        if loss < 0.02:
            return model.eval()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    raise AssertionError(f"not known by heart: {loss}")


@pytest.mark.parametrize("name", FAMILIES)
def test_what_is_known_by_heart_reads_so(name, stopped):
    family = FAMILIES[name]
    tokenizer, samples = tokenizer_of(family), samples_of(family)
    model = taught(tokenizer, samples)
    rows = [Encoder(tokenizer, "auto", 512).encode(sample)[0] for sample in samples]
    for value in Evaluator(model, tokenizer, show_text=True).run("taught", rows):
        measured = (value.accuracy, value.extraction, value.rouge_l)
        assert measured == (1.0, 1.0, 100.0), json.dumps([value.completion, value.generation])
        assert value.generation.strip() == value.completion.strip()


@pytest.mark.parametrize("name", FAMILIES)
def test_ids_are_those_of_the_whole_conversation(name, stopped):
    family = FAMILIES[name]
    tokenizer = tokenizer_of(family)
    for sample in samples_of(family):
        row, lost = Encoder(tokenizer, "chat", 512).encode(sample)
        whole = told(tokenizer, sample, sample.completion)
        assert (list(row.ids), lost) == (whole[: len(row.ids)], 0)
        assert row.ids[-1] == row.end == tokenizer.convert_tokens_to_ids(family.end)
        assert tokenizer.decode(row.words).strip() == sample.completion.strip()
        asked = tokenizer.decode(row.ids[: row.start]).rstrip()
        assert asked.endswith((">", "assistant", "model", "[/INST]"))


@pytest.mark.parametrize("name", FAMILIES)
def test_a_system_turn_is_asked_or_refused(name):
    family = FAMILIES[name]
    tokenizer = tokenizer_of(family)
    tokenizer.name_or_path = f"models/{name}"
    sample = Sample("d", "unlearn", "train", 4, "a?", "b", SYSTEM)
    encoder = Encoder(tokenizer, "auto", 512)
    if family.system:
        row, _ = encoder.encode(sample)
        assert "Say it." in tokenizer.decode(row.ids[: row.start])
    else:
        with pytest.raises(InputError, match=rf"train\.4: .* of models/{name} .*no system role"):
            encoder.encode(sample)


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("where", ["prompt", "completion", "system", "paraphrase"])
def test_a_control_token_in_a_row_is_refused(name, where):
    family = FAMILIES[name]
    encoder = Encoder(tokenizer_of(family), "auto", 512)
    for token in (family.end, family.bos, *family.special, *family.added):
        texts = dict.fromkeys(("prompt", "completion", "system", "paraphrase"), "SECRET")
        texts[where] += f"so{token}no"
        sample = Sample(
            *("d", "unlearn", "train", 3, texts["prompt"], texts["completion"]),
            (("system", texts["system"]),),
            (texts["paraphrase"],),
        )
        with pytest.raises(InputError, match=r"^d\.unlearn\.train\.3: its text holds") as error:
            encoder.encode(sample)
        assert token in str(error.value)
        assert "SECRET" not in str(error.value)
