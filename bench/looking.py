"""Networks that look at pictures (`evaluate --shift`, `--decoded`, `--attack`): as given over channels last, same answers.

python bench/looking.py
"""

from __future__ import annotations

from functools import partial

import torch
from torch import Tensor, nn

from augend.contract import Component
from augend.evaluate.shifts import laid_out
from augend.models import build
from common import interleaved, machine, report

NETWORKS = {
    "small": (Component("small", {}), ""),
    "resnet18-cifar": (Component("resnet18-cifar", {}), ""),
    "denoising-vae": (Component("denoising-vae", {}), "picture"),
}


def look(network: nn.Module, pictures: Tensor, wanted: str) -> Tensor:
    """One tensor of a network in evaluation mode."""
    with torch.no_grad():
        out: Tensor = network(pictures, frozenset({wanted}))[wanted]
    return out


def main() -> None:
    torch.set_num_threads(1)
    print(machine())
    for side, rows in ((32, 250), (64, 160)):
        x = torch.rand(rows, 3, side, side, generator=torch.Generator().manual_seed(0))
        last = laid_out(x)
        for name, (spec, wanted) in NETWORKS.items():
            network = build(spec, shape=(3, side, side), classes=10, cuts=(), generator_seed=0).eval()

            arms = {"given": partial(look, network, x, wanted), "last": partial(look, network, last, wanted)}
            given, ours = (arm() for arm in arms.values())
            apart = float((given - ours).abs().max() / given.abs().max())
            found = interleaved(arms, rounds=5)
            ratio = found["given"] / found["last"]
            each = {key: f"{1e3 * seconds:.0f}ms" for key, seconds in found.items()}
            what = f"{name}, {rows} pictures of {side}x{side}, as given over channels last"
            report(what, ratio, ">= 1.0", ratio >= 1 and apart < 1e-4, apart=f"{apart:.0e}", **each)


if __name__ == "__main__":
    main()
