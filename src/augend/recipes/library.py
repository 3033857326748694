"""Recipes and settings by name or by file: the built-in families, and files of the user's own."""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass
from importlib import resources
from importlib.resources.abc import Traversable
from pathlib import Path
from typing import Any

from augend.contract import AugendError
from augend.names import listed, nearest
from augend.recipes import words
from augend.recipes.reading import Place, dump, parse, plain, read, text_of
from augend.recipes.schema import RecipeWords, SettingsWords, checked

__all__ = ["Recipe", "Settings", "known", "known_settings", "load", "read_file", "settings", "settings_files"]

_CONTROLS = "controls"
_NOT_RECIPES = ("settings",)


@dataclass(frozen=True)
class Recipe:
    """A recipe by name, as written: nothing resolved yet.

    Attributes:
        name: what tables and settings call it.
        words: its keys.
        source: what messages call it: the file's path, or the name of a built-in recipe.
        family: folder of a built-in recipe, empty for others.
        text: the file's own text, comments included; of one among several only its entry, without comments.
    """

    name: str
    words: RecipeWords
    source: str
    family: str = ""
    text: str = ""

    @property
    def title(self) -> str:
        """The plain title, or the name."""
        return self.words.title or self.name

    @property
    def when(self) -> str:
        """When to use it, one line."""
        return self.words.when

    @property
    def place(self) -> Place:
        """Where its mistakes are."""
        return Place(self.source if self.source == self.name else f"{self.source} ({self.name})")


@dataclass(frozen=True)
class Settings:
    """A block of settings by name: `words` as written and checked, `raw` before overrides."""

    name: str
    words: SettingsWords
    raw: Mapping[str, Any]
    source: str

    @classmethod
    def of(cls, name: str, raw: Any, source: str) -> Settings:
        """Settings from a mapping."""
        return cls(name, checked(SettingsWords, raw, Place(source)), raw, source)


def _packaged() -> Traversable:
    return resources.files("augend.recipes")


def _recipe(name: str, tree: Any, source: str, family: str = "", text: str = "") -> Recipe:
    place = Place(source if source == name else f"{source} ({name})")
    try:
        words.name(name)
    except ValueError as error:
        raise place.error(error) from None
    return Recipe(name, checked(RecipeWords, tree, place), source, family, text)


@functools.cache
def _families() -> dict[str, Recipe]:
    """Every built-in recipe by name, families and recipes in alphabetical order, a family's controls last."""
    found: dict[str, Recipe] = {}
    for folder in sorted(_packaged().iterdir(), key=lambda one: one.name):
        if not folder.is_dir() or folder.name in _NOT_RECIPES or folder.name.startswith(("_", ".")):
            continue
        files = [file for file in folder.iterdir() if file.name.endswith(".yaml")]
        for file in sorted(files, key=lambda one: (one.name == f"{_CONTROLS}.yaml", one.name)):
            text, stem = file.read_text(encoding="utf-8"), file.name.removesuffix(".yaml")
            tree = parse(text, f"{folder.name}/{file.name}")
            if stem == _CONTROLS:
                found.update({name: _recipe(name, one, name, folder.name, dump(one)) for name, one in tree.items()})
            else:
                found[stem] = _recipe(stem, tree, stem, folder.name, text)
    return found


def known() -> list[Recipe]:
    """The built-in recipes, family by family.

    >>> [recipe.name for recipe in known() if recipe.family == "factoring"][:3]
    ['aug-ft', 'augment-then-plain', 'augmented']
    """
    return list(_families().values())


def read_file(path: str | Path) -> dict[str, Recipe]:
    """The recipes of a file: one whose keys are a recipe's, or several as {NAME: recipe}.

    A file that holds one recipe gives it the name of the file.
    """
    return dict(_recipes(str(path), text_of(path)))


@functools.lru_cache(maxsize=64)  # a study of forty rows asks for its file hundreds of times
def _recipes(path: str, text: str) -> dict[str, Recipe]:
    tree = parse(text, path)
    if not isinstance(tree, Mapping) or not tree:
        raise AugendError(f"{path}: found {tree!r}; allowed: the keys of a recipe, or {{NAME: recipe}}")
    if any(key in RecipeWords.model_fields for key in tree) or not all(
        isinstance(one, Mapping) for one in tree.values()
    ):
        name = Path(path).stem
        return {name: _recipe(name, tree, path, text=text)}
    return {name: _recipe(name, one, path, text=dump(one)) for name, one in tree.items()}


def is_file(text: str) -> bool:
    """Whether a recipe or settings are named by file (``mine.yaml``, ``mine.yaml:fast``) and not by word."""
    return text.partition(".yaml:")[0].endswith((".yaml", ".yml")) or ".yaml:" in text


def load(what: str | Path | Mapping[str, Any] | Recipe, *, name: str = "recipe") -> Recipe:
    """A recipe by name, by file, or from a Python mapping with the same keys.

    Args:
        what: a built-in name (``aug-ft``), a path (``mine.yaml``, or ``mine.yaml:fast`` where a file holds several), a
            mapping, or a recipe (returned as it is).
        name: what a mapping is called.

    Raises:
        AugendError: in one line: there is no such recipe, or where and what is wrong in it.

    >>> load("aug-ft").title
    'freeze, then augment'
    """
    if isinstance(what, Recipe):
        return what
    if isinstance(what, Mapping):
        return _recipe(name, plain(what, Place(name)), name)
    if isinstance(what, Path) or is_file(what):
        return _from_file(str(what))
    families = _families()
    if what not in families:
        raise AugendError(
            f"there is no recipe {what!r}{nearest(what, list(families))} "
            f"(known: {listed(what, list(families))}; augend recipes list shows them all; a file of your own ends in .yaml)"
        )
    return families[what]


