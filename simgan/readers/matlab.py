"""Variables of MATLAB files that somebody else wrote."""

from pathlib import Path

import numpy as np
from scipy.io import loadmat

from cluster_jobs.core.errors import UserError


def read_variable(file: Path, name: str, expected: str) -> np.ndarray:
    """The array ``name``. Raises UserError naming the file, what was ``expected`` in it and what is wrong."""
    try:
        found = loadmat(file, variable_names=[name])
    except MemoryError:
        raise
    except Exception as error:  # SciPy's parser raises whatever it meets in a damaged file
        raise UserError(f"{file}: expected a MATLAB file with {expected} ({error})") from error
    if name not in found:
        raise UserError(f"{file}: expected a MATLAB file with {expected} (it has no variable {name!r})")
    return found[name]
