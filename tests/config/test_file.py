"""The YAML around a configuration: paths, overrides, errors with file and line, replay."""

import os
from pathlib import Path

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from grail.config.file import load_config, run_settings, write
from grail.config.merge import flatten
from grail.config.run import parse_config
from grail.errors import InputError
from grail.model.sources import find

TEXT = """\
domains:
  privacy:
    unlearn: {train: data/u.jsonl, val: /abs/u.jsonl}
    retain: {train: embedded, val: "hub:org/set:train"}
output: runs/mine
"""


@pytest.fixture
def put(tmp_path):
    def write_file(text=TEXT, name="conf/my.yaml"):
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(text if isinstance(text, bytes) else text.encode())
        return path

    return write_file


def error_of(path, overrides=()):
    with pytest.raises(InputError) as error:
        load_config(path, list(overrides))
    return str(error.value)


# -- reading -----------------------------------------------------------------------------------


def test_load_equals_parse_of_the_mapping(put):
    config = load_config(
        put("domains: {a: {unlearn: {train: /u}, retain: {train: /r}}}\noutput: o"), []
    )
    sides = {"unlearn": {"train": "/u"}, "retain": {"train": "/r"}}
    assert config == parse_config({"domains": {"a": sides}, "output": "o"})


def test_relative_paths_are_looked_up_beside_the_file(put, tmp_path, monkeypatch):
    path = put()
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    for given_path in (path, Path(os.path.relpath(path))):
        domain = load_config(given_path, []).domains["privacy"]
        assert domain.unlearn.train == str(tmp_path / "conf" / "data" / "u.jsonl")
        assert domain.unlearn.val == "/abs/u.jsonl"
        assert domain.retain.train == "embedded"
        assert domain.retain.val == "hub:org/set:train"


@pytest.mark.parametrize("relative", [True, False])
def test_paths_of_a_linked_file_start_from_the_link(put, tmp_path, monkeypatch, relative):
    link, target = tmp_path / "mine" / "linked.yaml", put()
    link.parent.mkdir()
    link.symlink_to(target)
    monkeypatch.chdir(link.parent)
    config = load_config(Path(link.name) if relative else link, ["model.name=./m"])
    assert config.domains["privacy"].unlearn.train == str(link.parent / "data" / "u.jsonl")
    assert config.model.name == str(link.parent / "m")
    assert config.output == "runs/mine"
    (target.parent / "m").mkdir()  # a model may be shared: it is taken beside the target
    assert load_config(link, ["model.name=./m"]).model.name == str(target.parent / "m")
    (link.parent / "m").mkdir()
    assert load_config(link, ["model.name=./m"]).model.name == str(link.parent / "m")


def test_the_file_may_be_in_the_home_folder(put, tmp_path, monkeypatch):
    put()
    monkeypatch.setenv("HOME", str(tmp_path))
    assert load_config(Path("~/conf/my.yaml")) == load_config(tmp_path / "conf" / "my.yaml")


@pytest.mark.parametrize(
    "more", ["domains: {other: {}}", "domains.privacy.retain.train: x", '"output": twice']
)
def test_a_setting_given_twice_is_refused(put, more):
    assert "given twice" in error_of(put(f"{TEXT}{more}\n"))


def test_paths_of_general_text_and_adapter(put, tmp_path):
    config = load_config(put(), ["general.train=../g.jsonl", "teach.adapter=my/adapter"])
    assert config.general.train == str(tmp_path / "g.jsonl")
    assert config.teach.adapter == str(tmp_path / "conf" / "my" / "adapter")
    assert load_config(put(), []).general.train == "embedded"
    assert load_config(put(), ["general.train=null"]).general.train is None


def test_general_tasks_are_names_or_paths_with_a_slash_or_an_ending(put, tmp_path):
    (tmp_path / "conf" / "race").mkdir(parents=True)
    tasks = "[race, ./race, sky.jsonl, ../many/, /far/off]"
    config = load_config(put(), [f"evaluation.general_tasks={tasks}"])
    here = tmp_path / "conf"
    paths = [here / "race", here / "sky.jsonl", tmp_path / "many", "/far/off"]
    assert config.evaluation.general_tasks == ["race", *map(str, paths)]


@pytest.mark.parametrize("name", ["embedded.jsonl", "embedded_texts/a.jsonl", "hub/a.jsonl", "hub"])
def test_a_file_may_be_named_like_the_built_in(put, tmp_path, name):
    config = load_config(put(), [f"domains.privacy.retain.train={name}"])
    assert config.domains["privacy"].retain.train == str(tmp_path / "conf" / name)


