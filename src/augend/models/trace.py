"""Where a network can be cut: its forward as a straight line of module calls, without touching the modules.

`torch.fx` follows the forward of the root and of the containers on the way to a cut; every other module stays a leaf, so its
training flag, control flow, hooks and random numbers stay its own. (Hooks on the root and on those containers do not fire.)
The pieces between cuts are plain functions of (network, tensor) that call the network's own modules, so nothing is copied
or registered twice, and `copy.deepcopy`, `.to` and `state_dict` of the network work as ever.
"""

from __future__ import annotations

import itertools
import linecache
import operator
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

from torch import Tensor, fx, nn
from torch.nn.modules.batchnorm import _BatchNorm
from torch.nn.modules.dropout import _DropoutNd

from augend.contract import AugendError

__all__ = ["Cut", "Line", "Piece", "follow", "is_dropout"]

Piece = Callable[[nn.Module, Tensor], Any]
"""A stretch of a forward: (network, tensor that enters) -> what leaves."""

_DROPOUTS = frozenset(f for f in vars(nn.functional).values() if "dropout" in getattr(f, "__name__", ""))
_NUMBERS = itertools.count()


class Cut(NamedTuple):
    """A place between two steps of a line: what comes at or after `position` may see `tensor` alone."""

    position: int
    tensor: fx.Node


