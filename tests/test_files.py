"""Files and folders are replaced as a whole, under exceptions and under SIGKILL; digests; YAML."""

import errno
import hashlib
import json
import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from grail.files import (
    cached,
    digest,
    dump_yaml,
    file_digest,
    parse_yaml,
    read_json,
    recover_folder,
    replacing_file,
    replacing_folder,
    sweep_leftovers,
    write_json,
    write_text,
)


class BrokenError(Exception):
    pass


def contents(folder):
    return {
        str(p.relative_to(folder)): p.read_text() for p in sorted(folder.rglob("*")) if p.is_file()
    }


def killed_while(code, folder):
    """Run ``code`` in a process that kills itself where ``die()`` stands."""
    head = (
        "import os, signal\nfrom pathlib import Path\nfrom grail.files import *\n"
        "def die(*_): os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    call = [sys.executable, "-c", head + code]
    done = subprocess.run(call, cwd=folder, timeout=60, check=False)
    assert done.returncode == -signal.SIGKILL


def test_replacing_file_writes_and_makes_folders(tmp_path):
    path = tmp_path / "a" / "b.txt"
    with replacing_file(path) as partial:
        assert partial.parent == path.parent
        partial.write_text("new")
        assert not path.exists()
    assert contents(tmp_path) == {"a/b.txt": "new"}


@pytest.mark.parametrize("old", [None, "old"])
@pytest.mark.parametrize("wrote", [True, False])
def test_an_exception_keeps_the_old_file(tmp_path, old, wrote):
    path = tmp_path / "a.txt"
    if old is not None:
        path.write_text(old)
    before = contents(tmp_path)
    with pytest.raises(BrokenError), replacing_file(path) as partial:  # noqa: PT012
        if wrote:
            partial.write_text("half")
        raise BrokenError
    assert contents(tmp_path) == before


def test_the_old_file_is_there_until_the_end(tmp_path):
    path = tmp_path / "a.txt"
    write_text(path, "old")
    with replacing_file(path) as partial:
        partial.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


def test_the_content_is_synced_before_it_gets_its_name(tmp_path, monkeypatch):
    path, seen = tmp_path / "a.txt", []
    real = pytest.importorskip("posix").fsync  # that of os does nothing here (offline/)
    monkeypatch.setattr(
        os, "fsync", lambda fd: (seen.append((os.fstat(fd).st_ino, path.exists())), real(fd))
    )
    with replacing_file(path) as partial:
        partial.write_text("new")
        inode = partial.stat().st_ino
    assert seen[0] == (inode, False)
    assert (tmp_path.stat().st_ino, True) in seen


def test_a_killed_process_keeps_the_old_file(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    killed_while(
        "with replacing_file(Path('a.txt')) as p:\n"
        "    f = p.open('w'); f.write('half'); f.flush(); die()",
        tmp_path,
    )
    assert (tmp_path / "a.txt").read_text() == "old"
    write_text(tmp_path / "a.txt", "new")
    assert contents(tmp_path) == {"a.txt": "new"}  # what the dead process left is gone


def test_a_process_killed_while_moving_keeps_the_old_file(tmp_path):
    write_text(tmp_path / "a.txt", "old")
    killed_while("os.replace = die\nwrite_text(Path('a.txt'), 'new')", tmp_path)
    assert (tmp_path / "a.txt").read_text() == "old"


def test_replacing_folder_replaces_all_of_it(tmp_path):
    path = tmp_path / "runs" / "f"
    for names in (("a", "b"), ("b", "sub/c")):
        with replacing_folder(path) as partial:
            assert list(partial.iterdir()) == []
            for name in names:
                (partial / name).parent.mkdir(exist_ok=True)
                (partial / name).write_text(name)
    assert contents(tmp_path) == {"runs/f/b": "b", "runs/f/sub/c": "sub/c"}
    assert [p.name for p in path.parent.iterdir()] == ["f"]


@pytest.mark.parametrize("old", [True, False])
def test_an_exception_keeps_the_old_folder(tmp_path, old):
    path = tmp_path / "f"
    if old:
        with replacing_folder(path) as partial:
            (partial / "a").write_text("old")
    before = contents(tmp_path)
    with pytest.raises(BrokenError), replacing_folder(path) as partial:  # noqa: PT012
        (partial / "a").write_text("new")
        raise BrokenError
    assert contents(tmp_path) == before
    assert [p.name for p in tmp_path.iterdir()] == ["f"] * old


def test_a_killed_process_keeps_the_old_folder(tmp_path):
    path = tmp_path / "f"
    with replacing_folder(path) as partial:
        (partial / "a").write_text("old")
    killed_while(
        "with replacing_folder(Path('f')) as p:\n"
        "    (p / 'a').write_text('new'); (p / 'b').write_text('half'); die()",
        tmp_path,
    )
    assert contents(path) == {"a": "old"}
    with replacing_folder(path) as partial:
        assert list(partial.iterdir()) == []  # nothing of the dead process
        (partial / "c").write_text("new")
    assert contents(tmp_path) == {"f/c": "new"}


def test_an_exception_at_the_second_move_puts_the_old_folder_back(tmp_path, monkeypatch):
    path, real = tmp_path / "f", Path.rename
    with replacing_folder(path) as partial:
        (partial / "a").write_text("old")

    def rename(source, target):
        if source.name.endswith(".partial"):
            raise OSError(errno.ENOSPC, "no space")
        return real(source, target)

    monkeypatch.setattr(Path, "rename", rename)
    with pytest.raises(OSError, match="space"), replacing_folder(path) as partial:
        (partial / "b").write_text("new")
    assert contents(tmp_path) == {"f/a": "old"}
    assert [p.name for p in tmp_path.iterdir()] == ["f"]


@pytest.fixture
def killed_between_the_moves(tmp_path):
    """A folder whose replacement was killed after the old one had been moved aside."""
    path = tmp_path / "f"
    with replacing_folder(path) as partial:
        (partial / "a").write_text("old")
    killed_while(
        "real = Path.rename\n"
        "Path.rename = lambda s, t: die() if s.name.endswith('.partial') else real(s, t)\n"
        "with replacing_folder(Path('f')) as p: (p / 'b').write_text('new')",
        tmp_path,
    )
    assert contents(tmp_path) == {"f.old/a": "old", "f.partial/b": "new"}
    return path


def test_a_process_killed_between_the_moves_never_leaves_a_mixture(killed_between_the_moves):
    path = killed_between_the_moves
    with replacing_folder(path) as partial:
        assert contents(path) == {"a": "old"}  # put back before anything else is done
        (partial / "c").write_text("newer")
    assert contents(path.parent) == {"f/c": "newer"}


def test_the_old_folder_is_recovered_if_the_next_replacement_fails(killed_between_the_moves):
    path = killed_between_the_moves
    with pytest.raises(BrokenError), replacing_folder(path):
        raise BrokenError
    assert contents(path.parent) == {"f/a": "old"}


def test_recover_folder_keeps_the_newer_one(killed_between_the_moves):
    path = killed_between_the_moves
    recover_folder(path)
    assert contents(path) == {"a": "old"}
    (path.parent / "f.old").mkdir()
    (path.parent / "f.old" / "a").write_text("older")
    recover_folder(path)
    assert contents(path.parent) == {"f.partial/b": "new", "f/a": "old"}


def test_write_json_round_trip(tmp_path):
    value = {"b": [1, 2.5, None, True], "a": "é 猫", "nested": {"x": {}}, "tiny": 5e-324}
    write_json(tmp_path / "a.json", value)
    text = (tmp_path / "a.json").read_text(encoding="utf-8")
    assert read_json(tmp_path / "a.json") == value
    assert list(json.loads(text)) == [*value, "sha256"]
    assert "猫" in text
    assert text.endswith("}\n")


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf"), object()])
def test_write_json_refuses_what_is_not_json(tmp_path, bad):
    path = tmp_path / "a.json"
    write_json(path, 1)
    with pytest.raises((ValueError, TypeError)):
        write_json(path, {"x": [bad]})
    assert contents(tmp_path) == {"a.json": "1\n"}


def test_digest_is_of_the_value_not_of_its_writing():
    value = {"a": 1, "b": {"c": [1, 2], "d": None}}
    same = {"b": {"d": None, "c": [1, 2]}, "a": 1}
    assert digest(value) == digest(same)
    others = [{**value, "a": 2}, {**value, "a": "1"}, {"a": 1, "b": {"c": [2, 1], "d": None}}, []]
    assert len({digest(value), *(digest(other) for other in others)}) == 5
    assert len(bytes.fromhex(digest(value))) == 32
    with pytest.raises(ValueError, match="not JSON compliant"):
        digest({"x": float("nan")})


def test_digest_is_the_same_in_another_process():
    code = "from grail.files import digest; print(digest({'b': 1, 'a': ['x', 0.1]}))"
    env = {**os.environ, "PYTHONHASHSEED": "7"}
    out = subprocess.run([sys.executable, "-c", code], capture_output=True, env=env, check=True)
    assert out.stdout.decode().strip() == digest({"a": ["x", 0.1], "b": 1})


def test_file_digest_of_a_file_is_that_of_its_bytes(tmp_path):
    data = os.urandom((1 << 20) + 17)  # more than one block
    (tmp_path / "a").write_bytes(data)
    (tmp_path / "b").write_bytes(data)
    assert file_digest(tmp_path / "a") == hashlib.sha256(data).hexdigest()
    assert file_digest(tmp_path / "b") == file_digest(tmp_path / "a")


def folder_of(root, files):
    for name, text in files.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)
    return root


def test_file_digest_of_a_folder_depends_on_names_and_content(tmp_path):
    base = {"a": "1", "sub/b": "2"}
    variants = [
        base,
        {"a": "1", "sub/b": "3"},
        {"a": "1", "sub/c": "2"},
        {"a": "2", "sub/b": "1"},
        {"a": "1", "b": "2"},
        {"a": "1"},
        {"a": "1", "sub/b": "2", "z": ""},
        {"a": "1sub/b2"},  # the same characters, differently divided
        {"a1": "", "sub/b": "2"},
    ]
    digests = [file_digest(folder_of(tmp_path / str(i), v)) for i, v in enumerate(variants)]
    assert len(set(digests)) == len(variants)
    assert file_digest(folder_of(tmp_path / "again", dict(reversed(base.items())))) == digests[0]


def test_file_digest_of_nothing_is_an_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        file_digest(tmp_path / "absent")


@pytest.mark.parametrize(
    "text", ["a: 1.0e-3\nb: [0o7, 1_0, ~, 'x']", "", "- yes\n- 2024-01-02", "ä: ☃"]
)
def test_yaml_is_read_as_by_the_plain_loader(text):
    assert parse_yaml(text) == yaml.load(text, Loader=yaml.SafeLoader)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("1e-3", 0.001),
        ("2E5", 200000.0),
        ("-.5e+1", -5.0),
        ("1.e2", 100.0),
        ("'1e-3'", "1e-3"),
        ("1e", "1e"),
        ("78e52x", "78e52x"),
    ],
)
def test_exponents_without_a_dot_are_numbers(text, value):
    assert parse_yaml(f"a: {text}") == {"a": value}
    assert parse_yaml(dump_yaml({"a": value})) == {"a": value}


