"""What gains learn, on a tiny model with random weights."""

import numpy as np
import pandas as pd
import pytest
import torch
from charts import grid
from stacks import of_model

from sae_rna.analysis import fine_tuning
from sae_rna.analysis.language_model import choose_masked
from sae_rna.analysis.statistics import tuning
from sae_rna.extraction.language_model import LanguageModel

LAYER, LATENTS = 2, 64


@pytest.fixture(scope="module")
def model(tiny_model):
    return LanguageModel.load(str(tiny_model), masked=True, device="cpu")


@pytest.fixture(scope="module")
def sae(model):
    return of_model(model, LAYER, LATENTS)


@pytest.fixture(scope="module")
def sequences():
    rng = np.random.default_rng(0)
    return ["".join(rng.choice(list("ACGU"), size)) for size in (30, 12, 45, 28, 33, 40)]


@pytest.fixture(scope="module")
def examples(model, sequences):
    return tuning.read(model, LAYER, sequences, masked=choose_masked(sequences, 1))


@pytest.fixture(scope="module")
def whole(model, sequences):
    """The model's own logits of the masked bases [M, 4], one RNA after the other, and the bases [M]."""
    logits, bases = [], []
    for sequence, masked in zip(sequences, choose_masked(sequences, 1)):
        tokens = model.tokenize([sequence])
        tokens["input_ids"][0, masked + model.first] = model.tokenizer.mask_token_id
        with torch.no_grad():
            logits.append(model.model(**tokens).logits[0, masked + model.first][:, model.base_ids])
        bases += ["ACGU".index(sequence[at]) for at in masked]
    return torch.cat(logits), torch.tensor(bases)


def test_what_starts_above_a_layer_predicts_as_the_whole_model_does(model, examples, whole):
    batch = tuning.together(examples, model)
    torch.testing.assert_close(tuning.Above(model, LAYER)(batch), whole[0], atol=1e-5, rtol=1e-5)
    assert batch.target[batch.target >= 0].equal(whole[1])


def test_a_model_whose_blocks_hand_on_more_than_states_is_refused(model, examples):
    batch = tuning.together(examples, model)
    tuning.check(model, LAYER, batch)
    others = batch._replace(states_BWD=batch.states_BWD.flip(-1))  # what such a model makes of them
    with pytest.raises(ValueError, match="its blocks hand on more than states"):
        tuning.check(model, LAYER, others)


def test_before_training_no_method_changes_anything_and_gains_of_one_change_no_bit(model, sae, examples):
    batch = tuning.together(examples, model)
    own = tuning.Above(model, LAYER)(batch)
    for name, add in tuning.methods(model, {tuning.GAINS: sae}, LAYER).items():
        above = tuning.Above(model, LAYER)
        add(above)
        given = above(batch)
        torch.testing.assert_close(given, own, atol=1e-5, rtol=0)
        assert given.equal(own) or not name.startswith("gains")


def test_methods_have_as_many_parameters_as_there_are_gains(model, sae):
    counts = {}
    for name, add in tuning.methods(model, {tuning.GAINS: sae}, LAYER).items():
        above = tuning.Above(model, LAYER)
        add(above)
        counts[name] = sum(parameter.numel() for parameter in above.trained)
    same = (tuning.GAINS, tuning.UNTRAINED, tuning.LORA, tuning.IA3)
    assert {counts[name] for name in same} == {LATENTS}
    assert counts[tuning.NEURONS] == model.width and counts["LoRA, rank 8"] == 8 * LATENTS
    block, encoder = model.model.base_model.encoder.layer[LAYER], model.model.base_model.encoder
    parts = [block, encoder.layer_norm, model.model.lm_head]
    assert counts[tuning.ALL] == sum(of.numel() for part in parts for of in part.parameters())


def test_a_gain_scales_what_the_latent_writes_and_nothing_else(sae):
    h_BWD, gains = torch.randn(2, 9, sae.config.width), tuning.Gains(sae)
    gains.excess_F.data[:] = torch.linspace(-1, 2, LATENTS)
    f_TF = sae.encode(sae.standardise(h_BWD).flatten(0, 1)[None])
    error_TD = h_BWD.flatten(0, 1) - (sae.decode(f_TF)[0] * sae.standardise.std + sae.standardise.mean)
    scaled_TD = sae.decode(f_TF * (1 + gains.excess_F))[0] * sae.standardise.std + sae.standardise.mean
    torch.testing.assert_close(gains(h_BWD).flatten(0, 1), scaled_TD + error_TD, atol=1e-4, rtol=1e-4)


def test_training_moves_the_gains_alone_and_returns_what_did_best_on_the_validation_rnas(
    model, sae, examples, sequences
):
    validation = tuning.in_batches(examples, model, sequences)
    above = tuning.Above(model, LAYER)
    tuning.methods(model, {tuning.GAINS: sae}, LAYER)[tuning.GAINS](above)
    before = {name: value.clone() for name, value in above.state_dict().items()}
    run = tuning.tune(above, examples, validation, 0.05, 12, 0)
    changed = [name for name, value in above.state_dict().items() if not value.equal(before[name])]
    assert changed == ["change.excess_F"] and run.step > 0
    assert run.validation == pytest.approx(tuning.mean_loss(above, validation))
    assert run.validation < tuning.mean_loss(tuning.Above(model, LAYER), validation)
    worse = tuning.Above(model, LAYER)
    tuning.methods(model, {tuning.GAINS: sae}, LAYER)[tuning.ALL](worse)
    assert tuning.tune(worse, examples, validation, 30.0, 4, 0).step == 0
    for name, value in worse.net.state_dict().items():
        assert value.equal(before[f"net.{name}"])


