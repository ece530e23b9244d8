"""An objective is a weighted sum of terms: signs, weights and sides by independent computation."""

import sys

import pytest
import torch

from grail.config.run import Unlearning
from grail.config.unlearning import ASCENTS, PUBLISHED_WEIGHTS, Until
from grail.errors import InputError
from grail.model.answers import Answers
from grail.unlearning import losses
from grail.unlearning.losses import nll
from grail.unlearning.objectives import EXACT, OBJECTIVES, make_objective

# name -> (sign of the unlearn term, does it compare, labels, retain term, does that compare)
EXPECTED = {
    "ascent": (-1, False, "true", None, False),
    "ascent_descent": (-1, False, "true", "nll", False),
    "ascent_kl": (-1, False, "true", "kl", True),
    "random_labels": (1, False, "random", None, False),
    "adversarial_labels": (1, True, "true", None, False),
    "npo": (1, True, "true", "nll", False),
    "simnpo": (1, False, "true", "nll", False),
    "wga": (-1, False, "true", "nll", False),
    "satimp": (-1, False, "true", "nll", False),
    "inverted_hinge": (1, False, "true", "nll", False),
    "undial": (1, True, "true", "nll", False),
    "jensun": (1, False, "refusal", "divergence", True),
    "refusal": (1, False, "refusal", "nll", False),
    "unlikelihood": (1, False, "true", "nll", False),
    "distill": (1, True, "true", "nll", False),
    "exact": (1, False, "true", None, False),
}
WITH_RETAIN = [name for name, row in EXPECTED.items() if row[3]]


def settings(**given):
    return Unlearning(**({"max_token_nll": None} | given))


@pytest.fixture
def made():
    generator = torch.Generator().manual_seed(0)
    logits = (3 * torch.randn(12, 20, generator=generator)).requires_grad_()
    targets = torch.randint(20, (12,), generator=generator)
    reference = 3 * torch.randn(12, 20, generator=generator)
    return logits, Answers(logits, targets, torch.tensor([4, 2, 6]), reference)


def test_every_objective_is_expected_here():
    assert set(EXPECTED) == set(OBJECTIVES)


@pytest.mark.parametrize("rows", ["domain", "general"])
@pytest.mark.parametrize("name", EXPECTED)
def test_terms_sides_signs_and_weights(name, rows):
    sign, compares, labels, retain, retain_compares = EXPECTED[name]
    chosen = settings(objective=name, unlearn_weight=0.4, retain_weight=3.0, retain_rows=rows)
    objective = make_objective(chosen)
    first, *others = objective.terms
    assert (first.side, first.weight) == ("unlearn", sign * 0.4)
    assert first.name.startswith("unlearn/")
    assert (first.name == "unlearn/nll") == (name in (*ASCENTS, EXACT))  # only of true tokens
    assert objective.labels == labels
    assert objective.compares("unlearn") == compares
    side = {"domain": "retain", "general": "general"}[rows]
    if retain is None:
        assert not others
        assert objective.sides == ("unlearn",)
        assert not objective.compares("retain")
        return
    (term,) = others
    assert (term.side, term.weight, term.name) == (side, 3.0, f"{side}/{retain}")
    assert term.loss is getattr(losses, retain)
    assert objective.sides == ("unlearn", side)
    assert objective.compares(side) == retain_compares
    assert not objective.compares({"retain": "general", "general": "retain"}[side])


@pytest.mark.parametrize("name", EXPECTED)
def test_a_term_reads_the_reference_only_if_it_says_so(name, made):
    _, answers = made
    alone = Answers(answers.logits, answers.targets, answers.lengths)
    for term in make_objective(settings(objective=name)).terms:
        if term.reference:
            with pytest.raises(RuntimeError, match="does not ask for it"):
                term.loss(alone)
        else:
            assert torch.equal(term.loss(alone), term.loss(answers))


ELSEWHERE = (EXACT, "distill")  # a new model; a reference that does not know the answer
UNLEARNS = sorted(n for n, row in EXPECTED.items() if row[2] == "true" and n not in ELSEWHERE)


