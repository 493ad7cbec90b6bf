"""What is simulated and what it is for: each task checks its two domains and scores refined images by their use."""

from enum import Enum

from simgan.tasks.digits import Digits


class TaskName(Enum):
    digits = "digits"


TASKS = {TaskName.digits: Digits()}
