"""A small study from end to end: what is kept in the run folder is what the parts give one by one."""

import json
import os
import signal
from dataclasses import asdict, replace

import numpy as np
import pandas as pd
import pytest
import torch
import yaml

from sae_rna.__main__ import main
from sae_rna.sae.checkpoint import stopped_at
from sae_rna.study import Study

GROUP = "layers-1-3"


def shown(study: Study):
    """The stack of the architecture that the figures show, all layers being one group."""
    return study.stack(study.parameters.main[0], GROUP)


def test_no_family_is_both_trained_on_and_scored(study):
    families, trained = study.types.groupby("split").family.agg(set), set(study.training.family)
    assert not trained & families["heldout"] and not families["selection"] & families["heldout"]
    assert set(study.types.split) <= {"selection", "heldout", "natural"} and set(study.training.split) == {
        "train"
    }


def test_tokens_stand_in_record_order_so_that_pooled_sequences_meet_their_own_types(study):
    for use in ("structures", "types"):
        rnas = study.activations(use)
        assert rnas.tokens.record.is_monotonic_increasing
        assert rnas.tokens.groupby("record").size().tolist() == rnas.records.sequence.str.len().tolist()


@pytest.mark.parametrize("random", [False, True])
@pytest.mark.parametrize("layer", [1, 3])
def test_kept_features_are_those_of_encoding_a_record_by_itself(study, layer, random):
    p = study.parameters
    variant, model = (p.random, study.random_model) if random else (p.main[0], study.model)
    rnas, sae = study.activations("structures", variant), study.autoencoders(variant)[layer]
    for row in (0, len(rnas.records) - 1):
        mine = (rnas.tokens.record == row).to_numpy()
        sequence = rnas.records.sequence[row]
        assert "".join(rnas.tokens.base[mine]) == sequence
        assert "".join(rnas.tokens.element[mine]) == rnas.records.element[row]
        (states,) = model.hidden_states([sequence], [layer])
        direct = sae.encode(sae.standardise(states.values_TLD).transpose(0, 1))[0]
        features = torch.tensor(rnas.features(layer)[mine].toarray())
        torch.testing.assert_close(features, direct, atol=1e-4, rtol=1e-3)


def test_the_summary_agrees_with_the_features_themselves(study):
    rnas = study.activations("types")
    for layer in study.layers:
        matrix, mine = rnas.features(layer), rnas.summary[rnas.summary.layer == layer]
        np.testing.assert_allclose(mine.density, np.asarray((matrix > 0).mean(0)).ravel())
        by_record = pd.DataFrame(matrix.toarray() > 0).groupby(rnas.tokens.record.to_numpy()).any().sum()
        assert (mine.sequences.to_numpy() == by_record.to_numpy()).all()
        assert (rnas.retained(layer) == (by_record >= 2)).all()


def test_activations_of_a_split_are_those_of_its_records(study):
    rnas = study.activations("structures")
    features, tokens = rnas.of_split(3, "heldout")
    heldout = np.flatnonzero(rnas.records.split == "heldout")
    assert sorted(set(tokens.record)) == heldout.tolist() and features.shape[0] == len(tokens)
    pooled, records = rnas.pooled(3, "heldout")
    assert records.index.tolist() == heldout.tolist()
    first = features[(tokens.record == heldout[0]).to_numpy()].toarray()
    np.testing.assert_array_equal(pooled[0].toarray().ravel(), first.max(0))
    with pytest.raises(ValueError, match="no records in the split 'natural'"):
        rnas.rows("natural")


def strongest(rnas, layer: int) -> pd.DataFrame:
    """A result as an analysis gives one; it counts how often it is computed."""
    strongest.calls += 1
    return pd.DataFrame({"maximum": rnas.features(layer).max(axis=0).toarray().ravel()})


def test_a_result_is_computed_once_for_the_same_inputs(study):
    strongest.calls = 0
    tables = [Study(study.parameters).kept(strongest, study.activations("types"), layer=3) for _ in range(2)]
    pd.testing.assert_frame_equal(*tables)
    assert strongest.calls == 1
    study.kept(strongest, study.activations("types"), layer=1)
    study.kept(strongest, study.activations("structures"), layer=3)
    assert strongest.calls == 3


def test_naming_what_activations_depend_on_trains_nothing(study, tmp_path, monkeypatch):
    from sae_rna.sae import encoding

    monkeypatch.setattr(encoding, "train_group", lambda *_: pytest.fail("an autoencoder was trained"))
    other = Study(replace(study.parameters, run=str(tmp_path)))
    assert other.activations("structures").key == study.activations("structures").key
    assert other.autoencoders().key == study.autoencoders().key
    assert not [path for path in tmp_path.iterdir() if path.is_dir()]


