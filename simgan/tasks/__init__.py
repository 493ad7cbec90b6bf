"""What is simulated and what it is for: each task checks its two domains and scores refined images by their use."""

from enum import Enum

from simgan.tasks.digits import Digits
from simgan.tasks.folder import Folder
from simgan.tasks.gaze import Gaze
from simgan.tasks.protocol import Task


class TaskName(Enum):
    digits = "digits"
    gaze = "gaze"
    folder = "folder"


TASKS: dict[TaskName, Task] = {TaskName.digits: Digits(), TaskName.gaze: Gaze(), TaskName.folder: Folder()}
