"""The stages of any classifier: their names, what each owns, and where the network can be cut."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from torch import fx, nn

from augend.contract import AugendError
from augend.models.trace import Cut, Line, Piece, follow, is_dropout
from augend.names import nearest

__all__ = ["Layout", "classifier_path", "layout"]

_EXPANDED = ("stages", "blocks", "layers", "features", "levels")


@dataclass(frozen=True)
class Layout:
    """Where a network can be cut, in both modes, and which stage owns what.

    Attributes:
        lines: the forward in eval and in train mode.
        names: stages in the order in which they are entered.
        modules: stage -> paths of the modules it owns.
        tensors: stage -> paths of the parameters that stand outside of those modules.
        aliases: other names of stages ("fc" -> "classify").
        last: where "classify" begins, in each mode; None when the network is no classifier.
    """

    lines: tuple[Line, Line]
    names: tuple[str, ...]
    modules: dict[str, tuple[str, ...]]
    tensors: dict[str, tuple[str, ...]]
    aliases: dict[str, str]
    last: tuple[Cut, Cut] | None
    kind: str

    def cut(self, name: str) -> tuple[Cut, Cut]:
        """Where stage `name` (or any module that was traced) is entered, in eval and in train mode.

        Raises:
            AugendError: it is never called, or more than one tensor crosses the cut; the message proposes another.
        """
        if self.last is not None and self.aliases.get(name, name) == "classify":
            return self.last
        found = [self._cut(line, name) for line in self.lines]
        return found[0], found[1]

    def _cut(self, line: Line, name: str) -> Cut:
        entry = line.entry(name)
        if entry is None:
            mode = "eval" if line is self.lines[0] else "train"
            raise AugendError(f"split at {name!r}: {self.kind} never calls it in {mode} mode")
        position, tensor = entry
        if tensor is None:
            what = "several tensors enter it"
        else:
            crossing = line.crossing(Cut(position, tensor))
            if not crossing:
                return Cut(position, tensor)
            others = ", ".join(list(dict.fromkeys(map(_spoken, crossing)))[:4])
            what = f"besides the tensor that enters it ({_spoken(tensor)}), what follows uses {others}"
        near = self._near(line, position)
        raise AugendError(
            f"split at {name!r}: {self.kind} cannot be cut there: {what}" + (f"; {near!r} works" if near else "")
        )

    @staticmethod
    def _near(line: Line, position: int) -> str | None:
        for name, _ in sorted(line.leaves().items(), key=lambda leaf: abs(leaf[1] - position)):
            found, tensor = line.entries[name]
            if tensor is not None and tensor.op != "placeholder" and not line.crossing(Cut(found, tensor)):
                return name
        return None

    def piece(self, begin: tuple[Cut, Cut] | None, end: tuple[Cut, Cut] | None) -> tuple[Piece, Piece]:
        """The functions between two cuts, in eval and in train mode."""
        evals, trains = (
            line.piece(begin and begin[mode], end and end[mode])[0] for mode, line in enumerate(self.lines)
        )
        return evals, trains


def classifier_path(model: nn.Module) -> str | None:
    """The module that turns features into classes: timm's `get_classifier`, a Sequential's last child, or the last
    linear layer of `fc`, `head`, `heads`, `classifier` or the whole network; None when there is none."""
    if isinstance(model, nn.Sequential):
        return list(model._modules)[-1] if len(model) else None
    getter: Any = getattr(model, "get_classifier", None)
    if callable(getter):
        found = getter()
        found = found[0] if isinstance(found, tuple | list | nn.ModuleList) and len(found) else found
        for path, module in model.named_modules():
            if module is found and not isinstance(module, nn.Identity):
                return str(path)
    for name in ("fc", "head", "heads", "classifier", ""):
        if name and name not in model._modules:
            continue
        inside = list(model.get_submodule(name).named_modules(prefix=name))
        for kind in (nn.Linear, nn.Conv2d) if name else (nn.Linear,):
            paths = [path for path, module in inside if isinstance(module, kind)]
            if paths:
                return str(paths[-1])
    return None


def _spoken(node: fx.Node) -> str:
    return f"the output of {node.target}" if node.op == "call_module" else f"the value {node.name!r}"


def _ancestors(path: str) -> Iterator[str]:
    while "." in path:
        path = path.rpartition(".")[0]
        yield path


def _containers(model: nn.Module) -> Iterator[str]:
    """Containers whose children are stages of their own, as in `stages.2` and `blocks.6`: by name, or because they hold
    over half of the weights (a numbered one, as `layer4`, is a stage)."""
    if isinstance(model, nn.Sequential):
        return
    half = sum(p.numel() for p in model.parameters()) / 2
    for name, child in model.named_children():
        if isinstance(child, nn.Sequential | nn.ModuleList):
            heavy = not name[-1].isdigit() and sum(p.numel() for p in child.parameters()) > half
            if name in _EXPANDED or heavy:
                yield name
        elif name == "encoder":
            yield name
            yield from (f"{name}.{inner}" for inner in _containers(child))


def layout(model: nn.Module, cuts: Sequence[str] = (), classifier: bool = True) -> Layout:
    """Trace a network and name its stages.

    The stages are the modules that the forward calls one after the other: the children of the root, where children named
    stages, blocks, layers, features or levels (and whatever a cut lies in) stand for their own children. The last stage is
    "classify": the classifier and the dropout before it.

    Args:
        cuts: dotted paths of modules at which the network is to be cut.
        classifier: whether it has a stage "classify".

    Raises:
        AugendError: an unknown name in `cuts` (the nearest known one is said), or a forward that cannot be followed.
    """
    paths = dict(model.named_modules())
    head = classifier_path(model) if classifier else None
    cuts = [cut for cut in cuts if head is None or cut not in ("classify", head)]
    kind = type(model).__name__
    for cut in cuts:
        if cut not in paths or not cut:
            known = [path for path in paths if path]
            tops = [name for name, _ in model.named_children()]
            raise AugendError(f"{kind} has no module {cut!r}{nearest(cut, known)} (its modules: {', '.join(tops)})")
    needed = {above for path in (*cuts, *([head] if head else ())) for above in _ancestors(path)}
    wanted = needed | set(_containers(model))
    try:
        lines = follow(model, wanted, False), follow(model, wanted, True)
    except AugendError:
        if wanted == needed:
            raise
        wanted = needed
        lines = follow(model, wanted, False), follow(model, wanted, True)
    last = None
    if head is not None:
        ends = [_last(line, model, head) for line in lines]
        last = (ends[0], ends[1]) if ends[0] is not None and ends[1] is not None else None
    return _named(model, lines, wanted, cuts, head if last else None, last)


def _last(line: Line, model: nn.Module, head: str) -> Cut | None:
    """Where "classify" begins: at the classifier or the dropout before it; earlier when other tensors pass it by."""
    entry = line.entry(head)
    if entry is None or entry[1] is None:
        return None
    cut = Cut(entry[0], entry[1])
    while is_dropout(cut.tensor, model) and isinstance(cut.tensor.args[0], fx.Node):
        cut = Cut(line.nodes[cut.tensor], cut.tensor.args[0])
    earlier = [Cut(at, tensor) for at, tensor in line.entries.values() if at < cut.position and tensor is not None]
    for found in (cut, *sorted(earlier, key=lambda c: -c.position)):
        if not line.crossing(found):
            return found
    return None


def _named(
    model: nn.Module,
    lines: tuple[Line, Line],
    through: set[str],
    cuts: Sequence[str],
    head: str | None,
    last: tuple[Cut, Cut] | None,
) -> Layout:
    line = lines[0]
    end = last[0].position if last else float("inf")
    called = lines[1].leaves() | line.leaves()
    entered = {name: at for name, at in called.items() if at < end}
    for cut in cuts:  # a container on the way to a deeper cut keeps its name: it begins with its first module
        entry = line.entry(cut)
        if cut not in entered and entry is not None and entry[0] < end:
            entered[cut] = entry[0]
    names = sorted(entered, key=lambda name: (entered[name], name.count("."), name))
    names += ["classify"] if last else []
    modules: dict[str, list[str]] = {name: [] for name in names}
    tensors: dict[str, list[str]] = {name: [] for name in names}
    before = names[0] if names else "classify"
    opened = {above for path in called for above in _ancestors(path)} | through
    for path in _leaves(model, opened - called.keys()):
        if path in called:  # what is never called goes with the module registered before it
            before = path if path in entered else "classify"
        modules[before].append(path)
    uses = {str(node.target): at for node, at in line.nodes.items() if node.op == "get_attr"}
    for path in ("", *sorted(opened - called.keys())):
        for name, _ in model.get_submodule(path).named_parameters(recurse=False):
            full = f"{path}.{name}" if path else name
            at = uses.get(full, 0)
            owners = [stage for stage in names if entered.get(stage, end) <= at]
            tensors[owners[-1] if owners else names[0]].append(full)
    return Layout(
        lines,
        tuple(names),
        {name: tuple(paths) for name, paths in modules.items()},
        {name: tuple(paths) for name, paths in tensors.items()},
        {head: "classify"} if head and head != "classify" else {},
        last,
        type(model).__name__,
    )


def _leaves(model: nn.Module, opened: set[str], prefix: str = "") -> Iterator[str]:
    for name, child in model.named_children():
        path = f"{prefix}.{name}" if prefix else name
        if path in opened:
            yield from _leaves(child, opened, path)
        else:
            yield path
