"""`one-of`: each row gets one augmentation, as that augmentation alone would do it; mistakes are one line."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch

from augend import AugendError, Draws
from augend.augment.chain import Chain
from augend.augment.geometry import HFlip, PaddedCrop, Rotate
from augend.augment.oneof import OneOf, as_chain
from augend.recipes.resolve import check

WRITTEN: list[Any] = ["hflip", [{"crop": {"padding": 2}}, {"rotate": 20}]]


def test_each_row_is_what_its_augmentation_alone_makes_of_it() -> None:
    x, draws = torch.rand(64, 3, 12, 12), Draws(0, "test", 3, 64)
    op = OneOf(WRITTEN, p=0.7)
    params = op.draw(draws, 0.0)
    made, which = op.apply(x, params), params[:, 0].long()
    alone = [Chain([HFlip()]), Chain([PaddedCrop(2), Rotate(20)])]
    own = [chain.apply(x, chain.draw(draws.child(str(place)), 0.0)) for place, chain in enumerate(alone)]
    for row in range(64):
        wanted = x[row] if which[row] == 0 else own[which[row] - 1][row]
        torch.testing.assert_close(made[row], wanted)
    assert set(which.tolist()) == {0, 1, 2}


def test_all_are_equally_likely() -> None:
    which = OneOf(["hflip", "vflip", "trivial"], p=0.75).draw(Draws(0, "test", keys=40_000), 0.0)[:, 0]
    shares = torch.bincount(which.long(), minlength=4) / 40_000
    torch.testing.assert_close(shares, torch.full((4,), 0.25), atol=0.01, rtol=0)


def test_a_recipe_may_write_it_anywhere() -> None:
    recipe = {"phases": [{"name": "a", "augment": ["hflip", {"one-of": [["crop", "hflip"], {"grayscale": 0.1}]}]}]}
    assert check(recipe).phases


def test_it_describes_itself_for_caches() -> None:
    assert json.loads(OneOf(WRITTEN).describe()) == {"one-of": {"of": WRITTEN, "p": 1.0}}
    assert as_chain([]).describe() == "[]"


@pytest.mark.parametrize(
    ("of", "said"),
    [
        ([], "must be a list of augmentations"),
        ("hflip", "must be a list of augmentations"),
        (["hflop"], "'hflop' is no augmentation; did you mean 'hflip'?"),
        ([{"crop": {"paddin": 2}}], "crop has no option 'paddin'; did you mean 'padding'?"),
        ([{"crop": {"padding": 2}, "hflip": 1}], "is no augmentation; write a word or"),
        ([{"rotate": {"degrees": "far"}}], "rotate: degrees"),
        (["mixup"], "mixup mixes pictures"),
        ([{"apply": {"network": "omega"}}], "apply needs a network"),
        ([{"trivial": 3}], "trivial takes no options"),
        ([7], "7 is no augmentation"),
    ],
)
def test_a_mistake_is_one_line(of: Any, said: str) -> None:
    with pytest.raises(AugendError, match=r"one-of|crop|rotate") as caught:
        OneOf(of)
    assert said in str(caught.value) and "\n" not in str(caught.value)
