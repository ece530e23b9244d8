"""The losses against plain loops over tokens in float64; padding and company change nothing."""

import dataclasses
import math

import pytest
import torch
from torch import nn

from grail.config.unlearning import ASCENTS, Unlearning
from grail.data.batches import collate
from grail.model.answers import Answers, answers_of, mean_per_row
from grail.model.forward import trainable
from grail.model.weights import copy_weights
from grail.unlearning import losses
from grail.unlearning.losses import bounded_nll, nll
from grail.unlearning.objectives import OBJECTIVES, make_objective

LENGTHS = [1, 5, 2, 9]
WORDS = 30


def answers(seed=0, lengths=LENGTHS, scale=4.0, near=None):
    """Random answers with a reference; with ``near``, the reference that close to the policy."""
    generator = torch.Generator().manual_seed(seed)
    count = sum(lengths)
    logits = (scale * torch.randn(count, WORDS, generator=generator)).requires_grad_()
    targets = torch.randint(WORDS, (count,), generator=generator)
    noise = torch.randn(count, WORDS, generator=generator)
    reference = scale * noise if near is None else logits.detach() + near * noise
    return logits, targets, Answers(logits, targets, torch.tensor(lengths), reference)


def rows_of(values, lengths=LENGTHS):
    starts = [sum(lengths[:i]) for i in range(len(lengths))]
    return [values[a : a + n] for a, n in zip(starts, lengths, strict=True)]


def gradient(loss, logits):
    (found,) = torch.autograd.grad(loss, logits, retain_graph=True)
    return found


# -- what all of them stand on --------------------------------------------------------------------


def test_mean_per_row_equals_a_loop():
    values = torch.randn(sum(LENGTHS), dtype=torch.float64)
    expected = [sum(row.tolist()) / len(row) for row in rows_of(values)]
    assert mean_per_row(values, torch.tensor(LENGTHS)).tolist() == pytest.approx(expected, rel=1e-9)


def test_each_token_weighs_one_over_the_length_of_its_row():
    values = torch.randn(sum(LENGTHS), requires_grad=True)
    weights = torch.tensor([1.0, 10.0, 100.0, 1000.0])
    (weights * mean_per_row(values, torch.tensor(LENGTHS))).sum().backward()
    for row, weight, length in zip(rows_of(values.grad), weights, LENGTHS, strict=True):
        torch.testing.assert_close(row, (weight / length).expand(length))


def test_accuracy_counts_the_most_probable_tokens():
    logits, targets, _ = answers()
    targets = torch.where(torch.arange(len(targets)) % 3 == 0, logits.argmax(-1), targets)
    found = Answers(logits, targets, torch.tensor(LENGTHS))
    right = [
        int(max(range(WORDS), key=row.tolist().__getitem__) == t)
        for row, t in zip(logits, targets.tolist(), strict=True)
    ]
    assert 0 < sum(right) < len(right)
    expected = [sum(row) / len(row) for row in rows_of(right)]
    assert found.accuracy.tolist() == pytest.approx(expected)
    assert not found.accuracy.requires_grad


# -- each against a loop over tokens --------------------------------------------------------------


def probabilities(line):
    """Softmax of one line of logits, in float64 and without torch."""
    values = [float(z) for z in line.detach().double()]
    top = max(values)
    powers = [math.exp(z - top) for z in values]
    return [power / sum(powers) for power in powers]


def relative_entropy(p, q):
    return sum(a * math.log(a / b) for a, b in zip(p, q, strict=True) if a > 0)


def shannon(p, q):
    middle = [(a + b) / 2 for a, b in zip(p, q, strict=True)]
    return (relative_entropy(p, middle) + relative_entropy(q, middle)) / 2


def certain(y):
    return [float(v == y) for v in range(WORDS)]


def lowered(q, y, beta):
    """Softmax of (log q - beta e_y)."""
    powers = [value * math.exp(-beta * (v == y)) for v, value in enumerate(q)]
    return [power / sum(powers) for power in powers]


def rival(q, y):
    return max((v for v in range(WORDS) if v != y), key=q.__getitem__)