def test_a_model_name_is_a_path_only_where_the_folder_exists(put, tmp_path):
    path = put()
    assert load_config(path, ["model.name=org/name"]).model.name == "org/name"
    (tmp_path / "conf" / "org" / "name").mkdir(parents=True)
    assert load_config(path, ["model.name=org/name"]).model.name == str(
        tmp_path / "conf" / "org/name"
    )
    assert load_config(path, []).model.name == "smollm2-135m"


@pytest.mark.parametrize("name", ["./m", "../conf/m", "~/m", "/far/m"])
def test_a_model_name_that_begins_like_a_path_is_one(put, tmp_path, monkeypatch, name):
    """One of the same name in the current folder is not taken."""
    path, elsewhere = put(), tmp_path / "elsewhere"
    (elsewhere / "m").mkdir(parents=True)
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    want = {"~/m": tmp_path / "home" / "m", "/far/m": Path("/far/m")}
    config = load_config(path, [f"model.name={name}"])
    assert config.model.name == str(want.get(name, tmp_path / "conf" / "m"))
    with pytest.raises(InputError, match=r"model\.name: .* does not exist"):
        find(config.model.name)


def test_the_home_folder_is_expanded_in_every_path(put, monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    keys = ["general.train", "teach.adapter", "domains.privacy.unlearn.train", "output"]
    config = load_config(put(), [*(f"{key}=~/x" for key in keys), "evaluation.general_tasks=[~/x]"])
    values = dict(flatten(config.model_dump()))
    assert [values[key] for key in keys] == ["/home/me/x"] * len(keys)
    assert config.evaluation.general_tasks == ["/home/me/x"]


def test_output_stays_relative_to_the_current_folder(put):
    assert load_config(put(), []).output == "runs/mine"
    assert load_config(put(), [], output="other").output == "other"
    assert load_config(put(), ["output=set"]).output == "set"
    assert load_config(put(), ["output=set"], output="other").output == "other"
    without = TEXT.replace("output: runs/mine\n", "")
    assert load_config(put(without, "conf/trial.yaml"), []).output == "runs/trial"


# -- overrides ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "section", "name", "value"),
    [
        ("unlearning.learning_rate=2e-3", "unlearning", "learning_rate", 0.002),
        ("unlearning.optimizer=sgd", "unlearning", "optimizer", "sgd"),
        ("unlearning.learning_rate = 1e-5", "unlearning", "learning_rate", 1e-5),
        ("model.lora=null", "model", "lora", None),
        ("unlearning.epochs=7", "unlearning", "epochs", 7),
        ("localization.keep_op_ur=false", "localization", "keep_op_ur", False),
        ("unlearning.trackers=[tensorboard]", "unlearning", "trackers", ["tensorboard"]),
        ("model.name=a=b", "model", "name", "a=b"),
        ("localization.method=random", "localization", "method", "random"),
        ("data.max_rows=null", "data", "max_rows", None),
    ],
)
def test_an_override_is_read_as_yaml(put, text, section, name, value):
    got = getattr(getattr(load_config(put(), [text]), section), name)
    assert got == value
    assert type(got) is type(value)


def test_overrides_beat_the_file_and_later_ones_the_earlier(put):
    path = put(TEXT + "seed: 5\nunlearning: {epochs: 9, batch_size: 3}\n")
    config = load_config(path, ["unlearning.epochs=1", "seed=6", "unlearning.epochs=2"])
    assert (config.seed, config.unlearning.epochs, config.unlearning.batch_size) == (6, 2, 3)


def test_an_override_goes_into_depth(put):
    assert load_config(put(), ["model.lora.r=3"]).model.lora.r == 3
    path = put(TEXT + "model: {lora: null}\n")
    assert load_config(path, []).model.lora is None
    assert load_config(path, ["model.lora.r=3"]).model.lora.r == 3
    config = load_config(put(), ["domains.new={unlearn: {train: /u}, retain: {train: /r}}"])
    assert list(config.domains) == ["privacy", "new"]


def test_an_override_beats_a_dotted_key_of_the_file(put):
    path = put(TEXT + "unlearning: {batch_size: 3}\nunlearning.epochs: 9\n")
    unlearning = load_config(path, ["unlearning.epochs=1"]).unlearning
    assert (unlearning.epochs, unlearning.batch_size) == (1, 3)
    assert load_config(path, []).unlearning.epochs == 9


