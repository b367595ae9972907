"""The fast forward pass is RiNALMo's."""

import pytest
import torch
from fast_rinalmo import FastRiNALMo, Layout
from multimolecule import RiNALMoConfig, RiNALMoForMaskedLM

from sae_rna.parameters import ROOT


@pytest.fixture(scope="module", params=["random", "released"])
def model(request):
    if request.param == "released":
        return RiNALMoForMaskedLM.from_pretrained(ROOT / "data" / "rinalmo-nano").eval()
    torch.manual_seed(0)
    model = RiNALMoForMaskedLM(
        RiNALMoConfig(hidden_size=48, num_hidden_layers=3, num_attention_heads=3, intermediate_size=90)
    ).eval()
    for parameter in model.parameters():  # norms and biases that are neither one nor zero
        parameter.data += 0.1 * torch.randn_like(parameter)
    return model


def batch():
    """Four sequences of unlike length with hidden bases, among them one without."""
    generator, lengths = torch.Generator().manual_seed(1), torch.tensor([40, 33, 12, 5])
    ids = torch.randint(6, 10, (4, 40), generator=generator)
    ids[:3][torch.rand(3, 40, generator=generator) < 0.2] = 4
    ids[:, 0] = 1
    for row, length in enumerate(lengths):
        ids[row, length - 1], ids[row, length:] = 2, 0
    return ids, lengths, (ids != 0).flatten().nonzero()[:, 0]


def test_logits_are_the_librarys(model):
    ids, lengths, places = batch()
    layout = Layout(model.config)
    with torch.no_grad():
        expected = model(ids, attention_mask=(ids != 0).long()).logits.flatten(0, 1)[places]
        fast = FastRiNALMo(layout, torch.float32).logits(
            layout.pack(model.state_dict()), ids, lengths, places
        )
        low = FastRiNALMo(layout).logits(layout.pack(model.state_dict()), ids, lengths, places)
    assert torch.allclose(fast, expected, atol=1e-4)
    assert (low - expected).abs().mean() < 0.02 * expected.abs().mean()


def test_gradients_are_the_librarys(model):
    ids, lengths, places = batch()
    layout = Layout(model.config)
    model.zero_grad()
    logits = model(ids, attention_mask=(ids != 0).long()).logits.flatten(0, 1)[places]
    logits.logsumexp(-1).sum().backward()
    expected = {
        name: p.grad if p.grad is not None else torch.zeros_like(p) for name, p in model.named_parameters()
    }
    vector = layout.pack(model.state_dict()).requires_grad_()
    FastRiNALMo(layout, torch.float32).logits(vector, ids, lengths, places).logsumexp(-1).sum().backward()
    assert torch.allclose(vector.grad, layout.pack(expected), atol=1e-3, rtol=1e-3)


def test_packing_and_unpacking_lose_nothing(model):
    layout = Layout(model.config)
    vector = torch.randn(sum(layout.sizes))
    layout.unpack(vector, model)
    assert torch.equal(layout.pack(model.state_dict()), vector)
    inner = [
        name
        for name, _ in model.named_parameters()
        if "pooler" not in name and name != "lm_head.decoder.bias"
    ]
    assert sorted(name for part in layout.parts.values() for name in part.names) == sorted(inner)
