"""The page in a browser: no error, nothing asked of the network, sorted at the width of a phone and of a screen."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from augend import report
from fixture_study import make_study

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--allow-file-access-from-files"]
FLAGS += ["--disable-background-networking", "--no-first-run", "--enable-logging=stderr", "--virtual-time-budget=3000"]
BROWSER = pytest.mark.skipif(CHROMIUM is None, reason="no chromium here: the page is not opened in a browser")


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("made") / "study", grids=True)


@pytest.fixture(scope="module")
def page(study: Path) -> str:
    return report.write(study).read_text(encoding="utf-8")


def opened(page: Path, profile: Path) -> tuple[str, list[str]]:
    """The page's document after its scripts have run, and what it wrote to the console: errors and refused requests."""
    command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", "--dump-dom", page.as_uri()]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]


@BROWSER
def test_a_browser_has_nothing_to_complain_of(study: Path, page: str, tmp_path: Path) -> None:
    """Its policy forbids every request but data inside of the page, and a browser says what it refused."""
    shown, console = opened(study / "report.html", tmp_path / "profile")
    assert "<select" in shown and console == []
    for number, bad in enumerate(('<img src="http://127.0.0.1:9/x.png">', "<script>nope()</script>")):
        (tmp_path / "bad.html").write_text(page.replace("</main>", f"{bad}</main>"), encoding="utf-8")
        _, console = opened(tmp_path / "bad.html", tmp_path / f"profile{number}")
        assert len(console) == 1, "what is looked for is seen when it is there"


MEASURE = """<script>
addEventListener("error", (event) => document.title += " ERROR " + event.message);
addEventListener("load", () => {
  const order = () => [...document.querySelectorAll(".main tbody tr")].map((row) => row.dataset.recipe).join();
  const header = document.querySelectorAll(".main thead button")[1];
  const found = [document.documentElement.scrollWidth];
  const select = document.querySelector("select.sorter");
  found.push(header.offsetParent ? "table" : "cards", select.offsetParent ? "select" : "none");
  header.click(); found.push(order());
  header.click(); found.push(order());
  select.value = select.options[5].value;
  select.dispatchEvent(new Event("change")); found.push(order());
  const small = [...document.querySelectorAll("figure svg")].map((svg) => svg.getBoundingClientRect().right);
  found.push(Math.max(...small) <= innerWidth ? "inside" : "outside");
  document.title += " MEASURED " + found.join(" ") + " END";
});
</script></body>"""


@BROWSER
@pytest.mark.parametrize("width", [390, 1280])
def test_a_browser_shows_it_without_sideways_scrolling(study: Path, page: str, tmp_path: Path, width: int) -> None:
    """The page is loaded in a frame of that width, sorted both ways, and its own width and errors are read back."""
    frame = tmp_path / "frame.html"
    (tmp_path / "inside.html").write_text(page.replace("</body>", MEASURE), encoding="utf-8")
    frame.write_text(
        f"<iframe id=f src=inside.html style='width:{width}px;height:2000px;border:0'></iframe>"
        "<script>addEventListener('load', () => setTimeout(() => { document.body.append("
        "document.getElementById('f').contentDocument.title); }, 200));</script>"
    )
    shown, console = opened(frame, tmp_path / "profile")
    measured = re.search(r"MEASURED (\d+) (\w+) (\w+) (\S+) (\S+) (\S+) inside END", shown)
    assert measured is not None and console == [] and "ERROR" not in shown, shown[-500:]
    assert int(measured[1]) == width
    assert (measured[2], measured[3]) == (("cards", "select") if width == 390 else ("table", "none"))
    found = json.loads((study / "results.json").read_text())["recipes"]
    best = sorted(found, key=lambda n: -found[n]["test"]["mean"])
    assert measured[4].split(",") == best and measured[5].split(",") == best[::-1]
    assert measured[6].split(",") == sorted(found, key=lambda n: found[n]["cost"]["ratio"])
