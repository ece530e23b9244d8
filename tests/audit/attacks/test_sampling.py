"""Sampled and begun answers: against their definitions, on models whose answers are known."""

import random

import pytest
import torch

from grail.audit.attacks import sampling
from grail.audit.attacks.sampling import begin, extract_answers, sample_answers, speak
from grail.audit.audit import Auditor
from grail.audit.runs import read_run
from grail.data.encode import Encoded
from grail.data.samples import Sample
from grail.evaluation.fluency import leak_at_k, repetition
from grail.evaluation.metrics import rouge_l
from grail.model.generate import TextGenerator, generate, most_new
from grail.progress import NullListener, silent


def row_of(answer, start=3):
    return Encoded(Sample("d", "unlearn", "train", 0, "", ""), tuple(range(start + answer)), start)


@pytest.mark.parametrize(("answer", "share", "told"), [(9, 0.5, 4), (9, 0.25, 2), (3, 0.5, 1)])
def test_the_beginning_of_the_answer_is_told(answer, share, told):
    row = row_of(answer)
    begun = begin(row, share)
    assert begun.ids == row.ids
    assert begun.start == row.start + told
    assert begun.answer == row.answer[told:]


@pytest.mark.parametrize(("answer", "share"), [(2, 0.6), (9, 1.0), (1, 0.5)])
def test_where_nothing_is_left_to_say_nothing_is_asked(answer, share):
    assert begin(row_of(answer), share) is None  # the end token alone is no answer


@pytest.fixture(scope="module")
def context(runs):
    run = read_run(runs["run"], ["audit.samples=3", "audit.written_rows=2"])
    context = Auditor(run, None, NullListener()).context
    context.load("vanilla")
    return context


def by_amount(values):
    groups = {}
    for value in values:
        groups.setdefault(value.model, []).append(value)
    return groups


def alone(context, row):
    """What the model writes to one row, greedily, and what it should have written."""
    model, tokenizer = context.run.model, context.run.tokenizer
    most = most_new(row, context.run.config.evaluation.max_new_tokens)
    (ids,) = generate(model, [row.ids[: row.start]], [most], tokenizer)
    return [tokenizer.decode(text, skip_special_tokens=True) for text in (row.answer[:most], ids)]


def test_greedy_and_begun_answers_are_those_of_each_row_alone(context):
    said = [attack(context, silent) for attack in (speak, sample_answers, extract_answers)]
    found = by_amount(value for group in said for value in group)
    assert list(found) == ["greedy", "1", "3", "0.5"]
    general = [value for value in found["greedy"] if value.side == "general"]
    found["greedy"] = [value for value in found["greedy"] if value.side == "unlearn"]
    assert len(general) == 1
    assert all(len(group) == 2 for group in found.values())  # audit.written_rows
    rows = {row.key: row for row in context.targets()}
    for value in found["greedy"]:
        truth, text = alone(context, rows[value.key])
        assert value.rouge_l == rouge_l(truth, text)
        assert value.repetition == repetition(text)
    for value in found["0.5"]:
        assert value.rouge_l == rouge_l(*alone(context, begin(rows[value.key], 0.5)))
    for one, best in zip(found["1"], found["3"], strict=True):
        assert one.rouge_l <= best.rouge_l
    assert all(value.side == "unlearn" and value.part == "train" for value in found["3"])


def test_what_is_sampled_is_scored_as_leak_at_k(context, monkeypatch):
    """The estimates are those of scores made up here, row by row and in their order."""
    draw, told = random.Random(0), {}

    def write(_, rows, say, draw=None, known=None):
        say(len(rows))
        return [f"{row.key} {i % 3}" for i, row in enumerate(rows)]

    def score(_, row, text, __):
        assert text.startswith(row.key)
        return told.setdefault(text, draw.uniform(0, 100))

    monkeypatch.setattr(TextGenerator, "texts", write)
    monkeypatch.setattr(sampling, "recall", score)
    found = by_amount(sample_answers(context, silent))
    for amount, group in found.items():
        for value in group:
            own = [told[f"{value.key} {i}"] for i in range(3)]
            assert value.rouge_l == pytest.approx(leak_at_k(own, int(amount)))


def test_sampling_follows_its_seed_and_leaves_the_global_generator_alone(
    tiny_model, tiny_tokenizer
):
    tokenizer = tiny_tokenizer()
    model = tiny_model(vocabulary=len(tokenizer))
    before = torch.random.get_rng_state()

    def draw(seed):
        return generate(model, [[3, 4]] * 4, [8] * 4, tokenizer, seed)

    assert draw(0) == draw(0) != draw(1)
    assert len({tuple(row) for row in draw(0)}) > 1
    greedy = draw(None)
    assert len({tuple(row) for row in greedy}) == 1
    assert torch.equal(before, torch.random.get_rng_state())


def test_samples_have_the_model_s_own_distribution(tiny_model, tiny_tokenizer):
    """The first token of many samples, against the softmax that the model gives."""
    tokenizer = tiny_tokenizer()
    model, count = tiny_model(vocabulary=len(tokenizer)).eval(), 4000
    drawn = generate(model, [[3, 4]] * count, [1] * count, tokenizer, 0)
    with torch.no_grad():
        p = model(input_ids=torch.tensor([[3, 4]])).logits[0, -1].softmax(-1)
    p[tokenizer.eos_token_id] = 0  # ends the row: nothing is left of it
    found = torch.zeros_like(p)
    for token in (token for row in drawn for token in row):
        found[token] += 1 / count
    error = (p * (1 - p) / count).sqrt()
    assert ((found - p).abs() <= 5 * error + 1e-9).all()
