"""Layers against linear algebra, and against the longer way to compute the same."""

from functools import partial

import pytest
import torch
from torch.nn import functional as F

from s3gan.networks.layers import (
    ConditionalBatchNorm,
    Conv2d,
    DiscriminatorBlock,
    DownConv2d,
    Embedding,
    GeneratorBlock,
    Linear,
    SelfAttention,
    TransposedConv2d,
    UpConv2d,
    fold_spectral_norm,
    iterate_spectral_norm,
    normalised_weight,
)


@pytest.fixture(autouse=True)
def seeded() -> None:
    torch.manual_seed(0)


@pytest.mark.parametrize("layer", [Conv2d(3, 5, 3, normalise=True), Linear(7, 4, normalise=True)])
def test_the_spectral_norm_of_a_weight_becomes_one(layer: Conv2d | Linear) -> None:
    iterate_spectral_norm(layer, 200)
    layer.eval()
    assert torch.linalg.matrix_norm(normalised_weight(layer).flatten(1), 2).item() == pytest.approx(1, abs=1e-4)
    expected = layer.weight / torch.linalg.matrix_norm(layer.weight.flatten(1), 2)
    torch.testing.assert_close(normalised_weight(layer), expected, rtol=1e-4, atol=1e-5)


def test_power_iteration_moves_when_asked_and_rests_in_every_forward() -> None:
    layer = Linear(6, 6, normalise=True)
    before = {name: value.clone() for name, value in layer.state_dict().items()}
    for mode in (True, False):
        layer.train(mode)(torch.randn(2, 6))
        assert all(torch.equal(before[name], value) for name, value in layer.state_dict().items())
    iterate_spectral_norm(layer, 1)
    v = F.normalize(layer.weight.t() @ before["spectral.u"], dim=0)  # Miyato et al. 2018, Algorithm 1
    torch.testing.assert_close(layer.spectral.v, v.detach())
    torch.testing.assert_close(layer.spectral.u, F.normalize(layer.weight @ v, dim=0).detach())
    assert torch.equal(layer.weight, before["weight"])


def test_several_forwards_may_precede_one_backward() -> None:
    layer = Linear(4, 3, normalise=True)
    x = torch.randn(2, 4)
    (layer(x) + layer(x)).sum().backward()
    assert layer.weight.grad is not None and layer.weight.grad.isfinite().all()


def test_the_gradient_treats_the_singular_vectors_as_constants() -> None:
    layer = Linear(4, 3, normalise=True).double()
    x = torch.randn(5, 4, dtype=torch.float64)
    layer(x).square().sum().backward()
    weight = layer.weight.detach().clone().requires_grad_()
    sigma = layer.spectral.u @ weight @ layer.spectral.v  # the vectors that the forward used
    F.linear(x, weight / sigma, layer.bias).square().sum().backward()
    torch.testing.assert_close(layer.weight.grad, weight.grad)


def test_folding_the_norm_into_the_weights_keeps_the_function() -> None:
    norm = partial(ConditionalBatchNorm, condition=6, normalise=True)
    block = GeneratorBlock(4, 2, norm, normalise=True).eval()
    x, condition = torch.randn(3, 4, 5, 5), torch.randn(3, 6)
    expected = block(x, condition)
    assert not any("spectral" in name for name in fold_spectral_norm(block).state_dict())
    torch.testing.assert_close(block(x, condition), expected)