def _from_file(text: str) -> Recipe:
    path, colon, entry = (text, "", "") if Path(text).exists() else text.rpartition(".yaml:")
    if colon:
        path = f"{path}.yaml"
    found = read_file(path or text)
    if entry or len(found) > 1:
        if entry not in found:
            raise AugendError(
                f"{path}: found recipes {', '.join(found)}; name one of them, as {path}:{next(iter(found))}"
                f"{nearest(entry, list(found))}"
            )
        return found[entry]
    return next(iter(found.values()))


def parent(recipe: Recipe) -> Recipe | None:
    """The recipe that `recipe` is like: beside it in its file, a file beside its file, or a built-in one."""
    like = recipe.words.like
    if like is None:
        return None
    beside = Path(recipe.source)
    if not recipe.family and recipe.source != recipe.name:
        if is_file(like):
            return load(str(beside.parent / like))
        siblings = read_file(recipe.source)
        if like in siblings and like != recipe.name:
            return siblings[like]
    families = _families()
    if like not in families and not is_file(like):
        raise recipe.place.at("like").unknown(like, families, "recipe")
    return load(like)


def known_settings() -> list[str]:
    """The names of the built-in settings; those of a paper carry its name."""
    own = [file.name.removesuffix(".yaml") for file in (_packaged() / "settings").iterdir()]
    return sorted({*(name for name in own if name != "augmentations"), *_papers()})


def _papers() -> dict[str, Traversable]:
    folder = resources.files("augend") / "papers"
    if not folder.is_dir():
        return {}
    papers = [one for one in folder.iterdir() if one.is_dir()]
    files = {one.name: one / "settings.yaml" for one in papers}
    for one in papers:  # a paper of several parts has a block for each: settings-sums.yaml
        for file in one.iterdir():
            if file.name.startswith("settings-"):
                files[f"{one.name}/{file.name.removeprefix('settings-').removesuffix('.yaml')}"] = file
    return {name: file for name, file in files.items() if file.is_file()}


def settings(what: str | Path | Mapping[str, Any] | Settings = "good-practice") -> Settings:
    """Settings by name (``good-practice``, ``quick``, or a paper's: ``factoring``), by file, or from a mapping.

    >>> settings("factoring").words.batch
    50
    >>> settings({"like": "factoring", "batch": 32}).words.batch
    32
    """
    if isinstance(what, Settings):
        return what
    if isinstance(what, Mapping):
        name, tree, source, beside = "settings", plain(what, Place("settings")), "settings", None
    elif isinstance(what, Path) or is_file(what):
        name, tree, source, beside = Path(what).stem, read(what), str(what), Path(what).parent
    else:
        name, tree, source, beside = what, _packaged_settings(what), what, None
    own = str(Path(source).resolve()) if beside is not None else source
    return Settings.of(name, _with_likes(tree, Place(source), beside, (own,)), source)


def settings_files(what: str) -> list[Path]:
    """The files that settings are read from, those that they are like included; none of built-in ones."""
    found: list[Path] = []
    while is_file(what) and Path(what) not in found:
        found.append(Path(what))
        like = read(what).get("like")
        if not isinstance(like, str) or not is_file(like):
            break
        what = str(Path(what).parent / like)
    return found


def _packaged_settings(name: str) -> Any:
    names = known_settings()
    if name not in names:
        raise AugendError(
            f"there are no settings {name!r}{nearest(name, names)} (known: {', '.join(names)}; a file ends in .yaml)"
        )
    papers = _papers()
    file = papers[name] if name in papers else _packaged() / "settings" / f"{name}.yaml"
    return parse(file.read_text(encoding="utf-8"), name)


def _with_likes(tree: Any, where: Place, beside: Path | None, above: tuple[str, ...]) -> Any:
    """The keys of settings, with those of the settings they are like where they have none themselves.

    Args:
        beside: the folder of the file, if it is one.
        above: what was read to come here, these settings last.
    """
    if not isinstance(tree, Mapping) or tree.get("like") is None:
        return tree
    like, place = tree["like"], where.at("like")
    if not isinstance(like, str):
        raise place.found(like, "the name or the file of other settings")
    if is_file(like):
        file = Path(like) if beside is None else beside / like
        below, under, name, key = read(file), file.parent, str(file), str(file.resolve())
    elif like in known_settings():
        below, under, name, key = _packaged_settings(like), None, like, like
    else:
        raise place.unknown(like, known_settings(), "settings")
    if key in above:
        raise place.error("these settings are like themselves")
    base = _with_likes(below, Place(name), under, (*above, key))
    checked(SettingsWords, base, Place(name))  # its mistakes are not those of what is like it
    own = {key: value for key, value in tree.items() if key != "like"}
    if isinstance(own.get("phases"), Mapping) and isinstance(base.get("phases"), Mapping):
        phases = dict(base["phases"])
        for path, fix in own["phases"].items():
            both = isinstance(fix, Mapping) and isinstance(phases.get(path), Mapping)
            phases[path] = {**phases[path], **fix} if both else fix
        own["phases"] = phases
    return {**base, **own}
