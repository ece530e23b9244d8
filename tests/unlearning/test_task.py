"""Planning and the loss of a step, against definitions written out here."""

import dataclasses
from collections import Counter

import pytest
import torch
from torch import nn

from grail.config.unlearning import ASCENTS, Unlearning, Until
from grail.data.batches import collate
from grail.data.encode import Encoded
from grail.data.samples import GENERAL, Sample
from grail.data.substitutes import random_targets, refusal, truth
from grail.model.answers import answers_of
from grail.model.forward import trainable
from grail.model.weights import copy_weights
from grail.run.trainings import schedule_of
from grail.training.task import History
from grail.unlearning.objectives import EXACT, OBJECTIVES, make_objective
from grail.unlearning.rewrites import REWRITTEN
from grail.unlearning.task import UnlearnTask


def blank(domains):
    """Rows without meaning: {domain: (unlearn rows, retain rows)}."""
    return tuple(
        Encoded(Sample(domain, side, "train", i, "", ""), (3, 4), 1)
        for domain, counts in domains.items()
        for side, count in zip(("unlearn", "retain"), counts, strict=True)
        for i in range(count)
    )


def task_of(rows, model=None, seed=0, split=False, reference=None, **given):
    never = Until(row_accuracy=None)
    bound = {"max_token_nll": 12.0} if given.get("objective", ASCENTS[0]) in ASCENTS else {}
    settings = Unlearning(**({"until": never} | bound | given))
    objective = make_objective(settings.model_copy(update={"until": never}))  # the task's own
    substitute = {
        "true": truth,
        "random": random_targets(range(3, 96), 0),
        "refusal": refusal((5, 6, 7)),
    }[objective.labels]
    model = model or nn.Identity()
    return UnlearnTask(
        model, tuple(rows), objective, 0, schedule_of(settings), seed, split, reference, substitute
    )


def after(task, seen):
    """The same task with a memory of what it has seen."""
    return dataclasses.replace(task, history=History(dict(seen)))


def keys(steps, side):
    return [[row.key for row in step if row.side == side] for step in steps]


def flat(steps):
    return [key for step in steps for key in step]


