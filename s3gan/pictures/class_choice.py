"""Which classes are shown: a number of them, or those that are named."""

import difflib
from collections.abc import Sequence

from cluster_jobs.core.errors import UserError
from cluster_jobs.core.seeds import key_hash


def choose_classes(wanted: str, names: Sequence[str], seed: int) -> list[int]:
    """Numbers of classes, ascending where a count asks for them, else in the order in which they are named.

    Args:
        wanted: a whole number: that many classes, those with the smallest hash of (seed, name), so that fewer lie
            among more. Anything else: names separated by commas. A single name that is a number, or that holds a
            comma, ends with a comma.
        names: of all classes.

    Raises:
        UserError: no class, or a name that there is not.
    """
    if wanted.strip().isdecimal():
        if int(wanted) < 1:
            raise UserError(f"classes={wanted}: expected a positive number of classes, or names of classes")
        order = sorted(range(len(names)), key=lambda number: (key_hash(seed, names[number]), number))
        return sorted(order[: int(wanted)])
    number_of = {name: number for number, name in reversed(list(enumerate(names)))}
    whole = wanted.strip().removesuffix(",")
    parts = [whole] if whole in number_of else [part.strip() for part in whole.split(",")]
    for part in parts:
        if part not in number_of:
            near = difflib.get_close_matches(part, names, n=1)
            hint = f"did you mean {near[0]!r}?" if near else f"the run's classes are {', '.join(names[:10])}"
            more = f" and {len(names) - 10} more" if not near and len(names) > 10 else ""
            raise UserError(f"classes={wanted}: the run has no class {part!r}; {hint}{more}")
    return [number_of[part] for part in dict.fromkeys(parts)]
