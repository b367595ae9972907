"""Pre-training: schedule, curriculum, resume, workers, and that what it releases loads."""

import json
from dataclasses import replace

import pytest
import torch
from pretrain import Curriculum, Run
from safetensors.torch import load_file
from synthetic import STAGES

from sae_rna.language_model import LanguageModel


@pytest.fixture(scope="module")
def whole(recipe, corpus, tmp_path_factory):
    """A run that was never stopped."""
    run = Run(recipe, corpus, tmp_path_factory.mktemp("whole"), every=32)
    run.train()
    return run


def test_a_stage_ends_when_its_own_accuracy_is_reached():
    curriculum = Curriculum()
    curriculum.report(0, STAGES[0][1] - 0.2)
    assert curriculum.stage == 0
    for _ in range(9):
        curriculum.report(0, 1.0)
    assert curriculum.stage == 1


def test_the_learning_rate_warms_up_stays_and_falls_to_zero(recipe):
    recipe = replace(
        recipe,
        tokens=recipe.batch_tokens * recipe.batches * 1000,
        anneal=0.25,
        warmup_steps=10,
        learning_rate=2.0,
    )
    assert [recipe.rate(step) for step in (0, 9, 750, 875, 1000)] == [0.2, 2.0, 2.0, 1.0, 0.0]


def test_samples_of_little_noise_come_first(recipe):
    sharpness = [replace(recipe, tokens=1e6, sharpness=2.0).mixture(pool).sharpness for pool in (0, 5, 40)]
    assert sharpness[0] == 2.0 > sharpness[1] > sharpness[2] == 0.0


def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(whole, recipe, corpus, tmp_path):
    """Stopped within a pool and between two reports."""
    first = Run(recipe, corpus, tmp_path, every=32)
    for _ in range(36):
        sums = first.step()
        if first.state["step"] % 32 == 0:
            first.examine([sums])
    first.save()
    Run(recipe, corpus, tmp_path, every=32).train()
    ours, theirs = (load_file(folder / "checkpoint.safetensors") for folder in (tmp_path, whole.out))
    assert all(torch.equal(ours[name], theirs[name]) for name in theirs)
    facts = [
        json.loads((folder / "model" / "pretraining.json").read_text()) for folder in (tmp_path, whole.out)
    ]
    assert facts[0]["seen"] == facts[1]["seen"] and facts[0]["step"] == recipe.steps
    assert facts[0]["history"][-1]["paired_accuracy"] == facts[1]["history"][-1]["paired_accuracy"]


def test_processes_compute_what_one_does(recipe, corpus, tmp_path):
    several = Run(recipe, corpus, tmp_path, workers=2, every=32)
    alone = Run(recipe, corpus, tmp_path, every=32)
    try:
        for numbers in ([0, 1], [4, 2]):
            ours, our_sums = several.gradients.sum(0, 0, recipe.mixture(0), numbers)
            expected, sums = alone.gradients.sum(0, 0, recipe.mixture(0), numbers)
            assert our_sums == pytest.approx(sums, rel=1e-3)
            assert (ours - expected).norm() < 0.02 * expected.norm()  # bfloat16, and other numbers of threads
    finally:
        several.gradients.close()


def test_a_failing_process_is_reported(recipe, tmp_path, corpus):
    run = Run(recipe, corpus, tmp_path, workers=1, every=32)
    try:
        with pytest.raises(RuntimeError, match="IndexError"):
            run.gradients.sum(0, 0, recipe.mixture(0), [999])
    finally:
        run.gradients.close()


def test_the_release_is_the_average_and_loads_like_any_model(whole):
    released = LanguageModel.load(str(whole.out / "model"), masked=True)
    checkpoint = load_file(whole.out / "checkpoint.safetensors")
    weights = whole.layout.pack(released.model.state_dict())
    assert torch.equal(weights, checkpoint["average"]) and not torch.equal(weights, checkpoint["weights"])
    facts = json.loads((whole.out / "model" / "pretraining.json").read_text())
    assert facts["recipe"]["width"] == 32 and facts["synthetic"] >= facts["seen"] > 0.8 * whole.recipe.tokens


def test_it_learns(whole, recipe, corpus):
    """The loss on a pool that was never seen falls below that of the first weights."""
    start = Run(recipe, corpus, whole.out.parent / "start", every=32)
    before, after = (
        run.gradients.sum(99, 0, recipe.mixture(0), list(range(64)))[1] for run in (start, whole)
    )
    assert after["loss"] < before["loss"] - 0.1 * before["chosen"]


def test_a_released_model_can_be_trained_further(whole, recipe, corpus, tmp_path):
    run = Run(recipe, corpus, tmp_path, start=whole.out / "model", every=32)
    assert torch.equal(run.optimizer.weights, whole.optimizer.average) and run.state["step"] == 0
    assert (
        run.state["start"]["seen"] == whole.state["seen"]
        and run.curriculum.accuracy == whole.state["accuracy"]
    )