def test_a_text_that_looks_like_a_number_stays_a_text():
    assert parse_yaml(dump_yaml({"git": "78e5296"})) == {"git": "78e5296"}


@pytest.mark.parametrize(
    ("text", "line"), [("a: 1\nb: 2\na: 3", 3), ("x:\n  q: 1\n  q: 2", 3), ("{a: 1, a: 1}", 1)]
)
def test_a_key_is_given_once(text, line):
    with pytest.raises(yaml.YAMLError, match="given twice") as error:
        parse_yaml(text)
    assert error.value.problem_mark.line + 1 == line
    assert parse_yaml("x: &x {a: 1}\ny: {<<: *x, b: 2, a: 3}")["y"] == {"a": 3, "b": 2}


def test_yaml_makes_no_objects():
    with pytest.raises(yaml.YAMLError):
        parse_yaml("!!python/object/apply:os.getcwd []")


def test_an_object_is_made_once_for_a_key(tmp_path):
    path, made, hits = tmp_path / "folder" / "file.json", [], []

    def make():
        made.append({"values": [1, 2.5], "weight": 0.1})
        return made[-1]

    def ask(key):
        return cached(path, key, make, lambda: hits.append(key))

    assert ask("one") is made[0]
    assert read_json(path) == {"inputs": "one", **made[0]}
    assert ask("one") == made[0]
    assert (len(made), hits) == (1, ["one"])
    assert ask("two") is made[1]
    assert (len(made), hits) == (2, ["one"])
    assert json.loads(path.read_text())["inputs"] == "two"


