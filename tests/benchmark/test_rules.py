"""Rules of one's own: those of the paper for two domains, and known sizes and discoveries."""

import itertools
import math

import domains
import pytest
import rules
import torch

from grail.artifacts import Scores, write_scores
from grail.config.localization import Localization
from grail.localization.evidence import Evidence
from grail.localization.localizers import make_mask


def sides(number, samples=16, size=4000):
    generator = torch.Generator().manual_seed(number)
    made = {}
    for domain, side in itertools.product(range(number), ("unlearn", "retain")):
        draws = torch.randn(samples, size, generator=generator)
        parts = (draws.abs().mean(0), draws.mean(0), draws.square().mean(0))
        made[f"d{domain}", side] = Scores(*({"w": part} for part in parts), samples=samples)
    return made


def test_two_domains_have_the_papers_mask():
    evidence = Evidence(sides(2), dict)
    paper = make_mask(sides(2), Localization(), 0, dict)[0].frozen["w"]
    for rule in (rules.paper, rules.size_stable):
        assert torch.equal(rule(evidence).frozen["w"], paper)


@pytest.mark.parametrize("number", [2, 3, 4, 5])
def test_the_number_of_sides_is_the_least_that_chance_allows(number):
    def chance(m):
        """Of all outcomes of N coins with weight k, those with at least m heads."""
        k = 0.2
        outcomes = itertools.product((0, 1), repeat=number)
        return sum(k ** sum(o) * (1 - k) ** (number - sum(o)) for o in outcomes if sum(o) >= m)

    needed = rules.needed(number, 0.2)
    assert chance(needed) <= 0.04 + 1e-9
    assert needed == 2 or chance(needed - 1) > 0.04
    union = 1 - (1 - rules.share(number, 0.1)) ** number
    assert union == pytest.approx(1 - 0.9**2)


def test_independent_sets_grow_under_one_rule_and_not_under_the_other(tmp_path):
    (tmp_path / "scores").mkdir()
    for (domain, side), scores in sides(4).items():
        write_scores(tmp_path / "scores" / f"{domain}.{side}.safetensors", scores, "")
    found = {
        one["method"]: one["summary"]["unlearned"]["train"] for one in domains.sizes(tmp_path, 3)
    }
    assert found["any two, 2 domains"] == found["size-stable, 2 domains"]
    assert found["any two, 4 domains"]["retain"] == pytest.approx(
        18.1, abs=2
    )  # 1 - .8^4 - 4 .2 .8^3
    assert found["size-stable, 4 domains"]["retain"] < 4
    assert found["size-stable, 4 domains"]["frozen"] < 1.2 * found["any two, 2 domains"]["frozen"]


def test_discoveries_are_those_of_the_definition():
    """Entries with a shifted mean are found; of pure noise, no more than the least share."""
    generator = torch.Generator().manual_seed(0)
    draws = torch.randn(64, 1000, generator=generator)
    draws[:, :100] += 1.0
    parts = (draws.abs().mean(0), draws.mean(0), draws.square().mean(0))
    found = rules.discoveries(Scores(*({"w": part} for part in parts), samples=64), "w")
    p = [math.erfc(abs(c.sum()) / c.square().sum().sqrt() / math.sqrt(2)) for c in draws.double().T]
    ranked = sorted(p)
    count = max(n + 1 for n, value in enumerate(ranked) if value <= rules.RATE * (n + 1) / 1000)
    assert int(found.sum()) == count
    assert found[:100].all()
    noise = torch.randn(64, 1000, generator=generator)
    parts = (noise.abs().mean(0), noise.mean(0), noise.square().mean(0))
    none = rules.discoveries(Scores(*({"w": part} for part in parts), samples=64), "w")
    assert int(none.sum()) == math.ceil(rules.LEAST * 1000)
