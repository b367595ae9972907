"""A small study from end to end: what is kept in the run folder is what the parts give one by one."""

import json
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from sae_rna.__main__ import main
from sae_rna.analysis import tables
from sae_rna.study import Study


def shown(study: Study):
    """The stack of the architecture that the figures show, all layers being one group."""
    return study.autoencoders(study.parameters.main[0], study.groups[0])


def test_no_family_is_both_trained_on_and_scored(study):
    families = study.type_records.groupby("split").family.agg(set)
    assert not families["train"] & families["heldout"] and not families["selection"] & families["heldout"]


def test_tokens_stand_in_record_order_so_that_pooled_sequences_meet_their_own_types(study):
    for encoded in (study.structures(), study.types()):
        assert encoded.tokens.record.is_monotonic_increasing
        assert encoded.tokens.groupby("record").size().tolist() == encoded.records.sequence.str.len().tolist()


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("layer", [1, 3])
def test_kept_features_are_those_of_encoding_a_record_by_itself(study, layer, random):
    variant, model = (
        (study.parameters.random, study.random_model) if random else (study.parameters.main[0], study.model)
    )
    encoded, sae = study.structures(variant), study.autoencoder(layer, variant)
    for row in (0, len(encoded.records) - 1):
        mine = (encoded.tokens.record == row).to_numpy()
        sequence = encoded.records.sequence[row]
        assert "".join(encoded.tokens.base[mine]) == sequence
        assert "".join(encoded.tokens.element[mine]) == encoded.records.element[row]
        (states,) = model.hidden_states([sequence], [layer])
        direct = sae.encode(sae.standardise(states.values_TLD).transpose(0, 1))[0]
        torch.testing.assert_close(
            torch.tensor(encoded.features(layer)[mine].toarray()), direct, atol=1e-4, rtol=1e-3
        )


def test_summary_and_layer_table_agree_with_the_features_themselves(study):
    encoded, summary = study.types(), study.feature_summary()
    table = study.layer_table().set_index(["architecture", "layer"])
    for layer in study.layers:
        matrix = encoded.features(layer)
        mine = summary[(summary.layer == layer) & (summary.architecture == "topk")]
        np.testing.assert_allclose(mine.density, np.asarray((matrix > 0).mean(0)).ravel())
        by_record = pd.DataFrame(matrix.toarray() > 0).groupby(encoded.tokens.record.to_numpy()).any().sum()
        assert (mine.sequences.to_numpy() == by_record.to_numpy()).all()
        assert table.loc[("topk", layer), "l0"] == pytest.approx(matrix.getnnz() / matrix.shape[0])
        assert table.loc[("topk", layer), "retained"] == (by_record >= 2).sum()
        assert 0 <= table.loc[("relu-l1", layer), "type_selectivity"] <= 1


def test_finished_steps_are_found_again_and_give_the_same_tables(study):
    before = study.element_scores()
    again = Study(study.parameters)
    pd.testing.assert_frame_equal(again.element_scores(), before)
    assert len(list(study.run.folder.glob("autoencoders-topk-x3-seed0-layers-*"))) == len(study.groups) == 1


def test_stopped_training_goes_on_from_its_checkpoint_and_ends_with_the_same_autoencoders(
    study, tmp_path, monkeypatch
):
    from sae_rna.extraction.stream import ActivationStream
    from sae_rna.sae import trainer as training

    again, starts, epochs = replace(study.parameters, run=str(tmp_path)), [], ActivationStream.epochs

    def stopped(self, count, start=0):
        starts.append(start)
        for step, x in enumerate(epochs(self, count, start), start):
            if step == 10 and len(starts) == 1:
                raise KeyboardInterrupt
            yield x

    monkeypatch.setattr(ActivationStream, "epochs", stopped)
    monkeypatch.setattr(
        training.train, "__kwdefaults__", training.train.__kwdefaults__ | {"checkpoint_seconds": 0}
    )
    with pytest.raises(KeyboardInterrupt):
        shown(Study(again))
    resumed = shown(Study(again))
    assert starts == [0, 10]
    for name, value in shown(study).state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert not list(tmp_path.rglob("*checkpoint*"))


def test_layers_give_the_same_autoencoders_and_features_in_whatever_groups_they_are_trained(study, tmp_path):
    apart = Study(replace(study.parameters, layer_group=2, run=str(tmp_path)))
    assert [len(group) for group in apart.groups] == [2, 1] and len(study.groups) == 1
    for layer in study.layers:
        one, other = study.autoencoder(layer), apart.autoencoder(layer)
        for name, value in one.state_dict().items():
            assert torch.equal(value, other.state_dict()[name]), (layer, name)
        assert (study.structures().features(layer) != apart.structures().features(layer)).nnz == 0
    pd.testing.assert_frame_equal(study.feature_summary(), apart.feature_summary())


def test_a_control_on_random_weights_and_a_second_seed_are_autoencoders_of_their_own(study):
    shown_one, p = shown(study), study.parameters
    random = study.autoencoders(p.random, study.groups[0])
    assert random.config.fingerprint != shown_one.config.fingerprint == study.model.fingerprint
    assert not torch.equal(random.standardise.std, shown_one.standardise.std)
    other = study.autoencoders(p.repeated[1], study.groups[0])
    assert other.config.members[0].seed == p.seed + 1 and torch.equal(
        other.standardise.std, shown_one.standardise.std
    )
    assert not torch.equal(other.encoder_weight, shown_one.encoder_weight)


