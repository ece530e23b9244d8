"""Greedy generation against reading the whole sequence again for every token."""

import pytest
import torch

from grail.model.generate import generate

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
