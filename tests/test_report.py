"""Gathering and the page: partial studies, damaged files, escaping, self-containment, the browser."""

from __future__ import annotations

import base64
import io
import json
import re
import time
from html.parser import HTMLParser
from pathlib import Path

import numpy as np
import pytest
from matplotlib.figure import Figure
from PIL import Image

from augend import report
from augend.contract import AugendError
from augend.report import page as page_module
from augend.report import pictures
from augend.report.phases import phase_words
from augend.report.plots import draw, place
from augend.runner.job import Job, resolve_job
from augend.study import results
from fixture_study import DEFAULT, Made, make_study
from runs import SMALL, splits_of

EVIL = "<script>alert(1)</script>"


class Tags(HTMLParser):
    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.open: list[str] = []
        self.outside: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        if tag not in ("meta", "img", "path", "use", "rect", "image", "br"):
            self.open.append(tag)
        for name, value in attrs:
            addresses = name in ("src", "href", "xlink:href", "action", "poster", "srcset")
            if addresses and value and not value.startswith(("#", "data:")):
                self.outside.append(value)
            assert not name.startswith("on"), f"<{tag} {name}>"

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        if self.open and self.open[-1] == tag:
            self.open.pop()

    def handle_endtag(self, tag: str) -> None:
        if tag in self.open:
            assert self.open.pop() == tag


def unplotted(study: Path) -> str:
    """The page without its plots, which take most of the time."""
    return page_module.render(results.write(study), {}, study)


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_study(tmp_path_factory.mktemp("made") / "study", grids=True)


@pytest.fixture(scope="module")
def page(study: Path) -> str:
    return report.write(study).read_text(encoding="utf-8")


def test_the_page_needs_nothing_else(page: str) -> None:
    tags = Tags(page)
    assert tags.outside == [] and "http" not in page.replace("http-equiv", "")
    assert "@import" not in page and not re.search(r"url\((?!#)", page)
    assert tags.tags.count("script") == 1 and "link" not in tags.tags and "iframe" not in tags.tags
    assert tags.open == []


def test_the_answer_comes_first_and_the_invitation_last(page: str, study: Path) -> None:
    text = json.loads((study / "results.json").read_text())["advice"]["text"]
    body = re.sub(r"<[^>]+>", " ", page[page.index("<body>") :])
    assert body.index(text.split('"')[0].strip()[:20]) < body.index("The recipes")
    assert "Now yours: <code>augend compare PATH/TO/FOLDER --plan</code>" in page


def test_seconds_that_were_not_equal_after_all_are_said(tmp_path: Path) -> None:
    recipes = {"augmented": Made(0.9, 10.0), "grab": Made(0.9, 14.0)}
    given = {"request": {"equal": "seconds"}, "predicted": {name: {"training": 10.0} for name in recipes}}
    page = report.write(make_study(tmp_path / "study", recipes, repeats=2, extra=given)).read_text(encoding="utf-8")
    assert re.search(r"grab took 1\.\d\d? of the seconds that were predicted for it", page)
    assert re.search(r"seconds were not equal after all: grab used 1\.\d\d of what augmented used", page)


def test_everything_asked_for_is_there(page: str, study: Path) -> None:
    for heading in ("Accuracy against cost", "Where the seconds went", "Along the steps", "Along the seconds"):
        assert f"<h3>{heading}</h3>" in page
    assert "<dt>seed</dt><dd>0 to 4, one a repeat</dd>" in page and "Most frequent confusions" in page
    assert page.count('<img src="data:image/png;base64,') == sum(made.phases for made in DEFAULT.values())
    assert "freeze, then augment (aug-ft)" in page
    assert "2.13.0" in page and "augend compare --out study" in re.sub(r"</?span[^>]*>", "", page)
    for name in ("cost", "steps", "seconds", "parts", "calibration", "confusion"):
        assert (study / "plots" / f"{name}.png").read_bytes().startswith(b"\x89PNG")
        assert "<svg" in (study / "plots" / f"{name}.svg").read_text()
    ids = re.findall(r'\bid="([^"]+)"', page)
    assert len(ids) == len(set(ids))


def test_tuned_rates_are_on_the_page(tmp_path: Path) -> None:
    tried = {"3.33e-05": 0.7, "0.0001": 0.9, "0.0003": None}
    tuned = {"augmented": {"tried": tried, "seconds": 1.5, "override": "optimizer.lr=0.0001"}}
    study = make_study(tmp_path, {"augmented": Made(0.9), "plain": Made(0.9)}, repeats=2, extra={"tuned": tuned})
    assert "<dt>augmented</dt><dd>0.0001 (of 3.33e-05, 0.0001, 0.0003)</dd>" in unplotted(study)


