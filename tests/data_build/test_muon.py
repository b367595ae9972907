"""The optimiser makes torch's updates and averages weights as it says."""

import pytest
import torch
from fast_rinalmo import Layout
from multimolecule import RiNALMoConfig
from muon import Optimizer, orthogonalise


@pytest.fixture
def layout():
    return Layout(
        RiNALMoConfig(hidden_size=32, num_hidden_layers=2, num_attention_heads=2, intermediate_size=72)
    )


def test_updates_are_those_of_torch(layout):
    torch.manual_seed(0)
    start = 0.1 * torch.randn(sum(layout.sizes))
    optimizer = Optimizer(layout, start.clone(), decay=0.9)
    matrices, others = [], []
    for name, part in layout.split(start).items():
        if layout.parts[name].muon:
            matrices += [torch.nn.Parameter(m.clone()) for m in part.reshape(-1, *part.shape[-2:])]
        else:
            others.append(torch.nn.Parameter(part.clone()))
    theirs = [torch.optim.Muon(matrices, lr=0.01, weight_decay=0.01, adjust_lr_fn="match_rms_adamw"),
              torch.optim.AdamW(others, lr=0.005, betas=(0.9, 0.98), weight_decay=0.0)]  # fmt: skip
    for _ in range(3):
        gradient = torch.randn(len(start))
        for parameter, values in zip(matrices + others, _pieces(layout, gradient)):
            parameter.grad = values.clone()
        for one in theirs:
            one.step()
        optimizer.step(gradient, 0.01)
    expected = torch.cat([parameter.detach().flatten() for parameter in matrices + others])
    change = (expected - start).abs().mean()
    assert (
        optimizer.weights - expected
    ).abs().mean() < 0.02 * change  # torch orthogonalises in bfloat16, too
    first = optimizer.first_other
    assert torch.allclose(optimizer.weights[first:], expected[first:], atol=1e-6)


def _pieces(layout, vector):
    for name, part in layout.split(vector).items():
        yield from part.reshape(-1, *part.shape[-2:]) if layout.parts[name].muon else [part]


def test_orthogonalised_matrices_have_singular_values_near_one():
    for shape in ((3, 16, 40), (3, 40, 16)):
        values = torch.linalg.svdvals(orthogonalise(torch.randn(shape)).float())
        assert (values > 0.5).all() and (values < 1.4).all()


def test_the_average_of_known_weights_is_known(layout):
    """Weights that move by a known amount: the average lags as the decay says."""
    optimizer = Optimizer(layout, torch.zeros(sum(layout.sizes)), decay=0.75)
    optimizer.step_count = 1000  # far behind the start, where the decay is smaller
    expected = 0.0
    for weight in (4.0, 8.0, 2.0):
        optimizer.weights.fill_(weight)
        optimizer.step(torch.zeros_like(optimizer.weights), rate=0.0)
        expected = 0.75 * expected + 0.25 * weight
    assert optimizer.average == pytest.approx(torch.full_like(optimizer.average, expected).numpy())
