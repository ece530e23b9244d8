"""What is measured equals what a plain forward pass says, whoever shares the batch."""

import json
import math

import pytest
import torch

from grail.config import Evaluation
from grail.data.encode import Encoder, encode_all
from grail.data.samples import Sample
from grail.errors import DivergenceError
from grail.evaluation import evaluate
from grail.evaluation.evaluate import (
    Evaluator,
    SampleValue,
    read_values,
    to_results,
    write_values,
)
from grail.evaluation.metrics import rouge_l

PLACES = [("d", "unlearn", "train"), ("d", "retain", "val"), ("general", "general", "train")]


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
        values = Evaluation(**{"max_new_tokens": 5, **settings})
        evaluator = Evaluator(model, tokenizer, values, {s.key: s for s in samples})
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
    assert value.generation == value.completion == "one"
    assert value.rouge_l == 100.0


def test_company_and_batch_size_change_nothing(measure, monkeypatch):
    together = measure(batch_size=16, show_text=True)
    monkeypatch.setattr(evaluate, "BATCH_TOKENS", 1)
    alone = measure(batch_size=1, show_text=True)
    for one, other in zip(together, alone, strict=True):
        assert one.nll == pytest.approx(other.nll, rel=1e-5)
        assert (one.accuracy, one.generation) == (other.accuracy, other.generation)
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
            continue
        assert len(tokenizer(value.generation, add_special_tokens=False)["input_ids"]) <= 9
        assert value.rouge_l == pytest.approx(rouge_l(value.completion, value.generation))


def test_the_limit_of_tokens_is_per_row(measure, monkeypatch):
    asked = {}
    inner = evaluate.generate

    def watched(model, prompts, most, tokenizer):
        made = inner(model, prompts, most, tokenizer)
        asked.update(zip(map(tuple, prompts), zip(most, map(len, made), strict=True), strict=True))
        return made

    monkeypatch.setattr(evaluate, "generate", watched)
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


def value(**more):
    given = {"model": "vanilla", "domain": "d", "side": "unlearn", "part": "train", "row": 0}
    given |= {"key": "k", "accuracy": 0.25, "nll": 1.0, "tokens": 4} | more
    return SampleValue(**given)


def test_values_become_rows_by_model_domain_side_and_part():
    values = [
        value(),
        value(accuracy=0.75, nll=3.0, tokens=400),
        value(side="retain", accuracy=0.5, rouge_l=40.0),
        value(side="retain", accuracy=1.0, rouge_l=60.0),
        value(model="unlearned", nll=5000.0),
        value(domain="general", side="general"),
    ]
    found = {
        (r.model, r.domain, r.side, r.part, r.metric): (r.value, r.n) for r in to_results(values)
    }
    one, two = ("vanilla", "d", "unlearn", "train"), ("vanilla", "d", "retain", "train")
    assert found[(*one, "US")] == (50.0, 2)
    assert found[(*one, "NLL")] == (2.0, 2)
    assert found[(*one, "PPL")] == (pytest.approx(math.exp(2.0)), 2)
    assert found[(*two, "RS")] == (75.0, 2)
    assert found[(*two, "ROUGE-L")] == (50.0, 2)
    assert (*one, "ROUGE-L") not in found
    assert (*one, "RS") not in found
    assert math.isfinite(found["unlearned", "d", "unlearn", "train", "PPL"][0])
    general = {key[-1] for key in found if key[1] == "general"}
    assert general == {"NLL", "PPL"}


def test_kept_values_come_back_only_for_the_same_inputs(tmp_path):
    file = tmp_path / "evaluation" / "vanilla.json"
    assert read_values(file, "key") is None
    values = [value(), value(rouge_l=12.5, prompt="p", completion="c", generation="")]
    write_values(file, values, "key")
    assert read_values(file, "key") == values
    assert read_values(file, "other") is None
    text = file.read_text()
    for broken in (text[:-40], "", "[]", "null", '{"inputs": "key"}', "\0"):
        file.write_text(broken)
        assert read_values(file, "key") is None
    file.write_text(json.dumps({"inputs": "key", "values": [{"model": "vanilla"}]}))
    assert read_values(file, "key") is None
