"""Scoring song sets."""
