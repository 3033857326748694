"""The language: composing, binding, settings and overrides, what a resolved plan says."""

# ruff: noqa: E501
from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from augend import names
from augend.address import Address, Slice
from augend.contract import AugendError, Component
from augend.recipes import Plan, check, dump, known, known_settings, load, read_file, resolve, resolved_words
from augend.recipes import settings as load_settings
from augend.recipes.augmentations import expand
from augend.recipes.components import OPTIMIZERS
from augend.recipes.language import assign, compose
from augend.recipes.reading import Place, parse
from augend.recipes.resolve import asked_data
from augend.recipes.words import ops

DIGITS = frozenset({"rotate", "crop"})
PHOTOS = frozenset({"hflip", "colour", "rotate", "crop"})
PLAIN = {"optimizer": {"adam": {"lr": 1e-3}}, "batch": 50, "pixels": "tilt-5"}


def planned(recipe: Any, settings: Any = PLAIN, **changed: Any) -> Plan:
    given: dict[str, Any] = {
        "sizes": {"main": 1000, "base": 5000},
        "traits": {"main": DIGITS, "base": PHOTOS},
        "data": "digits",
        "model": "figure1",
        "split": "conv3",
        "budget": "1000step",
        "side": 28,
    }
    return resolve(recipe, settings, **{**given, **changed})


def trained(plan: Plan) -> list[list[str]]:
    return [[str(part) for part in phase.train] for phase in plan.phases]


# ------------------------------------------------------------------ the procedures of the factoring, embedding families


def test_every_builtin_recipe_is_sound_and_says_when_to_use_it() -> None:
    for recipe in known():
        plan = check(recipe)
        assert Plan.from_json(plan.to_json()) == plan
        assert recipe.words.title and recipe.words.when, recipe.name
        stepping = any(phase.fit is None for phase in plan.phases)
        assert sum(phase.steps or 0 for phase in plan.phases) == plan.budget == (10_000 if stepping else 0)
    assert {"plain", "augmented", "ft", "aug-ft", "augment-then-plain", "dml", "transfer-embed"} <= {
        r.name for r in known()
    }
    assert {"good-practice", "quick", "factoring"} <= set(known_settings())


def test_ft_is_the_papers() -> None:
    plan = planned("ft", "factoring", budget=None)
    first, tune = plan.phases
    assert (plan.budget, first.steps, tune.steps) == (10_000, 5000, 5000)
    assert (first.rows, tune.rows) == (50, 48)  # 16 groups of 3 copies
    assert first.optimizer == tune.optimizer == Component("adam", {"lr": 1e-3})
    assert (first.segment, tune.segment) == (0, 1)
    assert first.views == {"x": ()}
    assert [op.component for op in tune.views["x"]] == [Component("rotations", {"angles": [-30, -15, 0, 15, 30]})]
    assert tune.train == (Slice("net", "conv3"),)
    terms = {term.name: term for term in tune.terms}
    assert terms["cross-entropy"].weight == 0.9 and terms["cross-entropy"].of == (Address("net", "", "x"),)
    assert terms["soft-margin-triplet"].of == (Address("net", "features", "x"),)
    assert terms["soft-margin-triplet"].component.options == {"hardest": 0.2}


def test_aug_ft_changes_order_and_objective_alone() -> None:
    ft, aug = planned("ft").phases, planned("aug-ft").phases
    assert aug[0] == ft[0]
    assert aug[1] == dataclasses.replace(
        ft[1], order=Component("shuffle"), rows=50, terms=(dataclasses.replace(ft[1].terms[0], weight=1.0),)
    )


def test_controls_change_one_thing() -> None:
    assert trained(planned("aug-ft-unfrozen")) == [["net"], ["net"]]
    assert [p.views["x"] for p in planned("plain-restart").phases] == [(), ()]
    assert planned("aug-ft-on-groups").phases[1].rows == 48
    assert [(p.name, p.steps, p.segment) for p in planned("aug-ft-from-0").phases] == [("tune", 1000, 0)]


def test_init_embedding_trains_what_its_term_reaches_at_a_tenth_of_the_rate() -> None:
    embed, classify = planned("init-embedding").phases
    assert embed.train == (Slice("net", None, "classify"),)
    assert (embed.optimizer.options["lr"], classify.optimizer.options["lr"]) == (1e-4, 1e-3)
    assert (embed.segment, classify.segment) == (0, 1)


