import pytest
import torch
from torch._dynamo.exc import Unsupported

from cluster_jobs.compiling import one_line_errors
from cluster_jobs.errors import UserError


def test_what_a_compiler_says_becomes_one_line_with_the_way_out() -> None:
    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> None:
        raise RuntimeError("no compiler\non this machine")

    module = torch.nn.Linear(2, 1)
    module.compile(backend=backend)
    with (
        pytest.raises(UserError, match="compile=true.*no compiler on this machine.*compile=false") as caught,
        one_line_errors(),
    ):
        module(torch.ones(1, 2))
    assert "\n" not in str(caught.value)


def test_other_errors_stay_what_they_are() -> None:
    assert issubclass(Unsupported, RuntimeError)
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as caught, one_line_errors():
        torch.nn.Linear(2, 1)(torch.ones(1, 3))
    assert not isinstance(caught.value, UserError)
