"""Measuring: models, service, conversion, training, each beside its baseline."""
