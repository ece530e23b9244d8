"""What is measured equals what a plain forward pass says, whoever shares the batch."""

import zlib

import pytest
import torch

from grail.config.run import Evaluation
from grail.data.encode import Encoder, encode_all
from grail.data.samples import Sample
from grail.errors import DivergenceError
from grail.evaluation import evaluate
from grail.evaluation.evaluate import Evaluator, recall
from grail.evaluation.fluency import compression, repetition
from grail.evaluation.metrics import rouge_l
from grail.model import generate

PLACES = [("d", "unlearn", "train"), ("d", "retain", "val"), ("general", "general", "train")]
TOKEN_VALUES = ("nll", "min_k", "min_k_plus_plus", "zlib")


@pytest.fixture(scope="module")
def tokenizer(tiny_tokenizer):
    return tiny_tokenizer()


@pytest.fixture(scope="module")
def model(tiny_model, tokenizer):
    return tiny_model(vocabulary=len(tokenizer))


@pytest.fixture(scope="module")
def samples():
    texts = [("a?", "one"), ("longer question?", "two words"), ("", "x"), ("b" * 20, "y" * 15)]
    return [
        Sample(*place, row, prompt, answer)
        for place in PLACES
        for row, (prompt, answer) in enumerate(texts)
    ]


@pytest.fixture
def measure(model, tokenizer, samples):
    rows, _ = encode_all(Encoder(tokenizer, "plain", 64), samples)

    def run(model=model, chosen=rows, tick=None, **settings):
        evaluator = Evaluator(model, tokenizer, **{"max_new_tokens": 5, **settings})
        return evaluator.run("vanilla", chosen, *([tick] if tick else []))

    run.rows = rows
    return run


@torch.no_grad()
def plainly(model, row):
    """Accuracy and mean NLL of one row by a full forward pass, alone in its batch."""
    model.eval()
    logits = model(input_ids=torch.tensor([row.ids])).logits[0].double()
    right, nll = [], []
    for at in range(row.start, len(row.ids)):
        before = logits[at - 1]
        right.append(float(int(before.argmax()) == row.ids[at]))
        nll.append(float(before.logsumexp(0) - before[row.ids[at]]))
    return sum(right) / len(right), sum(nll) / len(nll)


def test_accuracy_and_nll_are_those_of_a_plain_pass(model, measure):
    values = measure(generate=False)
    assert [v.key for v in values] == [row.key for row in measure.rows]
    for value, row in zip(values, measure.rows, strict=True):
        accuracy, nll = plainly(model, row)
        assert value.accuracy == pytest.approx(accuracy)
        assert value.nll == pytest.approx(nll, rel=1e-5)
        assert value.tokens == len(row.ids) - row.start
        assert (value.rouge_l, value.generation) == (None, None)


@torch.no_grad()
def scored(model, row, share):
    """ES, Min-K% and Min-K%++ of one row from its full logits, in double precision."""
    model.eval()
    log_p = model(input_ids=torch.tensor([row.ids])).logits[0].double().log_softmax(-1)
    nll, standard, hits = [], [], []
    for at in range(row.start, len(row.ids)):
        line = log_p[at - 1]
        mean = (line.exp() * line).sum()
        deviation = ((line.exp() * line**2).sum() - mean**2).sqrt()
        nll.append(-float(line[row.ids[at]]))
        standard.append(float((mean - line[row.ids[at]]) / deviation))
        hits.append(int(line.argmax()) == row.ids[at])
    count = max(1, int(share * len(nll)))
    given_first = next(k for k in range(len(hits) + 1) if all(hits[k:]))
    worst = [sum(sorted(tokens)[-count:]) / count for tokens in (nll, standard)]
    return 1 - given_first / len(hits), *worst, sum(nll)


@pytest.mark.parametrize("share", [0.2, 0.5])
def test_memorization_is_that_of_a_plain_pass_in_double_precision(model, measure, share):
    texts = ("one", "two words", "x", "y" * 15)
    for value, row in zip(measure(generate=False, min_k=share), measure.rows, strict=True):
        extraction, min_k, min_k_plus_plus, total = scored(model, row, share)
        assert value.extraction == pytest.approx(extraction)
        assert value.min_k == pytest.approx(min_k, rel=1e-5)
        assert value.min_k_plus_plus == pytest.approx(min_k_plus_plus, rel=1e-4)
        size = len(zlib.compress(texts[value.row].encode()))
        assert value.zlib == pytest.approx(total / size, rel=1e-5)


def test_zlib_reads_what_was_kept_of_a_completion(model, tokenizer):
    sample = Sample(*PLACES[0], 0, "q", "abcabcabcxyz")
    rows, _ = encode_all(Encoder(tokenizer, "plain", 10), [sample])
    evaluator = Evaluator(model, tokenizer, generate=False)
    (value,) = evaluator.run("vanilla", rows)
    kept = "abcabcabcxyz"[: value.tokens].encode()  # a token a byte, the end token cut away too
    assert 0 < value.tokens < 12
    assert value.zlib == pytest.approx(value.nll * value.tokens / len(zlib.compress(kept)))


def test_a_model_that_knows_a_row_reads_it_right(measure, tiny_model, tokenizer):
    """Accuracy is not 0 by construction: trained on one row, the model knows that row."""
    model, row = tiny_model(lora=False, vocabulary=len(tokenizer), seed=3), measure.rows[0]
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    ids = torch.tensor([row.ids])
    for _ in range(60):
        model(input_ids=ids, labels=ids).loss.backward()
        optimizer.step()
        optimizer.zero_grad()
    (value,) = measure(model, [row], show_text=True)
    assert value.accuracy == 1.0
    assert value.nll < 0.1
    assert value.extraction == 1.0
    assert value.generation == value.completion == "one"
    assert value.rouge_l == 100.0
    (short,) = measure(model, [row], show_text=True, max_new_tokens=2)  # a token is a byte
    assert (short.generation, short.rouge_l) == ("on", 100.0)