def test_a_group_that_the_profile_does_not_have_is_named_with_those_it_has(study):
    with pytest.raises(ValueError, match="no group of layers 'layers-2': choose layers-1-3"):
        study.group("layers-2")
    assert study.group("layers-1-3") == [1, 2, 3]


def test_the_commands_do_the_steps_of_the_study_and_leave_a_receipt(study, tmp_path, capsys):
    profile, receipt = tmp_path / "mine.yml", tmp_path / "done" / "receipt.json"
    profile.write_text(yaml.safe_dump(asdict(study.parameters)))
    for command, made in (("train", study.train_all), ("encode", study.encode_all)):
        for model in study.parameters.variants:
            assert (
                main([command, model, "layers-1-3", "--profile", str(profile), "--receipt", str(receipt)])
                == 0
            )
            assert (
                json.loads(receipt.read_text())
                == capsys.readouterr().out.split()
                == list(map(str, made(model, study.groups[0])))
            )
    assert main(["train", "language-model", "layers-7", "--profile", str(profile)]) == 1
    assert "no group of layers 'layers-7': choose layers-1-3" in capsys.readouterr().err


def test_autoencoders_trained_and_encoding_together_are_those_trained_and_encoding_alone(
    study, tmp_path, monkeypatch
):
    from sae_rna.extraction.language_model import LanguageModel

    together, p, passes, read = (
        Study(replace(study.parameters, run=str(tmp_path))),
        study.parameters,
        [],
        LanguageModel.hidden_states,
    )

    def counted(self, sequences, *arguments):
        passes.append(len(sequences))
        return read(self, sequences, *arguments)

    monkeypatch.setattr(LanguageModel, "hidden_states", counted)
    for model in p.variants:
        folders = (
            together.train_all(model, together.groups[0]),
            together.encode_all(model, together.groups[0]),
        )
        assert all(folder.is_dir() for of in folders for folder in of)
    records = [len(together.evaluation_records(data)) for data in ("types", "structures")]
    assert passes == 2 * [
        (together.type_records.split == "train").sum(),
        *records,
    ]  # one pass of each model over each set
    for variant in (*p.main, *p.repeated, p.random):
        alone, other = (one.autoencoders(variant, one.groups[0]).state_dict() for one in (study, together))
        assert all(torch.equal(value, other[name]) for name, value in alone.items()), variant.name
    pd.testing.assert_frame_equal(study.feature_summary(), together.feature_summary())


def test_a_changed_parameter_makes_its_own_autoencoders(study):
    other = Study(replace(study.parameters, k=2))
    assert [shown(one).config.members[0].sparsity for one in (other, study)] == [2, 4]


def test_tracks_hold_every_nucleotide_of_the_examples_with_activations_in_shares(study):
    best = study.best_feature("H")
    names = study.example_records(best, 2)
    tracks = study.tracks(best, names)
    for name in names:
        record = study.structure_records.set_index("id").loc[name]
        mine = tracks[tracks.record == name]
        assert (
            "".join(mine.base) == record.sequence
            and "".join(mine.bracket) == record.secondary_structure
            and record.split == "heldout"
        )
        assert mine.activation.between(0, 1).all()
        paired = mine.set_index("position").partner
        assert all(paired[j] == i for i, j in paired.items() if j)


def test_a_single_features_auroc_is_that_of_its_activations(study):
    from sklearn.metrics import roc_auc_score

    row = study.single_feature_auroc("H").iloc[-1]
    encoded = study.structures()
    heldout = encoded.rows("heldout")
    activation = encoded.features(int(row.layer))[heldout][:, [int(row.feature)]].toarray().ravel()
    assert row.auroc == pytest.approx(roc_auc_score(encoded.tokens.element[heldout] == "H", activation))


def test_every_table_of_the_book_is_made_of_this_run(study):
    data, numbers = tables.data(study)
    assert numbers["total"] == len(study.type_records) + len(study.structure_records) == data.RNAs.sum()
    overview, _ = tables.overview(study)
    assert f"{shown(study).config.latents:,} latents" in " ".join(overview.detail)
    agreement, numbers = tables.element_agreement(study)
    assert numbers["agreement"] == 1.0  # nested structures: forgi and bpRNA's rules do not differ
    best, numbers = tables.best_per_element(study.element_scores())
    assert 0 <= numbers["beat"] <= numbers["elements"] == len(best)


def test_an_element_that_no_record_has_and_records_without_structure_are_named(study, records_file, tmp_path):
    with pytest.raises(ValueError, match="element K"):
        study.best_feature("K")
    plain = tmp_path / "plain.csv"
    pd.read_parquet(records_file)[["id", "sequence", "type"]].to_csv(plain, index=False)
    with pytest.raises(ValueError, match="'structures' needs a file with a column secondary_structure"):
        _ = Study(replace(study.parameters, structures=str(plain))).structure_records


def test_folded_structures_are_called_predicted_in_tables_and_captions(study, records_file, tmp_path):
    pytest.importorskip("RNA", reason="needs ViennaRNA")
    plain = tmp_path / "plain.csv"
    pd.read_parquet(records_file)[["id", "sequence", "type", "family"]].to_csv(plain, index=False)
    folded = Study(replace(study.parameters, structures=str(plain), fold=True, run=str(tmp_path / "run")))
    data, _ = tables.data(folded)
    assert (
        data.structures[data.use == "structures"].str.fullmatch(r"predicted \(ViennaRNA [\d.]+, MFE\)").all()
    )
    assert tables.element_agreement(folded)[1]["structures"].startswith("predicted")
    data, _ = tables.data(study)
    assert set(data.structures) == {"known", "–"} and study.structure_source == "known"
