"""The types of settings: what they take, what they say of the rest, and paths."""

import datetime
import math
from typing import Annotated

import pytest
from pydantic import BeforeValidator, TypeAdapter, ValidationError

from grail.config import values
from grail.config.values import (
    DataSource,
    Date,
    DomainName,
    FilePath,
    GeneralTask,
    ModelName,
    Number,
    Output,
    Section,
    words,
)


def taken(kind, value):
    return TypeAdapter(kind).validate_python(value)


def refused(kind, value):
    with pytest.raises(ValidationError) as error:
        taken(kind, value)
    (problem,) = error.value.errors()
    return problem["msg"]


@pytest.mark.parametrize("kind", ["Number", "Fraction", "Accuracy", "Share", "Positive", "Percent"])
@pytest.mark.parametrize("switch", [True, False])
def test_a_switch_is_no_number(kind, switch):
    assert "valid number" in refused(getattr(values, kind), switch)


@pytest.mark.parametrize("kind", ["Count", "Seed"])
@pytest.mark.parametrize("value", [True, 1.5, "1"])
def test_whole_numbers_are_whole_numbers(kind, value):
    assert refused(getattr(values, kind), value)


def test_numbers_are_taken():
    assert taken(Number, 1) == 1.0
    assert isinstance(taken(Number, 1), float)
    assert taken(Number, -0.5) == -0.5


# kind -> what is just inside and just outside
LIMITS = {
    "Count": ([1, 10**6], [0, -1]),
    "Fraction": ([1e-9, 1], [0, 1.001]),
    "Accuracy": ([0, 1], [-0.001, 1.001]),
    "Share": ([0, 0.999], [-0.001, 1]),
    "Positive": ([1e-9, 1e9], [0, -1, math.inf, math.nan]),
    "NotNegative": ([0, 1e9], [-1e-9, math.inf, math.nan]),
    "Seed": ([0, 2**31 - 1], [-1, 2**31]),
    "Percent": ([0.1, 100], [0, 100.1]),
    "Name": (["x"], [""]),
    "Phase": ([["a"], ["a", "b"]], [[], ["general"]]),
}


@pytest.mark.parametrize("kind", LIMITS)
def test_limits(kind):
    inside, outside = LIMITS[kind]
    for value in inside:
        assert taken(getattr(values, kind), value) == value
    for value in outside:
        assert refused(getattr(values, kind), value)


@pytest.mark.parametrize("name", ["privacy", "a-b_2", "7", "Prívacy"])
def test_a_domain_may_be_called(name):
    assert taken(DomainName, name) == name


@pytest.mark.parametrize("name", ["general", "", "a.b", "a/b", "a b", "-", "..", "\n"])
def test_a_domain_may_not_be_called(name):
    assert "use letters, digits, - and _, and not 'general'" in refused(DomainName, name)


@pytest.mark.parametrize("value", ["all-linear", ["q_proj", "v_proj"], []])
def test_words_are_a_name_or_a_list(value):
    assert words(value) == value


@pytest.mark.parametrize("value", [None, 3, True, ["q_proj", 3], {"q_proj": 1}, ("q_proj",)])
def test_words_are_nothing_else(value):
    assert "a name or a list of names" in refused(
        Annotated[str | list[str], BeforeValidator(words)], value
    )


def test_a_section_is_immutable_and_knows_its_keys():
    class Part(Section):
        size: int = 1

    with pytest.raises(ValidationError, match="frozen"):
        Part().size = 2
    with pytest.raises(ValidationError, match="Extra inputs"):
        Part(sise=2)


def resolved(kind, value, folder):
    return TypeAdapter(kind).validate_python(value, context=folder)


def test_relative_paths_start_from_the_folder_of_the_settings(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert resolved(FilePath, "a/../b", "/conf") == "/conf/b"
    assert resolved(FilePath, "b", None) == taken(FilePath, "b") == str(tmp_path / "b")
    assert resolved(FilePath, "/a/../b", "/conf") == "/a/../b"
    for name in ("embedded", "hub:org/set", "/x.jsonl"):
        assert resolved(DataSource, name, "/conf") == name
    assert resolved(DataSource, "hub", "/conf") == "/conf/hub"
    assert resolved(GeneralTask, "race", "/conf") == "race"
    assert resolved(Output, "runs/x", "/conf") == "runs/x"
    assert resolved(ModelName, "org/name", tmp_path) == "org/name"
    (tmp_path / "org" / "name").mkdir(parents=True)
    assert resolved(ModelName, "org/name", tmp_path) == str(tmp_path / "org" / "name")


@pytest.mark.parametrize("value", ["2024-02-29", datetime.date(2024, 2, 29)])
def test_a_date_is_text_or_what_yaml_makes_of_it(value):
    assert taken(Date, value) == "2024-02-29"


@pytest.mark.parametrize(
    "value", ["", "today", "2023-02-29", "2024-2-9", 20240229, None, datetime.datetime(2024, 2, 29)]
)
def test_no_date(value):
    assert "2025-01-31" in refused(Date, value)


def test_a_link_keeps_its_name_and_its_folder_is_resolved(tmp_path):
    (tmp_path / "blobs").mkdir()
    (tmp_path / "blobs" / "5f3a").write_text("")
    (tmp_path / "rows.jsonl").symlink_to("blobs/5f3a")
    (tmp_path / "linked").symlink_to("blobs")
    assert resolved(DataSource, "rows.jsonl", tmp_path) == str(tmp_path / "rows.jsonl")
    assert resolved(DataSource, "linked/../x.jsonl", tmp_path) == str(tmp_path / "x.jsonl")
    assert resolved(ModelName, "./linked", tmp_path) == str(tmp_path / "linked")


@pytest.mark.parametrize("kind", [FilePath, DataSource, GeneralTask, ModelName, Output])
def test_the_home_folder(kind, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    assert resolved(kind, "~/x/y.jsonl", "/conf") == str(tmp_path / "x" / "y.jsonl")
    assert "there is no such home folder" in refused(kind, "~nobody-of-this-name/x")
    assert "null byte" in refused(kind, "./a\0b")


@pytest.mark.parametrize("kind", [FilePath, DataSource, GeneralTask, ModelName, Output])
def test_a_name_that_is_too_long_for_a_file(kind):
    for name in ("./" + "x" * 256, "./é/" + "é" * 128, "/" + "x" * 5000 + "/a"):
        assert "does not exist: names of files have at most 255 bytes" in refused(kind, name)
    assert taken(kind, "/" + "x" * 255) == "/" + "x" * 255


def test_a_model_is_not_taken_from_the_current_folder_by_chance(tmp_path, monkeypatch):
    conf, here = tmp_path / "conf", tmp_path / "here"
    (here / "org" / "name").mkdir(parents=True)
    conf.mkdir()
    monkeypatch.chdir(here)
    with pytest.raises(ValidationError, match="in the current folder, not beside the settings"):
        resolved(ModelName, "org/name", conf)
    assert resolved(ModelName, "org/name", None) == str(here / "org" / "name")
    assert resolved(ModelName, "./org/name", conf) == str(conf / "org" / "name")
