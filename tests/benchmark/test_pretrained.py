"""Facts of pre-training: what is known is probed, halves are drawn, and each side is measured."""

from dataclasses import replace

import pretrained
import pytest
import torch
from pretrained import all_facts, counts, halves, known


@pytest.fixture(autouse=True)
def _long_rows(monkeypatch):
    monkeypatch.setattr(pretrained, "WORDS", {"template": "chat", "max_tokens": 500})
    monkeypatch.setattr(pretrained, "EPOCHS", 1)


@pytest.fixture
def model(tiny_model, tokenizer):
    return tiny_model(lora=False, vocabulary=len(tokenizer))


@pytest.fixture
def tokenizer(tiny_tokenizer):
    return tiny_tokenizer(chat=True)


def test_every_fact_has_two_questions_of_its_own():
    facts = all_facts()
    assert len(facts) >= 60
    for domain, _, asked, answer in facts:
        assert domain in ("geography", "science")
        assert len(set(asked)) == 2
        assert answer.strip()
    questions = [asked for fact in facts for asked in fact[2]]
    assert len(set(questions)) == len(questions)


def test_halves_are_drawn_in_each_kind():
    facts = all_facts()
    unlearn, retain = halves(facts, 0)
    assert sorted(map(str, unlearn + retain)) == sorted(map(str, facts))
    for kind, number in counts(facts).items():
        assert counts(unlearn)[kind] == number // 2
    assert halves(facts, 0) == (unlearn, retain)
    assert halves(facts, 1)[0] != unlearn


def test_only_what_is_answered_in_both_ways_is_known(model, tokenizer, monkeypatch):
    """Right in one way, or in all tokens but one, is not known."""
    facts = all_facts()[:3]
    wrong = {facts[1][2][1]: 0.0, facts[2][2][0]: 0.9}
    measure = pretrained.measure

    def measured(*given):
        return [
            replace(value, accuracy=wrong.get(row.prompt, 1.0))
            for row, value in zip(given[2], measure(*given), strict=True)
        ]

    monkeypatch.setattr(pretrained, "measure", measured)
    assert known(model, tokenizer, facts) == facts[:1]


def test_each_method_starts_from_the_same_model_and_freezes_its_share(model, tokenizer):
    facts = [fact for fact in all_facts() if fact[1] in ("symbol", "capital")][:24]
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    found = list(pretrained.removed(model, tokenizer, facts, 0, ["no mask", "grail"]))
    values = {one["method"]: one["summary"]["unlearned"]["train"] for one in found}
    assert list(values) == ["as it is", "no mask", "grail"]
    for one in values.values():
        assert one.keys() == set(map(str.strip, pretrained.COLUMNS.values()))
    assert values["no mask"]["frozen"] == 0 < values["grail"]["frozen"] < 50
    assert values["no mask"]["general NLL"] != values["as it is"]["general NLL"]
    assert values["as it is"]["unlearn train"] == 0  # a model that was never trained
    assert all(torch.equal(before[name], p) for name, p in model.named_parameters())
