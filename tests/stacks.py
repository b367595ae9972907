"""Small stacks of autoencoders that several tests share."""

import torch

from sae_rna.extraction.stream import Standardiser
from sae_rna.sae.autoencoder import AutoencoderConfig, Member, SparseAutoencoders

WITH_K = ("topk", "batchtopk", "matryoshka", "relu-l1-matched")
WITH_LAMBDA = ("relu-l1", "relu-l1-mean", "jumprelu")
D, F = 12, 40
DEAD = torch.zeros(2, F, dtype=torch.bool)
DEAD[0, 5:25] = True  # more than the D/2 that AuxK takes
DEAD[1, [0, 3, 39]] = True  # fewer


def config(architecture="topk", **changes):
    """Two members that differ in layer, sparsity and seed."""
    sparsities = (5, 3) if architecture in WITH_K else (0.01, 0.2)
    members = tuple(
        Member(layer, sparsity, seed) for layer, sparsity, seed in zip((1, 4), sparsities, (0, 7))
    )
    values = {"members": members, "width": D, "latents": F, "fingerprint": "abc", "model": "some/model"}
    return AutoencoderConfig(architecture, **values | changes)


def stack(architecture="topk", **changes):
    facts = config(architecture, **changes)
    shape = len(facts.members), facts.width
    return SparseAutoencoders(facts, Standardiser(torch.randn(shape), torch.rand(shape) + 0.5))


def anywhere(architecture, **changes):
    """A stack in float64 as training might leave it: no bias is zero, the encoder is not the decoder."""
    sae = stack(architecture, **changes).double()
    with torch.no_grad():
        sae.encoder_weight += 0.3 * torch.randn_like(sae.encoder_weight)
        sae.decoder_weight += 0.1 * torch.randn_like(sae.decoder_weight)
        sae.encoder_bias.normal_(std=0.3)
        sae.decoder_bias.normal_(std=0.3)
        if architecture == "jumprelu":
            sae.log_threshold.uniform_(-3, 0)
    return sae


def of_model(model, layer: int, latents: int):
    """A TopK autoencoder of one layer of a language model, not trained."""
    facts = AutoencoderConfig("topk", (Member(layer, 8),), width=model.width, latents=latents)
    generator = torch.Generator().manual_seed(0)
    mean, spread = (
        torch.randn(1, model.width, generator=generator),
        torch.rand(1, model.width, generator=generator),
    )
    return SparseAutoencoders(facts, Standardiser(0.1 * mean, spread + 0.5)).requires_grad_(False).eval()