def test_transfer_embed_wires_roles_networks_and_views() -> None:
    given = {"params": {"base": "cifar100"}, "data": "cifar10", "model": "small", "budget": "400step"}
    assert asked_data("transfer-embed", data="cifar10", params={"base": "cifar100"}).roles == {
        "main": "cifar10",
        "base": "cifar100",
    }
    plan = planned("transfer-embed", **given)
    assert plan.roles == {"main": "cifar10", "base": "cifar100"}
    assert list(plan.networks) == ["source", "net", "omega"]
    assert (plan.networks["source"].classes, plan.networks["net"].classes) == ("base", "main")
    assert plan.networks["net"].input == plan.networks["omega"].input == Address("source", "features")
    assert plan.networks["net"].model.options == {next(iter(plan.networks["net"].model.options)): [1024, 128]}
    assert [(p.name, p.data, p.steps, p.segment) for p in plan.phases] == [
        ("base", "base", 200, 0),
        ("omega", "base", 100, 1),
        ("head", "main", 100, 2),
    ]
    match = plan.phase("omega").terms[0]
    assert (match.of, match.to) == ((Address("omega", "", "z"),), (Address("source", "features", "zg"),))
    (apply,) = plan.phase("head").views["x"]
    assert apply.at == Address("source", "features") and apply.component.options == {"network": "omega", "p": 0.5}
    assert trained(plan) == [["source"], ["omega"], ["net"]]


def test_weights_skip_the_base_phase_and_give_its_share_to_the_rest() -> None:
    plan = planned("transfer-none", params={"weights": "trunk.safetensors"})
    assert [(p.name, p.steps, p.segment) for p in plan.phases] == [("head", 1000, 0)]
    assert plan.networks["source"].weights == "trunk.safetensors"
    assert planned("transfer-none").phase("base").steps == 667


def test_dml_has_two_results_and_one_joint_term() -> None:
    plan = planned("dml", params={"peer": {"mlp": [32]}})
    assert plan.result == ("net", "peer")
    assert plan.networks["peer"].model.word == "mlp"
    terms = {term.name: term for term in plan.phases[0].terms}
    assert terms["mutual"].of == terms["cross-entropy"].of == (Address("net", "", "x"), Address("peer", "", "x"))
    assert trained(plan) == [["net", "peer"]]


# ----------------------------------------------------------------------------------- every example of the language

EXAMPLES = """
distill:
  params: {student: small}
  networks:
    teacher: {model: $model}
    student: {model: $student}
    readout: {model: linear, input: student.features}
  result: readout
  phases:
  - {name: teach, objective: {cross-entropy: {of: teacher}}, train: teacher}
  - {name: match, augment: {views: {upright: none, tilted: pixels}}, train: student, optimizer: fresh,
     objective: {match: {of: student.features@tilted, to: teacher.features@upright}}}
  - {name: readout, start: {readout: "teacher[classify:]"}, train: [student, readout], optimizer: fresh}
distill-high: {like: distill, params: {student: figure1}, set: {match.start: {student: teacher}, match.train: "student[conv3:]", readout.train: ["student[conv3:]", readout]}}
base: {phases: [{name: base, augment: pixels}]}
transfer-pixel-cached: {like: transfer-none, set: {head.augment: pixels, head.cache: {views: 2}}}
transfer-none-none: {like: transfer-none, set: {base.augment: none}}
multi-ait:
  params: {peer: $model}
  networks: {peer: {model: $peer}}
  result: [net, peer]
  phases:
  - {name: train, augment: {views: {a: pixels, b: pixels}}, objective: {cross-entropy: {of: [net@a, peer@b]}, mutual: {weight: 3, of: [net@a, peer@b]}}}
ait-weight-0: {phases: [{name: train, augment: {views: {a: pixels, b: pixels}}}]}
random-encoder:
  networks: {vae: {model: small}, net: {model: {mlp: [32]}, input: vae.features}}
  phases:
  - {name: classify, until: 2share, train: net, optimizer: fresh}
supervised-encoder: {like: random-encoder, set: {classify.train: ["vae[encode]", net]}}
canonicalise:
  params: {vae: required}
  networks: {vae: {model: small, weights: $vae}}
  phases: [{name: plain, augment: [pixels, {apply: {network: vae.picture, p: 0.5}}], train: net}]
large-batch:
  phases:
  - {name: warm, until: 3epoch, augment: pixels, batch: 8x}
  - {name: rest, augment: pixels}
finetune:
  phases:
  - {name: head, train: "net[classify:]"}
  - {name: all, until: 4share, augment: light, optimizer: {fresh: {lr: 0.1x}}}
head-then-upper: {like: finetune, insert: {end: [{name: upper, train: "net[$split:]"}, {name: augmented, augment: pixels, train: "net[$split:]"}]}}
small-then-strong: {phases: [{name: small, size: 0.6x, augment: light}, {name: full, augment: pixels}]}
best-of-each: {phases: [{name: a, augment: pixels, keep: {best: valid/accuracy}}, {name: b, keep: {best: valid/accuracy}, optimizer: {fresh: {lr: 0.2x}}}]}
"""


