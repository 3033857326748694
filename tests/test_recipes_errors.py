"""Every mistake is one line that names place, what was found, what is allowed and the nearest known name."""

# ruff: noqa: E501
from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from augend import names
from augend.contract import AugendError
from augend.recipes import load, read_file, resolve, settings
from augend.recipes.reading import parse

BLOCK = "{optimizer: {adam: {lr: 1e-3}}, batch: 50, pixels: tilt-5}"

# (recipe, settings, overrides) -> what the line must contain
# fmt: off
BROKEN: dict[str, tuple[str, str, list[str], list[str]]] = {
    "unknown key of a phase": (
        "{phases: [{name: a, untill: 50%}]}", BLOCK, [],
        ["mine", "phase a", "found 'untill'", "allowed: name, data", "did you mean 'until'?"],
    ),
    "unknown key of a recipe": ("{phase: [{name: a}]}", BLOCK, [], ["found key 'phase'", "did you mean 'phases'?"]),
    "unknown order": (
        "{phases: [{name: a, order: grups}]}", BLOCK, [],
        ["phase a, order", "found order 'grups'", "did you mean 'groups'", "did you mean 'groups'?"],
    ),
    "unknown augmentation": (
        "{phases: [{name: a, augment: [pixels, hflop]}]}", BLOCK, [],
        ["phase a, augment", "found augmentation 'hflop'", "did you mean 'hflip'?"],
    ),
    "unknown objective": (
        "{phases: [{name: a, objective: {cross-entrpy: 1}}]}", BLOCK, [],
        ["phase a, objective.cross-entrpy", "did you mean 'cross-entropy'?"],
    ),
    "unknown option": (
        "{phases: [{name: a, order: {groups: {copie: 3}}}]}", BLOCK, [],
        ["phase a, order.groups", "found option 'copie'", "allowed: copies", "did you mean 'copies'?"],
    ),
    "option of the wrong type": (
        "{phases: [{name: a, augment: {hflip: {p: often}}}]}", BLOCK, [],
        ["phase a, augment.hflip.p", "found 'often'", "allowed: a number"],
    ),
    "option out of range": ("{phases: [{name: a, augment: {hflip: 1.5}}]}", BLOCK, [], ["phase a, augment", "from 0 to 1", "1.5"]),
    "a duration without unit": ("{phases: [{name: a, until: 2000}]}", BLOCK, [], ["phase a, until", "found 2000", "2000step"]),
    "a plateau without cap": ("{phases: [{name: a, until: {plateau: {patience: 3}}}]}", BLOCK, [], ["phase a, until", "at most"]),
    "unknown network in an address": (
        "{phases: [{name: a, objective: {cross-entropy: {of: ned}}}]}", BLOCK, [],
        ["phase a, objective.cross-entropy", "found network 'ned'", "allowed: net, input", "did you mean 'net'?"],
    ),
    "unknown view in an address": (
        "{phases: [{name: a, augment: {views: {clean: none, noisy: pixels}}, objective: {cross-entropy: {of: net@noise}}}]}",
        BLOCK, [], ["phase a", "found view 'noise'", "allowed: clean, noisy", "did you mean 'noisy'?"],
    ),
    "unknown network in a slice": (
        "{phases: [{name: a, train: 'nett[conv3:]'}]}", BLOCK, [],
        ["phase a, train", "found network 'nett'", "allowed: net, all", "did you mean 'net'?"],
    ),
    "a slice that is none": ("{phases: [{name: a, train: 'net[conv3'}]}", BLOCK, [], ["phase a, train", "is no slice"]),
    "an address that is none": (
        "{phases: [{name: a, objective: {cross-entropy: {of: 'net features'}}}]}", BLOCK, [],
        ["phase a, objective", "term cross-entropy", "is no address"],
    ),
    "unknown role": ("{phases: [{name: a, data: bas}]}", BLOCK, [], ["phase a, data", "found role 'bas'", "allowed: main"]),
    "test is never named": ("{phases: [{name: a, data: test}]}", BLOCK, [], ["phase a, data", "never names test"]),
    "test is never watched": ("{phases: [{name: a, keep: {best: test/accuracy}}]}", BLOCK, [], ["phase a, keep", "never names test"]),
    "test is no role": ("{data: {test: x}, phases: [{name: a}]}", BLOCK, [], ["data", "never names test"]),
    "a name that YAML 1.1 takes for true": ("{phases: [{name: on}]}", BLOCK, [], ["may be called 'on'"]),
    "a key that YAML 1.1 takes for false": ("{phases: [{name: a, augment: {views: {no: none}}}]}", BLOCK, [], ["called 'no'"]),
    "an import path": ("{phases: [{name: a, order: 'os:system'}]}", BLOCK, [], ["phase a, order", "import path", "--plugin"]),
    "a term without of": ("{phases: [{name: a, objective: {soft-margin-triplet: 1}}]}", BLOCK, [], ["of is missing", "net.features"]),
    "a term without to": ("{phases: [{name: a, objective: {match: {of: net}}}]}", BLOCK, [], ["objective.match", "to is missing"]),
    "a term with a to it does not take": (
        "{phases: [{name: a, objective: {cross-entropy: {of: net, to: input}}}]}", BLOCK, [], ["takes no to", "input@x"],
    ),
    "agreement of one view": (
        "{phases: [{name: a, objective: {mutual: {of: net}}}]}", BLOCK, [],
        ["objective.mutual", "compares tensors", "net@x alone", "second view"],
    ),
    "agreement of views that are not named": (
        "{networks: {peer: {model: small}}, phases: [{name: a, augment: {views: {a: none, b: none}}, objective: {mutual: {of: [net, peer]}}}]}",
        BLOCK, [], ["net names no view", "write net@a"],
    ),
    "a term that reaches nothing that moves": (
        "{like: ft, set: {tune.train: 'net[classify:]'}}", BLOCK, [],
        ["phase tune, objective.soft-margin-triplet", "no gradient of net.features@x reaches", "net[classify:]"],
    ),
    "weights that nothing moves": (
        "{networks: {peer: {model: small}}, result: [net, peer], phases: [{name: a, train: all, objective: {cross-entropy: {of: net}}}]}",
        BLOCK, [], ["phase a, train", "peer gets no gradient"],
    ),
    "a cache of infinitely many outcomes": (
        "{phases: [{name: a, augment: rotate, cache: true}]}", BLOCK, [],
        ["phase a, cache", "finite augmentation", "{views: 8}"],
    ),
    "more copies than outcomes": (
        "{phases: [{name: a, augment: hflip, order: {groups: {copies: 3}}}]}", BLOCK, [],
        ["phase a, order", "3 copies", "2 outcomes"],
    ),
    "a batch smaller than a group": (
        "{phases: [{name: a, augment: pixels, order: groups, batch: 2}]}", BLOCK, [], ["phase a, batch", "no group of 3"],
    ),
    "a share without a budget": ("{phases: [{name: a}]}", BLOCK, ["nothing"], ["phase a, until: 1share needs a budget", "--budget"]),
    "durations over the budget": (
        "{phases: [{name: a, until: 700step}, {name: b, until: 400step}]}", BLOCK, [],
        ["a 700 + b 400", "over the budget of 1000"],
    ),
    "a phase left without a step": (
        "{phases: [{name: a, until: 1000step}, {name: b}]}", BLOCK, [], ["phase b, until: 1share leaves no step"],
    ),
    "a plateau under a schedule that knows its end": (
        "{phases: [{name: a, until: {plateau: {}, at most: 100step}, schedule: {lr: cosine}}]}", BLOCK, [],
        ["phase a, until", "constant or on-plateau", "'cosine'"],
    ),
    "a schedule without its optimizer": (
        "{phases: [{name: a}, {name: b, schedule: {lr: cosine}}]}", BLOCK, [], ["phase b, schedule", "optimizer: fresh"],
    ),
    "an unknown schedule": ("{phases: [{name: a}]}", BLOCK[:-1] + ", schedule: {lr: cosin}}", [], ["found schedule 'cosin'", "'cosine'?"]),
    "an unknown optimizer": ("{phases: [{name: a}]}", "{optimizer: {adm: {lr: 1}}, batch: 5}", [], ["optimizer", "'adm'", "'adam'?"]),
    "an optimizer without a rate": ("{phases: [{name: a}]}", "{optimizer: adam, batch: 5}", [], ["option lr is missing"]),
    "a multiple of nothing": (
        "{phases: [{name: a, optimizer: {fresh: {momentum: 2x}}}]}", BLOCK, [], ["phase a, optimizer.fresh.momentum", "multiple of nothing"],
    ),
    "settings without a batch": ("{phases: [{name: a}]}", "{optimizer: {adam: {lr: 1}}}", [], ["settings: batch is missing"]),
    "an unknown key of settings": ("{phases: [{name: a}]}", BLOCK[:-1] + ", bacth: 4}", [], ["settings: found key 'bacth'", "'batch'?"]),
    "settings for a phase that is not there": (
        "{phases: [{name: a}]}", BLOCK[:-1] + ", phases: {mine.b: {until: 1step}}}", [],
        ["settings: phases.mine.b", "found phase 'b'", "allowed: a"],
    ),
    "pixels that name themselves": ("{phases: [{name: a, augment: pixels}]}", BLOCK.replace("tilt-5", "pixels"), [], ["pixels"]),
    "like something unknown": ("{like: aug-tf}", BLOCK, [], ["like", "found recipe 'aug-tf'", "did you mean 'aug-ft'?"]),
    "insert before something unknown": ("{like: ft, insert: {tun: [{name: a}]}}", BLOCK, [], ["insert", "'tun'", "'tune'?"]),
    "drop something unknown": ("{like: ft, drop: [plane]}", BLOCK, [], ["drop", "'plane'", "allowed: plain, tune", "'plain'?"]),
    "drop everything": ("{like: plain, drop: [plain]}", BLOCK, [], ["drops every phase"]),
    "set something unknown": ("{like: ft, set: {tune.trane: all}}", BLOCK, [], ["set.tune.trane", "'trane'", "'train'?"]),
    "two phases of one name": ("{phases: [{name: a}, {name: a}]}", BLOCK, [], ["two phases called 'a'"]),
    "an unknown parameter": ("{phases: [{name: a, train: 'net[$splt:]'}]}", BLOCK, [], ["phase a, train", "'$splt'", "'$split'?"]),
    "a required parameter": ("{params: {w: required}, phases: [{name: a, until: $w}]}", BLOCK, [], ["phase a, until", "--set w=VALUE"]),
    "parameters in a circle": ("{params: {a: $b, b: $a}, phases: [{name: x, until: $a}]}", BLOCK, [], ["phase x, until", "circle: a -> b -> a"]),
    "networks in a circle": (
        "{networks: {net: {model: linear, input: b}, b: {model: linear, input: net}}, phases: [{name: a}]}", BLOCK, [],
        ["networks.net.input", "circle: net -> b -> net"],
    ),
    "an augmentation by an unknown network": (
        "{phases: [{name: a, augment: {apply: {network: omga}}}]}", BLOCK, [], ["phase a, augment.network", "network 'omga'"],
    ),
    "a result that is no network": ("{result: nett, phases: [{name: a}]}", BLOCK, [], ["result", "found network 'nett'", "'net'?"]),
    "an override of nothing": ("{phases: [{name: a}]}", BLOCK, ["b.until=1step"], ["override 'b.until=1step'", "(allowed: a,"]),
    "an override without a value": ("{phases: [{name: a}]}", BLOCK, ["a.until"], ["override 'a.until'", "PATH=VALUE"]),
    "an override of an unknown key": ("{phases: [{name: a}]}", BLOCK, ["a.untl=1step"], ["override: a.untl", "'until'?"]),
    "a misspelt setting": ("{phases: [{name: a}]}", BLOCK, ["optimiser.lr=1"], ["override", "'optimiser'", "'optimizer'?"]),
}
# fmt: on