def test_own_data_gets_no_invitation(tmp_path: Path) -> None:
    record = {"data": {"name": "mushrooms"}, "default": False}
    study = make_study(tmp_path, {"augmented": Made(0.9), "aug-ft": Made(0.9)}, repeats=2, extra=record)
    assert "Now yours" not in unplotted(study)


def test_every_name_is_escaped(tmp_path: Path) -> None:
    classes = (
        EVIL,
        '"><img src=x onerror=alert(1)>',
        "$\\frac{",
        "a & b",
        "五",
        "{{ 7*7 }}",
        "</style>",
        "h",
        "i",
        "j",
    )
    record = {
        "command": f"augend compare {EVIL}",
        "data": {"name": EVIL, "path": f"/x/{EVIL}"},
        "environment": {EVIL: EVIL},
    }
    recipes = {"augmented": Made(0.8, title=f"t {EVIL}"), "aug-ft": Made(0.93, title="</title><b>")}
    study = make_study(tmp_path, recipes, classes=classes, extra=record, repeats=2, grids=True)
    text = report.write(study).read_text(encoding="utf-8")
    tags = Tags(text)
    assert tags.tags.count("script") == 1 and "<script>alert" not in text
    assert tags.tags.count("img") == 2 and tags.tags.count("style") - text.count("<defs>") <= 1
    assert "{{ 7*7 }}" in text


def test_partial_studies_are_readable(tmp_path: Path) -> None:
    nothing = make_study(tmp_path / "nothing", finished=[])
    assert "No repeat is finished by every recipe yet (0 of 20 trials done)." in unplotted(nothing)
    some = make_study(
        tmp_path / "some", finished=["plain-r0", "augmented-r0", "aug-ft-r0", "augment-then-plain-r0", "plain-r1"]
    )
    found = results.write(some)
    assert found["advice"]["text"].startswith("So far (5 of 20 trials): ") and found["repeats_finished"] == 1
    assert found["recipes"]["plain"]["test"]["repeats"] == 2
    assert "Partial: 5 of 20 trials are finished." in unplotted(some)
    without = make_study(tmp_path / "without", finished=["plain-r0", "plain-r1", "aug-ft-r0", "aug-ft-r1"])
    found = results.write(without)  # the reference has no finished trial
    assert found["recipes"]["plain"]["versus_reference"]["test"] is None
    assert found["recipes"]["plain"]["cost"]["ratio"] is None
    report.write(without)


def test_failed_trials_are_named(tmp_path: Path) -> None:
    study = make_study(tmp_path, finished=[f"{n}-r{r}" for n in DEFAULT for r in range(5) if (n, r) != ("plain", 3)])
    (study / "trials" / "plain-r3" / "state.json").write_text('{"state": "failed", "reason": "it <b>broke</b>"}')
    assert "<b>plain-r3</b> it &lt;b&gt;broke&lt;/b&gt;" in unplotted(study)


def test_a_diverged_network_is_wrong_not_fatal(tmp_path: Path) -> None:
    import numpy as np

    study = make_study(tmp_path, repeats=2)
    path = study / "trials" / "plain-r0" / "predictions.npz"
    rows = dict(np.load(path))
    rows["probabilities"][:] = np.nan
    np.savez(path, **rows)
    assert "plain" in unplotted(study)
    found = json.loads((study / "results.json").read_text())
    assert found["recipes"]["plain"]["test"]["values"][0] == 0.0
    assert found["recipes"]["plain"]["nll"] is None


def test_long_numbers_leave_the_name_of_their_axis_in_the_figure(tmp_path: Path) -> None:
    def plot(figure: Figure) -> bool:
        axes = figure.subplots()
        axes.plot([0, 1], [-12345.001, -12345.002])
        axes.ticklabel_format(useOffset=False)
        axes.set_ylabel("cross-entropy, validation")
        place(figure, axes)
        return True

    draw({"long": plot}, tmp_path)
    with Image.open(tmp_path / "long.png") as image:
        pixels = np.asarray(image.convert("L"))
    assert (pixels[:, :2] > 250).all() and (pixels[:, 2:12] < 100).any()


