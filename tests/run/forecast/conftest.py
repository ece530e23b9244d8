"""What the tests of planning have in common."""

import pytest


def _payload(*files):
    """Return the bytes of tensors in safetensors files, without the headers."""
    assert files
    total = 0
    for file in files:
        content = file.read_bytes()
        total += len(content) - 8 - int.from_bytes(content[:8], "little")
    return total


@pytest.fixture(scope="session")
def payload():
    """Count bytes of tensors: ``payload(*files)``."""
    return _payload