def test_company_and_batch_size_change_nothing(measure, monkeypatch):
    together = measure(batch_size=16, show_text=True)
    monkeypatch.setattr(evaluate, "BATCH_TOKENS", 1)
    alone = measure(batch_size=1, show_text=True)
    for one, other in zip(together, alone, strict=True):
        for name in TOKEN_VALUES:
            assert getattr(one, name) == pytest.approx(getattr(other, name), rel=1e-4), name
        for name in ("accuracy", "extraction", "generation", "repetition", "compression"):
            assert getattr(one, name) == getattr(other, name), name
    backwards = measure(chosen=measure.rows[::-1], show_text=True)
    assert [v.key for v in backwards] == [v.key for v in alone][::-1]
    for one, other in zip(backwards[::-1], together, strict=True):
        assert one.nll == pytest.approx(other.nll, rel=1e-5)


def test_dropout_is_off_and_the_mode_comes_back(measure, tiny_model, tokenizer):
    from peft import LoraConfig, get_peft_model

    base = tiny_model(lora=False, vocabulary=len(tokenizer))
    noisy = get_peft_model(
        base,
        LoraConfig(r=2, lora_dropout=0.9, target_modules="all-linear", init_lora_weights=False),
    )
    noisy.train()
    assert measure(noisy, generate=False) == measure(noisy, generate=False)
    assert noisy.training


def test_generations_are_limited_and_general_rows_have_none(measure, tokenizer):
    values = measure(max_new_tokens=3, show_text=True)
    for value in values:
        if value.side == "general":
            assert (value.rouge_l, value.generation, value.prompt) == (None, None, None)
            assert (value.repetition, value.compression) == (None, None)
            continue
        assert len(tokenizer(value.generation, add_special_tokens=False)["input_ids"]) <= 9
        assert value.rouge_l == rouge_l(value.completion[:3], value.generation)
        assert value.repetition == repetition(value.generation)
        assert value.compression == compression(value.generation)


def test_held_out_rows_are_read_and_not_asked(model, tokenizer):
    samples = [Sample("d", "unlearn", part, 0, "a?", "one") for part in ("train", "heldout")]
    rows, _ = encode_all(Encoder(tokenizer, "plain", 64), samples)
    evaluator = Evaluator(model, tokenizer, max_new_tokens=5)
    asked, read = evaluator.run("vanilla", rows)
    assert (read.key, read.part) == ("d.unlearn.heldout.0", "heldout")
    for name in TOKEN_VALUES:
        assert getattr(read, name) == pytest.approx(getattr(asked, name), rel=1e-4)
    assert asked.rouge_l is not None
    assert (read.rouge_l, read.repetition) == (None, None)


def test_the_limit_of_tokens_is_per_row(measure, monkeypatch):
    asked = {}
    inner = generate.generate

    def watched(model, prompts, most, *others):
        made = inner(model, prompts, most, *others)
        asked.update(zip(map(tuple, prompts), zip(most, map(len, made), strict=True), strict=True))
        return made

    monkeypatch.setattr(generate, "generate", watched)
    measure(max_new_tokens=12)
    for row in measure.rows[:8]:
        most, made = asked[row.ids[: row.start]]
        assert most == min(12, len(row.answer) + len(row.answer) // 2 + 4)
        assert made <= most


def test_texts_are_kept_only_on_demand(measure):
    for value in measure():
        assert not {"prompt", "completion", "generation"} & value.as_json().keys()
    shown = measure(show_text=True)[1].as_json()
    assert (shown["prompt"], shown["completion"]) == ("longer question?", "two words")
    assert "generation" in shown


def test_ticks_count_every_row_once(measure):
    seen = []
    measure(tick=lambda done, total, note: seen.append((done, total)))
    assert {total for _, total in seen} == {12 + 8}
    assert [done for done, _ in seen] == sorted(done for done, _ in seen)
    assert seen[-1] == (20, 20)


def test_broken_weights_are_named(measure, tiny_model, tokenizer):
    broken = tiny_model(vocabulary=len(tokenizer))
    with torch.no_grad():
        next(iter(broken.parameters())).fill_(float("nan"))
    with pytest.raises(DivergenceError, match=r"NLL of the vanilla model on .* is nan"):
        measure(broken)


def test_the_defaults_are_those_of_the_settings(model, tokenizer):
    settings, evaluator = Evaluation(), Evaluator(model, tokenizer)
    for name in ("generate", "batch_size", "max_new_tokens", "min_k", "show_text"):
        assert getattr(evaluator, name) == getattr(settings, name)


@pytest.mark.parametrize("limit", [3, 8, 96])
def test_perfect_recall_is_all_of_rouge_however_long_the_completion(tokenizer, limit):
    sample = Sample(*PLACES[0], 0, "q", "one two three four five six seven eight")
    (row,), _ = encode_all(Encoder(tokenizer, "plain", 64), [sample])
    text = tokenizer.decode(row.answer[:limit], skip_special_tokens=True)
    assert recall(tokenizer, row, text, limit) == 100.0
    assert rouge_l(sample.completion, text) < 100.0 or limit == 96
    half = text[: len(text) // 2]  # of what it could have written, it wrote half
    assert recall(tokenizer, row, half, limit) == rouge_l(text, half) < 100.0
