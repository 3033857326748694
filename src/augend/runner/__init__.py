"""Runs a recipe. `loop.run` is the page; the other files are what it stands on:

``assembly`` (plan to live objects), ``outputs`` (forward once, addresses), ``banks`` (the cache of a phase's frozen part),
``lending`` (where other runs find it), ``fitting`` (closed forms), ``augmenters`` (networks that learn to augment: scales,
scores, files), ``sight`` (how orders that score see the networks), ``charge``, ``timing`` (cost of steps),
``keeper`` (where a run is, checkpoints, lines of metrics), ``stop`` (signals), ``monitor`` (looking beside training),
``optimizer``, ``hardware`` (precision and memory format by timing), ``folder`` (a run's files) and ``outcome`` (what a
finished run leaves).
"""