@pytest.fixture
def examples(tmp_path: Path) -> dict[str, Any]:
    file = tmp_path / "examples.yaml"
    file.write_text(EXAMPLES)
    return dict(read_file(file))


def test_examples_resolve(examples: dict[str, Any]) -> None:
    steps = {
        name: [(phase.name, phase.steps, phase.segment) for phase in planned(one, side=32, params=given).phases]
        for name, one in examples.items()
        for given in [{"vae": "vae.safetensors"} if name == "canonicalise" else {}]
    }
    assert steps["distill"] == [("teach", 333, 0), ("match", 334, 1), ("readout", 333, 2)]
    assert steps["large-batch"] == [("warm", 8, 0), ("rest", 992, 0)]  # 3 x 1000 pictures in rows of 400
    assert steps["finetune"] == [("head", 200, 0), ("all", 800, 1)]
    assert steps["head-then-upper"] == [("head", 143, 0), ("all", 571, 1), ("upper", 143, 1), ("augmented", 143, 1)]
    assert steps["random-encoder"] == [("classify", 1000, 0)]
    assert steps["small-then-strong"] == [("small", 500, 0), ("full", 500, 0)]
    for name, one in examples.items():
        plan = planned(one, side=32, params={"vae": "vae.safetensors"} if name == "canonicalise" else {})
        assert Plan.from_json(plan.to_json()) == plan


def test_examples_say_what_they_mean(examples: dict[str, Any]) -> None:
    distill = planned(examples["distill"])
    assert list(distill.networks) == ["teacher", "student", "readout"]  # `net` is reached by nothing
    match = distill.phase("match")
    assert match.terms[0].of == (Address("student", "features", "tilted"),)
    assert match.views["upright"] == () and match.views["tilted"][0].component.word == "rotations"
    assert distill.phase("readout").start == {"readout": Slice("teacher", "classify")}
    assert trained(planned(examples["distill-high"]))[1:] == [["student[conv3:]"], ["student[conv3:]", "readout"]]
    two = planned(examples["ait-weight-0"]).phases[0].terms[0]
    assert two.of == (Address("net", "", "a"), Address("net", "", "b"))  # without `of`: the result in every view
    assert planned(examples["transfer-pixel-cached"]).phase("head").cache == 2
    assert planned(examples["large-batch"]).phase("warm").rows == 400
    assert [p.size for p in planned(examples["small-then-strong"], side=32).phases] == [19, None]
    assert [p.optimizer.options["lr"] for p in planned(examples["best-of-each"]).phases] == [1e-3, 2e-4]
    assert [p.keep for p in planned(examples["best-of-each"]).phases] == ["valid/accuracy"] * 2
    with pytest.raises(AugendError, match=r"\$vae is required and has no value; give it as --set vae=VALUE"):
        planned(examples["canonicalise"])


def test_two_tensors_of_one_network_reach_no_further_than_needed() -> None:
    terms = {"cross-entropy": {"of": "head"}, "match": {"of": "net.features", "to": "peer.features"}}
    networks = {"peer": {"model": "small"}, "head": {"model": "linear", "input": "net.features"}}
    plan = planned({"networks": networks, "result": "head", "phases": [{"name": "a", "objective": terms}]})
    assert trained(plan) == [["net[:classify]", "head"]]  # not net's own last stage, and not what is matched to


# ---------------------------------------------------------------------------------------- precedence and overrides


