"""Options that several commands share, under the same names everywhere."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from augend.contract import AugendError

DATA = "A folder of class folders, a table of paths and labels (CSV), or digits, mnist, cifar10, cifar100."
Root = Annotated[
    str | None,
    typer.Option("--data-root", help="Folder of named data sets (default: AUGEND_DATA).", show_default=False),
]
Model = Annotated[
    str | None,
    typer.Option(
        "--model", help="A built-in word, a timm name or torchvision:NAME (default: by the data).", show_default=False
    ),
]
SETTINGS = "What recipes share: good-practice, pretrained, quick or a file."
SettingsName = Annotated[str, typer.Option("--settings", help=SETTINGS)]
Weights = Annotated[
    Path | None, typer.Option("--weights", help="A file of weights that training starts from.", show_default=False)
]
Overrides = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        metavar="PATH=VALUE",
        help="A parameter or a key of settings or phase, as split=layer3, optimizer.lr=3e-4, tune.until=30%.",
        show_default=False,
    ),
]
Augmentations = Annotated[
    str | None,
    typer.Option(
        "--augment",
        help="What `pixels` means: none, light, standard or strong, safe for the labels; or a file that says `pixels: […]`.",
        show_default=False,
    ),
]
Budget = Annotated[
    str | None,
    typer.Option("--budget", help="Of one trial: 2000step or 30epoch (default: the settings').", show_default=False),
]
TakeFrom = Annotated[
    Path | None,
    typer.Option(
        "--take-from",
        help="Another study: its finished trials are copied where this one would train the same to the same bits.",
        show_default=False,
    ),
]
Seed = Annotated[int, typer.Option("--seed", help="The base seed.")]
Size = Annotated[int | None, typer.Option("--size", help="Side in pixels of a folder's pictures.", show_default=False)]
Group = Annotated[
    str | None,
    typer.Option(
        "--group",
        help="What never crosses a split: parent, or a regular expression on the path, as 'patient(\\d+)'.",
        show_default=False,
    ),
]
Fit = Annotated[
    str | None,
    typer.Option(
        "--fit",
        help="How a folder's pictures become squares: crop (the centre, default) or pad (edges kept).",
        show_default=False,
    ),
]
Fraction = Annotated[
    float | None,
    typer.Option("--fraction", help="Share of the training pictures that is used (default 1).", show_default=False),
]
FalseLabels = Annotated[
    float | None,
    typer.Option(
        "--false-labels",
        help="Probability for a training label to be drawn anew from all classes (default 0).",
        show_default=False,
    ),
]
Plugins = Annotated[
    list[Path] | None,
    typer.Option("--plugin", help="A Python file that registers components of yours.", show_default=False),
]
Precision = Annotated[str, typer.Option("--precision", help="auto (timed), 32-true or bf16-mixed.")]
Json = Annotated[bool, typer.Option("--json", help="Print results as JSON on stdout; everything else goes to stderr.")]


def plugin_paths(plugins: list[Path] | None) -> tuple[str, ...]:
    """Absolute paths, so that a run resumes from another folder."""
    return tuple(str(path.resolve()) for path in plugins or ())


def pixels_override(augment: str | None) -> tuple[str, ...]:
    """What ``--augment`` overrides: a named set, augmentations as a recipe writes them, or a file with ``pixels``."""
    if augment is None:
        return ()
    if not augment.endswith((".yaml", ".yml")):
        return (f"pixels={augment}",)
    from augend.recipes.reading import read

    found = read(augment)
    if not isinstance(found, dict) or list(found) != ["pixels"]:
        raise AugendError(f"{augment}: --augment takes a file with the one key pixels, as `pixels: [hflip, crop]`")
    return (f"pixels={json.dumps(found['pixels'])}",)


def data_word(data: str) -> str:
    """A folder or a table as an absolute path; a word as it is, also where a folder of that name lies here."""
    from augend.names import known

    word = data.partition(":")[0] in known("data")
    return str(Path(data).resolve()) if not word and Path(data).exists() else data


def printable(text: str) -> str:
    """A name as one line: line ends and other controls as escapes, bytes that are no text as well."""
    clean = text.encode("utf-8", "backslashreplace").decode("utf-8")
    return "".join(ch if ch.isprintable() else ch.encode("unicode_escape").decode() for ch in clean)
