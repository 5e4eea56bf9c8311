"""The registry of studies: a line for each, its name and the module that has its `STUDY`, imported when it is run."""

from importlib import import_module

from segue.errors import ConfigError
from segue.training.studies.study import Study

STUDIES = {
    "baseline-mlp": "segue.training.studies.baseline_mlp",
    "dropout-search": "segue.training.studies.dropout_search",
    "curriculum": "segue.training.studies.curriculum",
    "rnn-steps": "segue.training.studies.rnn_steps",
    "rnn-size-search": "segue.training.studies.rnn_size_search",
    "folds": "segue.training.studies.folds",
    "batch-norm": "segue.training.studies.batch_norm",
    "students": "segue.training.studies.students",
    "cells": "segue.training.studies.cells",
    "blocks": "segue.training.studies.blocks",
    "noise": "segue.training.studies.noise",
    "whole-songs": "segue.training.studies.whole_songs",
    "depth": "segue.training.studies.depth",
    "init": "segue.training.studies.init",
    "rules": "segue.training.studies.rules",
    "convolution": "segue.training.studies.convolution",
    "normalisers": "segue.training.studies.normalisers",
    "norm-rates": "segue.training.studies.norm_rates",
    "training-songs": "segue.training.studies.training_songs",
    "real-songs": "segue.training.studies.real_songs",
    "cascade-rules": "segue.export.studies.cascade_rules",
}


def load_study(name: str) -> Study:
    """Return the study of that name; a `ConfigError` that lists all where there is none."""
    if name not in STUDIES:
        raise ConfigError(
            f"{name}: expected a study, or a TOML file of your own; found neither. Studies: {', '.join(STUDIES)}"
        )
    study = import_module(STUDIES[name]).STUDY
    assert isinstance(study, Study)
    return study