def test_precedence_is_defaults_recipe_settings_command_line() -> None:
    recipe = {"phases": [{"name": "a", "until": "100step", "cache": False}, {"name": "b", "optimizer": "fresh"}]}
    fixed = {**PLAIN, "phases": {"recipe.a": {"until": "200step"}, "other.a": {"until": "1step"}}}
    assert planned(recipe).phase("a").steps == 100
    assert planned(recipe, fixed).phase("a").steps == 200
    assert planned(recipe, fixed).phase("a").cache is False
    assert planned(recipe, fixed, overrides=["a.until=300step"]).phase("a").steps == 300
    assert planned(recipe, fixed, overrides=["a.until=300step"]).phase("b").steps == 700


def test_settings_fix_recipes_made_like_one_and_the_nearer_wins(tmp_path: Path) -> None:
    file = tmp_path / "mine.yaml"
    file.write_text("mine: {like: aug-ft, set: {tune.train: all}}\nnested: {like: mine, drop: [plain]}\n")
    fixes = {"ft.tune": {"until": "30%", "cache": True}, "mine.tune": {"until": "40%"}, "ft.plain": {"until": "10%"}}
    block = {**PLAIN, "pixels": "tilt-5", "phases": fixes}
    plan = planned(f"{file}:mine", block)
    assert [phase.steps for phase in plan.phases] == [100, 400]
    assert plan.phase("tune").cache is True
    assert [phase.steps for phase in planned(f"{file}:nested", block).phases] == [400]


def test_settings_like_others_say_only_what_differs(tmp_path: Path) -> None:
    (tmp_path / "base.yaml").write_text(
        "{like: factoring, batch: 7, phases: {aug-ft.tune: {until: 5epoch, size: 8}, ft.tune: {until: 1epoch}}}"
    )
    (tmp_path / "mine.yaml").write_text("{like: base.yaml, clip: 2.0, phases: {aug-ft.tune: {until: 9epoch}}}")
    mine, below = load_settings(tmp_path / "mine.yaml"), load_settings("factoring")
    assert (mine.words.batch, mine.words.clip) == (7, 2.0)
    assert mine.words.optimizer == below.words.optimizer and mine.words.pixels == below.words.pixels
    assert dict(mine.words.phases) == {
        **below.words.phases,
        "aug-ft.tune": {**below.words.phases.get("aug-ft.tune", {}), "until": "9epoch", "size": 8},
        "ft.tune": {**below.words.phases.get("ft.tune", {}), "until": "1epoch"},
    }
    assert "like" not in mine.raw and load_settings({"like": "quick", "clip": 3.0}).words.clip == 3.0
    assert (
        load_settings("procedures/sums-full").words.optimizer == load_settings("procedures/sums-1000").words.optimizer
    )


def test_settings_give_a_phase_its_own_optimizer_and_schedule() -> None:
    head = {
        "optimizer": {"sgd": {"lr": 0.01, "momentum": 0.9}},
        "schedule": {"lr": {"steps": {"factor": 0.1, "at": [0.5, 0.75]}}},
    }
    block = {**PLAIN, "schedule": {"lr": "cosine"}, "phases": {"transfer-none.head": head}}
    base, head_plan = planned("transfer-none", block).phases
    assert (base.optimizer.word, base.schedule.word, base.segment) == ("adam", "cosine", 0)
    assert head_plan.optimizer == Component("sgd", {"lr": 0.01, "momentum": 0.9})
    assert (head_plan.schedule.word, head_plan.segment) == ("steps", 1)
    with pytest.raises(
        AugendError, match=r"override optimizer: the settings .settings. fix another optimizer for phase head"
    ):
        planned("transfer-none", block, overrides=["optimizer.lr=3e-4"])


def test_a_segment_keeps_its_optimizer_and_schedule() -> None:
    recipe = {
        "phases": [{"name": "a", "optimizer": {"fresh": {"lr": "0.5x"}}, "schedule": {"lr": "cosine"}}, {"name": "b"}]
    }
    a, b = planned(recipe).phases
    assert (a.segment, b.segment) == (0, 0)
    assert b.optimizer.options["lr"] == 5e-4 and b.schedule.word == "cosine"