def test_mistakes_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(AugendError, match=r"no study.json there"):
        report.write(tmp_path)
    study = make_study(tmp_path / "study", repeats=2)
    (study / "trials" / "plain-r0" / "predictions.npz").write_bytes(b"not a zip")
    with pytest.raises(AugendError, match=r"plain-r0/predictions.npz: damaged \(.*\), so it is no table of") as caught:
        results.write(study)
    assert "\n" not in str(caught.value) and "pickle" not in str(caught.value)
    record = json.loads((study / "study.json").read_text())
    del record["margin"]
    (study / "study.json").write_text(json.dumps(record))
    with pytest.raises(AugendError, match=r"the key 'margin' is missing"):
        results.write(study)


def test_pictures_that_differ_between_recipes_are_refused(tmp_path: Path) -> None:
    import numpy as np

    study = make_study(tmp_path, repeats=2)
    path = study / "trials" / "plain-r0" / "predictions.npz"
    rows = dict(np.load(path))
    rows["ids"] = np.char.add("other-", rows["ids"])
    np.savez(path, **rows)
    with pytest.raises(AugendError, match=r"plain-r0 and .*-r0 have other valid pictures"):
        results.write(study)


def test_writing_again_gives_the_same_results_and_leaves_no_temporary_files(study: Path, page: str) -> None:
    before = (study / "results.json").read_bytes()
    results.write(study)
    assert (study / "results.json").read_bytes() == before
    assert [path.name for path in study.iterdir() if path.name.startswith(".")] == []


def test_results_say_their_schema_and_hold_plain_json(study: Path, page: str) -> None:
    found = json.loads((study / "results.json").read_text(), parse_constant=lambda name: pytest.fail(name))
    assert found["schema"] == results.SCHEMA
    assert found["recipes"]["aug-ft"]["cost"]["seconds"] == pytest.approx(4.2, rel=0.03)
    assert found["recipes"]["aug-ft"]["cost"]["ratio"] == pytest.approx(0.42, rel=0.05)
    curve = found["recipes"]["aug-ft"]["curve"]
    assert curve["steps"][-1] == 800 and [phase["end"] for phase in curve["phases"]] == [400, 800]
    header, *rows = results.table_rows(found)
    assert all(len(row) == len(header) for row in rows) and len(rows) == len(DEFAULT)


def test_a_hundred_classes_and_ten_recipes_fit(tmp_path: Path) -> None:
    recipes = {
        "augmented": Made(0.7),
        **{f"recipe-with-a-rather-long-name-{i}": Made(0.7, 5 + 5 * i) for i in range(9)},
    }
    study = make_study(tmp_path, recipes, classes=[f"class {i}" for i in range(100)], repeats=2, sizes=(1200, 400, 400))
    text = report.write(study).read_text()
    assert "mathdefault" not in text  # tick labels of the logarithmic axis
    assert "Most frequent confusions" in text and "<h3>What" not in text


def test_it_takes_less_than_four_seconds_of_the_processor(study: Path, page: str) -> None:
    start = time.process_time()
    report.write(study)  # the imports, about 1 s, are done
    assert time.process_time() - start < 4


def test_phases_are_told_in_words(tmp_path: Path) -> None:
    study = make_study(tmp_path, {"plain": Made(0.9), "aug-ft": Made(0.9, phases=2)}, reference="plain", repeats=2)
    job = Job(data=SMALL, recipe="aug-ft", budget="40step")
    plan = resolve_job(job, splits_of(job))
    (study / "trials" / "aug-ft-r0" / "plan.json").write_text(plan.to_json())
    rows = {name: {"rows": 640} for name in ("plain", "tune")}
    (study / "trials" / "aug-ft-r0" / "ledger.json").write_text(json.dumps({"phases": rows, "total": {}}))
    text = re.sub(r"<[^>]+>", "|", unplotted(study))
    said = re.search(r"tune\|\|(.*?)\|\n", text)
    assert said is not None
    length, sees, moves, minimised, how = (part for part in said[1].split("||") if part)
    assert length == "20 steps of 32 pictures (0.711 epochs)"  # of the 900 of this study
    assert "rotate (degrees 15)" in sees or "crop" in sees
    assert moves == "conv3 and above" and minimised == "cross-entropy (smoothing 0.1)" and how.startswith("adamw (lr ")
    fewer = {"data": {"main": {"counts": {"train": [160, 160]}}}}  # the recipe held the others out
    (study / "trials" / "aug-ft-r0" / "run.json").write_text(json.dumps(fewer))
    assert "20 steps of 32 pictures (2 epochs)" in unplotted(study)


