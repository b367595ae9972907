"""`sae-rna compare`: one page that stands alone, and the tables of the function."""

import json
from dataclasses import asdict

import pandas as pd
import pytest
from test_audit import stands_alone

from sae_rna.__main__ import main
from sae_rna.analysis import compare


@pytest.fixture
def run(study, tmp_path):
    """Runs the command on two groups; returns the exit status."""
    profile = tmp_path / "study.yml"
    profile.write_text(json.dumps(asdict(study.parameters)))
    shared = ["--profile", str(profile), "--output", str(tmp_path / "out")]
    return lambda a, b: main(["compare", a, b, *shared])


def test_a_file_against_conditions_has_the_functions_numbers_and_escapes_names(study, run, tmp_path):
    records = study.all_records("types")
    rows = records[(records.split != "train") & (records.type == "hairpin")]
    own = tmp_path / "<b>own.fa"
    own.write_text("".join(f">{rna.id}\n{rna.sequence}\n" for rna in rows.itertuples()))
    assert run(str(own), 'type == "branched"') == 0
    page = (tmp_path / "out" / "compare.html").read_text()
    assert stands_alone(page) and "&lt;b&gt;own.fa against branched" in page and "<b>own" not in page
    rnas = compare.groups(str(own), 'type == "branched"', records, 62)
    summary = study.activations("types").summary
    expected = compare.differences(study.model, study.autoencoders(), summary, rnas)
    found = pd.read_csv(tmp_path / "out" / "features.tsv", sep="\t").sort_values(["layer", "feature"])
    expected = expected.drop(columns=["place_a", "place_b"]).sort_values(["layer", "feature"])
    both = (table.reset_index(drop=True) for table in (found, expected))
    pd.testing.assert_frame_equal(*both, check_dtype=False, rtol=1e-4)
    assert set(pd.read_csv(tmp_path / "out" / "rnas.tsv", sep="\t").id) == set(rnas.id)
    numbers = compare.numbers(expected, rnas)
    assert f"{numbers['differ']} differ at a false discovery rate" in page


def test_groups_that_cannot_be_compared_are_refused_in_one_sentence(run, tmp_path, capsys):
    for a, b, words in (
        ('type == "hairpin"', 'type == "tRNA"', "fits none of"),
        ('type == "hairpin"', 'family == "hairpin-*"', "is in group_b, too"),
        ("type = hairpin", 'type == "branched"', "parameter 'group_a' cannot be"),
        ("nothing.fa", 'type == "branched"', "nothing.fa is no file or folder here"),
    ):
        assert run(a, b) == 1
        said = capsys.readouterr().err
        assert words in said and said.count("\n") == 1
    assert not (tmp_path / "out" / "compare.html").exists()
