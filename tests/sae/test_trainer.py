"""Training finds planted directions, treats members as if alone, repeats itself, survives kill -9, and names
what diverges."""

import logging
import multiprocessing
import os
import random
import shutil
import signal
import time
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch

from sae_rna.extraction.language_model import LanguageModel
from sae_rna.extraction.stream import ActivationStream, Standardiser
from sae_rna.parameters import ARCHITECTURES
from sae_rna.sae.autoencoder import AutoencoderConfig, Member, SparseAutoencoders
from sae_rna.sae.checkpoint import CHECKPOINT
from sae_rna.sae.trainer import DENSITY_COLUMNS, DENSITY_EDGES, Trainer, train


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


def everything(stacks):
    return {
        f"{n}.{name}": value for n, stack in enumerate(stacks) for name, value in stack.state_dict().items()
    }


def assert_same_bits(one, two):
    one, two = everything(one), everything(two)
    assert one.keys() == two.keys()
    for name, value in one.items():
        assert torch.equal(value, two[name]), name


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


# -- checkpoints
# -----------------------------------------------------------------------------------------------------

CONFIGS = [
    config("topk", (Member(1, 4), Member(3, 4, seed=1))),
    config("matryoshka", (Member(1, 4),)),
    config("relu-l1", (Member(3, 1e-2),)),
    config("jumprelu", (Member(1, 1e-2),)),
]


def embedded_stream(model_folder):
    """A stream of a real (tiny) language model that does not fit into its buffer: several blocks an epoch."""
    torch.set_num_threads(1)
    generator = np.random.default_rng(0)
    sequences = ["".join(generator.choice(list("ACGU"), generator.integers(20, 50))) for _ in range(900)]
    return ActivationStream(
        LanguageModel.load(str(model_folder)), sequences, [1, 3], batch=128, buffer_tokens=8192
    )


def configs_for(stream):
    return [replace(one, width=stream.model.width, fingerprint=stream.model.fingerprint) for one in CONFIGS]


def parts(folder):
    return [folder / str(number) for number in range(len(CONFIGS))]


def train_embedded(model_folder, folder, slowly=False):
    """What a child process runs: it checkpoints as often as it can, and can be killed anywhere."""
    stream = embedded_stream(model_folder)
    if slowly:
        steps = stream.epochs
        stream.epochs = lambda count, start=0: (x for x in steps(count, start) if time.sleep(0.005) is None)
    configs, seconds = configs_for(stream), 0 if slowly else 1e9
    return train(
        stream, configs, epochs=1.5, learning_rate=3e-3, folders=parts(folder), checkpoint_seconds=seconds
    )