@pytest.mark.parametrize("name", UNLEARNS)
def test_a_step_on_the_unlearn_term_makes_a_known_answer_less_probable(name):
    """At the reference, where the true token is likely; the labels are true."""
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(6, 20, generator=generator)
    targets = torch.randint(20, (6,), generator=generator)
    logits[torch.arange(6), targets] = 3.0
    start = logits.clone().requires_grad_()
    lengths = torch.tensor([2, 4])
    (term, *_) = make_objective(settings(objective=name)).terms
    loss = term.weight * term.loss(Answers(start, targets, lengths, logits)).sum()
    (slope,) = torch.autograd.grad(loss, start)
    after = Answers(logits - 0.1 * slope, targets, lengths)
    before = Answers(logits, targets, lengths)
    assert (after.nll > before.nll).all()


def test_the_gradient_of_ascent_is_minus_that_of_the_nll(made):
    logits, answers = made
    (term,) = make_objective(settings(objective="ascent")).terms
    up = torch.autograd.grad((term.weight * term.loss(answers)).sum(), logits, retain_graph=True)
    down = torch.autograd.grad(nll(answers).sum(), logits)
    assert torch.equal(up[0], -down[0])


def test_ascent_descent_is_ascent_plus_descent_on_the_retain_side(made):
    _, answers = made
    chosen = settings(unlearn_weight=0.4, retain_weight=3.0)
    ascent, descent = make_objective(chosen).terms
    (alone,) = make_objective(chosen.model_copy(update={"objective": "ascent"})).terms
    assert (ascent.side, ascent.weight) == (alone.side, alone.weight) == ("unlearn", -0.4)
    assert torch.equal(ascent.loss(answers), alone.loss(answers))
    assert (descent.side, descent.weight) == ("retain", 3.0)
    assert torch.equal(descent.loss(answers), nll(answers))


@pytest.mark.parametrize("name", ["ascent_descent", "ascent_kl"])
def test_the_bound_holds_for_ascent_only(name, made):
    _, answers = made
    bound = float(answers.nll.detach().min()) / 2
    chosen = {"objective": name, "max_token_nll": bound}
    ascent, other = make_objective(settings(**chosen)).terms
    torch.testing.assert_close(ascent.loss(answers), torch.full((3,), bound))
    _, free = make_objective(settings(objective=name)).terms
    assert torch.equal(other.loss(answers), free.loss(answers))


# name -> the published values, and the loss with them filled in by hand
WITH_SETTINGS = {
    "npo": ({"beta": 0.1}, losses.npo),
    "simnpo": ({"beta": 4.5, "delta": 0.0}, losses.simnpo),
    "undial": ({"beta": 10.0}, losses.undial),
    "wga": ({"beta": 1.0}, lambda a, beta: losses.weighted_nll(a, beta, 0.0)),
    "satimp": ({"beta": 5.0}, lambda a, beta: losses.weighted_nll(a, beta, 1.0)),
}


@pytest.mark.parametrize("name", WITH_SETTINGS)
def test_beta_and_delta_reach_the_loss(name, made):
    _, answers = made
    published, loss = WITH_SETTINGS[name]
    other = {key: value + 0.75 for key, value in published.items()}
    for given, wanted in (({}, published), (published, published), (other, other)):
        (term, *_) = make_objective(settings(objective=name, **given)).terms
        assert torch.equal(term.loss(answers), loss(answers, **wanted))
    assert not torch.equal(loss(answers, **published), loss(answers, **other))


@pytest.mark.parametrize("name", EXPECTED)
def test_rectification_needs_a_retain_term(name):
    chosen = settings(objective=name, rectify=True, retain_weight=1.0)
    if name in WITH_RETAIN:
        assert len(make_objective(chosen).terms) == 2
        return
    with pytest.raises(InputError, match=r"^unlearning\.rectify: ") as error:
        make_objective(chosen)
    assert name in str(error.value)


@pytest.mark.parametrize("name", EXPECTED)
def test_a_retain_term_without_weight_is_none_unless_the_objective_is_named_after_it(name):
    chosen = settings(objective=name, retain_weight=0.0)
    if name not in ("ascent_descent", "ascent_kl"):
        (term,) = make_objective(chosen).terms
        assert (term.side, make_objective(chosen).sides) == ("unlearn", ("unlearn",))
        with pytest.raises(InputError, match=r"^unlearning\.rectify: "):
            make_objective(settings(objective=name, retain_weight=0.0, rectify=True))
        spared = settings(
            objective=name, retain_weight=0.0, retain_rows="general", general_weight=1
        )
        assert make_objective(spared).sides == ("unlearn", "general")
        return
    with pytest.raises(InputError, match=r"^unlearning\.retain_weight: 0 leaves ") as error:
        make_objective(chosen)
    assert name in str(error.value)
    assert "objective: ascent" in str(error.value)


