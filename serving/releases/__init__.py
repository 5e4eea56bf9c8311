"""Releases: a store of immutable bundles, its lock, and who follows its latest."""
