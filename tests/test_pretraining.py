"""Pre-training: masks, curriculum, resume, and that it learns."""

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
import torch
from multimolecule import RnaTokenizer

from sae_rna.extraction.language_model import LanguageModel
from sae_rna.pretraining import (
    HAIRPINS,
    STAGES,
    Batches,
    Curriculum,
    Recipe,
    build_model,
    build_optimizers,
    learning_rate_factor,
    load_checkpoint,
    pretrain,
)
from sae_rna.synthetic import draw_batch

RECIPE = Recipe(width=32, blocks=2, heads=2, intermediate=48, tokens=6000, batch_tokens=960, warmup_steps=2)
RECORDS = pd.DataFrame(
    {
        "sequence": ["GGGGAAAACCCC", "GGGCAAAAAGCCC"] * 4,
        "secondary_structure": ["((((....))))", "((((.....))))"] * 4,
    }
)


@pytest.fixture(scope="module")
def batches():
    return Batches(RECIPE, RECORDS, RnaTokenizer())


@pytest.mark.parametrize("spare", [True, False])
def test_masks_change_only_chosen_positions_and_remember_the_truth(batches, spare):
    rng = np.random.default_rng(0)
    bases, table = draw_batch(HAIRPINS, 100, rng)
    batch = batches.mask(bases, table, rng, spare_partners=spare)
    nucleotide = batch.partner > -2
    assert batch.nucleotides == nucleotide.sum() == (bases >= 0).sum()
    changed = batch.labels >= 0
    assert not (changed & ~nucleotide).any()
    truth = np.where(changed, batch.labels, batch.inputs)
    assert (np.sort(truth[nucleotide]) == np.sort(batches.base_ids[bases[bases >= 0]])).all()
    share = changed.sum() / nucleotide.sum()
    assert (share == pytest.approx(0.15, abs=0.02)) if not spare else share > 0.15
    hidden_with_partner = (
        changed & (batch.partner >= 0) & np.take_along_axis(changed, np.maximum(batch.partner, 0), 1)
    )
    assert hidden_with_partner.any() != spare


def test_batches_depend_on_seed_and_step_alone(batches):
    one, same, other = (batches.draw(step, Curriculum()) for step in (3, 3, 4))
    assert (one.inputs == same.inputs).all() and (
        one.inputs.shape != other.inputs.shape or (one.inputs != other.inputs).any()
    )


def test_family_batches_come_only_after_the_curriculum(batches):
    assert all(batches.draw(step, Curriculum(stage=2)).synthetic for step in range(30))
    mixed = [batches.draw(step, Curriculum(stage=len(STAGES))).synthetic for step in range(150)]
    assert np.mean(mixed) == pytest.approx(1 - RECIPE.families, abs=0.13)


def test_a_stage_ends_when_its_own_accuracy_is_reached():
    curriculum = Curriculum()
    curriculum.report(0, STAGES[0][1] - 0.2)
    assert curriculum.stage == 0
    for _ in range(9):
        curriculum.report(0, 1.0)
    assert curriculum.stage == 1 and not curriculum.mastered


def test_the_learning_rate_warms_up_stays_and_falls_to_zero():
    recipe = Recipe(tokens=1000, anneal=0.25, warmup_steps=10)
    factors = [
        learning_rate_factor(recipe, step, seen) for step, seen in ((0, 0), (50, 500), (90, 875), (99, 1000))
    ]
    assert factors == [0.1, 1.0, 0.5, 0.0]


def test_a_stopped_run_goes_on_as_if_it_had_not_been_stopped(tmp_path):
    pretrain(RECIPE, RECORDS, tmp_path / "whole", compiled=False, every=2)
    with pytest.raises(KeyboardInterrupt):
        pretrain_interrupted(tmp_path / "parts")
    pretrain(RECIPE, RECORDS, tmp_path / "parts", compiled=False, every=2)
    one, two = (
        LanguageModel.load(str(tmp_path / folder / "model")).fingerprint for folder in ("whole", "parts")
    )
    assert one == two


def pretrain_interrupted(out):
    """Run until the first checkpoint was written, then behave as if the process was interrupted."""
    from sae_rna import pretraining

    original = pretraining.save_checkpoint

    def interrupting(*arguments):
        original(*arguments)
        raise KeyboardInterrupt

    pretraining.save_checkpoint = interrupting
    try:
        pretrain(RECIPE, RECORDS, out, compiled=False, every=2)
    finally:
        pretraining.save_checkpoint = original


def test_the_checkpoint_holds_weights_and_both_optimisers(tmp_path):
    pretrain(RECIPE, RECORDS, tmp_path, compiled=False, every=2)
    model = build_model(RECIPE)
    optimizers = build_optimizers(model, RECIPE)
    state = load_checkpoint(tmp_path, model, optimizers)
    assert state["seen"] >= RECIPE.tokens and state["synthetic"] == state["seen"]
    assert all(optimizer.state for optimizer in optimizers)
    released = LanguageModel.load(str(tmp_path / "model"), masked=True)
    assert torch.equal(
        released.model.model.encoder.layer[0].attention.self.query.weight,
        model.model.encoder.layer[0].attention.self.query.weight,
    )
    assert json.loads((tmp_path / "model" / "pretraining.json").read_text())["recipe"]["width"] == 32


def test_a_released_model_can_be_trained_further(tmp_path):
    pretrain(RECIPE, RECORDS, tmp_path / "first", compiled=False, every=2)
    released = tmp_path / "first" / "model"
    pretrain(
        RECIPE, RECORDS, tmp_path / "same", compiled=False, every=2, start=released
    )  # its budget is spent already
    assert (
        LanguageModel.load(str(tmp_path / "same" / "model")).fingerprint
        == LanguageModel.load(str(released)).fingerprint
    )
    longer = replace(RECIPE, tokens=2 * RECIPE.tokens)
    pretrain(longer, RECORDS, tmp_path / "more", compiled=False, every=2, start=released)
    facts = json.loads((tmp_path / "more" / "model" / "pretraining.json").read_text())
    assert facts["seen"] >= longer.tokens and facts["history"][0]["step"] == 2
