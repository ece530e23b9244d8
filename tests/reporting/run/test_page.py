"""The page is self-contained, escaped and the same for the same run."""

from __future__ import annotations

import json
import math
import re
from dataclasses import replace
from html.parser import HTMLParser

import pytest

from grail.errors import InputError
from grail.files import dump_yaml, file_digest, write_json, write_text
from grail.reporting.run.page import report, write_report
from grail.results import Result, Results, make_results, write_results

FREEZING = {
    "entries": 120000,
    "frozen": 12345,
    "changed": 0,
    "sha256_before": "ab" * 32,
    "sha256_after": "ab" * 32,
}
VOID = {"meta", "br"}


class Page(HTMLParser):
    """Collects tags and text, and fails on tags that are not closed."""

    def __init__(self, source: str):
        super().__init__()
        self.open: list[str] = []
        self.tags: list[str] = []
        self.text = ""
        self.feed(source)
        assert self.open == []

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        assert self.open.pop() == tag

    def handle_data(self, data):
        self.text += data


def results_of(*names: str, parts: tuple[str, ...] = ("train", "val")) -> Results:
    rows = []
    for i, name in enumerate(names):
        for part in parts:
            for model, us, rs in (("vanilla", 2.0 + i, 98.0), ("unlearned", 91.3 - i, 94.6 - i)):
                rows.append(Result(model, name, "unlearn", part, "US", us, 24))
                rows.append(Result(model, name, "retain", part, "RS", rs, 24))
                ppl = math.exp(50) if model == "unlearned" else 1.1
                rows.append(Result(model, name, "unlearn", part, "PPL", ppl, 24))
    rows.append(Result("vanilla", "general", "general", "train", "NLL", 2.9, 40))
    rows.append(Result("unlearned", "general", "general", "train", "NLL", 3.1, 40))
    return make_results(rows, dict(FREEZING), "")


def run_of(*names: str) -> dict:
    sides = [f"{name}.{side}" for name in names for side in ("unlearn", "retain")]
    values = [[1.0 if a == b else 0.25 for b in sides] for a in sides]
    layer = {"entries": 4000, "op_ur": 300, "op_rr": 200, "frozen": 411, "frozen_fraction": 0.10275}
    model = {**layer, "entries": 120000, "frozen": 12345}
    return {
        "config": {
            "model": {"name": "smollm2-135m"},
            "domains": {name: {} for name in names},
            "localization": {"method": "grail"},
            "unlearning": {"objective": "ascent_descent"},
            "seed": 0,
            "output": "runs/x",
            "made_with": {"versions": {"torch": "2.13.0"}, "git": None},
        },
        "localization": {
            "localizer": "grail",
            "model": model,
            "layers": {f"layers.{i}": layer for i in range(3)},
            "jaccard": {"names": sides, "k": 0.1, "values": values},
        },
        "training": [
            {
                "step": step,
                "terms": {"unlearn/nll": 0.1 + step, "retain/nll": 0.05},
                "seconds": 1234.5678,
                "ascending": 20 - step,
            }
            for step in range(1, 13)
        ],
        "samples": [],
    }


def written(folder, results: Results, run: dict) -> tuple[str, str]:
    md, html = write_report(folder, results, run)
    assert (md.name, html.name) == ("report.md", "report.html")
    assert sorted(p.name for p in folder.iterdir()) == ["report.html", "report.md"]
    return md.read_text(encoding="utf-8"), html.read_text(encoding="utf-8")


def put_run(folder):
    run = run_of("a")
    write_text(folder / "samples.jsonl", "")
    samples = file_digest(folder / "samples.jsonl")
    write_results(folder / "results.json", replace(results_of("a"), samples=samples))
    write_text(folder / "config.yaml", dump_yaml(run["config"]))
    write_json(folder / "localization.json", run["localization"])
    write_text(folder / "train.jsonl", "".join(json.dumps(line) + "\n" for line in run["training"]))
    return run


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("localization.json", "layers", {"layers.0": {"entries": 3}}),
        ("localization.json", "jaccard", {"names": ["a.unlearn"], "k": 0.1, "values": []}),
        ("localization.json", "model", {"entries": [1], "frozen": 2}),
        ("train.jsonl", "terms", 3),
        ("samples.jsonl", "generation", "text"),
    ],
)
def test_a_damaged_file_is_named_and_nothing_is_written(tmp_path, name, key, value):
    run = put_run(tmp_path)
    lines = {"localization.json": run["localization"], "train.jsonl": run["training"][0]}
    content = {**lines.get(name, {}), key: value}
    for write in (write_json, lambda file, found: write_text(file, json.dumps(found) + "\n")):
        write(tmp_path / name, content)
        with pytest.raises(InputError, match=rf"{name}.* is (not as|damaged).*Delete it"):
            report(tmp_path)
        assert not (tmp_path / "report.html").exists()


