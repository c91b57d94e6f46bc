"""Fault campaigns for the cache: break it in every way that is known, count what survives.

`python -m tests.campaign` prints the figures; `--short` is what the test suite runs, `--nightly` the
long form. The one number that must be zero is "lost": wrong bytes served, or a good copy that is gone.
"""
