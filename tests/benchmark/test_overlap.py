"""Overlap of the sides' sets: what a finished run says, recomputed from its scores."""

import overlap
import pytest

from grail.artifacts import read_scores
from grail.localization.select import top_per_layer


def test_a_runs_overlaps_are_those_of_its_scores(finished_run):
    files = sorted((finished_run / "scores").glob("*.safetensors"))
    sets = {
        file.stem: {
            (name, n)
            for name, bits in top_per_layer(read_scores(file).mean_abs, 0.1, "auto").items()
            for n in bits.flatten().nonzero().flatten().tolist()
        }
        for file in files
    }

    def index(one, other):
        return 100 * len(sets[one] & sets[other]) / len(sets[one] | sets[other])

    found = {
        one["method"]: one["summary"]["unlearned"]["train"]
        for one in overlap.overlaps(finished_run, 0)
    }
    sides = ("unlearn", "retain")
    across = [index(f"privacy.{a}", f"copyright.{b}") for a in sides for b in sides]
    assert list(found) == ["the sides of privacy", "the sides of copyright", "sides of two domains"]
    assert found["the sides of privacy"]["jaccard"] == pytest.approx(
        index("privacy.unlearn", "privacy.retain"), abs=1e-3
    )
    assert found["sides of two domains"]["jaccard"] == pytest.approx(sum(across) / 4, abs=1e-3)
