"""Freezing and caching in a loop of one's own."""

from __future__ import annotations

import copy
from pathlib import Path

import pytest
import torch
from torch import nn

import augend
from augend.augment.geometry import Rotations
from augend.contract import AugendError


def _network() -> nn.Sequential:
    torch.manual_seed(0)
    return nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Dropout(0.5), nn.Conv2d(4, 4, 3), nn.Flatten(), nn.Linear(4 * 16, 2)
    )


def _low(model: nn.Module) -> list[torch.Tensor]:
    return [t.clone() for n, t in model.state_dict().items() if n[0] in "012"]


def _step(model: nn.Module) -> None:
    optimizer = torch.optim.SGD([p for p in model.parameters() if p.requires_grad], lr=0.1)
    model(torch.randn(5, 1, 8, 8)).square().sum().backward()
    optimizer.step()


@pytest.mark.parametrize("way", ["plain", "deepcopy", "compiled"])
def test_frozen_part_never_moves(way: str) -> None:
    model = _network()
    augend.freeze_below(model, "3")
    used: nn.Module = copy.deepcopy(model) if way == "deepcopy" else model
    if way == "compiled":
        used = torch.compile(model, backend="eager")  # type: ignore[assignment]
    used.train()
    owner = used if way == "deepcopy" else model
    before, high = _low(owner), owner[5].weight.detach().clone()  # type: ignore[index]
    for _ in range(3):
        used.train()
        _step(used)
    assert all(torch.equal(a, b) for a, b in zip(before, _low(owner), strict=True))
    assert not torch.equal(high, owner[5].weight)  # type: ignore[index]


def test_remove_thaws() -> None:
    model = _network()
    handle = augend.freeze_below(model, "3")
    handle.remove()
    handle.remove()
    before = _low(model.train())
    _step(model)
    assert not all(torch.equal(a, b) for a, b in zip(before, _low(model), strict=True))
    assert all(module.training for module in model.modules())


def test_frozen_under_ddp() -> None:
    import torch.distributed as dist

    store = dist.HashStore()
    dist.init_process_group("gloo", store=store, rank=0, world_size=1)
    try:
        model = _network()
        augend.freeze_below(model, "3")
        wrapped = nn.parallel.DistributedDataParallel(model)
        wrapped.train()
        before = _low(model)
        _step(wrapped)
        assert all(torch.equal(a, b) for a, b in zip(before, _low(model), strict=True))
    finally:
        dist.destroy_process_group()


def test_unknown_stage_is_named() -> None:
    with pytest.raises(AugendError, match="9"):
        augend.freeze_below(_network(), "9")


class _Set:
    def __init__(self, n: int = 11) -> None:
        generator = torch.Generator().manual_seed(1)
        self.pictures = torch.randint(0, 256, (n, 1, 8, 8), generator=generator, dtype=torch.uint8)

    def __len__(self) -> int:
        return len(self.pictures)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.pictures[index], index % 3


def test_cached_trunk_equals_recomputing_bit_for_bit(tmp_path: Path) -> None:
    trunk, _ = augend.split_model(_network(), "3")
    data, views = _Set(), Rotations([-30, 0, 30])
    cached = augend.cache_trunk(trunk, data, views, tmp_path / "cache", batch_size=4)
    assert len(cached) == 33 and cached[5][1] == 1 % 3
    trunk.eval()
    order = torch.tensor([7, 32, 0, 16])  # any permutation at the same batch shape
    x = torch.stack([data[int(i) // 3][0] for i in order]).float() / 255
    fresh = trunk(views.apply(x, (order % 3).float()[:, None]))
    assert torch.equal(fresh, torch.stack([cached[int(i)][0] for i in order]))


def test_stale_cache_is_an_error_never_a_hit(tmp_path: Path) -> None:
    model = _network()
    trunk, _ = augend.split_model(model, "3")
    augend.cache_trunk(trunk, _Set(), None, tmp_path / "cache", batch_size=4)
    stamp = (tmp_path / "cache" / "0.rows").stat().st_mtime_ns
    augend.cache_trunk(trunk, _Set(), None, tmp_path / "cache", batch_size=4)
    assert (tmp_path / "cache" / "0.rows").stat().st_mtime_ns == stamp
    with torch.no_grad():
        model[0].weight[0, 0, 0, 0] += 1e-6  # type: ignore[index]
    with pytest.raises(AugendError, match="weights"):
        augend.cache_trunk(trunk, _Set(), None, tmp_path / "cache", batch_size=4)
    with pytest.raises(AugendError, match="data"):
        other = _Set(12)
        with torch.no_grad():
            model[0].weight[0, 0, 0, 0] -= 1e-6  # type: ignore[index]
        augend.cache_trunk(trunk, other, None, tmp_path / "cache", batch_size=4)


def test_infinite_views_are_refused() -> None:
    from augend.augment.geometry import Rotate

    with pytest.raises(AugendError, match="infinite"):
        augend.cache_trunk(nn.Flatten(), _Set(), Rotate(30))