def test_overrides_reach_settings_phases_and_parameters() -> None:
    says = [
        "optimizer.lr=3e-4",
        "batch=20",
        "tune.augment=[hflip, {crop: 2}]",
        "tune.until=25%",
        "split=conv2",
        "smoothing=0.2",
    ]
    plan = planned("aug-ft", overrides=says)
    tune = plan.phase("tune")
    assert (tune.optimizer.options["lr"], tune.rows, tune.steps) == (3e-4, 20, 250)
    assert [op.component for op in tune.views["x"]] == [Component("hflip"), Component("crop", {"padding": 2})]
    assert tune.train == (Slice("net", "conv2"),)
    assert tune.terms[0].component.options == {"smoothing": 0.2}
    assert planned("aug-ft", overrides=["budget=40step"], budget=None).budget == 40
    assert planned("aug-ft", overrides=["optimizer=adamw", "optimizer.lr=0.1"]).phases[0].optimizer.word == "adamw"
    assert planned("ft", overrides=["tune.objective.soft-margin-triplet.weight=0"]).phase("tune").terms[1].weight == 0


@pytest.mark.parametrize(
    ("tree", "path", "value", "result"),
    [
        ({}, "a", 1, {"a": 1}),
        ({"optimizer": {"adam": {"lr": 1}}}, "optimizer.lr", 2, {"optimizer": {"adam": {"lr": 2}}}),
        ({"optimizer": {"adam": {"lr": 1}}}, "optimizer.adam.lr", 2, {"optimizer": {"adam": {"lr": 2}}}),
        ({"optimizer": "fresh"}, "optimizer.lr", "2x", {"optimizer": {"fresh": {"lr": "2x"}}}),
        (
            {"schedule": {"lr": "cosine"}},
            "schedule.lr.warmup",
            "5%",
            {"schedule": {"lr": {"cosine": {"warmup": "5%"}}}},
        ),
        ({"objective": {"t": 0.9}}, "objective.t.weight", 0.5, {"objective": {"t": {"weight": 0.5}}}),
        ({"objective": {"t": 0.9}}, "objective.t.hardest", 1, {"objective": {"t": {"weight": 0.9, "hardest": 1}}}),
        ({"objective": {"t": 0.9}}, "objective.u", 1, {"objective": {"t": 0.9, "u": 1}}),
        ({"order": {"groups": {"copies": 3}}}, "order.copies", 2, {"order": {"groups": {"copies": 2}}}),
    ],
)
def test_assign(tree: dict[str, Any], path: str, value: Any, result: dict[str, Any]) -> None:
    before = dump(tree) if tree else ""
    assert assign(tree, path.split("."), value, Place("t")) == result
    assert (dump(tree) if tree else "") == before  # never in place


def test_python_and_yaml_say_the_same(tmp_path: Path) -> None:
    words = {"like": "ft", "set": {"tune.until": "30%"}, "insert": {"tune": [{"name": "between", "until": "10step"}]}}
    file = tmp_path / "mine.yaml"
    file.write_text(dump(words))
    assert planned(load(words, name="mine")).phases == planned(file).phases
    assert planned(file).recipe == "mine"


def test_resolved_words_load_as_the_same_plan() -> None:
    for recipe in known():
        words = resolved_words(recipe, PLAIN)
        again = load(parse(dump(words), "again"), name=recipe.name)
        given = {name: name for name, value in compose(recipe).params.items() if value == "required"}
        assert planned(again, params=given) == planned(recipe, params=given), recipe.name
    words = resolved_words("aug-ft", PLAIN, overrides=["tune.until=30%"])
    assert "like" not in words and words["phases"][1]["until"] == "30%"


