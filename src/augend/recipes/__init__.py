"""Recipes: training procedures as lists of phases, in YAML or Python, resolved into a `Plan` that is run.

>>> from augend.recipes import load
>>> load("plain").words.phases
[{'name': 'plain'}]
"""

from augend.recipes.durations import resolve_steps
from augend.recipes.library import Recipe, Settings, known, known_settings, load, read_file, settings
from augend.recipes.plan import Plan
from augend.recipes.reading import dump
from augend.recipes.resolve import check, resolve, resolved_words, settings_rate
from augend.recipes.schedules import OnPlateau, rate

__all__ = [
    "OnPlateau",
    "Plan",
    "Recipe",
    "Settings",
    "check",
    "dump",
    "known",
    "known_settings",
    "load",
    "rate",
    "read_file",
    "resolve",
    "resolve_steps",
    "resolved_words",
    "settings",
    "settings_rate",
]