class _Root(nn.Module):
    """Calls the network with its input alone, so that its other arguments keep their defaults while it is traced."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model

    def forward(self, x: Tensor) -> Any:
        return self.model(x)


class _Walk(fx.Tracer):
    """Traces through the modules in `through` alone; notes where each module is first entered, and by which tensor."""

    def __init__(self, through: Iterable[str]) -> None:
        super().__init__(param_shapes_constant=True)
        self.through = frozenset(through)
        self.entries: dict[str, tuple[int, fx.Node | None]] = {}

    def is_leaf_module(self, m: nn.Module, module_qualified_name: str) -> bool:
        return _inside(module_qualified_name) not in self.through

    def getattr(self, attr: str, attr_val: Any, parameter_proxy_cache: dict[str, fx.Proxy]) -> Any:
        if isinstance(attr_val, Tensor) and not isinstance(
            attr_val, nn.Parameter
        ):  # a buffer is read anew at each call
            for name, buffer in self.root.named_buffers():
                if buffer is attr_val:
                    if name not in parameter_proxy_cache:
                        parameter_proxy_cache[name] = self.create_proxy("get_attr", name, (), {})
                    return parameter_proxy_cache[name]
        return super().getattr(attr, attr_val, parameter_proxy_cache)

    def call_module(
        self, m: nn.Module, forward: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> Any:
        path = _inside(self.path_of_module(m))
        first = args[0] if args else next(iter(kwargs.values()), None)
        self.entries.setdefault(path, (len(self.graph.nodes), first.node if isinstance(first, fx.Proxy) else None))
        return super().call_module(m, forward, args, kwargs)


def _inside(target: str) -> str:
    return target.removeprefix("model").removeprefix(".")


@dataclass(frozen=True)
class Line:
    """A forward in one mode, training or not.

    Attributes:
        nodes: the steps in order, with their positions; those without a use or an effect are left out.
        entries: path of a module -> where it is first entered, by which tensor (None: by several).
        stateful: leaves with dropout or running statistics, which must not run twice.
    """

    nodes: Mapping[fx.Node, int]
    entries: Mapping[str, tuple[int, fx.Node | None]]
    result: Any
    stateful: frozenset[str]

    def __deepcopy__(self, memo: dict[int, Any]) -> Line:
        return self  # never changes, and holds no tensor

    def entry(self, path: str) -> tuple[int, fx.Node | None] | None:
        """Where a module, or the first module inside it, is entered; None when it is not."""
        if path in self.entries:
            return self.entries[path]
        inside = [entry for name, entry in self.entries.items() if name.startswith(f"{path}.")]
        return min(inside, key=lambda entry: entry[0], default=None)

    def leaves(self) -> dict[str, int]:
        """Path of each leaf -> position of its first call, in that order."""
        first: dict[str, int] = {}
        for node, position in self.nodes.items():
            if node.op == "call_module":
                first.setdefault(str(node.target), position)
        return first

    def crossing(self, cut: Cut) -> list[fx.Node]:
        """What the steps after a cut use from before it, besides its tensor and what can be had again without data."""
        used = [n for node, position in self.nodes.items() if position >= cut.position for n in node.all_input_nodes]
        fx.node.map_arg(self.result, used.append)
        before = [n for n in dict.fromkeys(used) if self.nodes[n] < cut.position]
        again: dict[fx.Node, bool] = {cut.tensor: True}
        return [n for n in before if not self._again(n, again, {})]

    def _again(self, node: fx.Node, again: dict[fx.Node, bool], fixed: dict[fx.Node, bool]) -> bool:
        """Whether a value from before a cut can be computed after it: from parameters, the batch size, its tensor."""
        if node not in again:
            again[node] = (
                self._fixed(node, fixed)
                or _is_batch_size(node)
                or (
                    node.op in ("call_function", "call_method")
                    and not _has_effect(node)
                    and node.target not in _DROPOUTS
                    and all(self._again(n, again, fixed) for n in node.all_input_nodes)
                )
            )
        return again[node]

    def _fixed(self, node: fx.Node, known: dict[fx.Node, bool]) -> bool:
        """Whether a value depends on parameters and buffers alone."""
        if node not in known:
            known[node] = node.op == "get_attr" or (
                node.op != "placeholder"
                and not _has_effect(node)
                and node.target not in _DROPOUTS
                and node.target not in self.stateful
                and all(self._fixed(n, known) for n in node.all_input_nodes)
            )
        return known[node]

    def piece(self, begin: Cut | None, end: Cut | None) -> tuple[Piece, list[fx.Node]]:
        """The function from one cut to the next (None: the input; the result), and the steps it takes.

        The cuts must have been found free of `crossing`.
        """
        graph = fx.Graph()
        entering = graph.placeholder("x")
        env: dict[fx.Node, fx.Node] = {} if begin is None else {begin.tensor: entering}
        low = -1 if begin is None else begin.position
        high = float("inf") if end is None else end.position

        def copied(node: fx.Node) -> fx.Node:
            if node not in env:
                if node.op == "placeholder":
                    env[node] = entering
                elif begin is not None and self.nodes[node] < low and _is_batch_size(node):
                    env[node] = graph.call_function(_rows, (entering,))
                else:
                    env[node] = graph.node_copy(node, copied)
            return env[node]

        for node, position in self.nodes.items():
            if low <= position < high:
                copied(node)
        graph.output(fx.node.map_arg(self.result if end is None else end.tensor, copied))
        taken = [node for node in env if begin is None or node is not begin.tensor]
        return _function(graph), [node for node in taken if node.op in ("call_module", "get_attr")]


def _function(graph: fx.Graph) -> Piece:
    code = graph.python_code("self")
    name = f"<piece {next(_NUMBERS)} of a network>"
    linecache.cache[name] = (len(code.src), None, code.src.splitlines(keepends=True), name)
    space = dict(code.globals)
    exec(compile(code.src, name, "exec"), space)
    function: Piece = space["forward"]
    return function


def _rows(x: Tensor) -> int:
    return x.shape[0]


def _is_batch_size(node: fx.Node) -> bool:
    """`x.shape[0]`, `x.size(0)`, `x.size()[0]`: the batch size is the same at every cut."""
    if node.op == "call_method" and node.target == "size":
        return node.args[1:] == (0,)
    if node.op != "call_function" or node.target is not operator.getitem or node.args[1] != 0:
        return False
    sizes = node.args[0]
    return isinstance(sizes, fx.Node) and (
        (sizes.op == "call_method" and sizes.target == "size" and len(sizes.args) == 1)
        or (sizes.op == "call_function" and sizes.target is getattr and sizes.args[1] == "shape")
    )


def _has_effect(node: fx.Node) -> bool:
    """Whether a step changes a tensor in place."""
    name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
    inplace = node.op in ("call_function", "call_method") and (
        name.endswith("_") or name in ("setitem", "iadd", "imul")
    )
    return inplace and not name.endswith("__")


def follow(model: nn.Module, through: Iterable[str], training: bool) -> Line:
    """The forward of a network as a line, traced through the modules whose paths are in `through` (the root is always).

    The network is as before afterwards; nothing is computed.

    Raises:
        AugendError: the forward decides by the values of tensors, or makes tensors of its own, outside of its leaves.
    """
    walk = _Walk({"", *through})
    modes = {module: module.training for module in model.modules()}
    try:
        for module in modes:
            module.training = training
        graph = walk.trace(_Root(model))
    except Exception as error:  # any code of the model's may run here, on stand-ins for tensors
        reason = str(error).strip().split("\n")[0] or type(error).__name__
        raise AugendError(f"{type(model).__name__} cannot be followed from module to module ({reason})") from error
    finally:
        for module, mode in modes.items():
            module.training = mode
    nodes = list(graph.nodes)
    result = nodes[-1].args[0]
    live = {nodes[-1]}
    for node in reversed(nodes):
        if node.op in ("placeholder", "call_module") or _has_effect(node) or live.intersection(node.users):
            live.add(node)
    live.remove(nodes[-1])
    for node in live:
        if node.op in ("call_module", "get_attr"):
            if not str(node.target).startswith("model."):
                raise AugendError(f"{type(model).__name__} makes tensors of its own between its modules")
            node.target = _inside(str(node.target))
    stateful = frozenset(
        path
        for path, module in model.named_modules()
        if any(isinstance(part, _DropoutNd | _BatchNorm) for part in module.modules())
    )
    entries = {path: entry for path, entry in walk.entries.items() if path}
    return Line({node: number for number, node in enumerate(nodes) if node in live}, entries, result, stateful)


def is_dropout(node: fx.Node, model: nn.Module) -> bool:
    """Whether a step is a dropout of one tensor."""
    if node.op == "call_module":
        return isinstance(model.get_submodule(str(node.target)), _DropoutNd)
    return node.op == "call_function" and node.target in _DROPOUTS
