"""The report of a study: one HTML file that needs nothing else, and its plots as PNG and SVG files.

`write(study)` needs a folder with `study.json` and `trials/`; it writes `choice.json`, `results.json`, `plots/` and
`report.html` there.
"""

from augend.report.page import write

__all__ = ["write"]
