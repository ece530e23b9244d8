from typing import Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from grail.config.messages import explain, short


class Inner(BaseModel):
    model_config = ConfigDict(extra="forbid")
    share: float = Field(default=0.5, le=1)


class Outer(BaseModel):
    model_config = ConfigDict(extra="forbid")
    inner: Inner = Inner()
    domains: dict[str, Inner] = {}
    mode: Literal["a, b or c", "it's"] = "it's"


def told(raw: dict[str, object]) -> str:
    try:
        Outer.model_validate(raw)
    except ValidationError as error:
        return "\n".join(explain(dict(problem), Outer) for problem in error.errors())
    raise AssertionError("nothing was wrong")


def test_unknown_key_names_the_section_and_the_nearest_key():
    assert told({"inner": {"shar": 1}}) == (
        "unknown key inner.shar. Did you mean 'share'? Allowed in inner: share."
    )


def test_free_names_are_stepped_over():
    assert "Allowed in domains.mine: share." in told({"domains": {"mine": {"shar": 1}}})


def test_percentage_is_recognised():
    assert told({"inner": {"share": 25}}).endswith("got 25. Did you mean 0.25?")


def test_long_values_are_cut():
    assert len(short("x" * 500)) == 60
    assert short([1]) == "[1]"


def test_a_choice_is_taken_from_the_type_whatever_is_in_it():
    assert told({"mode": "a, b or d"}).endswith("Did you mean 'a, b or c'?")
    assert told({"mode": "its"}).endswith("""Did you mean 'it's'?""")
