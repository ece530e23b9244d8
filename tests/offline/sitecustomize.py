"""What every Python with this folder on its path lacks in the tests: the network, and a slow disk.

Python imports a module of this name by itself when it starts; ``tests/conftest.py`` loads it in the
process of the tests. An audit hook cannot be taken away again.
"""

from __future__ import annotations

import os
import sys

LOCAL = {None, "", "localhost", "0.0.0.0", "::", "::1", os.uname().nodename}


class NetworkError(BaseException):
    """Somebody wanted to leave this machine; no ``except Exception`` hides it."""


def _refuse(event: str, arguments: tuple[object, ...]) -> None:
    if event in ("socket.connect", "socket.sendto"):
        address = arguments[1]
        host = address[0] if isinstance(address, tuple) else None  # else a file's name
    elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
        host = arguments[0]
    else:
        return
    host = host.decode() if isinstance(host, bytes) else host
    if host not in LOCAL and not str(host).startswith("127."):
        raise NetworkError(f"{event}: {host}")


sys.addaudithook(_refuse)

os.fsync = lambda handle: None  # asked for 160 times a run; no test can crash the system
