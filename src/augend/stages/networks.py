"""All networks of a procedure, wired to one another, with one method that says which weights move."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import Tensor, nn

from augend.address import Address, Slice
from augend.contract import AugendError
from augend.models.stages import Stages

__all__ = ["Networks", "stage_of"]


def stage_of(tensor: str) -> str:
    """The stage that a tensor enters: ":layer3" -> "layer3", "features" -> "classify"."""
    return "classify" if tensor == "features" else tensor.removeprefix(":")


class Networks(nn.ModuleDict):
    """str -> `Stages`. Every network exists from step 0, so the state dict has one shape for the whole run.

    Args:
        networks: in an order in which each comes after the one that its input comes from.
        inputs: where each starts: None for the pixels, or a tensor of an earlier network.

    Example:
        >>> from augend.contract import Component
        >>> from augend.models import build
        >>> net = build(Component("linear"), shape=(8,), classes=3, generator_seed=0)
        >>> sorted(Networks({"net": net}, {"net": None}).only("net"))
        ['net.model.classify.bias', 'net.model.classify.weight']
    """

    def __init__(self, networks: Mapping[str, Stages], inputs: Mapping[str, Address | None]) -> None:
        super().__init__(dict(networks))
        self.inputs = dict(inputs)

    def stages(self, name: str) -> Stages:
        """The network of that name."""
        network = self[name]
        assert isinstance(network, Stages)
        return network

    def only(self, spec: str | Slice | Sequence[str | Slice]) -> dict[str, nn.Parameter]:
        """Let the weights that `spec` names move and freeze the rest; returns what moves, by full name.

        What moves requires gradients and is in train mode; the rest has no gradient, no running statistics and no
        dropout. This is the only place that touches modes: it is called at the start of a phase and after every
        evaluation.

        Args:
            spec: "all", a slice ("net", "net[layer3:]", "vae[encode]") or a list of slices.
        """
        items = [spec] if isinstance(spec, str | Slice) else list(spec)
        self.requires_grad_(False)
        self.eval()
        for item in items:
            for part in [Slice(name) for name in self] if item == "all" else [self._slice(item)]:
                network = self.stages(part.network)
                for stage in part.covers(network.names):
                    for module in network.modules_of(stage):
                        module.train()
                    for parameter in network.parameters_of(stage):
                        parameter.requires_grad_(True)
        return {name: parameter for name, parameter in self.named_parameters() if parameter.requires_grad}

    def _slice(self, item: str | Slice) -> Slice:
        part = Slice.parse(item) if isinstance(item, str) else item
        if part.network not in self:
            raise AugendError(f"slice {part}: there is no network {part.network!r} (networks: {', '.join(self)})")
        return part

    def first_moving(self, name: str) -> str | None:
        """The first stage of a network with a weight that moves; None when nothing moves."""
        network = self.stages(name)
        for stage in network.names:
            if any(p.requires_grad for p in network.parameters_of(stage)):
                return stage
        return None

    def tensor(self, address: Address, pixels: Tensor) -> Tensor:
        """One tensor for a batch of pictures, through all networks that it depends on: for evaluation and shapes."""
        source = self.inputs[address.network]
        x = pixels if source is None else self.tensor(source, pixels)
        found: dict[str, Tensor] = self.stages(address.network)(x, frozenset({address.tensor}))
        return found[address.tensor]

    def reached(self, names: Sequence[str]) -> list[str]:
        """The networks that these depend on, themselves included, in the order they run."""
        found: set[str] = set()
        waiting = list(names)
        while waiting:
            name = waiting.pop()
            found.add(name)
            source = self.inputs[name]
            if source is not None:
                waiting.append(source.network)
        return [name for name in self if name in found]

    def copy_weights(self, target: str, source: Slice) -> None:
        """Copy the tensors of a slice into a network of the same shape, in order (`start:` of a phase)."""

        def tensors(part: Slice) -> list[tuple[str, Tensor]]:
            network = self.stages(part.network)
            return [
                item
                for stage in part.covers(network.names, "start")
                for module in network.modules_of(stage)
                for item in module.state_dict(keep_vars=True).items()
            ]

        ours, theirs = tensors(Slice(target)), tensors(source)
        if [t.shape for _, t in ours] != [t.shape for _, t in theirs]:
            raise AugendError(
                f"start: {source} does not fit network {target!r}: "
                f"{[(n, tuple(t.shape)) for n, t in theirs][:3]} against {[(n, tuple(t.shape)) for n, t in ours][:3]}"
            )
        with torch.no_grad():
            for (_, mine), (_, other) in zip(ours, theirs, strict=True):
                mine.copy_(other)
