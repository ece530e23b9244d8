"""What ``grail env`` tells."""

import json
import os

import torch

from grail import __version__
from grail.cli import environment
from grail.cli.environment import OPTIONAL, describe_environment
from grail.run.provenance import PACKAGES


def test_versions_devices_and_places(monkeypatch, tmp_path):
    monkeypatch.setenv("GRAIL_CACHE", str(tmp_path))
    facts = describe_environment()
    assert facts["grail"] == __version__
    assert facts["torch"] == torch.__version__
    assert set(PACKAGES) | set(OPTIONAL) <= set(facts)
    assert facts["cores"] == os.cpu_count()
    assert facts["cache"] == str(tmp_path)
    assert facts["model"].keys() == {"smollm2-135m", "gemma3-270m"}
    assert list(tmp_path.iterdir()) == []  # a question puts no model together
    assert json.loads(json.dumps(facts)) == facts


def test_what_is_not_there_is_said(monkeypatch):
    monkeypatch.setattr(environment, "version", lambda name: None)
    monkeypatch.setattr(environment, "revision", lambda: None)
    monkeypatch.setattr(environment, "is_packaged", lambda name: False)
    facts = describe_environment()
    assert facts["transformers"] == "missing"
    assert facts["datasets"] == "not installed (optional)"
    assert facts["git"] == "not a checkout"
    assert facts["model"] == {"smollm2-135m": "Hub", "gemma3-270m": "Hub"}
