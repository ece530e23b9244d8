"""A process of a run that dies is named by the others, which end; the run then goes on."""

import json
import signal
import socket
import threading

import killed
import pytest
from safetensors.torch import load_file

from grail.cli.main import main
from grail.errors import DivergenceError
from grail.run import watch
from grail.run.watch import ENDED, GONE, watched

SECTIONS = {
    "model": {"lora": None},
    "teach": False,
    "localization": {"k_op_ur": 0.6, "k_op_rr": 0.6},
    "unlearning": {"objective": "npo", "optimizer": "sgd"},
}
"""Half of many tensors is frozen: one process alone trains their free entries as vectors."""


def furthest(a, b):
    """The largest difference of two files of weights, relative to the largest entry."""
    a, b = load_file(a), load_file(b)
    largest = max(float(value.abs().max()) for value in b.values())
    return max(float((a[name] - b[name]).abs().max()) for name in a | b) / largest


@pytest.mark.slow
@pytest.mark.parametrize(
    ("parts", "victim", "how"), [(False, 1, "hanging"), (True, 1, "killed"), (True, 0, "killed")]
)
def test_a_killed_process_is_named_and_one_alone_goes_on(parts, victim, how, tiny_config, tmp_path):
    file = tiny_config(rows=6, **SECTIONS)
    whole, broken = tmp_path / "run", tmp_path / "broken"
    words = ["run", str(file), "--output", str(broken)]
    codes, said = killed.start_both(words, victim, parts, tmp_path, how)
    assert codes[victim] == -signal.SIGKILL
    assert codes[1 - victim] == 1
    last = said[1 - victim].splitlines()[-1]
    assert last == f"grail: stopped: {GONE.format(victim, 2)}"
    assert "Traceback" not in said[1 - victim]
    state = json.loads((broken / "unlearned.checkpoint" / "state.json").read_text())
    assert state["step"] == 2
    assert main(words) == 0
    assert main(["run", str(file)]) == 0
    assert furthest(*(f / "unlearned" / "model.safetensors" for f in (broken, whole))) < 1e-6
    found, wanted = (json.loads((f / "results.json").read_text()) for f in (broken, whole))
    counts = ("entries", "frozen", "changed", "sha256_before")
    assert [found["freezing"][n] for n in counts] == [wanted["freezing"][n] for n in counts]
    assert wanted["freezing"]["frozen"] > wanted["freezing"]["entries"] / 2
    for a, b in zip(found["rows"], wanted["rows"], strict=True):
        assert a["value"] == pytest.approx(b["value"], rel=1e-5, abs=1e-5), (a, b)


@pytest.mark.slow
def test_one_that_ends_with_a_word_of_its_own_is_not_called_gone(tiny_config, tmp_path):
    words = ["run", str(tiny_config(**SECTIONS))]
    codes, said = killed.start_both(words, 1, False, tmp_path, "error")
    assert codes == [1, 2]
    assert said[1].splitlines()[-1] == "grail: error: an own error"
    assert said[0].splitlines()[-1] == f"grail: stopped: {ENDED.format(1, 2)}"


def test_a_process_alone_watches_nobody():
    with pytest.raises(KeyboardInterrupt), watched(0, 1):
        raise KeyboardInterrupt


@pytest.fixture
def port(monkeypatch):
    """Return the port of process 0, once it listens: processes are made by ``watch._Watch``."""
    shared, ready = {}, threading.Event()

    def broadcast(values):
        if values[1] is not None:
            shared["values"] = values
            ready.set()
        assert ready.wait(20)
        return shared["values"]

    monkeypatch.setattr(watch, "broadcast_object_list", broadcast)
    monkeypatch.setenv("MASTER_ADDR", "127.0.0.1")
    return lambda: shared["values"][0]


def called(port):
    return socket.create_connection(("127.0.0.1", port()), timeout=60)


def heard(first):
    """Start a second process, which ends; tell whether the first hears it."""
    watch._Watch(1, 2).end()
    assert first.news.wait(60)
    assert (first.gone, first.ended) == (set(), {1})
    first.end()
    return True


def test_a_strangers_call_is_dropped(port):
    """Others may knock at an open port: the process that is expected is still heard."""
    first = watch._Watch(0, 2)
    with called(port) as stranger:
        stranger.sendall(b"GET / HTTP/1.1\r\n\r\n" * 20)
    assert heard(first)


@pytest.mark.parametrize("said", [b"", b"\0\0"])
def test_a_silent_stranger_delays_nobody(port, said, monkeypatch):
    """Neither one that says nothing, nor one that stops within a word."""
    monkeypatch.setattr(watch, "GREETING", 3600)
    first = watch._Watch(0, 2)
    strangers = [called(port) for _ in range(5)]
    for stranger in strangers:
        stranger.sendall(said)
        assert stranger.recv(1), "it is asked for the key"
    assert heard(first), "while they are all still connected"
    assert set(first.lines.values()) == {1}
    for stranger in strangers:
        stranger.close()


def test_a_silent_stranger_is_left_after_a_while(port, monkeypatch):
    monkeypatch.setattr(watch, "GREETING", 1)
    first = watch._Watch(0, 2)
    with called(port) as stranger:
        words = b""
        while word := stranger.recv(1024):
            words += word
    assert b"#CHALLENGE#" in words, "asked, and then hung up on"
    assert heard(first)


def test_a_process_may_be_silent_for_longer_than_a_stranger(port, monkeypatch):
    monkeypatch.setattr(watch, "GREETING", 1)
    first, second = watch._Watch(0, 2), watch._Watch(1, 2)
    assert not first.news.wait(3)
    second.end()
    assert first.news.wait(60)
    assert (first.gone, first.ended) == (set(), {1})
    first.end()


def test_a_divergence_is_told_as_it_is(monkeypatch):
    class Ended:
        gone, ended = set(), {1}

        def __init__(self, *_):
            pass

        def end(self):
            pass

    monkeypatch.setattr(watch, "_Watch", Ended)
    with pytest.raises(DivergenceError, match="diverged"), watched(0, 2):
        raise DivergenceError("diverged")