@pytest.mark.parametrize("what", BROKEN)
def test_mistakes_are_one_line(what: str) -> None:
    recipe, block, overrides, fragments = BROKEN[what]
    no_budget = overrides == ["nothing"]
    with pytest.raises(AugendError) as caught:
        resolve(
            load(parse(recipe, "mine"), name="mine"),
            settings(parse(block, "settings")),
            sizes={"main": 1000},
            traits={"main": frozenset({"rotate", "crop"})},
            data="digits",
            model="figure1",
            split="conv3",
            budget=None if no_budget else "1000step",
            overrides=[] if no_budget else overrides,
        )
    line = str(caught.value)
    assert "\n" not in line and len(line) < 500
    for fragment in fragments:
        assert fragment in line, line


def test_the_place_is_the_users_file(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("phases:\n- {name: a, order: shufle}\n")
    with pytest.raises(AugendError, match=r"mine\.yaml \(mine\): phase a, order: found order 'shufle'"):
        resolve(
            file,
            parse(BLOCK, "s"),
            sizes={"main": 1},
            traits={"main": frozenset()},
            data="d",
            model="m",
            budget="9step",
        )


@pytest.mark.parametrize(
    ("text", "fragment"),
    [
        ("a: 1\na: 2", "line 2: found duplicate key"),
        ("phases: [", "line 1: expected"),
        ("a: !!python/object/apply:os.system [ls]", "could not determine a constructor"),
        ("1: 2", "key 1 is int, not text"),
        ("a: &a [*a]", "an alias contains itself"),
        ("when: 2020-01-01", "allowed: text, numbers"),
    ],
)
def test_files_that_cannot_be_read(tmp_path: Path, text: str, fragment: str) -> None:
    file = tmp_path / "bad.yaml"
    file.write_text(text)
    with pytest.raises(AugendError) as caught:
        read_file(file)
    assert str(caught.value).startswith(str(file)) and fragment in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("files", "fragment"),
    [
        ({"a": "{like: b.yaml}", "b": "{like: ../D/a.yaml}"}, "b.yaml: like: these settings are like themselves"),
        ({"a": "{like: a.yaml}"}, "a.yaml: like: these settings are like themselves"),
        ({"a": "{like: factoringg}"}, "a.yaml: like: found settings 'factoringg'; allowed: "),
        ({"a": "{like: [quick]}"}, "a.yaml: like: found ['quick']; allowed: the name or the file of other settings"),
        ({"a": "{like: c.yaml}"}, "c.yaml: there is no such file"),
        ({"a": "{like: b.yaml}", "b": "{like: quick, bacth: 3}"}, "b.yaml: found key 'bacth'"),
        ({"a": "{like: b.yaml, batch: 3}", "b": "{batch: 3}"}, "b.yaml: optimizer is missing"),
        ({"a": "{like: b.yaml}", "b": "[3]"}, "b.yaml: found [3]; allowed: a mapping"),
    ],
)
def test_settings_like_others_have_their_own_mistakes(tmp_path: Path, files: dict[str, str], fragment: str) -> None:
    folder = tmp_path / "D"
    folder.mkdir()
    for name, text in files.items():
        (folder / f"{name}.yaml").write_text(text)
    with pytest.raises(AugendError) as caught:
        settings(folder / "a.yaml")
    assert fragment in str(caught.value) and "\n" not in str(caught.value)


