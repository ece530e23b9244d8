"""The table of attacks: their words are settings, and one without rows says why."""

from dataclasses import replace

import pytest
import torch

from grail.audit.attacks.registry import PLAIN, _adapter, attacks_of
from grail.audit.attacks.sampling import SPEAK
from grail.config.audit import ALL, Audit
from grail.data.batches import collate
from grail.data.samples import Sample
from grail.model.answers import answers_of
from grail.model.forward import trainable
from grail.model.weights import copy_weights, holding
from grail.reporting.audit.knowledge import DESCRIBING
from grail.reporting.audit.lights import PLAIN_NAMES


@pytest.fixture
def context(audit_context):
    def make(train=20, val=3, general=2, share=0.1):
        counts = {("a", "unlearn", "train"): train, ("a", "unlearn", "val"): val}
        counts["general", "general", "train"] = general
        context = audit_context(counts, relearn={"share": share})
        places = {row.key: (row.domain, row.side, row.part) for row in context.rows}
        context.samples = {key: Sample(*place, 0, "q", "a") for key, place in places.items()}
        return context

    return make


def test_every_attack_can_be_asked_for_and_reads_settings_that_there_are(context):
    attacks = dict(attacks_of(context()))
    assert {a.kind for name, a in attacks.items() if name not in (PLAIN, SPEAK)} == set(ALL)
    assert attacks[PLAIN].kind == attacks[SPEAK].kind == ""
    assert next(iter(attacks)) == PLAIN, "what relearning is compared with"
    for attack in attacks.values():
        assert set(attack.settings) <= set(Audit.model_fields)
        assert "unlearned" in attack.models


def test_every_attack_has_plain_words_or_decides_nothing(context):
    named = {name.partition("@")[0] for name, _ in attacks_of(context())} - {PLAIN, SPEAK}
    assert named == {*PLAIN_NAMES, *DESCRIBING}
    assert not any("-" in kind for kind in ALL)  # what comes after it names a form of the attack


@pytest.mark.parametrize(
    ("name", "lacks"),
    [("few", {"train": 1, "share": 1.0}), ("other", {"val": 0}), ("unrelated", {"general": 0})],
)
def test_a_relearning_without_rows_says_why(context, name, lacks):
    attack = dict(attacks_of(context()))[f"relearn-{name}@0.002"]
    assert attack.why_not(context(**lacks))
    assert attack.why_not(context()) == ""


def test_without_paraphrases_none_is_asked(context):
    made = context()
    attack = dict(attacks_of(made))["paraphrase"]
    assert attack.why_not(made) == "no row carries paraphrases"
    row, *others = made.rows
    for asked, why in ((("other?",), ""), (("q" * 9999,), "each paraphrase alone fills")):
        made.rows = (replace(row, sample=replace(row.sample, paraphrases=asked)), *others)
        assert attack.why_not(made).startswith(why)
        assert bool(attack.why_not(made)) == bool(why)


def test_an_adapter_is_taken_off_halved_and_back(audit_context, tiny_model, tiny_rows):
    """Off: the base alone. Halved: B halved."""
    model, batch = tiny_model(lora=True).eval(), collate(tiny_rows(3), 0)
    for name, parameter in trainable(model).items():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.3, generator=torch.Generator().manual_seed(0))

    @torch.no_grad()
    def logits():
        return answers_of(model, batch).logits

    own, before = list(trainable(model)), logits()
    found = {}
    context = audit_context({})
    context.run.model = model
    for amount, change in _adapter(context):
        with change:
            found[amount] = logits()
    assert list(trainable(model)) == own
    assert torch.equal(logits(), before)
    weights = copy_weights(model)
    for amount, share in (("off", 0.0), ("0.5", 0.5)):
        scaled = {n: w * share if "lora_B" in n else w for n, w in weights.items()}
        with holding(model, scaled):
            torch.testing.assert_close(found[amount], logits(), rtol=1e-5, atol=1e-5)
        assert not torch.equal(found[amount], before)