# name -> (the loss, its value at a token: policy p, reference q, true token y)
PER_TOKEN = {
    "nll": (losses.nll, lambda p, q, y: -math.log(p[y])),
    "bounded": (lambda a: bounded_nll(a, 2.5), lambda p, q, y: min(2.5, -math.log(p[y]))),
    "weighted": (
        lambda a: losses.weighted_nll(a, 0.7, 1.5),
        lambda p, q, y: p[y] ** 0.7 * (1 - p[y]) ** 1.5 * -math.log(p[y]),
    ),
    "unlikelihood": (losses.unlikelihood, lambda p, q, y: -math.log(1 - p[y])),
    "inverted_hinge": (
        losses.inverted_hinge,
        lambda p, q, y: 1 + p[y] - max(p[v] for v in range(WORDS) if v != y),
    ),
    "kl": (losses.kl, lambda p, q, y: relative_entropy(q, p)),
    "divergence": (losses.divergence, lambda p, q, y: shannon(p, q)),
    "target_divergence": (losses.target_divergence, lambda p, q, y: shannon(p, certain(y))),
    "undial": (
        lambda a: losses.undial(a, 3.0),
        lambda p, q, y: -sum(g * math.log(a) for g, a in zip(lowered(q, y, 3.0), p, strict=True)),
    ),
    "adversarial_nll": (losses.adversarial_nll, lambda p, q, y: -math.log(p[rival(q, y)])),
}


def by_loop(found, value):
    tokens = [
        value(probabilities(z), probabilities(r), int(y))
        for z, r, y in zip(found.logits, found.reference, found.targets, strict=True)
    ]
    return [sum(row) / len(row) for row in rows_of(tokens)]


