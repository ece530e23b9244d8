"""What models write, in words and as a table, from findings written by hand."""

import pytest

from grail.config.audit import Audit
from grail.reporting.audit.generated import broken_text, generated_warning
from grail.reporting.tables import WARNING


def entry(model, attack, amount, value, beyond=None, domain="d"):
    row = {"domain": domain, "side": "unlearn", "part": "train", "metric": "ROUGE-L"}
    row |= {"value": value, "n": 12, "error": 2.0}
    row |= {} if beyond is None else {"beyond": beyond, "beyond_error": 3.0}
    return {"model": model, "attack": attack, "amount": amount, "rows": [row]}


def found(*entries):
    return {"measured": list(entries), "settings": Audit().model_dump(mode="json")}


WRITTEN = (
    entry("vanilla", "speak", "greedy", 99.0),
    entry("vanilla", "sample", "8", 99.5),
    entry("vanilla", "extract", "0.5", 98.0),
    entry("unlearned", "speak", "greedy", 5.0),
    entry("unlearned", "sample", "8", 21.0),
    entry("unlearned", "extract", "0.5", 30.0),
)


def test_without_writing_there_is_nothing_to_say():
    plain = found(entry("unlearned", "plain", "plain", 5.0))
    assert (generated_warning(plain), broken_text(plain)) == ("", ([], []))


@pytest.mark.parametrize(
    ("attack", "amount", "beyond", "error", "told"),
    [
        ("sample", "8", 11.0, 3.0, "d, best of 8 answers (+11.0 ± 3.0 points; n 12)"),
        ("extract", "0.5", 11.0, 3.0, "d, answer with 50 % given (+11.0 ± 3.0 points; n 12)"),
        ("sample", "8", 9.0, 3.0, ""),
        ("sample", "8", 11.0, 6.0, ""),
        ("sample", "1", 11.0, 3.0, ""),
        ("speak", "greedy", 11.0, 3.0, ""),
    ],
)
def test_more_than_the_oracle_is_a_warning_where_it_is_sure(attack, amount, beyond, error, told):
    case = found(*WRITTEN[:3], entry("unlearned", attack, amount, 21.0, beyond=beyond))
    case["measured"][-1]["rows"][0]["beyond_error"] = error
    words = f"{WARNING}Generates more of the true answers than the oracle: {told}."
    assert generated_warning(case) == (words if told else "")


def test_without_an_oracle_there_is_nothing_to_write_more_than():
    assert generated_warning(found(*WRITTEN)) == ""


def test_text_is_broken_where_it_repeats_more_than_the_vanilla_model_s_on_general_text():
    def speaks(model, side, domain, value):
        said = entry(model, "speak", "greedy", value, domain=domain)
        said["rows"][0] |= {"side": side, "metric": "Repetition"}
        return said

    # 1.2 times 10, and two standard errors of 2
    case = found(
        speaks("vanilla", "general", "general", 10.0),
        speaks("vanilla", "unlearn", "d", 99.0),
        speaks("unlearned", "general", "general", 99.0),
        speaks("unlearned", "unlearn", "d", 16.1),
        speaks("unlearned", "unlearn", "e", 15.9),
        speaks("oracle", "unlearn", "d", 99.0),
    )
    broken, sound = broken_text(case)
    assert [text[:7] for text in broken] == ["d, 16.1"]
    assert [text[:7] for text in sound] == ["e, 15.9"]