BROKEN = ["", "[]", "null", "3", '{"values": []}', '{"inputs": ', "\0", "[" * 100_000]
BROKEN += ['{"inputs": "key", "values": [1]}', '{"inputs": "key", "values": [1], "sha256": ""}']


@pytest.mark.parametrize("broken", BROKEN)
def test_a_damaged_object_is_made_again_and_named(tmp_path, broken):
    path, told, hits = tmp_path / "file.json", [], []
    path.write_text(broken)
    for _ in range(2):
        made = cached(path, "key", lambda: {"values": []}, lambda: hits.append(1), told.append)
        assert made == {"values": []}
    assert read_json(path) == {"inputs": "key", "values": []}
    ((text,), (_,)) = told, hits
    assert str(path) in text
    assert "made again" in text


def test_an_object_is_read_as_it_was_written(tmp_path):
    path = tmp_path / "file.json"
    values = {"b": [1, 2.5, None], "a": {"é": "\u2028", "": True}, "n": {9: 1, 10: (1e-300, -0.0)}}
    write_json(path, values)
    plain = json.loads(json.dumps(values))
    assert read_json(path) == plain
    body = json.loads(path.read_text(encoding="utf-8"))
    sorted_text = json.dumps(plain, sort_keys=True, ensure_ascii=False)
    assert body == plain | {"sha256": hashlib.sha256(sorted_text.encode()).hexdigest()}
    path.write_text(json.dumps(dict(reversed(body.items()))))  # the same values
    assert read_json(path) == plain


