"""The command that changes a feature and says what the model then predicts."""

import json
from dataclasses import asdict

import pandas as pd
import pytest

from sae_rna.__main__ import main
from sae_rna.analysis.use import steer_records

RNAS = pd.DataFrame({"id": ["one", "two"], "sequence": ["GGGGAAAACCCC", "GCGAAAAUCGC"]})


@pytest.fixture
def steer(study, tmp_path):
    """Runs the command on `RNAS` with a feature and the name of its output; returns the exit status."""
    rnas, profile = tmp_path / "rnas.fa", tmp_path / "study.yml"
    rnas.write_text("".join(f">{rna.id}\n{rna.sequence}\n" for rna in RNAS.itertuples()))
    profile.write_text(json.dumps(asdict(study.parameters)))
    shared = ["steer", str(rnas), "--strength", "2", "--profile", str(profile)]
    return lambda feature, output: main([*shared, "--feature", feature, "--output", str(tmp_path / output)])


@pytest.mark.parametrize("output", ["steered.tsv", "steered.parquet"])
def test_the_table_is_that_of_the_function_and_every_rna_has_a_logo(study, steer, tmp_path, output):
    summary = study.activations("types").summary
    best = summary.loc[summary.maximum.idxmax()]
    assert steer(f"L{best.layer}/{best.feature}", output) == 0
    made = tmp_path / output
    found = pd.read_parquet(made) if made.suffix == ".parquet" else pd.read_csv(made, sep="\t")
    own = study.masked_model(), study.autoencoders()[best.layer]
    expected = steer_records(*own, RNAS, int(best.feature), 2 * best.maximum)
    pd.testing.assert_frame_equal(found, expected, check_dtype=False)
    assert all((tmp_path / f"steered-{number}.svg").read_text().startswith("<svg") for number in (1, 2))


def test_what_is_no_feature_is_refused_by_name_and_nothing_is_written(steer, tmp_path, capsys):
    for feature, words in (("12", "layer and number"), ("L9/1", "layer 9"), ("L1/9999", "record 'one'")):
        assert steer(feature, "steered.tsv") == 1
        assert words in capsys.readouterr().err
    assert not list(tmp_path.glob("steered*"))