def test_an_override_of_an_empty_section(put):
    assert load_config(put(TEXT + "unlearning:\n"), ["unlearning.epochs=2"]).unlearning.epochs == 2


@pytest.mark.parametrize(
    ("text", "parts"),
    [
        ("seed", ["KEY=VALUE", "'seed'", "--set seed=1"]),
        ("=3", ["KEY=VALUE", "'=3'"]),
        ("", ["KEY=VALUE"]),
        ("seed.x=3", ["--set seed.x=3", "'seed' is a value"]),
        ("seed=[1", ["--set seed=[1", "not a valid YAML value"]),
        ("seed=2024-99-99", ["--set seed=2024-99-99", "not a valid YAML value"]),
        ("localization.k_op_u=0.1", ["unknown key localization.k_op_u", "Did you mean 'k_op_ur'?"]),
        ("lokalization.k=0.1", ["unknown key lokalization", "Did you mean 'localization'?"]),
        ("seed.=1", ["--set seed.=1"]),
        (".seed=1", ["unknown key"]),
        ("seed=", ["seed", "None"]),
        ("unlearning.learning_rate=fast", ["unlearning.learning_rate", "'fast'", "number"]),
        ("localization.k_op_ur=10", ["got 10", "Did you mean 0.1?"]),
        ("domains=null", ["domains", "got None"]),
    ],
)
def test_a_wrong_override_says_which_and_why(put, text, parts):
    message = error_of(put(TEXT + "seed: 1\n"), [text])
    assert all(part in message for part in parts), message


# -- files that cannot be read -----------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "line"),
    [
        ("a: [1, 2\nb: 3\n", 2),
        ("domains:\n  a: 1\n b: 2\n", 3),
        ("a: 1\nb: 2\n\tc: 3\n", 3),
        ("a: 'x\n", 2),
        ("a: 1\nb: *unknown\n", 2),
        ("a: !!python/object:os.system {}\n", 1),
        ("seed: 1\noutput: o\nseed: 2\n", 3),
    ],
)
def test_a_syntax_error_gives_file_and_line(put, text, line):
    path = put(text)
    assert error_of(path).startswith(f"{path} line {line}: not valid YAML (")


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n- b\n", "just text", "3"])
def test_a_file_without_sections_is_refused(put, text):
    path = put(text)
    message = error_of(path)
    assert str(path) in message
    assert "expected sections" in message


@pytest.mark.parametrize(
    "content", [b"\xff\xfe\xfa", b"a: \xe9\n", b"a: 2024-99-99\n", b"a: \x00\n"]
)
def test_a_file_that_is_no_text_is_refused(put, content):
    path = put(content)
    assert str(path) in error_of(path)


def test_a_missing_file_or_config_is_said(tmp_path):
    assert error_of(tmp_path / "no.yaml").startswith(f"{tmp_path / 'no.yaml'} does not exist")
    # a folder without the file, and a file used as a folder
    assert error_of(tmp_path).startswith(f"{tmp_path / 'config.yaml'} does not exist")
    (tmp_path / "file").write_text("x")
    assert str(tmp_path / "file" / "x.yaml") in error_of(tmp_path / "file" / "x.yaml")


def test_a_path_that_no_system_takes(tmp_path):
    assert "cannot be read" in error_of(tmp_path / ("x" * 5000))


def test_a_config_that_cannot_be_opened(tmp_path):
    (tmp_path / "config.yaml").mkdir()
    message = error_of(tmp_path)
    assert str(tmp_path / "config.yaml") in message
    assert "cannot be read" in message


def test_a_forbidden_file(put, monkeypatch):
    def forbidden(*args, **kwargs):
        raise PermissionError(13, "Permission denied")

    path = put()
    monkeypatch.setattr(Path, "read_text", forbidden)
    assert "cannot be read ([Errno 13] Permission denied)" in error_of(path)


# -- writing and replaying ---------------------------------------------------------------------


def test_what_is_written_replays(put, tmp_path, monkeypatch):
    config = load_config(put(), ["unlearning.learning_rate=1e-7", "model.lora=null", "seed=3"])
    run = tmp_path / "runs" / "mine"
    write(run / "config.yaml", config, {"python": "3.11", "git": None})
    monkeypatch.chdir(run)
    assert load_config(run / "config.yaml", []) == config
    again = load_config(run / "config.yaml", [])
    write(tmp_path / "again" / "config.yaml", again, {"python": "3.11", "git": None})
    texts = [(folder / "config.yaml").read_text() for folder in (run, tmp_path / "again")]
    assert texts[0] == texts[1]