def test_another_rule_for_splits_makes_other_autoencoders_and_activations(study, monkeypatch):
    from sae_rna.records import sampling as module

    before = study.activations("structures").key, study.autoencoders().key
    assign = module.assign_splits
    monkeypatch.setattr(module, "assign_splits", lambda records, seed: assign(records, seed + 1))
    other = Study(study.parameters)
    assert other.activations("structures").key != before[0] and other.autoencoders().key != before[1]


def test_finished_steps_are_found_again(study):
    before = study.activations("types").features(3)
    again = Study(study.parameters).activations("types").features(3)
    assert (before != again).nnz == 0
    name = f"autoencoders-{study.parameters.architecture}-x3-seed0-layers-*"
    assert len(list(study.run.folder.glob(name))) == 1


def test_stopped_training_goes_on_from_its_checkpoint_and_ends_with_the_same_autoencoders(
    study, tmp_path, monkeypatch
):
    from sae_rna.extraction.stream import ActivationStream
    from sae_rna.sae import trainer

    again, starts, epochs = replace(study.parameters, run=str(tmp_path)), [], ActivationStream.epochs

    def stopped(self, count, start=0):
        starts.append(start)
        for step, x in enumerate(epochs(self, count, start), start):
            if step == 10 and len(starts) == 1:
                raise KeyboardInterrupt
            yield x

    monkeypatch.setattr(ActivationStream, "epochs", stopped)
    monkeypatch.setattr(
        trainer.train, "__kwdefaults__", trainer.train.__kwdefaults__ | {"checkpoint_seconds": 0}
    )
    with pytest.raises(KeyboardInterrupt):
        shown(Study(again))
    resumed = shown(Study(again))
    assert starts == [0, 10]
    for name, value in shown(study).state_dict().items():
        assert torch.equal(value, resumed.state_dict()[name]), name
    assert not list(tmp_path.rglob("*checkpoint*"))


