"""Pictures for the page, small and inside of it: what each phase saw, and the surest mistakes."""

from __future__ import annotations

import base64
import io
from collections.abc import Sequence
from pathlib import Path, PurePosixPath
from typing import Any

from PIL import Image

from augend.contract import AugendError
from augend.data.decode import decode_file
from augend.report.phases import PhaseWords, network_words, phase_words
from augend.runner.folder import RunFolder
from augend.runner.job import Job, load_splits
from augend.study.evidence import read_json
from augend.study.origin import read_plan, steps_taken

__all__ = ["as_address", "mistakes", "phases"]

GRID_BYTES = 2_500_000  # of all grids of a page
GRID_WIDTH = 860  # pixels: twice what a screen gives one
THUMB = 112  # pixels a side
SHOWN = 12


def phases(study: Path, results: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Recipe -> what its phases did (``words``), its ``networks``, and what was seen in repeat 0 (``grids``: caption, data
    address).
    """
    found: dict[str, dict[str, Any]] = {}
    left = GRID_BYTES
    for name, recipe in results["recipes"].items():
        run = study / "trials" / f"{name}-r0"
        plan = read_plan(run)
        words: list[PhaseWords] = []
        if plan is not None:
            words = phase_words(plan, _trained(run) or results["sizes"]["train"], steps_taken(run, plan))
        names = [phase["name"] for phase in recipe["curve"]["phases"]]
        grids = []
        paths = (run / "grids").glob("*.png")
        for path in sorted(paths, key=lambda p: (_phase(p.stem, names), p.stem)):
            address = _grid(path)
            left -= len(address)
            if left < 0:
                break
            grids.append({"caption": _caption(path.stem, names), "source": address})
        if words or grids:
            result = read_json(run / "result.json") if (run / "result.json").is_file() else {}
            found[name] = {"words": words, "networks": network_words(result), "grids": grids}
    return found


def _trained(run: Path) -> int:
    """Pictures that a run trains on: fewer than the study's where its recipe holds some out; 0 where it has no record."""
    path = run / "run.json"
    return sum(read_json(path)["data"]["main"]["counts"]["train"]) if path.is_file() else 0


def _phase(stem: str, phases: Sequence[str]) -> int:
    """Number of the phase that a grid is of: the longest name that its file name begins with; unknown ones come last."""
    fitting = [(len(name), number) for number, name in enumerate(phases) if stem.startswith(f"{name}-")]
    return max(fitting)[1] if fitting else len(phases)


def _caption(stem: str, phases: Sequence[str]) -> str:
    """``tune-a`` as "tune, view a"; the one view of a phase, x, is not named."""
    number = _phase(stem, phases)
    if number == len(phases):
        return stem
    view = stem.removeprefix(f"{phases[number]}-")
    if view == "undone":
        return f"{phases[number]}: held-out pictures, then augmented and given back, three times"
    return phases[number] if view == "x" else f"{phases[number]}, view {view}"


def _grid(path: Path) -> str:
    """A grid as a data address, no wider than a page shows it; photographs as JPEG."""
    try:
        with Image.open(path) as opened:
            image = opened.convert("L" if opened.mode == "L" else "RGB")
    except (OSError, ValueError):
        return ""
    if image.width > GRID_WIDTH:
        image = image.resize((GRID_WIDTH, round(image.height * GRID_WIDTH / image.width)), Image.Resampling.LANCZOS)
    whole = path.read_bytes()
    small = _jpeg(image)
    if len(whole) <= len(small):
        return f"data:image/png;base64,{base64.b64encode(whole).decode()}"
    return f"data:image/jpeg;base64,{base64.b64encode(small).decode()}"


def _jpeg(image: Image.Image) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, "JPEG", quality=84, subsampling=0)
    return buffer.getvalue()


def mistakes(study: Path, results: dict[str, Any]) -> list[dict[str, Any]]:
    """The surest mistakes of the advised recipe, each with its picture as a data address where all of them can be read."""
    if results["advised"] is None:
        return []
    wrong: list[dict[str, Any]] = results["advised"]["mistakes"][:SHOWN]
    ids = [str(one["id"]) for one in wrong]
    sources = _files(study, ids) or _stored(study / "trials" / f"{results['advised']['recipe']}-r0", ids)
    if sources is None:
        return wrong
    return [{**one, "source": source} for one, source in zip(wrong, sources, strict=True)]


def _files(study: Path, ids: Sequence[str]) -> list[str] | None:
    """Ids of a folder's pictures are paths below it; None where they are not, or one is not readable."""
    try:
        folder = Path(str(RunFolder(study).read("study.json")["data"]["path"]))
    except (AugendError, KeyError, TypeError):
        return None
    folder = folder.parent if folder.is_file() else folder
    found = []
    for name in ids:
        path = PurePosixPath(name)
        if path.is_absolute() or ".." in path.parts or not (folder / path).is_file():
            return None
        try:
            array, _ = decode_file(folder / path, THUMB)
        except Exception:  # whatever Pillow raises for a file that has changed since
            return None
        found.append(_thumb(Image.fromarray(array.transpose(1, 2, 0))))
    return found


def _stored(run: Path, ids: Sequence[str]) -> list[str] | None:
    """The pictures of a named set, as the trial read them."""
    plan = read_plan(run)
    if plan is None:
        return None
    try:
        job = Job.from_json(RunFolder(run).read("run.json")["job"])
        test = load_splits(job, plan)["main"].test
    except (AugendError, KeyError, TypeError):
        return None
    place = {name: number for number, name in enumerate(test.ids)}
    if any(name not in place for name in ids):
        return None
    pixels = test.take([place[name] for name in ids]).pixels[:].permute(0, 2, 3, 1).numpy()
    images = [Image.fromarray(one[..., 0] if one.shape[2] == 1 else one) for one in pixels]
    return [_thumb(image) for image in images]


def _thumb(image: Image.Image) -> str:
    scale = THUMB / max(image.size)
    size = (max(1, round(image.width * scale)), max(1, round(image.height * scale)))
    return as_address(image.resize(size, Image.Resampling.NEAREST if scale > 1 else Image.Resampling.LANCZOS))


def as_address(image: Image.Image) -> str:
    """An image as the address of a JPEG inside the page."""
    return f"data:image/jpeg;base64,{base64.b64encode(_jpeg(image)).decode()}"
