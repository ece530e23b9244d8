"""The section's defaults are the paper's; what cannot be a share is refused."""

import pytest
from pydantic import ValidationError

from grail.config.localization import Localization
from grail.localization.localizers import LOCALIZERS


def test_defaults_are_those_of_the_paper():
    found = Localization()
    assert (found.method, found.statistic, found.layer, found.freeze) == (
        *("grail", "mean_abs", "auto", "static"),
    )
    assert (found.k_op_ur, found.k_op_rr) == (0.1, 0.2)
    assert found.keep_op_ur
    assert found.keep_op_rr


@pytest.mark.parametrize("key", ["k_op_ur", "k_op_rr", "budget"])
@pytest.mark.parametrize("value", [0, -0.1, 1.01, True, "a"])
def test_shares_are_shares(key, value):
    with pytest.raises(ValidationError):
        Localization(**{key: value})


def test_unknown_keys_are_refused_in_the_group_too():
    with pytest.raises(ValidationError, match="cosin"):
        Localization(memflex={"cosin": 0.5})


@pytest.mark.parametrize("name", LOCALIZERS)
def test_the_help_names_every_localizer(name):
    words = (Localization.model_fields["method"].description or "").replace(",", " ")
    assert name in words.rstrip(".").split()