def test_a_report_is_made_from_sound_files_with_or_without_the_log(tmp_path):
    put_run(tmp_path)
    assert all(path.exists() for path in report(tmp_path))
    (tmp_path / "train.jsonl").unlink()
    assert all(path.exists() for path in report(tmp_path))


@pytest.mark.parametrize("names", [("a",), ("a", "b", "c")])
def test_both_files_show_the_numbers(tmp_path, names):
    md, html = written(tmp_path, results_of(*names), run_of(*names))
    page = Page(html)
    for text in (md, page.text):
        for i, name in enumerate(names):
            assert name in text
            assert f"{2 + i:.1f} → {91.3 - i:.1f}" in text
        assert "ab" * 32 in text
        assert "12,345" in text
        assert "grail run runs/x/config.yaml" in text
        assert "versions.torch" in text
        assert "1.10 → >1e9" in text
        assert f"{names[-1]}.retain" in text
    assert page.tags.count("polyline") == 4  # each with its key
    assert "nats/token" in page.text
    assert "Rows still ascending at the last step: 8." in page.text


def test_same_run_same_bytes_without_durations(tmp_path):
    first = written(tmp_path / "1", results_of("a", "b"), run_of("a", "b"))
    second = written(tmp_path / "2", results_of("a", "b"), run_of("a", "b"))
    assert first == second
    assert not any("1234.5" in text for text in first)


def test_names_are_escaped(tmp_path):
    name = "<b>&|"
    md, html = written(tmp_path, results_of(name), run_of(name))
    assert "<b>" not in html
    assert "&lt;b&gt;&amp;|" in html
    assert name in Page(html).text
    assert "&lt;b>&amp;\\| | train" in md
    tables = md[: md.index("## Settings")]
    assert "<b>" not in tables


def test_page_is_self_contained(tmp_path):
    _, html = written(tmp_path, results_of("a"), run_of("a"))
    assert not re.search(r"https?:|<script|<link|<img|@import|url\(|\bsrc=", html)


def test_bars_have_the_lengths_of_the_successes(tmp_path):
    _, html = written(tmp_path, results_of("a", parts=("train",)), run_of("a"))
    cell = html[html.index("2.0 → 91.3") :][:500]
    assert re.search(r'class="vanilla"[^>]*width="2.0"', cell)
    assert re.search(r'class="unlearned"[^>]*width="91.3"', cell)


@pytest.mark.parametrize(("slope", "highest"), [(4.0, 14.0), (4.2, 44.1), (0.03, 14.0)])
def test_curve_is_in_scale(tmp_path, slope, highest):
    run = run_of("a")
    run["training"] = [{"step": s, "terms": {"unlearn/nll": slope * s}} for s in (0, 1, 2)]
    _, html = written(tmp_path, results_of("a"), run)
    points, _ = re.findall(r'<polyline class="unlearn" points="([^"]*)"', html)
    x, y = zip(*[map(float, p.split(",")) for p in points.split()], strict=True)
    assert x[1] - x[0] == pytest.approx(x[2] - x[1], abs=0.11)
    assert y[0] - y[1] == pytest.approx(y[1] - y[2], abs=0.11)
    assert (y[0], y[2]) == (202.0, highest)


def test_values_that_cannot_be_drawn_are_left_out(tmp_path):
    run = run_of("a")
    values = [1.0, math.nan, None, math.inf, 2.0]
    run["training"] = [{"step": s, "terms": {"unlearn/nll": v}} for s, v in enumerate(values)]
    _, html = written(tmp_path, results_of("a"), run)
    points, _ = re.findall(r'<polyline class="unlearn" points="([^"]*)"', html)
    assert len(points.split()) == 2
    assert "nan" not in points