def test_recipes_that_are_not_there(tmp_path: Path) -> None:
    with pytest.raises(AugendError, match="there is no recipe 'augft'; did you mean 'aug-ft'"):
        load("augft")
    with pytest.raises(AugendError, match="there is no such file"):
        load(tmp_path / "none.yaml")
    with pytest.raises(AugendError, match="there are no settings 'good'"):
        settings("good")
    file = tmp_path / "two.yaml"
    file.write_text("one: {phases: [{name: a}]}\ntwo: {like: one}\n")
    with pytest.raises(AugendError, match=r"found recipes one, two; name one of them, as .*two\.yaml:one"):
        load(file)
    assert load(f"{file}:two").name == "two"
    file.write_text("one: {like: two}\ntwo: {like: one}\n")
    with pytest.raises(AugendError, match="circle: one -> two -> one"):
        resolve(f"{file}:one", sizes={}, traits={}, data="d", model="m")


class _Mix:
    """A mixing augmentation whose number of pictures falls, as a gradual sum's does."""

    variants = None

    def sources(self, progress: float) -> int:
        return 4 if progress < 0.5 else 1

    def draw(self, draws: Any, progress: float, copy: Any = None) -> Tensor:
        raise AssertionError("resolving draws nothing")

    def mix(self, x: Any, targets: Any, params: Tensor) -> tuple[Tensor, Tensor]:
        raise AssertionError("resolving mixes nothing")


@pytest.mark.parametrize(
    ("phase", "fragment"),
    [
        ("objective: {soft-margin-triplet: {of: net.features}}", "soft-margin-triplet needs one picture a row"),
        ("order: groups", "groups needs one picture a row"),
        ("until: {plateau: {}, at most: 9step}", "changes with progress"),
        ("cache: true", "finite augmentation"),
    ],
)
def test_mixtures_that_need_one_picture_a_row(monkeypatch: pytest.MonkeyPatch, phase: str, fragment: str) -> None:
    monkeypatch.setitem(names._ADDED["augment"], "mix-test", _Mix)
    tree = parse(f"phases: [{{name: a, augment: [mix-test], {phase}}}]", "mine")
    with pytest.raises(AugendError, match=fragment):
        resolve(
            tree,
            parse(BLOCK, "s"),
            sizes={"main": 100},
            traits={"main": frozenset()},
            data="d",
            model="small",
            budget="9step",
        )
