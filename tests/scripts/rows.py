"""Rows of data as files hold them, and the samples that grail reads from such files."""

import json

import pytest

from grail.config.run import parse_config
from grail.data.samples import load_general
from grail.errors import InputError

ROWS = [{"prompt": f"Who is {n}?", "completion": f" Person {n}\n"} for n in range(4)]
TEXTS = [(row["prompt"], row["completion"]) for row in ROWS]


def as_jsonl(rows, end="\n"):
    return "".join(json.dumps(row, ensure_ascii=False) + end for row in rows)


def config(source, other=None, general=None, **data):
    sides = {"unlearn": {"train": source}, "retain": {"train": other or source}}
    return parse_config(
        {"domains": {"d": sides}, "general": {"train": general}, "data": data, "output": "out"}
    )


def load(source):
    return load_general(config(source, general=source))


def failure(source):
    with pytest.raises(InputError) as caught:
        load(source)
    return str(caught.value)


def texts(samples):
    return [(sample.prompt, sample.completion) for sample in samples]