# name -> weights of the two terms in the paper, or in the authors' code
PAPERS = {
    "npo": [1, 1],
    "simnpo": [0.125, 1],
    "wga": [-1, 1],
    "satimp": [-1, 0.1],
    "inverted_hinge": [1, 1],
    "undial": [1],
    "jensun": [1, 1],
    "refusal": [1, 1],
    "unlikelihood": [1, 1],
    "distill": [1, 1],
}


@pytest.mark.parametrize("name", PAPERS)
def test_a_published_objective_is_the_published_method(name):
    """Its weights, and nothing of grail's: no token or row is left alone."""
    assert PUBLISHED_WEIGHTS.keys() == PAPERS.keys()
    chosen = Unlearning(objective=name)
    assert [term.weight for term in make_objective(chosen).terms] == PAPERS[name]
    assert (chosen.max_token_nll, chosen.until) == (None, Until(row_accuracy=None))
    other = Unlearning(objective=name, unlearn_weight=0.3, retain_weight=0.7)
    assert [abs(term.weight) for term in make_objective(other).terms] == [0.3, 0.7]


@pytest.mark.parametrize("name", [*EXPECTED, "my_losses:unlearn"])
def test_the_bounds_of_ascent_are_for_what_ascends(name, own):
    """By default for plain ascent alone; where nothing could read them they are refused."""
    plain = Unlearning(objective=name)
    assert (plain.max_token_nll is not None) == (name in ASCENTS)
    assert (plain.until.row_accuracy is not None) == (name in ASCENTS)
    make_objective(plain)
    allowed = {"max_token_nll": ASCENTS, "until": (*ASCENTS, "wga", "satimp", "my_losses:unlearn")}
    given = {
        "max_token_nll": [2.0],
        "until": [Until(), Until(row_accuracy=None, domain_accuracy=0)],
    }
    for key, users in allowed.items():
        for value in given[key]:
            chosen = Unlearning(objective=name, **{key: value})
            if name in users:
                make_objective(chosen)
                continue
            with pytest.raises(
                InputError, match=rf"^unlearning\.{key}: {name} has no {key}"
            ) as error:
                make_objective(chosen)
            assert "Set it to null" in str(error.value)
            assert str(error.value).endswith(f"{', '.join(u for u in users if u in OBJECTIVES)}.")


def test_an_unknown_objective_is_an_input_error():
    with pytest.raises(InputError) as error:
        make_objective(settings(objective="ascent_decent"))
    assert "unlearning.objective" in str(error.value)
    assert "Did you mean 'ascent_descent'?" in str(error.value)
    with pytest.raises(InputError, match="Allowed: ascent, ascent_descent") as error:
        make_objective(settings(objective="xyzzy"))
    assert all(name in str(error.value) for name in OBJECTIVES)


def test_the_general_term_is_a_kl_beside_the_others():
    plain = make_objective(settings())
    spared = make_objective(settings(general_weight=0.7))
    assert spared.sides == (*plain.sides, "general")
    *others, last = spared.terms
    assert [(t.name, t.weight) for t in others] == [(t.name, t.weight) for t in plain.terms]
    assert (last.side, last.loss, last.weight, last.reference) == ("general", losses.kl, 0.7, True)
    assert spared.compares("general")
    assert not spared.compares("unlearn")


# -- a loss of one's own ---------------------------------------------------------------------------

OWN = """
def unlearn(answers):
    import torch
    return torch.stack([-part.mean() for part in answers.nll.split(answers.lengths.tolist())])

def distance(answers):
    import torch
    gap = (answers.logits - answers.reference).square().mean(-1)
    return -torch.stack([part.mean() for part in gap.split(answers.lengths.tolist())])

distance.needs_reference = True

def mean(answers):
    return answers.nll.mean()

def nothing(answers):
    return None

number = 3
"""


