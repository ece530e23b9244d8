"""The averages of values are those of the rows, by model, domain, side and part."""

import math

import pytest

from grail.errors import InputError
from grail.evaluation.values import SampleValue, to_results, values_in


def value(**more):
    given = {"model": "vanilla", "domain": "d", "side": "unlearn", "part": "train", "row": 0}
    given |= {"key": "k", "accuracy": 0.25, "nll": 1.0, "tokens": 4, "extraction": 0.5}
    given |= {"min_k": 2.0, "min_k_plus_plus": 0.1, "zlib": 0.3} | more
    return SampleValue(**given)


def test_values_become_rows_by_model_domain_side_and_part():
    values = [
        value(),
        value(accuracy=0.75, nll=3.0, tokens=400),
        value(side="retain", accuracy=0.5, rouge_l=40.0),
        value(side="retain", accuracy=1.0, rouge_l=60.0, extraction=1.0, repetition=0.25),
        value(part="heldout"),
        value(model="unlearned", nll=5000.0),
        value(domain="general", side="general"),
    ]
    found = {
        (r.model, r.domain, r.side, r.part, r.metric): (r.value, r.n) for r in to_results(values)
    }
    one, two = ("vanilla", "d", "unlearn", "train"), ("vanilla", "d", "retain", "train")
    assert found[(*one, "US")] == (50.0, 2)
    assert found[(*one, "NLL")] == (2.0, 2)
    assert found[(*one, "PPL")] == (pytest.approx(math.exp(2.0)), 2)
    assert found[(*two, "RS")] == (75.0, 2)
    assert found[(*two, "ROUGE-L")] == (50.0, 2)
    assert found[(*one, "ES")] == (50.0, 2)
    assert found[(*one, "Prob")] == (pytest.approx(50 * (math.exp(-1) + math.exp(-3))), 2)
    assert found[(*two, "ES")] == (75.0, 2)
    assert found[(*two, "Repetition")] == (25.0, 2)
    assert (*one, "Repetition") not in found
    assert {part for _, _, _, part, _ in found} == {"train"}
    assert (*one, "ROUGE-L") not in found
    assert (*one, "RS") not in found
    assert math.isfinite(found["unlearned", "d", "unlearn", "train", "PPL"][0])
    general = {key[-1] for key in found if key[1] == "general"}
    assert general == {"NLL", "PPL"}


def test_a_value_comes_back_from_its_line():
    for one in (value(), value(rouge_l=12.5, prompt="p", completion="c", generation="")):
        assert SampleValue(**one.as_json()) == one
    assert not {"rouge_l", "prompt", "generation"} & value().as_json().keys()


SHAPES = {
    "no values": {},
    "empty": {"values": []},
    "no list": {"values": {"a": 1}},
    "a value is missing": {"values": [{k: v for k, v in vars(value()).items() if k != "nll"}]},
    "one too many": {"values": [value().as_json() | {"more": 1}]},
    "text for a number": {"values": [value().as_json() | {"accuracy": "0.5"}]},
    "numbers that no sum holds": {"values": [value(nll=1e308).as_json()] * 2},
}


@pytest.mark.parametrize("shape", SHAPES)
def test_values_of_another_shape_are_named(shape, tmp_path):
    """Somebody may write them under a right digest: they are no measurement all the same."""
    file = tmp_path / "unlearned.json"
    whole = [value(), value(rouge_l=12.5, prompt="p")]
    assert values_in(file, {"values": [one.as_json() for one in whole]}) == whole
    with pytest.raises(InputError, match=rf"{file} is damaged .* Delete it and run again"):
        values_in(file, SHAPES[shape])
    assert values_in(file, {"values": []}, some=False) == []  # an attack that no row is fit for


def test_answers_that_are_given_word_for_word_are_counted_on_the_unlearn_side():
    values = [value(rouge_l=100.0), value(rouge_l=99.0), value(side="retain", rouge_l=100.0)]
    found = {(r.side, r.metric): r.value for r in to_results(values)}
    assert found["unlearn", "Verbatim"] == 50.0
    assert ("retain", "Verbatim") not in found
