"""Files of rows, for every test of the data."""

import pytest
from rows import ROWS, as_jsonl


@pytest.fixture
def put(tmp_path):
    """Write a file of text or bytes and return its path: ``put(name, content)``."""

    def write(name, content):
        path = tmp_path / name
        data = content if isinstance(content, bytes) else content.encode()
        path.write_bytes(data)
        return str(path)

    return write


@pytest.fixture
def good(put):
    """A file of ROWS."""
    return put("good.jsonl", as_jsonl(ROWS))
