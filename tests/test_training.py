"""Training finds planted directions, treats members alike, repeats itself, and names what diverges."""

import pytest
import torch

from sae_rna.activations import Standardiser
from sae_rna.autoencoder import AutoencoderConfig, SparseAutoencoders
from sae_rna.training import Trainer, train


class PlantedStream:
    """Tokens that are sparse sums of known directions; the same interface as `ActivationStream`."""

    def __init__(self, layers=(1, 2), directions=24, width=24, tokens=40_000, batch=256, seed=0):
        generator = torch.Generator().manual_seed(seed)
        self.directions = torch.nn.functional.normalize(torch.randn(directions, width, generator=generator), dim=1)
        active = (torch.rand(tokens, directions, generator=generator) < 3 / directions) * torch.rand(
            tokens, directions, generator=generator
        ).add(0.5)
        self.x = (active @ self.directions).expand(len(layers), -1, -1).contiguous()
        self.batch, self.tokens, self.buffer = batch, tokens, self.x
        self.standardise = Standardiser(torch.zeros(len(layers), width), torch.ones(len(layers), width))

    def epochs(self, count):
        for step in range(int(count * self.tokens) // self.batch):
            start = step * self.batch % (self.tokens - self.batch)
            yield self.x[:, start : start + self.batch]


def config(architecture="topk", layers=(1, 2), **more):
    return AutoencoderConfig(architecture, layers=layers, width=24, latents=48, k=4, **more)


def test_topk_recovers_the_planted_directions():
    stream = PlantedStream()
    (sae,), table = train(stream, [config()], epochs=6, learning_rate=3e-3, seed=0)
    cosine = torch.nn.functional.normalize(sae.decoder_weight[0], dim=1) @ stream.directions.T
    assert (cosine.max(0).values > 0.9).float().mean() > 0.8
    assert table.explained_variance.iloc[-1] > 0.9


def test_both_architectures_learn_and_report_every_layer():
    stacks, table = train(PlantedStream(), [config(), config("relu-l1", l1=1e-2)], epochs=2, learning_rate=3e-3, seed=0)
    assert len(stacks) == 2
    for (_, _), curve in table.groupby(["architecture", "layer"]):
        assert curve.explained_variance.iloc[-1] > curve.explained_variance.iloc[0] + 0.3
        assert curve.tokens.is_monotonic_increasing
    assert set(map(tuple, table[["architecture", "layer"]].drop_duplicates().to_numpy())) == {
        (name, layer) for name in ("topk", "relu-l1") for layer in (1, 2)
    }
    assert (table[table.architecture == "topk"].l0 <= 4).all()


def test_training_repeats_itself_bit_by_bit():
    one, two = (train(PlantedStream(), [config()], epochs=0.3, learning_rate=1e-3, seed=5)[0][0] for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(one.state_dict().values(), two.state_dict().values()))


def test_a_member_trained_in_a_stack_equals_the_member_trained_alone():
    (both,), _ = train(PlantedStream(), [config()], epochs=0.3, learning_rate=1e-3, seed=5)
    (alone,), _ = train(PlantedStream(layers=(2,)), [config(layers=(2,))], epochs=0.3, learning_rate=1e-3, seed=5)
    torch.testing.assert_close(both.encoder_weight[1:], alone.encoder_weight, atol=1e-5, rtol=1e-4)
    torch.testing.assert_close(both.decoder_weight[1:], alone.decoder_weight, atol=1e-5, rtol=1e-4)


def test_divergence_names_the_layer():
    trainer = Trainer(SparseAutoencoders(config(), PlantedStream().standardise), steps=10, learning_rate=1e-3)
    x = torch.randn(2, 8, 24)
    x[1, 0, 0] = torch.nan
    with pytest.raises(FloatingPointError, match="topk autoencoder of layer 2"):
        trainer.step(x)
