"""Pre-training: schedule, resume, workers, graphs, and that what it releases loads."""

import json
from dataclasses import replace

import pytest
import torch
from batches import Pools
from graphs import WIDTHS, GraphGradients
from pretrain import POOL, Run
from safetensors.torch import load_file

from sae_rna.extraction.language_model import LanguageModel


@pytest.fixture(scope="module")
def whole(recipe, corpus, tmp_path_factory):
    """A run that was never stopped."""
    run = Run(recipe, corpus, tmp_path_factory.mktemp("whole"), every=32)
    run.train()
    return run


def test_the_learning_rate_warms_up_stays_and_falls_to_zero(recipe):
    recipe = replace(
        recipe,
        tokens=recipe.batch_tokens * recipe.batches * 1000,
        anneal=0.25,
        warmup_steps=10,
        learning_rate=2.0,
    )
    assert [recipe.rate(step) for step in (0, 9, 750, 875, 1000)] == [0.2, 2.0, 2.0, 1.0, 0.0]


def test_helices_and_samples_of_little_noise_come_first(recipe):
    """Of 61 pools: helices alone up to the 6th, all families from the 12th on, no preference from the
    21st."""
    recipe = replace(recipe, tokens=1e6, sharpness=2.0, helices_first=0.1, families=0.4, redrawn=0.2)
    sharpness = [recipe.mixture(pool).sharpness for pool in (0, 5, 40)]
    assert sharpness[0] == 2.0 > sharpness[1] > sharpness[2] == 0.0
    families = [recipe.mixture(pool).families for pool in (0, 6, 9, 13, 40)]
    assert families[:2] == [0.0, 0.0] and 0 < families[2] < 0.4 and families[3:] == [0.4, 0.4]
    assert recipe.mixture(40).redrawn == 0.2


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
            ours, our_sums = several.gradients.sum(0, numbers)
            expected, sums = alone.gradients.sum(0, numbers)
            assert our_sums == pytest.approx(sums, rel=1e-3)
            assert (ours - expected).norm() < 0.02 * expected.norm()  # bfloat16, and other numbers of threads
    finally:
        several.gradients.close()


def test_batches_filled_up_for_graphs_have_the_same_gradient(recipe, corpus, tmp_path):
    """Without a GPU the graphs' computations run as they stand: what is filled up must count for nothing."""
    recipe = replace(recipe, batch_tokens=1024)
    run = Run(recipe, corpus, tmp_path, every=32)
    work = dict(
        corpus=corpus, config=run.config, seed=0, batch_tokens=1024, batches=POOL, mixture=recipe.mixture
    )
    graphs = GraphGradients(run.optimizer.weights, 0, 1, 3, **work)
    run.gradients.work.pools = Pools(corpus, 0, 1024, POOL, WIDTHS)
    for pool, numbers in ((1, [0, 5]), (2, [63])):
        ours, our_sums = graphs.sum(pool, numbers)
        expected, sums = run.gradients.sum(pool, numbers)
        assert float(our_sums["loss"]) == pytest.approx(sums["loss"], rel=1e-3)
        assert our_sums["chosen"] == sums["chosen"] and our_sums["nucleotides"] == sums["nucleotides"]
        assert (ours - expected).norm() < 0.01 * expected.norm()


def test_a_failing_process_is_reported(recipe, tmp_path, corpus):
    run = Run(recipe, corpus, tmp_path, workers=1, every=32)
    try:
        with pytest.raises(RuntimeError, match="IndexError"):
            run.gradients.sum(0, [999])
    finally:
        run.gradients.close()


def test_the_release_is_the_average_and_loads_like_any_model(whole):
    released = LanguageModel.load(str(whole.out / "model"), masked=True)
    checkpoint = load_file(whole.out / "checkpoint.safetensors")
    weights = whole.layout.pack(released.model.state_dict())
    assert torch.equal(weights, checkpoint["average"]) and not torch.equal(weights, checkpoint["weights"])
    facts = json.loads((whole.out / "model" / "pretraining.json").read_text())
    assert facts["recipe"]["width"] == 32 and facts["seen"] > 0.8 * whole.recipe.tokens
    assert facts["synthetic"] == pytest.approx(0.55 * facts["seen"], rel=0.1)


def test_it_learns(whole, recipe, corpus):
    """The loss on a pool that was never seen falls below that of the first weights."""
    start = Run(recipe, corpus, whole.out.parent / "start", every=32)
    before, after = (run.gradients.sum(99, list(range(64)))[1] for run in (start, whole))
    assert after["loss"] < before["loss"] - 0.1 * before["chosen"]


def test_a_released_model_can_be_trained_further(whole, recipe, corpus, tmp_path):
    run = Run(recipe, corpus, tmp_path, start=whole.out / "model", every=32)
    assert torch.equal(run.optimizer.weights, whole.optimizer.average) and run.state["step"] == 0
    assert run.state["start"]["seen"] == whole.state["seen"]