@pytest.mark.parametrize("name", PER_TOKEN)
def test_it_is_the_mean_of_its_definition_over_the_tokens(name):
    loss, value = PER_TOKEN[name]
    for seed in range(3):
        _, _, found = answers(seed, scale=1.0 + seed)
        assert loss(found).tolist() == pytest.approx(by_loop(found, value), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("beta", [0.1, 1.0, 4.5])
def test_npo_and_simnpo_are_their_definitions_over_rows(beta):
    _, _, found = answers(scale=2.0)
    own = rows_of([-math.log(probabilities(z)[y]) for z, y in zip(found.logits, found.targets,
                                                                  strict=True)])  # fmt: skip
    ref = rows_of([-math.log(probabilities(r)[y]) for r, y in zip(found.reference, found.targets,
                                                                  strict=True)])  # fmt: skip

    def value(x):  # -(2 / beta) log sigmoid(beta x), without losing small values
        return 2 / beta * (math.log1p(math.exp(-abs(beta * x))) + max(0.0, -beta * x))

    npo = [value(sum(a) - sum(b)) for a, b in zip(own, ref, strict=True)]
    assert losses.npo(found, beta).tolist() == pytest.approx(npo, rel=1e-4, abs=1e-6)
    simnpo = [value(sum(a) / len(a) - 0.5) for a in own]
    assert losses.simnpo(found, beta, 0.5).tolist() == pytest.approx(simnpo, rel=1e-4, abs=1e-6)


# -- the bound ------------------------------------------------------------------------------------


def test_without_a_bound_or_with_a_high_one_it_is_the_nll():
    logits, _, found = answers()
    plain = gradient(nll(found).sum(), logits)
    for most in (None, 1e6):
        assert torch.equal(bounded_nll(found, most), nll(found))
        assert torch.equal(gradient(bounded_nll(found, most).sum(), logits), plain)


def test_a_token_above_the_bound_counts_the_bound_and_gives_no_gradient():
    logits, _, found = answers()
    most = float(found.nll.detach().median())
    above = found.nll.detach() > most
    assert 0 < int(above.sum()) < len(above)
    expected = [
        sum(min(value, most) for value in row.tolist()) / len(row)
        for row in rows_of(found.nll.detach())
    ]
    assert bounded_nll(found, most).tolist() == pytest.approx(expected, rel=1e-5)
    plain = gradient(nll(found).sum(), logits)
    bounded = gradient(bounded_nll(found, most).sum(), logits)
    assert not bounded[above].any()
    assert torch.equal(bounded[~above], plain[~above])


# -- weights of tokens ----------------------------------------------------------------------------


def test_exponents_of_zero_give_the_nll():
    logits, _, found = answers()
    assert torch.equal(losses.weighted_nll(found, 0.0, 0.0), nll(found))
    weighted = gradient(losses.weighted_nll(found, 0.0, 0.0).sum(), logits)
    assert torch.equal(weighted, gradient(nll(found).sum(), logits))


@pytest.mark.parametrize(("sure", "unsure"), [(1.0, 0.0), (5.0, 1.0), (0.0, 2.0)])
def test_the_weight_gives_no_gradient(sure, unsure):
    """d = w_t d l_t / T: the gradient of the NLL, line by line times the weight."""
    logits, _, found = answers(scale=2.0)
    p = (-found.nll.detach().double()).exp()
    weight = p**sure * (1 - p) ** unsure
    plain = gradient(nll(found).sum(), logits)
    weighted = gradient(losses.weighted_nll(found, sure, unsure).sum(), logits)
    torch.testing.assert_close(weighted, (weight[:, None] * plain).float(), rtol=1e-4, atol=1e-7)


# -- NPO and SimNPO -------------------------------------------------------------------------------


@pytest.mark.parametrize("beta", [1e-3, 0.1, 2.0])
def test_npo_at_the_reference_is_two_over_beta_log_two(beta):
    _, _, found = answers(near=0.0)
    expected = [2 / beta * math.log(2)] * len(LENGTHS)
    assert losses.npo(found, beta).tolist() == pytest.approx(expected, rel=1e-6)


def test_npo_with_a_small_beta_is_ascent_on_the_summed_nll():
    logits, _, found = answers(scale=1.0)
    ascent = gradient(-(nll(found) * torch.tensor(LENGTHS)).sum(), logits)
    gaps = [float((gradient(losses.npo(found, beta).sum(), logits) - ascent).abs().max())
            for beta in (1e-1, 1e-2, 1e-3)]  # fmt: skip
    assert gaps[0] > 5 * gaps[1] > 25 * gaps[2]
    assert gaps[2] < 0.02 * float(ascent.abs().max())


@pytest.mark.parametrize("beta", [0.1, 1.0])
def test_the_gradient_weight_of_npo(beta):
    """2 pi^beta / (pi^beta + pi_ref^beta), times that of ascent on the summed NLL."""
    logits, _, found = answers(scale=1.0, near=0.5)
    ascent = gradient(-(nll(found) * torch.tensor(LENGTHS)).sum(), logits)
    own = [
        math.prod(probabilities(z)[y] for z, y in zip(lines, ys, strict=True))
        for lines, ys in zip(rows_of(found.logits), rows_of(found.targets), strict=True)
    ]
    ref = [
        math.prod(probabilities(z)[y] for z, y in zip(lines, ys, strict=True))
        for lines, ys in zip(rows_of(found.reference), rows_of(found.targets), strict=True)
    ]
    weights = [2 * a**beta / (a**beta + b**beta) for a, b in zip(own, ref, strict=True)]
    assert max(weights) > 1 > min(weights)
    lines = torch.tensor(weights).repeat_interleave(torch.tensor(LENGTHS))
    found_gradient = gradient(losses.npo(found, beta).sum(), logits)
    torch.testing.assert_close(found_gradient, lines[:, None] * ascent, rtol=1e-3, atol=1e-6)


def test_simnpo_with_a_small_beta_is_ascent_on_the_mean_nll():
    logits, _, found = answers(scale=1.0)
    ascent = gradient(-nll(found).sum(), logits)
    gaps = [float((gradient(losses.simnpo(found, beta, 1.0).sum(), logits) - ascent).abs().max())
            for beta in (1e-1, 1e-2, 1e-3)]  # fmt: skip
    assert gaps[0] > 5 * gaps[1] > 25 * gaps[2]
    assert gaps[2] < 0.02 * float(ascent.abs().max())


@pytest.mark.parametrize("beta", [0.5, 4.5])
def test_simnpo_where_the_nll_is_delta(beta):
    logits, _, found = answers(lengths=[3])
    delta = float(nll(found).detach())
    value = losses.simnpo(found, beta, delta)
    assert value.tolist() == pytest.approx([2 / beta * math.log(2)], rel=1e-5)
    ascent = gradient(-nll(found).sum(), logits)
    torch.testing.assert_close(gradient(value.sum(), logits), ascent, rtol=1e-4, atol=1e-7)


# -- divergences ----------------------------------------------------------------------------------


@pytest.mark.parametrize("loss", [losses.kl, losses.divergence])
def test_a_divergence_is_zero_at_the_reference_and_positive_elsewhere(loss):
    logits, _, found = answers(near=0.0)
    assert loss(found).tolist() == pytest.approx([0.0] * len(LENGTHS), abs=1e-6)
    assert float(gradient(loss(found).sum(), logits).abs().max()) < 1e-6
    for near in (0.1, 1.0):
        logits, _, found = answers(near=near)
        assert (loss(found) > 1e-5).all()
        assert float(gradient(loss(found).sum(), logits).abs().max()) > 1e-4


def test_constants_added_to_logits_change_no_loss():
    logits, targets, found = answers()
    moved = Answers(logits + 7.0, targets, found.lengths, found.reference - 5.0)
    for name, (loss, _) in PER_TOKEN.items():
        torch.testing.assert_close(loss(moved), loss(found), rtol=1e-4, atol=1e-5, msg=name)


def test_jensen_shannon_is_symmetric_and_at_most_log_two():
    for scale in (0.5, 4.0, 60.0):
        logits, targets, found = answers(scale=scale)
        turned = Answers(found.reference, targets, found.lengths, logits.detach())
        torch.testing.assert_close(losses.divergence(found), losses.divergence(turned))
        assert (losses.divergence(found) <= math.log(2) + 1e-6).all()
        assert (losses.target_divergence(found) <= math.log(2) + 1e-6).all()
    assert float(losses.divergence(found).detach().max()) > 0.9 * math.log(2)


def test_target_divergence_is_the_divergence_from_the_certain_target():
    """A reference whose target is 200 above all others is certain in float32."""
    logits, targets, found = answers(scale=2.0)
    sure = nn.functional.one_hot(targets, WORDS) * 200.0
    against = dataclasses.replace(found, reference=sure)
    torch.testing.assert_close(
        losses.target_divergence(found), losses.divergence(against), rtol=1e-4, atol=1e-6
    )
    torch.testing.assert_close(
        gradient(losses.target_divergence(found).sum(), logits),
        gradient(losses.divergence(against).sum(), logits),
        rtol=1e-3,
        atol=1e-6,
    )


def test_target_divergence_at_its_ends():
    for height, expected in ((-200.0, math.log(2)), (200.0, 0.0)):
        logits = torch.tensor([[height, 0.0, 0.0]], requires_grad=True)
        found = Answers(logits, torch.tensor([0]), torch.tensor([1]))
        value = losses.target_divergence(found)
        assert value.tolist() == pytest.approx([expected], abs=1e-6)
        assert torch.isfinite(gradient(value.sum(), logits)).all()


# -- the rest -------------------------------------------------------------------------------------


def test_undial_without_beta_is_the_cross_entropy_to_the_reference():
    _, _, found = answers(scale=2.0)
    expected = by_loop(
        found, lambda p, q, y: -sum(b * math.log(a) for a, b in zip(p, q, strict=True))
    )
    assert losses.undial(found, 0.0).tolist() == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("beta", [0.0, 3.0, 10.0])
def test_undial_is_smallest_at_its_goal(beta):
    _, targets, found = answers(scale=2.0)
    before = found.reference.clone()
    goal = before - beta * nn.functional.one_hot(targets, WORDS)
    logits = goal.clone().requires_grad_()
    there = losses.undial(dataclasses.replace(found, logits=logits), beta)
    assert float(gradient(there.sum(), logits).abs().max()) < 1e-6
    for seed in range(3):
        noise = 0.3 * torch.randn(goal.shape, generator=torch.Generator().manual_seed(seed))
        beside = losses.undial(dataclasses.replace(found, logits=goal + noise), beta)
        assert (beside > there).all()
    assert torch.equal(found.reference, before)


@pytest.mark.parametrize("y", [0, 1])
def test_inverted_hinge_of_two_words(y):
    """p(y) = 1 - p(other): the loss is 2 p(y)."""
    for p in (0.0, 0.25, 0.5, 0.9, 1.0):
        low, high = math.log(max(p, 1e-30)), math.log(max(1 - p, 1e-30))
        logits = torch.tensor([[low, high] if y == 0 else [high, low]])
        found = Answers(logits, torch.tensor([y]), torch.tensor([1]))
        assert losses.inverted_hinge(found).tolist() == pytest.approx([2 * p], abs=1e-6)


def test_inverted_hinge_lies_between_zero_and_two():
    for scale in (0.1, 4.0, 60.0):
        _, _, found = answers(scale=scale)
        assert ((losses.inverted_hinge(found) >= 0) & (losses.inverted_hinge(found) <= 2)).all()


def test_unlikelihood_where_p_rounds_to_one():
    logits = torch.zeros(2, 5)
    logits[0, 3], logits[1, 1] = 40.0, 90.0
    logits.requires_grad_()
    found = Answers(logits, torch.tensor([3, 1]), torch.tensor([1, 1]))
    assert (logits.detach().softmax(-1).amax(-1) == 1).all()
    value = losses.unlikelihood(found)
    exact = [math.log((math.exp(height) + 4) / 4) for height in (40.0, 90.0)]  # -log(4 / (e^h + 4))
    assert value.tolist() == pytest.approx(exact, rel=1e-6)
    slope = gradient(value.sum(), logits)
    # d/dz_y = p_y, d/dz_v = p_v - p_v / (1 - p_y) = p_v - 1/4
    assert slope[0].tolist() == pytest.approx([-0.25, -0.25, -0.25, 1.0, -0.25], abs=1e-6)
    assert slope[1].tolist() == pytest.approx([-0.25, 1.0, -0.25, -0.25, -0.25], abs=1e-6)


def test_the_adversarial_label_is_the_references_best_but_the_true_one():
    """Descent on it raises one logit a line: the label's."""
    logits, targets, found = answers()
    top = found.reference.argmax(-1)
    targets = torch.where(torch.arange(len(targets)) % 2 == 0, top, targets)
    found = Answers(logits, targets, found.lengths, found.reference)
    slope = gradient(losses.adversarial_nll(found).sum(), logits)
    for line, reference, y in zip(slope, found.reference, targets.tolist(), strict=True):
        (label,) = (line < 0).nonzero().flatten().tolist()
        assert label != y
        order = reference.argsort(descending=True).tolist()
        assert label == (order[1] if order[0] == y else order[0])


@pytest.mark.parametrize(
    "loss", [losses.kl, losses.divergence, losses.adversarial_nll,
             lambda a: losses.npo(a, 0.1), lambda a: losses.undial(a, 1.0)]
)  # fmt: skip
def test_a_comparison_without_a_reference_is_refused(loss):
    _, _, found = answers()
    with pytest.raises(RuntimeError, match="does not ask for it"):
        loss(dataclasses.replace(found, reference=None))


@pytest.mark.parametrize("name", PER_TOKEN)
def test_half_precision_logits_lose_nothing_more(name):
    logits, targets, found = answers()
    half = Answers(logits.detach().half(), targets, found.lengths, found.reference.half())
    loss, value = PER_TOKEN[name]
    assert loss(half).dtype == torch.float32
    assert loss(half).tolist() == pytest.approx(by_loop(half, value), rel=1e-4, abs=1e-6)


# -- company and padding --------------------------------------------------------------------------


def terms_of(name):
    settings = Unlearning(objective=name, **({"max_token_nll": 4.0} if name in ASCENTS else {}))
    return make_objective(settings).terms


@pytest.mark.parametrize("name", OBJECTIVES)
def test_company_changes_nothing(name):
    _, _, together = answers()
    for term in terms_of(name):
        whole = term.loss(together)
        lines = zip(
            *(rows_of(v) for v in (together.logits, together.targets, together.reference)),
            strict=True,
        )
        for i, (logits, targets, reference) in enumerate(lines):
            alone = Answers(logits, targets, torch.tensor([len(targets)]), reference)
            torch.testing.assert_close(term.loss(alone)[0], whole[i], rtol=1e-6, atol=1e-7)
            assert torch.equal(alone.accuracy[0], together.accuracy[i])


@pytest.fixture(scope="module")
def moved(tiny_model):
    """A model, and the reference that it has moved away from."""
    model = tiny_model()
    reference = copy_weights(model)
    with torch.no_grad():
        for i, p in enumerate(trainable(model).values()):
            p.add_(0.1 * torch.randn(p.shape, generator=torch.Generator().manual_seed(i)))
    return model, reference


@pytest.mark.parametrize("name", OBJECTIVES)
def test_padding_and_company_change_nothing_through_a_model(name, moved, tiny_rows):
    model, reference = moved
    rows = tiny_rows(4)
    longest = dataclasses.replace(rows[0], ids=rows[0].ids + (7,) * 40)
    together = answers_of(model, collate([*rows, longest], 0), reference)
    for term in terms_of(name):
        values = term.loss(together)
        assert values.shape == (5,)
        for i, row in enumerate(rows):
            alone = term.loss(answers_of(model, collate([row], 0), reference))
            torch.testing.assert_close(alone[0], values[i], rtol=1e-4, atol=1e-5)
            weights = list(trainable(model).values())
            one = torch.autograd.grad(alone[0], weights)
            other = torch.autograd.grad(values[i], weights, retain_graph=True)
            scale = max(float(g.abs().max()) for g in one)
            gap = max(float((a - b).abs().max()) for a, b in zip(one, other, strict=True))
            assert gap <= 1e-4 * max(scale, 1e-3)
