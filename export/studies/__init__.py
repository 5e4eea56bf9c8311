"""Experiments that need bundles."""
