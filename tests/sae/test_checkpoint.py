"""A training that was killed or stopped ends as if it had not been; foreign checkpoints are refused."""

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
from planted import PlantedStream, assert_same_bits, config

from sae_rna.extraction.language_model import LanguageModel
from sae_rna.extraction.stream import ActivationStream
from sae_rna.sae.autoencoder import Member
from sae_rna.sae.checkpoint import CHECKPOINT
from sae_rna.sae.trainer import train

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


def test_a_run_killed_eight_times_ends_with_the_very_bits_of_one_that_was_not(tiny_model, tmp_path):
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["sae_rna.sae.trainer", "sae_rna.extraction.language_model", __name__])
    whole, whole_table = train_embedded(tiny_model, tmp_path / "whole")
    chance, kills = random.Random(7), 0
    while kills < 8:
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
            assert child.exitcode == 0 and kills >= 5, f"the run ended after {kills} kills: make it longer"
            break
    resumed, table = train_embedded(tiny_model, tmp_path / "killed")
    assert_same_bits(whole, resumed)
    pd.testing.assert_frame_equal(
        whole_table.drop(columns="tokens_per_second"), table.drop(columns="tokens_per_second")
    )
    names = [sorted(file.name for file in folder.iterdir()) for folder in parts(tmp_path / "killed")]
    assert names == [[CHECKPOINT, "training.parquet"]] * len(CONFIGS), "what killed writers left is gone"


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


@pytest.mark.parametrize("name", [CHECKPOINT, "training.parquet"])
def test_a_truncated_checkpoint_is_refused_and_left_as_it_is_and_deleting_it_helps(stopped, name):
    file = stopped / name
    file.write_bytes(file.read_bytes()[:-50])
    content = file.read_bytes()
    with pytest.raises(ValueError, match="checkpoint.safetensors is damaged.*delete it"):
        train(PlantedStream(), [config()], epochs=1, learning_rate=1e-3, folders=[stopped])
    assert file.read_bytes() == content
    (stopped / CHECKPOINT).unlink()
    assert len(train(PlantedStream(), [config()], epochs=1, learning_rate=1e-3, folders=[stopped])[1])


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
