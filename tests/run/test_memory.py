"""What a program gives in memory is refused as the files of a run are, before any work."""

import pytest
import torch
from transformers import BertConfig, BertLMHeadModel

import grail
from grail.errors import InputError


@pytest.fixture
def world(tiny_model, tiny_tokenizer):
    tokenizer = tiny_tokenizer(pad=False)
    return tiny_model(lora=False, tied=False, vocabulary=len(tokenizer)), tokenizer


def rows(side, count=2, **place):
    pairs = [{"prompt": f"{side} {i}?", "completion": f"{side} {i * 7}."} for i in range(count)]
    return grail.samples(pairs, side, **place)


BOTH = rows("unlearn") + rows("retain")


@pytest.mark.parametrize(
    ("given", "settings", "words"),
    [
        (rows("unlearn"), {}, "no train rows for domain"),
        (rows("retain"), {}, "no train rows for the unlearn side"),
        (rows("unlearn") + rows("retain", part="val"), {}, "no train rows for domain"),
        (BOTH, {"general_weight": 1.0}, "no train rows for general"),
        (BOTH, {"phases": [["nope"]]}, "no train rows for nope"),
        (BOTH, {"objective": "exact"}, "exact trains a new model"),
        (BOTH, {"unlearn_weight": 0.0}, "unlearns nothing"),
        (BOTH + rows("retain"), {}, "two have the same key"),
    ],
)
def test_rows_that_cannot_be_unlearned_are_named(world, given, settings, words):
    model, tokenizer = world
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    with pytest.raises(InputError, match=words):
        grail.unlearn(model, tokenizer, given, **settings)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


def test_a_model_that_trains_nothing_or_has_too_few_positions(world, tiny_tokenizer):
    model, tokenizer = world
    long = grail.samples([{"prompt": "?" * 600, "completion": "x"}], "unlearn")
    with pytest.raises(InputError, match="the model has positions for 512"):
        grail.evaluate(model, tokenizer, long, max_tokens=1000)
    with pytest.warns(UserWarning, match="cuts"):
        grail.evaluate(model, tokenizer, BOTH, max_tokens=16, generate=False)
    model.requires_grad_(False)
    with pytest.raises(InputError, match="no trainable parameters"):
        grail.score(model, tokenizer, BOTH)


def test_a_generation_beyond_the_positions_is_refused(world):
    model, tokenizer = world
    long = grail.samples([{"prompt": "?" * 497, "completion": "x" * 9}], "unlearn")
    settings = {"max_tokens": 1000, "batch_size": 1}  # plain: <bos>, prompt, two line feeds
    with pytest.raises(InputError, match=r"prompt of 500 tokens .*max_new_tokens to 12 or less"):
        grail.evaluate(model, tokenizer, long, max_new_tokens=13, **settings)
    grail.evaluate(model, tokenizer, long, max_new_tokens=12, **settings)
    grail.evaluate(model, tokenizer, long, max_new_tokens=13, generate=False, **settings)


def test_tokens_without_an_embedding_are_refused(tiny_model, tiny_tokenizer):
    tokenizer = tiny_tokenizer()
    model = tiny_model(lora=False, vocabulary=len(tokenizer))
    tokenizer.add_special_tokens({"pad_token": "[PAD]"})
    for call in (grail.evaluate, grail.score, grail.unlearn):
        with pytest.raises(InputError, match=r"padding token \[PAD\] has the id 262.*<eos> \(id 2"):
            call(model, tokenizer, BOTH)
    tokenizer = tiny_tokenizer()
    tokenizer.add_tokens(["unlearn"])
    with pytest.raises(InputError, match=r"the rows hold the token unlearn \(id 262\)"):
        grail.evaluate(model, tokenizer, BOTH)


def test_an_encoder_is_refused(tiny_tokenizer):
    tokenizer = tiny_tokenizer()
    config = {"hidden_size": 24, "intermediate_size": 40, "num_attention_heads": 2}
    config |= {"vocab_size": len(tokenizer), "num_hidden_layers": 2}
    model = BertLMHeadModel(BertConfig(**config))
    for call in (grail.evaluate, grail.score, grail.unlearn):
        with pytest.raises(InputError, match="reads the tokens it must predict"):
            call(model, tokenizer, BOTH)


def test_a_mask_of_another_model_and_scores_of_one_side(world, tiny_model):
    model, tokenizer = world
    scores = grail.score(model, tokenizer, BOTH, trials=1)
    with pytest.raises(InputError, match="both sides"):
        grail.localize({("domain", "unlearn"): scores["domain", "unlearn"]})
    with pytest.raises(InputError, match="Pass model="):
        grail.localize(scores, method="magnitude")
    other = grail.localize(grail.score(tiny_model(vocabulary=len(tokenizer)), tokenizer, BOTH))
    with pytest.raises(InputError, match="does not train"):
        grail.unlearn(model, tokenizer, BOTH, mask=other)


def test_old_gradients_have_no_part_in_it(world):
    model, tokenizer = world
    twin = [p.detach().clone() for p in model.parameters()]
    first = grail.unlearn(model, tokenizer, BOTH, epochs=1).steps[0]["gradient_norm"]
    with torch.no_grad():
        for parameter, value in zip(model.parameters(), twin, strict=True):
            parameter.copy_(value)
            parameter.grad = torch.ones_like(parameter)
    assert grail.unlearn(model, tokenizer, BOTH, epochs=1).steps[0]["gradient_norm"] == first


@pytest.mark.parametrize("wrong", [{"side": "unlern"}, {"side": "unlearn", "part": "test"}])
def test_a_wrong_place_is_refused(wrong):
    with pytest.raises(InputError, match=r"samples: (side|part) is"):
        grail.samples([{"prompt": "?", "completion": "x"}], **wrong)
