"""augend: can what data augmentation buys be had for less? Training procedures, compared at equal cost.

Importing this package loads nothing heavy: every public name is looked up in `augend.names` when it is first used.
"""

from typing import Any

from augend.names import PUBLIC, imported, register

__version__ = "0.1.0"
__all__ = [*sorted(PUBLIC), "register"]


def __getattr__(name: str) -> Any:
    if name not in PUBLIC:
        raise AttributeError(f"module 'augend' has no attribute {name!r}")
    value = imported(PUBLIC[name])
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *PUBLIC})
