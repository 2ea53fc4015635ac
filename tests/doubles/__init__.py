"""Providers that can't be reached from tests, as far as their documents say how they behave.

A double refuses what the real one refuses; every rule names where it is written. ``http.py`` is what they share.
"""
