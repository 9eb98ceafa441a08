"""Small tasks whose answers are known: landscapes, a system to be identified, a teacher to be learned from.

Each is a data set of the registry without classes: it has a loss, which is half a squared error or the value of a
function, and no accuracy. What a task *is* (its curvatures, its unknown system, its teacher) comes from frozen streams
and is the same for every seed; what is sampled from it comes from the run's seed and the epoch. What is measured on
the validation and test splits is free of noise, so that the best possible loss is 0. docs/tasks.md has the formulas.

>>> task = quadratic(condition=1000.0)
>>> task.classes, task.input_shape                    # what the model `point` needs to know
(10, (10,))
"""

from insgd_lab.training.analytic.filtering import SystemIdentification, system_identification
from insgd_lab.training.analytic.landscapes import Landscape, quadratic, rosenbrock
from insgd_lab.training.analytic.least_squares import LeastSquares, least_squares
from insgd_lab.training.analytic.regression import SQUARED_ERROR, MeanLoss
from insgd_lab.training.analytic.teaching import TeacherStudent, teacher_student

__all__ = [
    "SQUARED_ERROR",
    "Landscape",
    "LeastSquares",
    "MeanLoss",
    "SystemIdentification",
    "TeacherStudent",
    "least_squares",
    "quadratic",
    "rosenbrock",
    "system_identification",
    "teacher_student",
]
