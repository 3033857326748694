"""Pages from templates over one base: escaped, with style and script inside, so that a page needs no other file."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

__all__ = ["rendered"]

HERE = Path(__file__).parent


def rendered(template: str, plots: Mapping[str, str], filters: Mapping[str, Callable[..., Any]], **values: Any) -> str:
    """The HTML of a page. Everything that came from a user is escaped.

    Args:
        template: a file of this folder that extends ``base.html``.
        plots: name -> SVG element, as `augend.report.plots.draw` gives them.
        filters: name -> function of a value.
        values: what the template shows; `written` is the time of now.
    """
    from jinja2 import Environment, FileSystemLoader, StrictUndefined
    from markupsafe import Markup

    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    environment.filters.update(filters)
    return environment.get_template(template).render(
        plots={name: Markup(svg) for name, svg in plots.items()},
        # both files are ours and static; only what the templates put between them is escaped
        style=Markup((HERE / "page.css").read_text(encoding="utf-8")),
        script=Markup((HERE / "page.js").read_text(encoding="utf-8")),
        written=time.strftime("%Y-%m-%d %H:%M", time.localtime()),
        **values,
    )