def test_a_run_directory_stands_for_its_config_wherever_it_lies(put, tmp_path):
    config = load_config(put(), ["output=first", "seed=3"])
    write(tmp_path / "first" / "config.yaml", config, {})
    moved = (tmp_path / "first").rename(tmp_path / "moved")
    assert load_config(moved, []) == config.model_copy(update={"output": str(moved)})
    assert load_config(moved, ["output=set"]).output == "set"
    assert load_config(moved, ["output=set"], output="other").output == "other"
    assert load_config(moved / "config.yaml", []) == config


def test_a_comparison_is_called_one(put):
    assert "Use: grail compare" in error_of(put("base: {}\nmethods: {a: {}}"))


def test_another_preset_on_a_complete_file_is_refused(put, tmp_path):
    write(tmp_path / "config.yaml", load_config(put("preset: grail\n" + TEXT), []), {})
    assert load_config(tmp_path, ["preset=grail"]).preset == "grail"
    with pytest.raises(InputError, match="gives every value"):
        load_config(tmp_path, ["preset=ascent"])


@pytest.mark.parametrize(("old", "new"), [("{}", "null"), ("null", "{}"), ("null", "{r: 3}")])
def test_adapter_and_all_weights_are_not_exchanged_on_a_complete_file(put, tmp_path, old, new):
    write(tmp_path / "config.yaml", load_config(put(), [f"model.lora={old}"]), {})
    with pytest.raises(InputError, match=r"--set model\.lora: .*learning rates"):
        load_config(tmp_path, [f"model.lora={new}"])
    with pytest.raises(InputError, match=r"--set model\.lora"):
        load_config(tmp_path, [f"model.lora={new}", "teach.learning_rate=1e-4"])
    rates = ["teach.learning_rate=1e-4", "unlearning.learning_rate=1e-5"]
    config = load_config(tmp_path, [f"model.lora={new}", *rates])
    assert (config.model.lora is None) == (new == "null")
    assert config.unlearning.learning_rate == 1e-5
    assert load_config(tmp_path, [f"model.lora={old}"]).model == load_config(tmp_path, []).model


def test_settings_of_a_run_are_its_file_or_none(put, tmp_path):
    write(tmp_path / "config.yaml", load_config(put(), []), {"torch": "2.9"})
    assert run_settings(tmp_path) == yaml.safe_load((tmp_path / "config.yaml").read_text())
    for damaged in ("", "- a", "a: [1"):
        (tmp_path / "config.yaml").write_text(damaged)
        assert run_settings(tmp_path) == {}
    assert run_settings(tmp_path / "nowhere") == {}


def test_what_is_written_is_complete(put, tmp_path):
    config = load_config(put(), [])
    write(tmp_path / "config.yaml", config, {"torch": "2.9"})
    raw = yaml.safe_load((tmp_path / "config.yaml").read_text())
    assert raw.pop("made_with") == {"torch": "2.9"}
    assert raw == config.model_dump(mode="json", exclude={"made_with"})
    assert set(raw) == set(type(config).model_fields) - {"made_with"}
    assert raw["localization"]["k_op_ur"] == 0.1


def test_made_with_is_not_read(put):
    want = load_config(put(), [])
    for noise in ("{a: 1}", "3", "null"):
        assert load_config(put(TEXT + f"made_with: {noise}\n"), []) == want


FLOATS = st.floats(1e-300, 1e300)


@settings(
    max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(
    rate=FLOATS,
    k=st.floats(1e-12, 1),
    seed=st.integers(0, 2**31 - 1),
    # PyYAML writes U+0085 (next line) so that it reads it back as a line break
    name=st.text(st.characters(codec="utf-8", exclude_characters="\x85"), min_size=1, max_size=20),
)
def test_every_value_survives_the_file(tmp_path, rate, k, seed, name):
    raw = {
        "domains": {"a": {"unlearn": {"train": "/u"}, "retain": {"train": "/r"}}},
        "unlearning": {"learning_rate": rate, "objective": name},
        "localization": {"k_op_ur": k},
        "seed": seed,
        "output": "o",
    }
    config = parse_config(raw)
    write(tmp_path / "config.yaml", config, {})
    assert load_config(tmp_path / "config.yaml", []) == config