@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_in_the_middle_of_a_step_ends_with_a_checkpoint_and_the_same_command_goes_on(
    study, tmp_path, monkeypatch, capsys, caplog, number, status
):
    from sae_rna.sae import trainer

    profile, run, step, calls = tmp_path / "mine.yml", tmp_path / "run", trainer.Trainer.step, []
    only_one = {"run": str(run), "compared": "relu-l1-matched", "replicates": 0}
    profile.write_text(yaml.safe_dump(asdict(study.parameters) | only_one))
    command = ["train", "language-model", GROUP, "--profile", str(profile)]

    def signalled(self, x_BD):
        calls.append(self)
        if len(calls) == 26:  # a member among several: the step is finished first
            os.kill(os.getpid(), number)
        step(self, x_BD)

    monkeypatch.setattr(trainer.Trainer, "step", signalled)
    before = signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)
    assert main(command) == status
    assert (signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM)) == before
    (folder,) = run.glob(".autoencoders-relu-l1-matched-x3-seed0-layers-*.tmp")
    members = len({id(member) for member in calls})
    done = -(-26 // members)
    said = capsys.readouterr().err
    assert said.startswith(f"sae-rna: stopped; the same command goes on from step {done} of ")
    assert said.count("\n") == 1 and (folder / "checkpoint.safetensors").exists()
    assert stopped_at(run, since=0) == f"goes on from step {done}"
    assert main(command) == 0 and f"training goes on from step {done} of " in caplog.text
    for name, value in shown(study).state_dict().items():
        assert torch.equal(value, shown(Study(replace(study.parameters, run=str(run)))).state_dict()[name]), (
            name
        )


@pytest.mark.parametrize("damage", ["cut", "empty", "gone"])
def test_a_damaged_step_is_made_again_as_it_was(study, tmp_path, caplog, damage):
    other = Study(replace(study.parameters, run=str(tmp_path)))
    variant, expected = other.parameters.main[0], shown(other).state_dict()
    (folder,) = other.train([variant], GROUP)
    file = sorted(folder.glob("layer-*.safetensors"))[0]
    size = file.stat().st_size
    if damage == "gone":
        file.unlink()
    else:
        os.truncate(file, 1000 if damage == "cut" else 0)
    assert other.train([variant], GROUP) == [folder] and file.stat().st_size == size
    found = {"cut": f"has 1000 bytes, not {size}", "empty": f"has 0 bytes, not {size}", "gone": "is missing"}
    assert f"{folder} is made again: {file.name} {found[damage]}" in caplog.text
    for name, value in shown(other).state_dict().items():
        assert torch.equal(value, expected[name]), name


def test_layers_give_the_same_autoencoders_and_features_in_whatever_groups_they_are_trained(study, tmp_path):
    apart = Study(replace(study.parameters, layer_group=2, run=str(tmp_path)))
    assert [len(group) for group in apart.groups.values()] == [2, 1]
    ours, theirs = study.autoencoders(), apart.autoencoders()
    assert list(theirs) == list(ours) == study.layers
    for layer in study.layers:
        for name, value in ours[layer].state_dict().items():
            assert torch.equal(value, theirs[layer].state_dict()[name]), (layer, name)
        features = (one.activations("structures").features(layer) for one in (study, apart))
        assert (next(features) != next(features)).nnz == 0
    pd.testing.assert_frame_equal(study.activations("types").summary, apart.activations("types").summary)


def test_a_control_on_random_weights_and_a_second_seed_are_autoencoders_of_their_own(study):
    shown_one, p = shown(study), study.parameters
    random = study.stack(p.random, GROUP)
    assert random.config.fingerprint != shown_one.config.fingerprint == study.model.fingerprint
    assert not torch.equal(random.standardise.std, shown_one.standardise.std)
    other = study.stack(p.repeated[1], GROUP)
    assert other.config.members[0].seed == p.seed + 1
    assert torch.equal(other.standardise.std, shown_one.standardise.std)
    assert not torch.equal(other.encoder_weight, shown_one.encoder_weight)


def test_a_group_that_the_profile_does_not_have_is_named_with_those_it_has(study):
    with pytest.raises(ValueError, match="no group of layers 'layers-2': choose layers-1-3"):
        study.group("layers-2")


def test_the_commands_do_the_steps_of_the_study_and_leave_a_receipt(study, tmp_path, capsys):
    profile, receipt = tmp_path / "mine.yml", tmp_path / "done" / "receipt.json"
    profile.write_text(yaml.safe_dump(asdict(study.parameters)))
    p = study.parameters
    for model in p.variants:
        made = {
            "train": study.train(p.variants[model], GROUP),
            "encode": [f for use, v in p.encoded[model].items() for f in study.encode(use, v, GROUP)],
        }
        for command, folders in made.items():
            given = [command, model, GROUP, "--profile", str(profile), "--receipt", str(receipt)]
            assert main(given) == 0
            assert (
                json.loads(receipt.read_text()) == capsys.readouterr().out.split() == list(map(str, folders))
            )
    assert main(["train", "language-model", "layers-7", "--profile", str(profile)]) == 1
    assert "no group of layers 'layers-7': choose layers-1-3" in capsys.readouterr().err


def test_autoencoders_trained_and_encoding_together_are_those_trained_and_encoding_alone(
    study, tmp_path, monkeypatch
):
    from sae_rna.extraction.language_model import LanguageModel

    together, p = Study(replace(study.parameters, run=str(tmp_path))), study.parameters
    passes, read = [], LanguageModel.hidden_states

    def counted(self, sequences, *arguments):
        passes.append(len(sequences))
        return read(self, sequences, *arguments)

    monkeypatch.setattr(LanguageModel, "hidden_states", counted)
    for model, variants in p.variants.items():
        folders = together.train(variants, GROUP)
        for use, encoders in p.encoded[model].items():
            folders += together.encode(use, encoders, GROUP)
        assert all(folder.is_dir() for folder in folders)
    sets = [len(records) for records in (together.training, together.types, together.structures)]
    assert passes == 2 * sets  # one pass of each model over each set
    for variant in (*p.main, *p.repeated, p.random):
        alone, other = (one.stack(variant, GROUP).state_dict() for one in (study, together))
        assert all(torch.equal(value, other[name]) for name, value in alone.items()), variant.name
    pd.testing.assert_frame_equal(study.summary(p.main), together.summary(p.main))


def test_a_changed_parameter_makes_its_own_autoencoders(study):
    other = Study(replace(study.parameters, k=2))
    assert [shown(one).config.members[0].sparsity for one in (other, study)] == [2, 4]


def test_records_without_structure_or_type_are_refused_with_the_remedy(study, records_file, tmp_path):
    plain = tmp_path / "plain.csv"
    pd.read_parquet(records_file)[["id", "sequence"]].to_csv(plain, index=False)
    other = Study(replace(study.parameters, structures=str(plain), types=str(plain)))
    with pytest.raises(ValueError, match="'structures' needs a file with a column secondary_structure"):
        _ = other.structures
    with pytest.raises(ValueError, match="'types' needs a file with a column type"):
        _ = other.types


def test_folded_structures_are_called_predicted(study, records_file, tmp_path):
    pytest.importorskip("RNA", reason="needs ViennaRNA")
    plain = tmp_path / "plain.csv"
    pd.read_parquet(records_file)[["id", "sequence", "type", "family"]].to_csv(plain, index=False)
    folded = Study(replace(study.parameters, structures=str(plain), fold=True, run=str(tmp_path / "run")))
    assert folded.structures.structure_source.str.fullmatch(r"predicted \(ViennaRNA [\d.]+, MFE\)").all()
