"""The tasks: each checks that two data sets are compatible and scores refined images, most by training a network on
them.
"""

from enum import Enum

from simgan.tasks.digits import Digits
from simgan.tasks.folder import Folder
from simgan.tasks.gaze import Gaze
from simgan.tasks.hand import Hand
from simgan.tasks.protocol import RefinerTask


class TaskName(Enum):
    """The values of the key ``task``."""

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