SIZES = [
    {"a": (8, 8)},
    {"a": (6, 6), "b": (6, 6), "c": (6, 6)},
    {"a": (10, 3), "b": (4, 9)},
    {"a": (1, 5), "b": (7, 2), "c": (12, 12)},
]


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("batch_size", [1, 3, 4, 6, 100])
def test_an_epoch_sees_every_unlearn_row_once_and_as_many_retain_rows(sizes, batch_size):
    rows = blank(sizes)
    task = task_of(rows, batch_size=batch_size)
    for epoch in range(3):
        steps = task.plan(epoch)
        unlearn, retain = keys(steps, "unlearn"), keys(steps, "retain")
        assert sorted(flat(unlearn)) == sorted(r.key for r in rows if r.side == "unlearn")
        assert [len(step) for step in unlearn] == [len(step) for step in retain]
        assert all(len(step) == batch_size for step in unlearn[:-1])
        assert 0 < len(unlearn[-1]) <= batch_size
        for domain, (own, others) in sizes.items():  # no retain row twice before all were once
            counts = Counter(key for key in flat(retain) if key.startswith(f"{domain}."))
            assert sum(counts.values()) == own
            assert max(counts.values()) <= -(-own // others)


@pytest.mark.parametrize("sizes", SIZES)
@pytest.mark.parametrize("batch_size", [2, 3, 4, 6])
def test_every_step_holds_the_domains_in_proportion(sizes, batch_size):
    task = task_of(blank(sizes), batch_size=batch_size)
    total = sum(own for own, _ in sizes.values())
    for step in task.plan(0):
        for side in ("unlearn", "retain"):
            counts = Counter(row.domain for row in step if row.side == side)
            size = sum(counts.values())
            for domain, (own, _) in sizes.items():
                assert abs(counts[domain] - size * own / total) <= 1.5
        assert Counter(r.domain for r in step if r.side == "unlearn") == Counter(
            r.domain for r in step if r.side == "retain"
        )


@pytest.mark.parametrize("batch_size", [3, 6, 9])
def test_equal_domains_are_equal_in_every_step(batch_size):
    task = task_of(blank({"a": (9, 9), "b": (9, 4), "c": (9, 20)}), batch_size=batch_size)
    for step in task.plan(0):
        for side in ("unlearn", "retain"):
            counts = Counter(row.domain for row in step if row.side == side)
            assert set(counts.values()) == {len(step) // 6}


def test_the_order_is_a_function_of_seed_and_epoch():
    rows = blank({"a": (8, 8), "b": (8, 8)})
    plans = {
        (seed, epoch): task_of(rows, seed=seed).plan(epoch)
        for seed in (0, 1)
        for epoch in (0, 1, 2)
    }
    for (seed, epoch), plan in plans.items():
        assert task_of(rows, seed=seed).plan(epoch) == plan
    for side in ("unlearn", "retain"):
        assert len({tuple(flat(keys(plan, side))) for plan in plans.values()}) == len(plans)


def test_ascent_alone_plans_no_retain_rows():
    task = task_of(blank({"a": (5, 5), "b": (3, 0)}), objective="ascent", batch_size=2)
    steps = task.plan(0)
    assert flat(keys(steps, "retain")) == []
    assert len(flat(keys(steps, "unlearn"))) == 8


# -- convergence ----------------------------------------------------------------------------------


def seen_at(rows, accuracy):
    return {row.key: (0, accuracy(row)) for row in rows}


ROWS = blank({"a": (4, 4), "b": (4, 4)})


@pytest.mark.parametrize("rule", ["row_accuracy", "domain_accuracy"])
def test_no_steps_once_all_is_forgotten(rule):
    task = task_of(ROWS, until=Until(**({"row_accuracy": None} | {rule: 0.25})))
    known = {"a.unlearn.train.1"}
    assert after(task, seen_at(ROWS, lambda r: 0.25 if r.side == "unlearn" else 1.0)).plan(1) == []
    assert after(task, seen_at(ROWS, lambda r: 0.26)).plan(1)
    assert task.plan(1)
    one_left = seen_at(ROWS, lambda r: 0.9 if r.key in known else 0.0)
    assert bool(after(task, one_left).plan(1)) == (
        rule == "row_accuracy"
    )  # a mean of 0.225 is enough
    unseen = {k: v for k, v in seen_at(ROWS, lambda r: 0.0).items() if k not in known}
    assert after(task, unseen).plan(1)


@pytest.mark.parametrize("rule", ["row_accuracy", "domain_accuracy"])
@pytest.mark.parametrize("batch_size", [1, 3, 4])
def test_what_was_unlearned_rests_for_an_epoch_and_is_looked_at_again(rule, batch_size):
    """The steps go to the other rows; the retain rows stay those of all domains."""
    rows = blank({"a": (12, 12), "b": (12, 12)})
    until = Until(**({"row_accuracy": None} | {rule: 0.25}))
    task = task_of(rows, until=until, batch_size=batch_size)
    seen = {r.key: (1, 0.9 if r.domain == "a" else 0.1) for r in rows if r.side == "unlearn"}
    steps = after(task, seen).plan(2)
    assert {key.split(".")[0] for key in flat(keys(steps, "unlearn"))} == {"a"}
    assert len(flat(keys(steps, "unlearn"))) == len(set(flat(keys(steps, "unlearn")))) == 12
    assert len(steps) == -(-12 // batch_size)
    retain = [row for step in steps for row in step if row.side == "retain"]
    assert Counter(row.domain for row in retain) == {"a": 6, "b": 6}
    assert all(len(u) == len(r) for u, r in zip(keys(steps, "unlearn"), keys(steps, "retain"),
                                                strict=True))  # fmt: skip
    again = after(task, seen).plan(3)  # b was not seen in epoch 2
    assert sorted(flat(keys(again, "unlearn"))) == sorted(seen)
    assert task.plan(2) == task_of(rows, batch_size=batch_size).plan(2)


def test_without_a_rule_no_row_rests():
    for epoch in range(3):
        seen = {r.key: (epoch - 1, 0.0) for r in ROWS}
        assert after(task_of(ROWS), seen).plan(epoch) == task_of(ROWS).plan(epoch)


def test_without_a_rule_ascent_never_ends():
    assert after(task_of(ROWS), seen_at(ROWS, lambda r: 0.0)).plan(3)


def test_the_first_epoch_is_always_run():
    task = task_of(ROWS, until=Until(row_accuracy=1.0))
    assert task.plan(0)


# -- the loss of a step ---------------------------------------------------------------------------


@pytest.fixture(scope="module")
def model(tiny_model):
    return tiny_model()


@torch.no_grad()
def _continued(model, prompt, count):
    ids = list(prompt)
    for _ in range(count):
        ids.append(int(model(input_ids=torch.tensor([ids])).logits[0, -1].argmax()))
    return tuple(ids)


@pytest.fixture(scope="module")
def step(model, tiny_rows):
    """8 rows: 2 domains x 2 sides x 2; the first row of each pair is the model's own words."""
    rows = []
    for i, row in enumerate(tiny_rows(8, answer=(2, 6))):
        domain, side = "ab"[i // 4], ("unlearn", "retain")[i // 2 % 2]
        ids = row.ids
        if i % 2 == 0:
            ids = _continued(model, row.ids[: row.start], len(row.answer))
        rows.append(Encoded(Sample(domain, side, "train", i, "", ""), ids, row.start))
    return rows


def as_general(row):
    return dataclasses.replace(row, sample=Sample(*GENERAL, row.sample.row, "", ""))


def tokens_nll(model, row):
    logits = model(input_ids=torch.tensor([row.ids])).logits[0, row.start - 1 : -1]
    return -torch.log_softmax(logits, -1)[range(len(row.answer)), list(row.answer)]


def accuracy_of(model, row):
    logits = model(input_ids=torch.tensor([row.ids])).logits[0, row.start - 1 : -1]
    return sum(logits.argmax(-1).tolist()[i] == t for i, t in enumerate(row.answer)) / len(
        row.answer
    )


def gradient(model, loss):
    found = torch.autograd.grad(loss, list(trainable(model).values()), retain_graph=True)
    return torch.cat([g.flatten() for g in found])


def assert_close(a, b):
    assert float((a - b).abs().max()) <= 2e-6 * max(1.0, float(b.abs().max()))


def on(step, side):
    return [row for row in step if row.side == side]


def by_hand(model, step, ascending=lambda row: True, weights=(1.0, 2.0), most=12.0):
    """-w_u mean(bounded NLL of unlearn rows) + w_r mean(NLL of retain rows)."""
    unlearn = sum(
        tokens_nll(model, row).clamp(max=most).mean()
        for row in on(step, "unlearn")
        if ascending(row)
    ) / len(on(step, "unlearn"))
    retain = sum(tokens_nll(model, row).mean() for row in on(step, "retain"))
    retain = retain / len(on(step, "retain"))
    return -weights[0] * unlearn + weights[1] * retain


def test_the_loss_of_a_step_is_that_of_the_objective(model, step):
    task = task_of(step, model, unlearn_weight=0.4, retain_weight=3.0, max_token_nll=2.5)
    assert max(float(tokens_nll(model, row).detach().max()) for row in on(step, "unlearn")) > 2.5
    found = task.run(step, step)
    expected = by_hand(model, step, weights=(0.4, 3.0), most=2.5)
    assert float(found.loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-5)
    assert_close(gradient(model, found.loss), gradient(model, expected))
    assert found.ascending == 4
    for side in ("unlearn", "retain"):  # the log knows no bound and no weight
        plain = [float(tokens_nll(model, row).detach().mean()) for row in on(step, side)]
        assert float(found.terms[f"{side}/nll"]) == pytest.approx(sum(plain) / 4, rel=1e-5)
    expected_accuracy = {row.key: accuracy_of(model, row) for row in step}
    assert found.accuracy == pytest.approx(expected_accuracy)


@pytest.mark.parametrize("size", [1, 3, 8])
def test_micro_batches_add_up_to_the_step(model, step, size):
    until = Until(row_accuracy=0.5, domain_accuracy=0.3)
    task = task_of(step, model, until=until)
    seen = seen_at(step, lambda r: 0.2 if r.domain == "a" else 1.0)
    whole = after(task, seen).run(step, step)
    pieces = [step[i : i + size] for i in range(0, len(step), size)]
    parts = [after(task, seen).run(piece, step) for piece in pieces]
    assert_close(gradient(model, sum(p.loss for p in parts)), gradient(model, whole.loss))
    assert sum(p.ascending for p in parts) == whole.ascending
    for name, value in whole.terms.items():
        shares = [float(p.terms[name]) for p in parts if name in p.terms]
        assert sum(shares) == pytest.approx(float(value), rel=1e-5)


def test_a_forgotten_row_is_left_alone(model, step):
    task = task_of(step, model, until=Until(row_accuracy=0.5))
    low = {row.key for row in step if accuracy_of(model, row) <= 0.5}
    assert {len(low & {r.key for r in on(step, s)}) for s in ("unlearn", "retain")} == {2}
    found = after(task, seen_at(step, lambda r: 1.0)).run(step, step)  # what is true now decides
    expected = by_hand(model, step, lambda row: row.key not in low)
    assert_close(gradient(model, found.loss), gradient(model, expected))
    assert found.ascending == 2
    without = task_of(step, model).run(step, step)
    assert (gradient(model, without.loss) - gradient(model, expected)).abs().max() > 1e-3


def test_forgotten_rows_alone_give_a_gradient_of_zero(model, step):
    rows = [r for r in on(step, "unlearn") if accuracy_of(model, r) <= 0.5]
    task = task_of(step, model, until=Until(row_accuracy=0.5), split=True)
    found = task.run(rows, step)
    assert found.ascending == 0
    assert not gradient(model, found.loss).any()


def test_a_domain_stops_while_another_goes_on(model, step):
    task = task_of(step, model, until=Until(row_accuracy=None, domain_accuracy=0.5))
    seen = seen_at(step, lambda r: 0.5 if r.domain == "a" else 0.6)
    found = after(task, seen).run(step, step)
    expected = by_hand(model, step, lambda row: row.domain == "b")
    assert_close(gradient(model, found.loss), gradient(model, expected))
    assert found.ascending == 2


def test_a_domain_goes_on_while_one_of_its_rows_is_unseen(model, step):
    task = task_of(step, model, until=Until(row_accuracy=None, domain_accuracy=0.5))
    seen = seen_at(step, lambda r: 0.0)
    del seen[next(r.key for r in step if r.side == "unlearn" and r.domain == "b")]
    assert after(task, seen).run(step, step).ascending == 2
    assert task.run(step, step).ascending == 4


def test_half_precision_logits_do_not_overflow_the_loss(step, tiny_model):
    """The sum of a batch's logits exceeds float16's largest number: it must not be in the loss."""
    model = tiny_model(lora=False, tied=False).half()
    sums = []

    def raised(_, inputs, logits):
        sums.append((logits + 200.0).sum())
        return logits + 200.0

    model.lm_head.register_forward_hook(raised)
    found = task_of(step, model).run(step, step)
    assert torch.isinf(sums[0])
    assert torch.isfinite(found.loss)
    assert torch.isfinite(gradient(model, found.loss)).all()


def test_groups_keep_every_row_once(step):
    assert task_of(step).groups(step) == [("", step)]
    split = task_of(step, split=True).groups(step)
    assert split == [("unlearn", on(step, "unlearn")), ("retain", on(step, "retain"))]
    alone = task_of(step, objective="ascent", split=True).groups(on(step, "unlearn"))
    assert alone == [("unlearn", on(step, "unlearn")), ("retain", [])]
    general = [as_general(row) for row in step[:2]]
    rows = [*general, *on(step, "unlearn")]
    split = task_of(rows, split=True, retain_rows="general").groups(rows)
    assert split == [("unlearn", on(step, "unlearn")), ("retain", general)]


# -- phases and general rows ----------------------------------------------------------------------

PHASES = [["b"], ["c", "a"]]


def test_an_epoch_plans_its_phases_domains_only():
    rows = blank({"a": (5, 3), "b": (4, 4), "c": (2, 6)})
    task = task_of(rows, phases=PHASES, epochs=3, batch_size=3)
    for epoch in range(6):
        domains = PHASES[epoch // 3]
        steps = task.plan(epoch)
        assert {row.domain for step in steps for row in step} == set(domains)
        wanted = sorted(r.key for r in rows if r.side == "unlearn" and r.domain in domains)
        assert sorted(flat(keys(steps, "unlearn"))) == wanted
        for step in steps:
            sides = [Counter(r.domain for r in step if r.side == s) for s in ("unlearn", "retain")]
            assert sides[0] == sides[1]


@pytest.mark.parametrize("rule", ["row_accuracy", "domain_accuracy"])
def test_each_phase_begins_whatever_was_seen_and_ends_by_itself(rule):
    until = Until(**({"row_accuracy": None} | {rule: 0.25}))
    task = task_of(ROWS, phases=[["a"], ["b"]], epochs=3, until=until)
    forgotten = seen_at(ROWS, lambda r: 0.0)
    assert [bool(after(task, forgotten).plan(epoch)) for epoch in range(6)] == [
        True,
        False,
        False,
    ] * 2
    one = seen_at(ROWS, lambda r: 0.0 if r.domain == "a" else 1.0)
    assert [bool(after(task, one).plan(e)) for e in range(6)] == [True, False, False] + [True] * 3


def test_one_phase_of_all_domains_is_no_phase():
    for epoch in range(3):
        plain, phased = (task_of(ROWS, phases=p, epochs=3) for p in (None, [["a", "b"]]))
        assert plain.plan(epoch) == phased.plan(epoch)


def with_general(rows, count):
    made = [Encoded(Sample(*GENERAL, i, "", ""), (3, 4), 1)
            for i in range(count)]  # fmt: skip
    return (*rows, *made)


@pytest.mark.parametrize("count", [1, 3, 30])
@pytest.mark.parametrize("phases", [None, PHASES])
def test_general_rows_stand_in_for_the_domains_retain_rows(count, phases):
    rows = with_general(blank({"a": (5, 3), "b": (4, 4), "c": (2, 6)}), count)
    task = task_of(rows, retain_rows="general", phases=phases, epochs=2, batch_size=3)
    for epoch in range(4 if phases else 2):
        steps = task.plan(epoch)
        assert not flat(keys(steps, "retain"))
        unlearn, general = keys(steps, "unlearn"), keys(steps, "general")
        assert [len(step) for step in unlearn] == [len(step) for step in general]
        assert "general" not in {row.domain for step in steps for row in on(step, "unlearn")}
        counts = Counter(flat(general))  # no row twice before all were once
        assert max(counts.values()) - min(counts.values(), default=0) <= 1
        assert len(counts) == min(count, sum(map(len, unlearn)))


# -- every objective ------------------------------------------------------------------------------

NAMES = sorted(set(OBJECTIVES) - {EXACT})


@pytest.fixture(scope="module")
def moved(model, tiny_model):
    """A reference that differs from ``model``: same names, other values."""
    reference = copy_weights(tiny_model(seed=1))
    assert reference.keys() == trainable(model).keys()
    return reference


@pytest.mark.parametrize("rows", ["domain", "general"])
@pytest.mark.parametrize("name", NAMES)
def test_the_loss_of_a_step_is_the_weighted_mean_of_its_terms(model, moved, step, name, rows):
    """Row by row, each alone, with substitutes put in here."""
    if rows == "general":
        step = [as_general(row) if row.side == "retain" else row for row in step]
    task = task_of(
        step, model, objective=name, unlearn_weight=0.4, retain_weight=3.0, retain_rows=rows,
        reference=moved,
    )  # fmt: skip
    expected = 0.0
    for term in task.objective.terms:
        own = on(step, term.side)
        assert len(own) == 4
        for row in own:
            said = task.substitute(row) if term.side == "unlearn" else row
            answers = answers_of(model, collate([said], 0), moved)
            expected = expected + term.weight * term.loss(answers)[0] / len(own)
    found = task.run(step, step)
    assert float(found.loss.detach()) == pytest.approx(float(expected.detach()), rel=1e-4)
    wanted = gradient(model, expected)
    assert float((gradient(model, found.loss) - wanted).abs().max()) <= 1e-4 * max(
        1.0, float(wanted.abs().max())
    )
    sides = set(task.objective.sides)
    names = {f"{side}/nll" for side in sides} | {term.name for term in task.objective.terms}
    assert set(found.terms) == names
    for side in sides:  # what is drawn is the NLL of the truth
        plain = [float(tokens_nll(model, row).detach().mean()) for row in on(step, side)]
        assert float(found.terms[f"{side}/nll"]) == pytest.approx(sum(plain) / 4, rel=1e-4)
    true = {row.key: accuracy_of(model, row) for row in step if row.side in sides}
    assert found.accuracy == pytest.approx(true)  # on the true answer, whatever was to be said


@pytest.mark.parametrize("name", NAMES)
def test_a_row_at_the_limit_gets_no_gradient_from_any_objective(model, moved, step, name):
    given = {"objective": name, "split": True, "reference": moved}
    rule = {"until": Until(row_accuracy=0.5)}
    low = [r for r in on(step, "unlearn") if accuracy_of(model, r) <= 0.5]
    high = [r for r in on(step, "unlearn") if r not in low]
    assert len(low) == len(high) == 2
    silent = task_of(step, model, **given, **rule).run(low, step)
    assert silent.ascending == 0
    assert not gradient(model, silent.loss).any()
    without = task_of(step, model, **given).run(low, step)
    assert without.ascending == 2
    assert gradient(model, without.loss).any()
    both = task_of(step, model, **given, **rule).run(low + high, step)
    alone = task_of(step, model, **given, **rule).run(high, step)
    assert both.ascending == alone.ascending == 2
    assert_close(gradient(model, both.loss), gradient(model, alone.loss))


@pytest.mark.parametrize("name", NAMES)
def test_a_domain_at_the_limit_gets_no_gradient_from_any_objective(model, moved, step, name):
    rule = {"until": Until(row_accuracy=None, domain_accuracy=0.5)}
    task = task_of(step, model, objective=name, reference=moved, **rule)
    seen = seen_at(step, lambda r: 0.5)
    found = after(task, seen).run(on(step, "unlearn"), step)
    assert found.ascending == 0
    assert not gradient(model, found.loss).any()


def test_retain_rows_go_on_when_all_is_unlearned(model, step):
    task = task_of(step, model, until=Until(row_accuracy=1.0))
    found = task.run(step, step)
    expected = by_hand(model, step, lambda row: False)
    assert found.ascending == 0
    assert_close(gradient(model, found.loss), gradient(model, expected))


@pytest.mark.parametrize("batch_size", [1, 2, 3, 4])
def test_general_rows_stand_beside_the_domains_rows_or_in_their_place(batch_size):
    general = tuple(Encoded(Sample(*GENERAL, i, "", ""), (3, 4), 1) for i in range(3))
    rows = (*blank({"a": (6, 6), "b": (6, 6)}), *general)
    beside = task_of(rows, batch_size=batch_size, general_weight=1.0).plan(0)
    instead = task_of(rows, batch_size=batch_size, retain_rows="general").plan(0)
    for steps, share in ((beside, 2), (instead, 1)):
        for step in steps:
            counts = Counter(row.side for row in step)
            assert counts["general"] == -(-counts["unlearn"] // share)
            assert counts["retain"] == (counts["unlearn"] if share == 2 else 0)
        seen = Counter(flat(keys(steps, "general")))
        assert max(seen.values()) - min(seen.values()) <= 1  # no row twice before all were once


@pytest.mark.parametrize("ratio", [1, 2, 3])
def test_a_step_holds_retain_rows_in_the_ratio_and_of_the_same_domains(ratio):
    task = task_of(blank({"a": (8, 5), "b": (6, 9)}), batch_size=2, retain_ratio=ratio)
    for step in task.plan(0):
        unlearn, retain = (
            Counter(row.domain for row in step if row.side == side)
            for side in ("unlearn", "retain")
        )
        assert retain == {domain: ratio * count for domain, count in unlearn.items()}


def test_written_rows_alternate_with_those_that_were_given():
    rows = blank({"a": (9, 5), "b": (9, 7)})
    written = tuple(
        Encoded(Sample(domain, "retain", REWRITTEN, i, "", ""), (3, 4), 1)
        for domain in ("a", "b")
        for i in range(20)
    )
    plain, more = (task_of(r, batch_size=2, retain_ratio=2) for r in (rows, rows + written))
    for epoch in range(2):
        steps = [
            [[r for r in step if r.side == "retain"] for step in t.plan(epoch)]
            for t in (plain, more)
        ]
        for domain in ("a", "b"):
            before, after = (
                [row for step in part for row in step if row.domain == domain] for part in steps
            )
            assert len(before) == len(after)
            assert [row.part == REWRITTEN for row in after] == [
                i % 2 == 1 for i in range(len(after))
            ]
            given = [row for row in after if row.part != REWRITTEN]
            assert given == before[: len(given)]  # in the order that they have without


def test_wordings_come_beside_the_rows_as_many_as_of_them():
    given = blank({"a": (3, 2), "b": (2, 2)})
    asked = [
        dataclasses.replace(row, sample=dataclasses.replace(row.sample, part=REWRITTEN, row=i))
        for row in given
        if row.side == "unlearn"
        for i in range(row.sample.row * 4, row.sample.row * 4 + 4)
    ]
    task = task_of((*given, *asked), batch_size=2)
    for epoch in range(3):
        seen = Counter(
            row.key for step in task.plan(epoch) for row in step if row.side == "unlearn"
        )
        lost = {row.key for row in given if row.side == "unlearn"}
        for domain, count in (("a", 3), ("b", 2)):
            own = {key: n for key, n in seen.items() if key.startswith(f"{domain}.")}
            assert {key: n for key, n in own.items() if key in lost} == dict.fromkeys(
                [key for key in lost if key.startswith(f"{domain}.")], 1
            )
            assert sum(n for key, n in own.items() if key not in lost) == count
