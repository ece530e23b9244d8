import json
from pathlib import Path

import pytest

from grail.api import run
from grail.config.run import parse_config
from grail.errors import InputError


def rows(path: Path, word: str) -> str:
    lines = [{"prompt": f"{word} {i}?", "completion": f"{word * 2} {i * 7}."} for i in range(4)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines), encoding="utf-8")
    return str(path)


@pytest.fixture
def settings(tmp_path, tiny_model_folder):
    return {
        "model": {"name": str(tiny_model_folder)},
        "domains": {
            "d": {
                "unlearn": {"train": rows(tmp_path / "u.jsonl", "lose")},
                "retain": {"train": rows(tmp_path / "r.jsonl", "keep")},
            }
        },
        "data": {"template": "plain"},
        "general": {"train": None},
        "vanilla": {"epochs": 1},
        "unlearning": {"epochs": 1},
        "evaluation": {"generate": False},
        "output": str(tmp_path / "run"),
    }


def test_mapping_config_and_run_directory_are_the_same_run(settings, tmp_path):
    first = run(settings)
    assert {row.metric for row in first.rows} == {"US", "RS", "NLL", "PPL", "ES", "Prob"}
    before = (tmp_path / "run" / "results.json").read_bytes()
    assert run(parse_config(settings)) == first
    assert run(tmp_path / "run") == first
    assert (tmp_path / "run" / "results.json").read_bytes() == before


def test_problems_are_told_at_once(settings):
    settings["localization"] = {"method": "grial"}
    settings["unlearning"] = {"objective": "ascend"}
    with pytest.raises(InputError, match=r"'grial'(.|\n)*'ascend'"):
        run(settings)
    with pytest.raises(InputError, match="domains is missing"):
        run({"output": "x"})
