import pytest
import torch

from cluster_jobs.core.errors import UserError
from cluster_jobs.training.compiling import one_line_errors


class Doubling(torch.nn.Module):
    """A network of its own class: torch leaves bare layers of its own uncompiled."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return 2 * x


def test_what_a_compiler_says_becomes_one_line_with_the_way_out() -> None:
    def backend(graph: torch.fx.GraphModule, inputs: list[torch.Tensor]) -> None:
        raise RuntimeError("no compiler\non this machine")

    module = Doubling()
    module.compile(backend=backend)
    with pytest.raises(UserError) as caught, one_line_errors():
        module(torch.ones(1))
    message = str(caught.value)
    assert message.startswith("compile=true: torch.compile failed") and "no compiler on this machine" in message
    assert message.endswith("compile=false trains without it") and "\n" not in message


def test_other_errors_stay_what_they_are() -> None:
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied") as caught, one_line_errors():
        torch.nn.Linear(2, 1)(torch.ones(1, 3))
    assert not isinstance(caught.value, UserError)