@pytest.fixture
def own(tmp_path, monkeypatch):
    """The name of a function in a module of the user's."""
    file = tmp_path / "my_losses.py"
    file.write_text(OWN)
    (tmp_path / "broken.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(str(tmp_path))
    yield file
    for name in ("my_losses", "broken"):
        sys.modules.pop(name, None)


def test_a_function_of_ones_own_is_the_unlearn_term(own, made):
    _, answers = made
    chosen = settings(objective="my_losses:unlearn", unlearn_weight=0.4, retain_weight=3.0)
    objective = make_objective(chosen)
    first, second = objective.terms
    assert (first.name, first.side, first.weight) == ("unlearn/unlearn", "unlearn", 0.4)
    assert (second.side, second.loss, second.weight) == ("retain", losses.nll, 3.0)
    assert not first.reference
    torch.testing.assert_close(first.loss(answers), -nll(answers))
    ascent, *_ = make_objective(settings(unlearn_weight=0.4)).terms
    values = [term.weight * term.loss(answers) for term in (first, ascent)]
    torch.testing.assert_close(*values)
    (alone,) = make_objective(settings(objective="my_losses:unlearn", retain_weight=0.0)).terms
    assert alone.side == "unlearn"


def test_it_gets_the_reference_if_it_asks_for_it(own, made):
    _, answers = made
    objective = make_objective(settings(objective="my_losses:distance"))
    assert objective.compares("unlearn")
    assert objective.terms[0].loss(answers).shape == (3,)


def test_the_digest_of_its_file_is_kept(own):
    before = make_objective(settings(objective="my_losses:unlearn")).source
    own.write_text(OWN + "\n# changed\n")
    assert make_objective(settings(objective="my_losses:unlearn")).source != before
    assert make_objective(settings()).source == ""


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:f", "the module cannot be imported"),
        ("broken:f", "the module cannot be imported .division by zero"),
        (":f", "the module cannot be imported"),
        ("my_losses:", "my_losses has no function ''"),
        ("my_losses:absent", "my_losses has no function 'absent'"),
        ("my_losses:number", "my_losses has no function 'number'"),
    ],
)
def test_a_function_that_is_not_there_is_one_clear_error(own, name, message):
    with pytest.raises(InputError, match=rf"^unlearning\.objective: {name}.*{message}"):
        make_objective(settings(objective=name))


@pytest.mark.parametrize(("name", "returned"), [("mean", r"shape \(\)"), ("nothing", "NoneType")])
def test_what_is_not_one_loss_per_row_is_refused(own, made, name, returned):
    _, answers = made
    first, *_ = make_objective(settings(objective=f"my_losses:{name}")).terms
    with pytest.raises(InputError, match=rf"{name} returned {returned} for 3 rows.*\(3,\)"):
        first.loss(answers)


def test_settings_that_it_does_not_read_are_refused(own):
    with pytest.raises(InputError, match=r"unlearning\.beta: my_losses:unlearn has no beta"):
        make_objective(settings(objective="my_losses:unlearn", beta=1.0))
    with pytest.raises(InputError, match=r"unlearning\.rectify: "):
        make_objective(settings(objective="my_losses:unlearn", retain_weight=0.0, rectify=True))


@pytest.mark.parametrize(
    ("teacher", "like"),
    [("auto", "distill"), ("before", "distill"), ("suppressed", "undial"), ("refusal", "refusal")],
)
def test_distill_follows_its_teacher_with_the_loss_that_fits(teacher, like):
    """Without a model from before, it is UNDIAL's goal or the words of a refusal."""
    chosen = settings(objective="distill", teacher=teacher)
    found, first = make_objective(chosen), make_objective(settings(objective=like)).terms[0]
    assert (found.terms[0].name, found.terms[0].reference) == (first.name, first.reference)
    assert [term.weight for term in found.terms] == [1.0, 1.0]


@pytest.mark.parametrize(
    ("given", "key"),
    [
        ({"objective": "npo", "teacher": "refusal"}, "unlearning.teacher and examples: npo"),
        ({"objective": "npo", "examples": 2}, "unlearning.teacher and examples: npo"),
        ({"objective": "ascent", "rewrites": 3}, "unlearning.rewrites"),
        ({"objective": "ascent", "guesses": 3}, "unlearning.rewrites, guesses"),
        ({"objective": "ascent", "retain_ratio": 2}, "guesses and retain_ratio: ascent"),
        ({"objective": "npo", "retain_weight": 0.0, "rewrites": 3}, "unlearning.rewrites"),
        ({"objective": "npo", "retain_rows": "general", "retain_ratio": 2}, "retain_ratio"),
    ],
)
def test_what_an_objective_would_not_read_is_refused(given, key):
    with pytest.raises(InputError, match=key):
        make_objective(settings(**given))