def test_like_finds_a_file_beside_a_file(tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text("phases: [{name: a, until: 10step}]")
    (tmp_path / "second.yaml").write_text("like: first.yaml\ninsert: {end: [{name: b}]}")
    assert [phase.steps for phase in planned(tmp_path / "second.yaml").phases] == [10, 990]


def test_insert_comes_before_drop_before_set() -> None:
    recipe = {
        "like": "ft",
        "insert": {"tune": [{"name": "a"}], "end": [{"name": "z"}]},
        "drop": ["plain", "a"],
        "set": {"z.until": "4share"},
    }
    assert [(p.name, p.steps) for p in planned(recipe).phases] == [("tune", 200), ("z", 800)]
    assert [name for name, _ in compose(load("aug-ft")).lineage] == ["aug-ft", "ft"]


# --------------------------------------------------------------------------------------------- sets of augmentations


def words_of(text: Any, traits: frozenset[str], pixels: Any = "none") -> list[str]:
    return [op.component.word for op in expand(ops(text), ops(pixels), traits, Place("t"))]


def test_sets_keep_labels_and_named_augmentations_are_used() -> None:
    assert words_of("pixels", DIGITS) == []
    assert words_of("none", PHOTOS) == []
    for name in ("light", "standard", "strong"):
        assert words_of(name, DIGITS), name
        assert not {"hflip", "vflip", "trivial"} & set(words_of(name, DIGITS)), name
        assert "hflip" in words_of(name, PHOTOS) and "rotate" not in words_of(name, PHOTOS)
        assert words_of(name, frozenset()) == [], name
    assert "trivial" in words_of("standard", PHOTOS)
    assert "trivial" not in words_of("standard", frozenset({"hflip", "crop"}))
    assert words_of("hflip", DIGITS) == ["hflip"]
    assert words_of("pixels", DIGITS, "standard") == words_of("standard", DIGITS)
    assert words_of(["pixels", {"noise": 0.1}], DIGITS, ["crop", "hflip"]) == ["crop", "hflip", "noise"]
    assert words_of("tilt-5", DIGITS) == ["rotations"]


def test_pixels_follow_the_traits_of_the_phases_data() -> None:
    plan = planned("transfer-pixel", {**PLAIN, "pixels": "light"})
    found = {phase.name: [op.component.word for op in phase.views["x"]] for phase in plan.phases}
    assert found == {"base": ["crop", "hflip"], "head": ["crop"]}


def test_smoothing_reaches_terms_that_have_it_and_do_not_say() -> None:
    block = {**PLAIN, "smoothing": 0.1, "average": 0.9, "clip": 1.0}
    tune = planned("ft", block).phase("tune")
    assert [term.component.options for term in tune.terms] == [{"smoothing": 0.1}, {"hardest": 0.2}]
    assert (tune.average, tune.clip) == (0.9, 1.0)
    own = planned("ft", block, overrides=["tune.objective.cross-entropy.smoothing=0"]).phase("tune")
    assert own.terms[0].component.options["smoothing"] == 0 and own.terms[0].weight == 0.9
    assert load_settings({"like": "quick", "clip": None}).words.clip is None
    for nonsense in (0, -1.0):
        with pytest.raises(AugendError, match=r"clip: found .*; allowed: a number above 0, or null for no clipping"):
            load_settings({"like": "quick", "clip": nonsense})


def test_the_documents_examples_hold(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    text = (Path(__file__).parent.parent / "docs" / "recipes.md").read_text()
    recipe, block = re.findall(r"```yaml\n(.*?)```", text, re.DOTALL)
    assert trained(planned(parse(recipe, "docs"))) == [["net"], ["net[conv3:]"]]
    assert load_settings(parse(block, "docs")).words.clip == 1.0
    monkeypatch.setattr(names, "_ADDED", {kind: dict(words) for kind, words in names._ADDED.items()})
    for code in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(code, {})
    own = {"phases": [{"name": "a", "objective": {"margin-loss": {"of": "net", "margin": 0.5}}}]}
    assert planned(own).phases[0].terms[0].component.options == {"margin": 0.5}


# ------------------------------------------------------------------------------------------------------- the reader


def test_yaml_is_read_as_1_2() -> None:
    read = parse("{lr: 5e-4, a: yes, b: no, c: 010, d: 1:30, e: true, f: 50%, g: 8x}", "t")
    assert read == {"lr": 5e-4, "a": "yes", "b": "no", "c": 10, "d": "1:30", "e": True, "f": "50%", "g": "8x"}
    assert load_settings("factoring").words.optimizer.options["lr"] == 1e-3


def test_optimizers_have_torchs_arguments_and_defaults() -> None:
    import inspect

    for word, name in {"sgd": "SGD", "adam": "Adam", "adamw": "AdamW"}.items():
        signature = inspect.signature(getattr(torch.optim, name)).parameters
        for option, ours in OPTIMIZERS[word].items():
            theirs = signature[option].default
            if option != "lr":
                assert ours.default == (list(theirs) if isinstance(theirs, tuple) else theirs), (word, option)


def test_listing_loads_nothing_heavy() -> None:
    code = (
        "import sys; from augend.recipes import known, settings, load; known(); settings(); load('ft');"
        "print([m for m in ('torch', 'torchvision', 'timm', 'scipy', 'sklearn') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"