def test_what_moves_is_said_of_several_networks() -> None:
    job = Job(data=SMALL, recipe="distill", budget="40step")
    teach, match, readout = phase_words(resolve_job(job, splits_of(job)), 200)
    assert (teach.moves, teach.minimises) == ("all of teacher", "cross-entropy (smoothing 0.1) of teacher")
    assert match.moves == "all of student but the classifier"
    assert match.minimises == "match of student.features@tilted to teacher.features@upright"
    assert match.sees.startswith("upright: as they are; tilted: ")
    assert readout.moves.endswith("all of readout; readout begins as teacher[classify:]")
    job = Job(data=SMALL, recipe="probe", budget="40step")
    [probe] = phase_words(resolve_job(job, splits_of(job)), 200)
    assert (probe.moves, probe.length) == ("the classifier", "solved for at once")
    assert probe.optimizer.startswith("a closed form: logistic")


def photographs(study: Path, folder: Path, side: int = 300) -> None:
    """Give every picture that is listed as a mistake a file of one colour, red by its number."""
    from PIL import Image

    for number, one in enumerate(results.write(study)["advised"]["mistakes"]):
        path = folder / one["id"]
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (side, side), (10 * number, 0, 255)).save(path)


def test_mistakes_are_shown_where_their_pictures_can_be_read(tmp_path: Path) -> None:
    from PIL import Image

    folder = tmp_path / "pictures"
    record = {"data": {"name": "mine", "path": str(folder)}}
    study = make_study(tmp_path / "study", repeats=2, extra=record)
    listed = unplotted(study)
    assert 'class="gallery"' not in listed and "Surest mistakes" in listed
    photographs(study, folder)
    text = unplotted(study)
    found = re.findall(r'<img src="data:image/jpeg;base64,([^"]+)" alt="([^"]+)"', text)
    mistakes = json.loads((study / "results.json").read_text())["advised"]["mistakes"]
    assert [name for _, name in found] == [one["id"] for one in mistakes[: len(found)]] and len(found) == 12
    for number, (content, _) in enumerate(found):
        with Image.open(io.BytesIO(base64.b64decode(content))) as image:
            assert image.size == (112, 112) and abs(image.getpixel((50, 50))[0] - 10 * number) < 6
    assert len(text) - len(listed) < 60_000
    (folder / mistakes[3]["id"]).write_bytes(b"gone")
    assert 'class="gallery"' not in unplotted(study)


def test_a_picture_outside_of_the_data_is_not_opened(tmp_path: Path) -> None:
    study = make_study(tmp_path / "study", repeats=2, extra={"data": {"name": "mine", "path": str(tmp_path / "data")}})
    photographs(study, tmp_path / "data")
    found = results.write(study)
    (tmp_path / "data" / "x.png").write_bytes((tmp_path / "data" / found["advised"]["mistakes"][0]["id"]).read_bytes())
    assert pictures.mistakes(study, found)[0]["source"].startswith("data:image/jpeg")
    for name in ("../data/x.png", str(tmp_path / "data" / "x.png")):
        found["advised"]["mistakes"][0]["id"] = name
        assert "source" not in pictures.mistakes(study, found)[0]


def test_large_pictures_are_made_small(tmp_path: Path) -> None:
    import numpy as np
    from PIL import Image

    study = make_study(tmp_path, {"augmented": Made(0.9), "aug-ft": Made(0.9, phases=2)}, repeats=2, grids=True)
    noise = np.random.default_rng(0).integers(0, 255, (900, 1800, 3), dtype=np.uint8)
    for path in study.rglob("grids/*.png"):
        Image.fromarray(noise).save(path)
        assert path.stat().st_size > 4_000_000
    text = unplotted(study)
    assert text.count("data:image/jpeg;base64,") == 3 and len(text) < 3_000_000


def test_plots_follow_the_colours_of_the_page(study: Path, page: str) -> None:
    assert "fill: var(--ink)" in page and "stroke: var(--line)" in page
    assert "var(--" not in (study / "plots" / "cost.svg").read_text()
    assert "prefers-color-scheme: dark" in page and "@media print" in page


def test_an_option_is_not_broken_and_still_escaped() -> None:
    found = str(page_module._unbroken("run: augend compare --out <b> --repeats 20."))
    assert found == (
        'run: augend compare <span class="option">--out</span> &lt;b&gt; <span class="option">--repeats</span> 20.'
    )
