"""Reads variables of MATLAB files, with errors that name the file."""

from pathlib import Path

import numpy as np
from scipy.io import loadmat

from cluster_jobs.core.errors import UserError


def read_variable(file: Path, name: str, expected: str) -> np.ndarray:
    """The array ``name`` of a file; ``expected`` says in messages what the file should hold.

    Raises:
        UserError: the file is unreadable or lacks the variable.
    """
    try:
        variables = loadmat(file, variable_names=[name])
    except MemoryError:
        raise
    except Exception as error:  # SciPy's parser raises whatever it meets in a damaged file
        raise UserError(f"{file}: expected a MATLAB file with {expected} ({error})") from error
    if name not in variables:
        raise UserError(f"{file}: expected a MATLAB file with {expected} (it has no variable {name!r})")
    return variables[name]
