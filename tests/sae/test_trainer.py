"""Training finds planted directions, treats members as if alone, repeats itself, and names what diverges."""

import logging

import numpy as np
import pytest
import torch
from planted import PlantedStream, assert_same_bits, config, sparsity

from sae_rna.parameters import ARCHITECTURES, FROZEN
from sae_rna.sae.autoencoder import Member, SparseAutoencoders
from sae_rna.sae.trainer import DENSITY_COLUMNS, DENSITY_EDGES, SOFTLY, Trainer, hold_near, train


@pytest.mark.parametrize("architecture", ["topk", "batchtopk"])
@pytest.mark.parametrize("precision", ["float32", "bfloat16"])
def test_the_planted_directions_are_recovered(architecture, precision):
    stream = PlantedStream()
    (sae,), table = train(stream, [config(architecture)], epochs=6, learning_rate=3e-3, precision=precision)
    cosine = torch.nn.functional.normalize(sae.decoder_weight[0], dim=1) @ stream.directions.T
    assert (cosine.max(0).values > 0.9).float().mean() > 0.8
    assert table.explained_variance.iloc[-1] > 0.9


def test_every_architecture_learns_and_reports_every_member():
    configs = [config(name, [Member(layer, sparsity(name)) for layer in (1, 2)]) for name in ARCHITECTURES]
    stacks, table = train(PlantedStream(), configs, epochs=2, learning_rate=3e-3)
    assert [stack.config.architecture for stack in stacks] == list(ARCHITECTURES)
    for (architecture, _), curve in table.groupby(["architecture", "layer"]):
        assert curve.explained_variance.iloc[-1] > curve.explained_variance.iloc[0] + 0.3, architecture
        assert curve.tokens.is_monotonic_increasing
        assert np.allclose(curve.loss, curve.reconstruction + curve.penalty)
    assert (table[table.architecture.isin(["topk", "batchtopk", "matryoshka"])].l0 <= 4 + 1e-6).all()


def test_the_table_counts_what_fired():
    stream = PlantedStream(layers=(1,), tokens=1024)
    stream.buffer += 0.05  # no token is exactly zero
    one = config(members=(Member(1, 4),))
    _, table = train(stream, [one], epochs=1, learning_rate=1e-9, log_points=1, precision="float32")
    with torch.no_grad():
        sae = SparseAutoencoders(one, stream.standardise)
        density = torch.cat([sae.encode(x) for x in stream.epochs(1)], 1)[0].gt(0).double().mean(0)
    row = table.iloc[-1]
    assert row.l0 == pytest.approx(density.sum().item(), abs=0.01)
    expected = [
        ((density <= high) & (density > low)).double().mean().item()
        for low, high in zip((-1, *DENSITY_EDGES), DENSITY_EDGES)
    ]
    histogram = row[list(DENSITY_COLUMNS)].tolist()
    assert histogram == pytest.approx(expected, abs=0.021)  # one latent may stand at an edge
    assert sum(histogram) == pytest.approx(1)


def test_members_of_one_layer_differ_by_seed_and_sparsity_and_share_the_stream():
    members = (Member(1, 2), Member(1, 6), Member(1, 6, seed=1))
    (sae,), table = train(PlantedStream(), [config(members=members)], epochs=1, learning_rate=3e-3)
    end = table[table.step == table.step.max()]
    assert end.l0.round().tolist() == pytest.approx([2, 6, 6], abs=1)
    assert end.explained_variance.iloc[1] > end.explained_variance.iloc[0]
    assert not torch.equal(sae.decoder_weight[1], sae.decoder_weight[2])


def test_training_repeats_itself_bit_by_bit():
    configs = [config(name, [Member(layer, sparsity(name)) for layer in (1, 2)]) for name in ARCHITECTURES]
    assert_same_bits(*(train(PlantedStream(), configs, epochs=0.3, learning_rate=1e-3)[0] for _ in range(2)))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_member_trained_in_a_stack_equals_the_member_trained_alone(architecture):
    members = (Member(1, sparsity(architecture)), Member(2, sparsity(architecture), seed=3))
    (both,), _ = train(PlantedStream(), [config(architecture, members)], epochs=0.3, learning_rate=1e-3)
    (alone,), _ = train(
        PlantedStream(layers=(2,)), [config(architecture, members[1:])], epochs=0.3, learning_rate=1e-3
    )
    for (name, mine), other in zip(list(both.views())[1].state_dict().items(), alone.state_dict().values()):
        assert torch.equal(mine, other), name


