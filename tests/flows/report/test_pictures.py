"""The page in a browser, where there is one, and the pictures of the README."""

import re
import shutil
import subprocess
from html import escape, unescape
from xml.etree import ElementTree

import pytest

from docs.pictures import CHROMIUM, report_picture, terminal_pictures
from flows.console import console
from flows.report.build import render
from flows.report.profile.page import page as profile_page
from flows.runs.artifacts import stage_artifacts
from tests.flows.report.profile.tables import examples, measures, small_corpus

BROWSER = shutil.which("chromium")


@pytest.mark.skipif(not BROWSER, reason="needs chromium")
@pytest.mark.parametrize("width", [1200, 400])
@pytest.mark.parametrize("written", ["report", "profile"])
def test_nothing_is_cut_off(finished, tmp_path, written, width):
    """Nothing is wider than the page, and at full width no table wider than its box; all details open."""
    store, record = finished
    excerpt = ("all", "topics.weight", "word " * 30, "files/" + "a" * 200, "x" * 400)
    pages = {
        "report": lambda: render(record, stage_artifacts(store, record)),
        "profile": lambda: profile_page(measures(small_corpus()), examples(excerpt), "a" * 100),
    }
    page = pages[written]().replace("<details", "<details open")
    script = (
        "const d = document.querySelector('iframe').contentDocument, w = d.documentElement.clientWidth;"
        "const wide = [...d.querySelectorAll('.scroll')].filter(e => e.scrollWidth > e.clientWidth + 1).length;"
        "document.title = [w, d.documentElement.scrollWidth, wide].join(' ')"
    )
    frame = f'<iframe style="width:{width}px;height:900px;border:0" srcdoc="{escape(page)}"></iframe>'
    (tmp_path / "frame.html").write_text(f"{frame}<script>onload = () => {{ {script} }}</script>", encoding="utf-8")
    options = (f"--user-data-dir={tmp_path}/profile", f"--window-size={width + 100},1000", "--dump-dom")
    command = [BROWSER, *CHROMIUM, *options, f"file://{tmp_path}/frame.html"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    visible, content, wide = map(int, re.search(r"<title>([\d ]+)</title>", done.stdout)[1].split())
    assert content <= visible
    assert width == 400 or wide == 0


@pytest.mark.skipif(not BROWSER, reason="needs chromium")
def test_the_report_has_a_picture(finished, tmp_path):
    report_picture(*finished, tmp_path / "report.png")
    data = (tmp_path / "report.png").read_bytes()
    assert data[1:4] == b"PNG" and len(data) > 20_000, "not a blank page"


def test_plan_and_run_are_drawn_as_in_a_terminal(finished, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(console, "width", 160)
    monkeypatch.setattr(console, "record", False)
    store, record = finished
    terminal_pictures(store, record, tmp_path)
    pictures = [(tmp_path / name).read_text(encoding="utf-8") for name in ("plan.svg", "run.svg")]
    plan, run = (unescape(" ".join(ElementTree.fromstring(svg).itertext())).replace("\xa0", " ") for svg in pictures)
    assert "headrace plan configs/mini.yaml" in plan and "never run in this store" in plan
    assert f"run {record.run_id} (mini): finished" in run and "bits per byte" in run
    assert not re.search(r"@font-face|url\((?!#)|<image", "".join(pictures)), "nothing is fetched"
    assert str(tmp_path.parent) not in run
