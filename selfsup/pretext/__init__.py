"""Pretext tasks: what an encoder learns from images without labels. One file per task; `TASKS` names them."""

from selfsup.pretext.protocol import PretextTask
from selfsup.pretext.rotation import RotationTask

TASKS: dict[str, type[PretextTask]] = {"rotation": RotationTask}
