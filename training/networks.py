"""The networks that can be trained, by kind."""

from typing import Literal

from training.standardise import Standardise
from training.student import Student, StudentConfig
from training.teacher import Teacher, TeacherConfig

Kind = Literal["teacher", "student"]
Config = TeacherConfig | StudentConfig
Network = Teacher | Student
CONFIGS: dict[Kind, type[TeacherConfig] | type[StudentConfig]] = {"teacher": TeacherConfig, "student": StudentConfig}


def build(config: Config, n_classes: int, standardise: Standardise) -> Network:
    """Return the untrained network of a config; `standardise` carries the mean and deviation of the training songs."""
    if isinstance(config, TeacherConfig):
        return Teacher(config, n_classes=n_classes, standardise=standardise)
    return Student(config, n_classes=n_classes, standardise=standardise)