def test_a_diverging_member_stops_and_is_named_while_the_others_go_on(caplog):
    class Poisoned(PlantedStream):
        def epochs(self, count, start=0):
            for step, x in enumerate(super().epochs(count, start), start):
                x = x.clone()
                if step == 10:
                    x[1, 0, 0] = torch.inf
                yield x

    configs = [
        config(name, [Member(layer, sparsity(name)) for layer in (1, 2)])
        for name in ("topk", "relu-l1", "jumprelu")
    ]
    with caplog.at_level(logging.WARNING):
        stacks, table = train(Poisoned(), configs, epochs=0.5, learning_rate=1e-3)
    assert [record.getMessage().split(" diverged")[0] for record in caplog.records] == [
        f"the {name} autoencoder of layer 2 (seed 0, {kind} {value:g})"
        for name, kind, value in (("topk", "k", 4), ("relu-l1", "lambda", 0.01), ("jumprelu", "lambda", 0.01))
    ]
    end = table[table.step == table.step.max()]
    assert end.diverged.tolist() == [False, True] * 3
    for stack, calm in zip(stacks, train(PlantedStream(), configs, epochs=0.5, learning_rate=1e-3)[0]):
        assert all(torch.isfinite(value).all() for value in stack.state_dict().values())
        assert torch.equal(stack.decoder_weight[0], calm.decoder_weight[0])


def test_clipping_bounds_the_step_of_each_member_by_itself():
    stream = PlantedStream()
    views = list(SparseAutoencoders(config(), stream.standardise).views())
    trainers = [Trainer(view, 100, 1e-3, "float32") for view in views]
    for trainer, factor in zip(trainers, (1e-3, 1e3)):  # far below and far above the largest norm
        trainer.step(stream.buffer[0, :64] * factor)
    norms = [
        sum(mean.square().sum() for mean in trainer.optimizer.means.values()).sqrt() / 0.1
        for trainer in trainers
    ]
    assert norms[0] < 0.1 and norms[1] == pytest.approx(1, rel=1e-4)


@pytest.mark.parametrize("frozen", FROZEN)
@pytest.mark.parametrize("architecture", ["batchtopk", "relu-l1", "jumprelu"])
def test_what_is_frozen_stays_and_the_rest_learns(architecture, frozen):
    stream, member = PlantedStream(layers=(1,)), (Member(1, sparsity(architecture)),)
    one = config(architecture, member, frozen=frozen)
    drawn = SparseAutoencoders(one, stream.standardise)
    (sae,), table = train(stream, [one], epochs=1, learning_rate=2e-2, precision="bfloat16")
    stays = {name for name, value in drawn.named_parameters() if torch.equal(value, sae.get_parameter(name))}
    assert stays == {"encoder": {"encoder_weight"}, "decoder": {"decoder_weight"}}.get(frozen, set())
    assert table.explained_variance.iloc[-1] > table.explained_variance.iloc[0] + 0.2
    if frozen == "softly":
        cosine = torch.cosine_similarity(sae.decoder_weight[0], drawn.decoder_weight[0])
        assert cosine.min() > SOFTLY - 1e-5 and (cosine < SOFTLY + 1e-3).float().mean() > 0.2


def test_a_frozen_encoder_still_comes_to_the_sparsity_that_is_asked_for():
    stream, member = PlantedStream(layers=(1,)), (Member(1, sparsity("relu-l1-matched")),)
    one = config("relu-l1-matched", member, frozen="encoder")
    _, table = train(stream, [one], epochs=4, learning_rate=2e-2, precision="bfloat16")
    assert not table.diverged.any() and table.l0.iloc[-1] < 2 * sparsity("relu-l1-matched")


def test_a_row_that_turned_too_far_is_turned_back_in_its_plane():
    drawn = torch.tensor([[1.0, 0, 0], [1, 0, 0], [0, 1, 0]])
    rows = torch.tensor([[3.0, 4, 0], [9, 1, 0], [0, -3, 4]])  # cosines .6, .99 and -.6
    hold_near(rows, drawn)
    expected = torch.tensor([[4.0, 3, 0], [9, 1, 0], [0, 4, 3]])
    torch.testing.assert_close(rows, expected)


def test_only_what_can_be_frozen_is_frozen():
    with pytest.raises(
        ValueError, match="'bias' cannot be frozen: choose encoder, decoder, softly, or leave"
    ):
        config(frozen="bias")