@pytest.mark.parametrize(
    "edit",
    [
        lambda v: v["rows"][0].update(value=0.25),
        lambda v: v["rows"][0].update(value=1),  # not 1.0
        lambda v: v["rows"].reverse(),
        lambda v: v.pop("rows"),
        lambda v: v.pop("sha256"),
        lambda v: v.update(sha256=v["sha256"].upper()),
        lambda v: v.update(sha256=None),
        lambda v: v.update(more=1),
    ],
)
def test_an_edited_object_is_not_read(tmp_path, edit):
    path = tmp_path / "file.json"
    write_json(path, {"rows": [{"value": 1.0}, {"value": 2.0}]})
    values = json.loads(path.read_text())
    edit(values)
    path.write_text(json.dumps(values))
    with pytest.raises(ValueError, match=r"file\.json is not as grail wrote it.*Delete it"):
        read_json(path)


def test_a_missing_object_is_another_error(tmp_path):
    with pytest.raises(FileNotFoundError):
        read_json(tmp_path / "file.json")


def test_a_failure_leaves_the_stored_object(tmp_path):
    path = tmp_path / "file.json"
    cached(path, "one", lambda: {"value": 1})
    with pytest.raises(ZeroDivisionError):
        cached(path, "two", lambda: {"value": 1 / 0})
    assert read_json(path) == {"inputs": "one", "value": 1}


def test_keys_merged_from_an_anchor_are_not_given_twice():
    text = "a: &a {x: 1}\np: {q: &b {<<: *a, x: 2}}\nc: {<<: *b}\n"
    assert parse_yaml(text) == {"a": {"x": 1}, "p": {"q": {"x": 2}}, "c": {"x": 2}}
    with pytest.raises(yaml.YAMLError, match="'x' is given twice"):
        parse_yaml("a: {x: 1, x: 2}")


