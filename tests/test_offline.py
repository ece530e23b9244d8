"""The suite has no network: whoever asks for it is told loudly, in every process."""

import socket
import subprocess
import sys

import pytest

ASK = """
import socket
try:
    socket.create_connection(("192.0.2.1", 80), 1)
except Exception:
    pass
"""


@pytest.mark.parametrize("ask", [
    lambda: socket.create_connection(("192.0.2.1", 80), 1),
    lambda: socket.getaddrinfo("huggingface.co", 443),
])  # fmt: skip
def test_a_connection_is_refused_and_nothing_hides_it(ask):
    with pytest.raises(BaseException, match=r"socket\..*(192.0.2.1|huggingface.co)") as caught:
        ask()
    assert not isinstance(caught.value, Exception)


def test_child_processes_have_none_either():
    found = subprocess.run([sys.executable, "-c", ASK], capture_output=True, check=False, text=True)
    assert "NetworkError: socket." in found.stderr
    assert found.returncode


def test_this_machine_can_be_reached():
    with socket.create_server(("127.0.0.1", 0)) as server:
        socket.create_connection(server.getsockname()).close()
