"""The kinds of values a setting may take: numbers with limits, names, lists of words.

Knows no setting; says what is wrong in words that a user's file can be mended by.
"""

from __future__ import annotations

from typing import Annotated, Any

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field
from pydantic_core import PydanticCustomError


def _no_switch(value: Any) -> Any:
    """Refuse true and false as numbers: pydantic would read them as 1 and 0."""
    if isinstance(value, bool):
        raise PydanticCustomError("number", "should be a valid number")
    return value


def words(value: Any) -> Any:
    """Refuse what is neither a name nor a list of names."""
    if isinstance(value, str) or (
        isinstance(value, list) and all(isinstance(word, str) for word in value)
    ):
        return value
    raise PydanticCustomError("words", "should be a name or a list of names")


def _domain_name(name: str) -> str:
    """Refuse what cannot be part of a file's name, and the name of the general rows."""
    if not name.replace("_", "").replace("-", "").isalnum() or name == "general":
        raise PydanticCustomError(
            "domain_name",
            "cannot name a domain; use letters, digits, - and _, and not 'general'",
        )
    return name


Number = Annotated[float, BeforeValidator(_no_switch)]
Count = Annotated[int, Field(strict=True, ge=1)]
Fraction = Annotated[Number, Field(gt=0, le=1)]
Accuracy = Annotated[Number, Field(ge=0, le=1)]
Share = Annotated[Number, Field(ge=0, lt=1)]
Positive = Annotated[Number, Field(gt=0, allow_inf_nan=False)]
NotNegative = Annotated[Number, Field(ge=0, allow_inf_nan=False)]
Seed = Annotated[int, Field(strict=True, ge=0, lt=2**31)]
Name = Annotated[str, Field(min_length=1)]
Percent = Annotated[Number, Field(gt=0, le=100)]
DomainName = Annotated[str, AfterValidator(_domain_name)]
Phase = Annotated[list[DomainName], Field(min_length=1)]
Phases = Annotated[list[Phase], Field(min_length=1)]


class Section(BaseModel):
    """A group of settings: immutable, unknown keys are errors."""

    model_config = ConfigDict(extra="forbid", frozen=True, protected_namespaces=())