def test_upsampling_and_convolving_are_one_transposed_convolution() -> None:
    layer = UpConv2d(3, 5, normalise=False)
    x = torch.randn(2, 3, 6, 6)
    expected = F.conv2d(F.interpolate(x, scale_factor=2.0), layer.weight, layer.bias, padding=1)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_convolving_and_pooling_are_one_strided_convolution() -> None:
    layer = DownConv2d(3, 5, normalise=False)
    x = torch.randn(2, 3, 6, 6)
    expected = F.avg_pool2d(F.conv2d(x, layer.weight, layer.bias, padding=1), 2)
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_a_transposed_convolution_spreads_every_place_over_four_by_four() -> None:
    layer = TransposedConv2d(3, 5, normalise=False)
    x = torch.randn(2, 3, 4, 6)
    expected = layer.bias.detach()[:, None, None].expand(2, 5, 8, 12).clone()
    expected = F.pad(expected, (1, 1, 1, 1))
    for row in range(4):
        for column in range(6):
            spread = torch.einsum("ni,oihw->nohw", x[:, :, row, column], layer.weight)
            expected[:, :, 2 * row : 2 * row + 4, 2 * column : 2 * column + 4] += spread
    torch.testing.assert_close(layer(x), expected[:, :, 1:-1, 1:-1], rtol=1e-4, atol=1e-5)


def test_a_convolution_with_a_stride_halves_the_map() -> None:
    layer = Conv2d(3, 5, 4, normalise=False, stride=2)
    x = torch.randn(2, 3, 6, 6)
    every_other = F.pad(x, (1, 1, 1, 1)).unfold(2, 4, 2).unfold(3, 4, 2)
    expected = torch.einsum("nihwyx,oiyx->nohw", every_other, layer.weight) + layer.bias[:, None, None]
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("down", [False, True])
@pytest.mark.parametrize("first", [False, True])
@pytest.mark.parametrize("convolved", [False, True])
def test_a_discriminator_block_adds_its_input_to_two_convolutions(down: bool, first: bool, convolved: bool) -> None:
    block = DiscriminatorBlock(4, 6, 4, down=down, first=first, convolved=convolved, normalise=False)
    x = torch.randn(2, 4, 6, 6)
    inner = F.conv2d(x if first else x.clamp(min=0), block.conv1.weight, block.conv1.bias, padding=1).clamp(min=0)
    expected = F.conv2d(inner, block.conv2.weight, block.conv2.bias, padding=1)
    expected = expected + (F.conv2d(x, block.shortcut.weight, block.shortcut.bias) if convolved else x)
    torch.testing.assert_close(block(x), F.avg_pool2d(expected, 2) if down else expected, rtol=1e-4, atol=1e-5)


def test_conditional_batch_norm_scales_normalised_maps_by_what_the_condition_says() -> None:
    layer = ConditionalBatchNorm(3, 4, normalise=False)
    x, condition = torch.randn(6, 3, 5, 5) * 3 + 1, torch.randn(6, 4)
    normal = F.batch_norm(x, None, None, training=True)
    gain, bias = 1 + condition @ layer.gamma.weight.t(), condition @ layer.beta.weight.t()
    torch.testing.assert_close(layer(x, condition), normal * gain[..., None, None] + bias[..., None, None])
    assert layer.gamma.bias is None and layer.beta.bias is None


def test_attention_is_the_identity_at_first_and_softmax_attention_later() -> None:
    layer = SelfAttention(16, normalise=False)
    x = torch.randn(2, 16, 4, 4)
    assert torch.equal(layer(x), x)
    layer.scale.data.fill_(0.5)
    query = layer.query(x).flatten(2)
    key, value = (F.max_pool2d(part(x), 2).flatten(2) for part in (layer.key, layer.value))
    attended = F.scaled_dot_product_attention(*(part.transpose(1, 2) for part in (query, key, value)), scale=1.0)
    expected = x + 0.5 * layer.out(attended.transpose(1, 2).unflatten(2, (4, 4)))
    torch.testing.assert_close(layer(x), expected, rtol=1e-4, atol=1e-5)


def test_an_embedding_is_normalised_as_one_matrix() -> None:
    table = Embedding(10, 4, normalise=True)
    iterate_spectral_norm(table, 200)
    rows = table.eval()(torch.arange(10))
    assert torch.linalg.matrix_norm(rows, 2).item() == pytest.approx(1, abs=1e-4)
