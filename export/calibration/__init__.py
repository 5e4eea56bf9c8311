"""Temperatures, the threshold and its promise, the pictures of both."""
