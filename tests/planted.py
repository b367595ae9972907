"""A stream of activations with known directions, and autoencoders that are trained on it."""

import torch

from sae_rna.extraction.stream import Standardiser
from sae_rna.sae.autoencoder import AutoencoderConfig


class PlantedStream:
    """Tokens that are sparse sums of known directions; the same interface as `ActivationStream`."""

    def __init__(self, layers=(1, 2), directions=24, width=24, tokens=40_000, batch=256, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.directions = torch.nn.functional.normalize(
            torch.randn(directions, width, generator=generator), dim=1
        )
        active = (torch.rand(tokens, directions, generator=generator) < 3 / directions) * torch.rand(
            tokens, directions, generator=generator
        ).add(0.5)
        self.buffer = (active @ self.directions).expand(len(layers), -1, -1).contiguous()
        self.layers, self.batch, self.tokens, self.seed = list(layers), batch, tokens, seed
        self.standardise = Standardiser(torch.zeros(len(layers), width), torch.ones(len(layers), width))

    @property
    def key(self):
        return {"layers": self.layers, "batch": self.batch, "tokens": self.tokens, "seed": self.seed}

    def epochs(self, count, start=0):
        for step in range(start, int(count * self.tokens) // self.batch):
            first = step * self.batch % (self.tokens - self.batch)
            yield self.buffer[:, first : first + self.batch]


def config(architecture="topk", members=((1, 4), (2, 4)), **more):
    return AutoencoderConfig(architecture, members, width=24, latents=48, **more)


def sparsity(architecture):
    return {"relu-l1": 1e-2, "relu-l1-mean": 1e-3, "jumprelu": 1e-2}.get(architecture, 4)


def _everything(stacks):
    return {
        f"{n}.{name}": value for n, stack in enumerate(stacks) for name, value in stack.state_dict().items()
    }


def assert_same_bits(one, two):
    one, two = _everything(one), _everything(two)
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(value, two[name]), name