def test_layer_bars_are_in_scale_and_share_their_prefix(tmp_path):
    run = run_of("a")
    for layer, fraction in zip(run["localization"]["layers"], (0.0, 0.04, 0.08), strict=True):
        old = run["localization"]["layers"][layer]
        run["localization"]["layers"][layer] = {**old, "frozen_fraction": fraction}
    _, html = written(tmp_path, results_of("a"), run)
    marks = re.findall(r'class="mark"[^>]*height="([^"]*)"><title>([^<]*)<', html)
    assert marks == [
        ("0.0", "layers.0: 0.0%"),
        ("94.0", "layers.1: 4.0%"),
        ("188.0", "layers.2: 8.0%"),
    ]
    assert "Names start with layers." in html


def test_one_step_is_drawn_as_a_dot(tmp_path):
    run = run_of("a")
    run["training"] = [{"step": 1, "terms": {"unlearn/nll": 0.0}}]
    _, html = written(tmp_path, results_of("a"), run)
    (points,) = re.findall(r'points="([^"]*)"', html)[:1]
    assert len(points.split()) == 2


@pytest.mark.parametrize("localization", [{}, "none"])
def test_everything_optional_may_be_absent(tmp_path, localization):
    run = {"config": {"output": "runs/x"}, "localization": {}, "training": [], "samples": []}
    if localization == "none":
        counts = {"entries": 9, "op_ur": 0, "op_rr": 0, "frozen": 0, "frozen_fraction": 0.0}
        jaccard = {"names": [], "k": 0.1, "values": []}
        layers = {"layers.0": counts}
        run["localization"] = {
            "localizer": "none",
            "model": counts,
            "layers": layers,
            "jaccard": jaccard,
        }
    rows = tuple(r for r in results_of("a").rows if (r.part, r.metric) == ("train", "US"))
    md, html = written(tmp_path, Results(rows, {}, {}), run)
    assert "| ! not measured | general text |" in md
    assert "not measured" in Page(html).text
    assert "| ✓ forgotten | a, to be removed | right answers: train rows 98.0 → 8.7 % |" in md
    assert "polyline class" not in html


def test_membership_and_memorization_are_shown_or_said_to_be_missing(tmp_path):
    results = results_of("a")
    md, html = written(tmp_path / "1", results, run_of("a"))
    for text in (md, Page(html).text):
        assert "Not measured for a: no unlearn rows are known to be new" in text
        assert "What it says" in text
    place = ("unlearned", "a", "unlearn", "train")
    rows = [Result(*place, "AUC-loss", 61.75, 44), Result(*place, "ES", 7.75, 24)]
    both = Results((*results.rows, *rows), results.freezing, results.summary)
    md, html = written(tmp_path / "2", both, run_of("a"))
    for text in (md, Page(html).text):
        assert "→ 61.8" in text
        assert "→ 7.8" in text
        assert "Not measured for" not in text
    assert html.index('id="text"') < html.index('id="memorization"') < html.index('id="membership"')


def test_samples_are_shown_only_with_their_text(tmp_path):
    run = run_of("a")
    one = {"key": "k0", "domain": "a", "side": "unlearn", "part": "train", "row": 0, "nll": 0.1}
    run["samples"] = [{**one, "model": "unlearned", "accuracy": 0.5}]
    _, html = written(tmp_path / "1", results_of("a"), run)
    assert 'id="samples"' not in html
    texts = {"prompt": "Who?", "completion": "Ada <i>"}
    run["samples"] = [
        {**one, **texts, "model": "vanilla", "generation": "Ada."},
        {**one, **texts, "model": "unlearned", "generation": "Nobody | none."},
    ]
    md, html = written(tmp_path / "2", results_of("a"), run)
    assert "| Who? | Ada &lt;i> | Ada. | Nobody \\| none. |" in md
    assert "Ada &lt;i&gt;" in html


def test_settings_can_hold_markup(tmp_path):
    run = run_of("a")
    run["config"]["model"]["name"] = "</code>\n```\n<script>"
    md, html = written(tmp_path, results_of("a"), run)
    assert "<script" not in html
    settings = md[md.index("## Settings") : md.index("## Replay")]
    assert all(line.startswith("    ") for line in settings.splitlines()[2:] if line)
