"""What is simulated and what it is for: each task checks its two domains and scores refined images by their use."""

from enum import Enum

from simgan.tasks.digits import Digits
from simgan.tasks.folder import Folder
from simgan.tasks.gaze import Gaze
from simgan.tasks.hand import Hand
from simgan.tasks.protocol import RefinerTask


class TaskName(Enum):
    digits = "digits"
    gaze = "gaze"
    hand = "hand"
    folder = "folder"


TASKS: dict[TaskName, RefinerTask] = {
    TaskName.digits: Digits(),
    TaskName.gaze: Gaze(),
    TaskName.hand: Hand(),
    TaskName.folder: Folder(),
}
