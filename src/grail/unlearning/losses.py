"""Losses: a model's answers for a batch in, one number per sequence out.

A sequence's number does not depend on padding, nor on the other sequences of the batch.
Notation: y_t the target of answer token t of T, p_t its probability, l_t = -log p_t, ref the model
before unlearning.
"""

import math

import torch
from jaxtyping import Float
from torch import Tensor
from torch.nn.functional import logsigmoid

from grail.model.answers import Answers, mean_per_row


def nll(answers: Answers) -> Float[Tensor, " B"]:
    """Mean token NLL in nats."""
    return mean_per_row(answers.nll, answers.lengths)


def bounded_nll(answers: Answers, most: float | None) -> Float[Tensor, " B"]:
    """Mean token NLL in nats, where a token counts at most ``most`` and then gives no gradient.

    Ascent on an unbounded NLL never ends: the domain that is lost first takes all of the gradient
    norm, and clipping leaves little for the others.
    """
    if most is None:
        return nll(answers)
    return mean_per_row(answers.nll.clamp(max=most), answers.lengths)


def weighted_nll(answers: Answers, beta: float, unsure: float = 0.0) -> Float[Tensor, " B"]:
    """Mean of p_t^beta (1 - p_t)^unsure l_t; the weight gives no gradient.

    WGA (arXiv 2502.19301) has ``unsure`` 0, SatImp (arXiv 2505.11953) has 5 and 1. Both exponents 0
    give the NLL.
    """
    p = (-answers.nll.detach()).exp()
    weight = p**beta * (1 - p) ** unsure
    return mean_per_row(weight * answers.nll, answers.lengths)


def unlikelihood(answers: Answers) -> Float[Tensor, " B"]:
    """Mean of -log(1 - p_t) (arXiv 1908.04319), exact where p_t is close to 1."""
    everything = answers.logits.float().logsumexp(-1)
    others = _without(answers.logits.float(), answers.targets).logsumexp(-1)
    return mean_per_row(everything - others, answers.lengths)


def inverted_hinge(answers: Answers) -> Float[Tensor, " B"]:
    """Mean of 1 + p_t - max over v != y_t of p(v), in [0, 2] (IHL, arXiv 2408.06621)."""
    p = answers.logits.float().softmax(-1)
    target = p.gather(-1, answers.targets[:, None])[:, 0]
    rival = p.scatter(-1, answers.targets[:, None], -1.0).amax(-1)
    return mean_per_row(1 + target - rival, answers.lengths)


def npo(answers: Answers, beta: float) -> Float[Tensor, " B"]:
    """-(2 / beta) log sigmoid(beta (NLL_sum - NLL_sum_ref)) (NPO, arXiv 2404.05868).

    At the reference it is (2 / beta) log 2; as beta goes to 0 its gradient is that of ascent on the
    summed NLL.
    """
    gap = answers.nll - _reference_nll(answers)
    summed = mean_per_row(gap, answers.lengths) * answers.lengths
    return -2 / beta * logsigmoid(beta * summed)


def simnpo(answers: Answers, beta: float, delta: float) -> Float[Tensor, " B"]:
    """-(2 / beta) log sigmoid(beta (NLL - delta)) (SimNPO, arXiv 2410.07163); no reference."""
    return -2 / beta * logsigmoid(beta * (nll(answers) - delta))


def kl(answers: Answers) -> Float[Tensor, " B"]:
    """Mean KL(ref || policy) in nats per answer token."""
    ref, policy = _log_p(_reference(answers)), _log_p(answers.logits)
    return mean_per_row((ref.exp() * (ref - policy)).sum(-1), answers.lengths)


def divergence(answers: Answers) -> Float[Tensor, " B"]:
    """Mean Jensen-Shannon divergence between policy and reference, at most log 2 nats."""
    ref, policy = _log_p(_reference(answers)), _log_p(answers.logits)
    middle = torch.logaddexp(ref, policy) - math.log(2)
    both = (ref.exp() * (ref - middle) + policy.exp() * (policy - middle)).sum(-1) / 2
    return mean_per_row(both, answers.lengths)


def target_divergence(answers: Answers) -> Float[Tensor, " B"]:
    """Mean Jensen-Shannon divergence between the policy and the certain target.

    log 2 + (p log p - (1 + p) log(1 + p)) / 2 with p = p_t: bounded by log 2 (JensUn's unlearn term
    on refusal tokens, arXiv 2509.02820).
    """
    p = (-answers.nll).exp()
    value = math.log(2) + (-p * answers.nll - (1 + p) * torch.log1p(p)) / 2
    return mean_per_row(value, answers.lengths)


def undial(answers: Answers, beta: float) -> Float[Tensor, " B"]:
    """Mean cross-entropy to softmax(z_ref - beta e(y_t)) (UNDIAL, arXiv 2402.10052)."""
    goal = _reference(answers).clone()
    goal[torch.arange(len(goal)), answers.targets] -= beta
    loss = -(goal.softmax(-1) * _log_p(answers.logits)).sum(-1)
    return mean_per_row(loss, answers.lengths)


def adversarial_nll(answers: Answers) -> Float[Tensor, " B"]:
    """Mean NLL of the token that the reference finds most probable besides y_t.

    KnowUnDo (arXiv 2407.01920) calls these adversarial samples.
    """
    rivals = _without(_reference(answers), answers.targets).argmax(-1)
    loss = -_log_p(answers.logits).gather(-1, rivals[:, None])[:, 0]
    return mean_per_row(loss, answers.lengths)


def _log_p(logits: Float[Tensor, "K V"]) -> Float[Tensor, "K V"]:
    return logits.float().log_softmax(-1)


def _without(logits: Float[Tensor, "K V"], targets: Tensor) -> Float[Tensor, "K V"]:
    return logits.scatter(-1, targets[:, None], -math.inf)


def _reference(answers: Answers) -> Float[Tensor, "K V"]:
    if answers.reference is None:
        raise RuntimeError("this loss needs the reference, but its term does not ask for it")
    return answers.reference.float()


def _reference_nll(answers: Answers) -> Float[Tensor, " K"]:
    return -_log_p(_reference(answers)).gather(-1, answers.targets[:, None])[:, 0]
