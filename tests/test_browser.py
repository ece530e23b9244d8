"""The pages in a browser: nothing is asked of the network, nothing fails, nothing overflows."""

import json
import re
import shutil
import subprocess
from html import unescape
from pathlib import Path

import pytest

from grail.cli.main import main
from grail.files import write_json
from grail.reporting.comparison.page import comparison_html
from grail.reporting.run.page import report

BROWSER = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), ""
)
pytestmark = [
    pytest.mark.skipif(not BROWSER, reason="no chromium"),
    pytest.mark.slow,
]
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--enable-logging=stderr"),
    *("--disable-background-networking", "--disable-component-update", "--disable-sync"),
    *("--host-resolver-rules=MAP * ~NOTFOUND", "--virtual-time-budget=2000", "--dump-dom"),
)
CLICKS = """<script>
const failed = [];
addEventListener("error", event => failed.push(event.target.src), true);
const left = thing => thing.getBoundingClientRect().left;
const outside = sign => {
  const text = document.createRange();
  text.selectNodeContents(sign);
  return left(text) < left(sign) - 1;
};
addEventListener("load", () => {
  document.querySelectorAll("summary").forEach(one => one.click());
  const page = document.documentElement;
  const asked = performance.getEntriesByType("resource").map(one => one.name);
  document.title = JSON.stringify({opened: document.querySelectorAll("details[open]").length,
    all: document.querySelectorAll("details").length, width: page.scrollWidth,
    room: page.clientWidth, cut: [...document.querySelectorAll(".sign")].filter(outside).length,
    asked: [...new Set([...asked, ...failed])]});
});
</script>"""


def visit(folder, html, width=390):
    """Open a page on a phone and click on all that opens; return what was found, and its console.

    No host is known to the browser: a request over the network fails, and is told as asked for.
    """
    page = folder / "page.html"
    page.write_text(html.replace("<body>", f"<body>{CLICKS}"), encoding="utf-8")
    profile = f"--user-data-dir={folder / 'profile'}"
    command = [BROWSER, *FLAGS, profile, f"--window-size={width},900", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True)
    console = [line for line in done.stderr.splitlines() if "CONSOLE" in line]
    title, *_ = re.findall("<title>(.*?)</title>", done.stdout)  # drawings have titles, too
    return json.loads(unescape(title)), console


def is_sound(found, console):
    assert found["opened"] == found["all"] > 0
    assert found["width"] <= found["room"]
    assert found["cut"] == 0  # no sign of a light stands left of its place
    assert (found["asked"], console) == ([], [])


def test_the_report_of_a_run_and_its_looks(finished, tmp_path):
    finished()
    folder = tmp_path / "run"
    rows = [
        {"step": s, "epoch": s, "domain": "privacy", "side": "unlearn", "success": s, "nll": s}
        for s in (1, 2)
    ]
    write_json(folder / "evaluation" / "steps.json", {"rows": rows, "kept": 2})
    _, page = report(folder)
    assert "During training" in page.read_text()
    is_sound(*visit(tmp_path, page.read_text()))


def test_the_page_of_a_comparison(tmp_path):
    kept = Path(__file__).parents[1] / "benchmark" / "results" / "table1.json"
    found = json.loads(kept.read_text(encoding="utf-8"))
    own = {"machine": found["machine"], "settings": found["settings"]}
    html = comparison_html(found["comparison"] | own | {"cells": found["measurements"]})
    is_sound(*visit(tmp_path, html))


def test_the_attestation(finished, tmp_path, capsys):
    finished()
    assert main(["attest", str(tmp_path / "run"), "--request", "r-1"]) == 0
    is_sound(*visit(tmp_path, (tmp_path / "run" / "attestation.html").read_text()))


def test_a_page_that_asks_fails_or_overflows_is_noticed(tmp_path):
    html = (
        '<title></title><body><img src="http://example.invalid/x.png"><p style="width: 900px">.</p>'
        "<details><summary>a</summary></details><script>console.error('no')</script></body>"
    )
    found, console = visit(tmp_path, html)
    assert any("no" in line for line in console)
    assert found["asked"] == ["http://example.invalid/x.png"]
    assert found["width"] > found["room"]
