"""Experiments: one module a study, each writes a page."""