def as_aliases(width, depth):
    """YAML whose last list holds ``width ** depth`` values."""
    lines = ["a0: &a0 [" + ",".join("x" * width) + "]"]
    for level in range(1, depth):
        aliases = ",".join([f"*a{level - 1}"] * width)
        lines.append(f"a{level}: &a{level} [{aliases}]")
    return "\n".join(lines)


@pytest.mark.parametrize(
    "text",
    [
        "[" * 101,
        "a: " + "[" * 100_000,
        "{a: " * 5_000,
        as_aliases(9, 10),
        as_aliases(2, 30).replace("x,x", "{x: y},{x: y}"),
        "a: &a {b: *a}",
        "a: &a [[*a]]",
    ],
)
def test_yaml_that_would_overflow_is_refused(text):
    with pytest.raises(yaml.YAMLError, match="nested too deeply, or anchors multiply"):
        parse_yaml(text)


def test_yaml_anchors_and_depth_within_limits():
    assert parse_yaml("a: &a {b: [1]}\nc: *a\nd: {<<: *a, e: *a}")["d"]["e"] == {"b": [1]}
    assert len(parse_yaml(as_aliases(9, 4))["a3"]) == 9
    value = parse_yaml("[" * 100 + "]" * 100)
    for _ in range(99):
        (value,) = value
    assert value == []


def test_a_folder_behind_a_link_is_replaced_where_it_is(tmp_path):
    (tmp_path / "disk" / "v").mkdir(parents=True)
    (tmp_path / "run").mkdir()
    link = tmp_path / "run" / "vanilla"
    link.symlink_to(tmp_path / "disk" / "v")
    for text in ("one", "two", "three"):
        with replacing_folder(link) as partial:
            (partial / "a").write_text(text)
        assert (link / "a").read_text() == text
        assert link.is_symlink()
    assert [path.name for path in (tmp_path / "disk").iterdir()] == ["v"]
    (tmp_path / "disk" / "v").rename(tmp_path / "disk" / "v.old")  # killed between the renames
    recover_folder(link)
    assert (link / "a").read_text() == "three"


@pytest.mark.parametrize("name", ["file", "folder"])
def test_a_full_disk_is_told_with_the_name_of_the_file(name, tmp_path):
    """Python tells it without a name; safetensors, which is in Rust, in a text of its own."""
    replacing = {"file": replacing_file, "folder": replacing_folder}[name]
    full = OSError(errno.ENOSPC, "x"), RuntimeError("I/O error: no room (os error 28)")
    for error in full:
        with pytest.raises(OSError, match="space") as caught, replacing(tmp_path / name):
            raise error
        assert (caught.value.errno, caught.value.filename) == (errno.ENOSPC, str(tmp_path / name))
        assert list(tmp_path.iterdir()) == []
    with pytest.raises(RuntimeError, match="other"), replacing(tmp_path / name):
        raise RuntimeError("other")


def test_who_could_read_the_old_file_can_read_the_new_one_and_nobody_else(tmp_path):
    for mode in (0o600, 0o640):
        (tmp_path / "a").write_text("old")
        (tmp_path / "a").chmod(mode)
        write_text(tmp_path / "a", "new")
        assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == mode


def test_leftovers_of_killed_writes_are_swept(tmp_path):
    (tmp_path / "a.partial").touch()
    (tmp_path / "b.partial").mkdir()
    (tmp_path / "c.old").mkdir()
    (tmp_path / "other.partial").touch()
    (tmp_path / "e.old").mkdir()
    (tmp_path / "f.partial").mkdir()
    sweep_leftovers(tmp_path, ["a", "d", "e", "f"], ["b", "c"])
    wanted = {"c", "other.partial", "e.old", "f.partial"}  # a file is never a folder of that name
    assert {path.name for path in tmp_path.iterdir()} == wanted