def test_losses_are_the_cross_entropies_of_every_rna(model, examples, sequences, whole):
    sum_S, count_S = tuning.losses(tuning.Above(model, LAYER), tuning.in_batches(examples, model, sequences))
    every = torch.nn.functional.cross_entropy(*whole, reduction="none").double()
    ends = np.cumsum([len(masked) for masked in choose_masked(sequences, 1)])
    expected = [part.sum().item() for part in np.split(every, ends[:-1])]
    order = np.concatenate(model.batches(sequences, 4096))
    np.testing.assert_allclose(sum_S, np.array(expected)[order], rtol=1e-4)
    assert sum_S.sum() / count_S.sum() == pytest.approx(every.mean().item(), rel=1e-4)


def records_of(types, per_split=30, **columns):
    rng, rows = np.random.default_rng(0), []
    for kind in types:
        for split in ("seen-selection", "seen-heldout", "selection", "heldout"):
            for number in range(per_split):
                sequence = "".join(rng.choice(list("ACGU"), 40))
                rows.append(
                    {"id": f"{kind}-{split}-{number}", "sequence": sequence, "type": kind, "split": split}
                )
    return pd.DataFrame(rows).assign(**columns)


def test_parts_of_a_task_are_apart_and_test_rnas_come_from_the_other_split():
    records = records_of(["tRNA", "riboswitch"], origin="natural")
    copies = records[records.split == "seen-selection"].assign(
        split="seen-heldout", id=lambda of: "copy-" + of.id
    )
    rnas = fine_tuning.draw_rnas(pd.concat([records, copies], ignore_index=True), 150, 0)
    assert list(rnas.task.unique()) == ["natural tRNA", fine_tuning.CLASSIFIER]
    for _, of in rnas.groupby("task"):
        assert of[of.part != "elsewhere"].sequence.is_unique
        assert {"train", "validation", "test", "elsewhere"} == set(of.part)
    first = rnas[rnas.task == "natural tRNA"]
    split = first.id.str.extract("tRNA-(seen-[a-z]+)")[0]
    assert set(split[first.part == "train"]) == set(split[first.part == "validation"]) == {"seen-selection"}
    assert set(split[first.part == "test"]) == {"seen-heldout"}
    assert not first.id[first.part == "test"].str.startswith("copy").any()
    assert set(first.type[first.part == "elsewhere"]) == {"riboswitch"}


def test_too_few_rnas_are_refused():
    with pytest.raises(ValueError, match="to learn from"):
        fine_tuning.draw_rnas(records_of(["tRNA"], per_split=2), 150, 0)
    with pytest.raises(ValueError, match="below the last"):
        fine_tuning.tuned_layer([6], type("Model", (), {"blocks": 6}))


def test_the_classifier_that_all_start_from_tells_types_apart_that_differ(model, sae):
    records = records_of(["tRNA", "riboswitch"])
    rich = np.where(records["type"] == "tRNA", "G", "A")
    records["sequence"] = [base * 30 + sequence[:10] for base, sequence in zip(rich, records.sequence)]
    rnas = pd.concat([
        records[records.split == "selection"].head(8).assign(part="elsewhere"),
        *(records[records.split == split].groupby("type").head(8).assign(part=part)
          for split, part in zip(("seen-selection", "seen-heldout", "heldout"), ("train", "validation", "test")))
    ]).assign(task=fine_tuning.CLASSIFIER)  # fmt: skip
    task = fine_tuning.Task(model, LAYER, rnas, 0)
    assert tuning.mean_loss(task.start(16, 0), task.test) < 0.2 < np.log(2)
    assert [example.target.item() for example in task.chosen(6, 3)].count(0) == 3


def table_of(change: dict) -> pd.DataFrame:
    table = grid(task=["tRNA"], method=[*change], seed=[0, 1, 2]).assign(
        examples=9, parameters=256, rate=0.01
    )
    table["change"] = table.method.map(change)
    table = table.assign(low=table.change - 0.01, high=table.change + 0.01, before=1.0, loss=1 + table.change)
    table = table.assign(step=1, elsewhere_before=1.0, elsewhere=1.1)
    gains = [[0.1 * seed, 0.2 + 0.1 * seed, 0.0, -0.3] for seed in table.seed]
    return table.assign(excess=gains)


def test_numbers_say_what_gains_do_better_than():
    change = {tuning.GAINS: -0.02, "gains, frozen encoder": -0.03, tuning.LORA: -0.01, tuning.IA3: 0.0}
    facts = fine_tuning.numbers(table_of(change | {tuning.ALL: -0.05}))
    assert (facts["above_lora"], facts["above_all"], facts["above_controls"], facts["sure"]) == (1, 0, 0, 1)
    assert facts["gains"] == "−0.020 (tRNA)" and facts["forgotten"] == "+0.100 (tRNA)"
    moved = np.array([[0.1 * seed, 0.2 + 0.1 * seed, -0.3] for seed in range(3)])
    pairs = [np.corrcoef(moved[a], moved[b])[0, 1] for a, b in ((0, 1), (0, 2), (1, 2))]
    assert facts["agreement"] == f"{np.mean(pairs):.2f} (tRNA)"