def test_a_run_killed_twenty_times_ends_with_the_very_bits_of_one_that_was_not(tiny_model, tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sae_rna.sae.trainer", "sae_rna.extraction.language_model", __name__])
    whole, whole_table = train_embedded(tiny_model, tmp_path / "whole")
    chance, kills = random.Random(7), 0
    while kills < 20:
        child = context.Process(target=train_embedded, args=(tiny_model, tmp_path / "killed", True))
        child.start()
        file = parts(tmp_path / "killed")[-1] / CHECKPOINT  # those of the others are written before it
        before = file.stat().st_mtime_ns if file.exists() else 0
        while child.is_alive():  # let it get somewhere first, else the run never ends
            if file.exists() and file.stat().st_mtime_ns != before:
                break
            time.sleep(0.01)
        child.join(timeout=chance.uniform(0, 0.25))
        if child.is_alive():
            os.kill(child.pid, signal.SIGKILL)
            child.join()
            assert child.exitcode == -signal.SIGKILL
            kills += 1
        else:
            assert child.exitcode == 0 and kills >= 15, f"the run ended after {kills} kills: make it longer"
            break
    resumed, table = train_embedded(tiny_model, tmp_path / "killed")
    assert_same_bits(whole, resumed)
    pd.testing.assert_frame_equal(
        whole_table.drop(columns="tokens_per_second"), table.drop(columns="tokens_per_second")
    )
    assert not list((tmp_path / "killed").rglob("*.tmp")) or kills


@pytest.fixture
def stopped(tmp_path):
    """A run that was stopped in the middle, after its last checkpoint."""

    class Stopped(PlantedStream):
        def epochs(self, count, start=0):
            for step, x in enumerate(super().epochs(count, start), start):
                if step == 40:
                    raise KeyboardInterrupt
                yield x

    with pytest.raises(KeyboardInterrupt):
        train(Stopped(), [config()], epochs=1, learning_rate=1e-3, folders=[tmp_path], checkpoint_seconds=0)
    return tmp_path


def test_a_stopped_run_goes_on_from_its_checkpoint(stopped):
    seen = []

    class Watched(PlantedStream):
        def epochs(self, count, start=0):
            seen.append(start)
            return super().epochs(count, start)

    resumed, table = train(Watched(), [config()], epochs=1, learning_rate=1e-3, folders=[stopped])
    assert seen == [40]
    whole, expected = train(PlantedStream(), [config()], epochs=1, learning_rate=1e-3)
    assert_same_bits(whole, resumed)
    assert table.step.tolist() == expected.step.tolist()
    assert pd.read_parquet(stopped / "training.parquet").step.tolist() == expected.step.tolist()


def test_autoencoders_that_were_stopped_at_different_steps_end_as_if_none_had_been(stopped, tmp_path):
    folders, configs, seen = (
        [stopped, tmp_path / "fresh"],
        [config(), config("relu-l1", (Member(2, 1e-2),))],
        [],
    )

    class Watched(PlantedStream):
        def epochs(self, count, start=0):
            seen.append(start)
            return super().epochs(count, start)

    resumed, table = train(Watched(), configs, epochs=1, learning_rate=1e-3, folders=folders)
    assert seen == [0]
    whole, expected = train(PlantedStream(), configs, epochs=1, learning_rate=1e-3)
    assert_same_bits(whole, resumed)
    pd.testing.assert_frame_equal(
        table.drop(columns="tokens_per_second"), expected.drop(columns="tokens_per_second")
    )
    assert [set(pd.read_parquet(folder / "training.parquet").architecture) for folder in folders] == [
        {"topk"},
        {"relu-l1"},
    ]


def test_a_truncated_checkpoint_is_refused_and_left_as_it_is(stopped):
    file = stopped / CHECKPOINT
    file.write_bytes(file.read_bytes()[:-50])
    content = file.read_bytes()
    with pytest.raises(ValueError, match="checkpoint.safetensors is damaged.*delete it"):
        train(PlantedStream(), [config()], epochs=1, learning_rate=1e-3, folders=[stopped])
    assert file.read_bytes() == content


@pytest.mark.parametrize(
    ("stream", "changes"),
    [
        ({"seed": 1}, {}),
        ({}, {"learning_rate": 2e-3}),
        ({}, {"epochs": 2}),
        ({}, {"precision": "float32"}),
        ({}, {"configs": "other"}),
    ],
)
def test_a_checkpoint_of_another_run_is_refused_and_kept(stopped, stream, changes):
    content = (stopped / CHECKPOINT).read_bytes()
    arguments = {"epochs": 1, "learning_rate": 1e-3, "precision": "bfloat16"} | changes
    configs = [config(members=(Member(1, 4), Member(2, 5)))] if arguments.pop("configs", None) else [config()]
    shutil.copy(stopped / CHECKPOINT, stopped / "copy")
    with pytest.raises(ValueError, match="other parameters, data or model"):
        train(PlantedStream(**stream), configs, folders=[stopped], **arguments)
    assert (stopped / CHECKPOINT).read_bytes() == content


def test_a_write_that_fails_keeps_the_last_good_checkpoint(stopped, monkeypatch):
    content = (stopped / CHECKPOINT).read_bytes()

    def full(*_, **__):
        raise OSError("No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space"):
        train(
            PlantedStream(), [config()], epochs=1, learning_rate=1e-3, folders=[stopped], checkpoint_seconds=0
        )
    assert (stopped / CHECKPOINT).read_bytes() == content


def test_a_layer_that_the_stream_does_not_read_is_refused():
    with pytest.raises(ValueError, match="no layer 5: it reads layers 1, 2"):
        train(PlantedStream(), [config(members=(Member(5, 4),))], epochs=1, learning_rate=1e-3)


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
