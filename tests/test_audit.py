"""`sae-rna audit`: one page that stands alone, for any language model."""

import json
import re
import sys

import pandas as pd
import pytest

from sae_rna.__main__ import main
from sae_rna.parameters import ROOT


def audited(model, records, output, *more) -> str:
    arguments = ["--model", str(model), "--records", str(records), "--output", str(output)]
    assert main(["audit", *arguments, "--families", "2", "--sequences", "2", *more]) == 0
    return (output / "audit.html").read_text()


def stands_alone(page: str) -> bool:
    """Whether nothing is loaded and no script runs."""
    loaded = re.findall(r"<script|<link|<img|@import|(?:src|href)=[\"'](?!#)", page)
    return not loaded and "default-src 'none'" in page


def test_the_page_stands_alone_and_escapes_what_it_is_given(tiny_model, records_file, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "rna_structure_audit", None)
    table = pd.read_parquet(records_file)
    hostile = tmp_path / "<script>alert(1)<" / "records.parquet"
    hostile.parent.mkdir()
    table.assign(id="<script>alert(2)" + table.id, family="<i>" + table.family).to_parquet(hostile)
    page = audited(tiny_model, hostile, tmp_path / "out")
    assert stands_alone(page) and "&lt;script&gt;alert(1)" in page and "alert(2)" in page
    assert "pip install &#x27;sae-rna[audit]&#x27;" in page
    ladder = pd.read_csv(tmp_path / "out" / "ladder.csv")
    assert ladder.family.nunique() == 2 and set(ladder.model) == {
        "language model",
        "same architecture, random weights",
    }
    assert len(pd.read_csv(tmp_path / "out" / "contacts.csv")) == 4 * 2


def test_the_published_rungs_are_not_run_on_a_model_that_reads_shorter_rnas(
    tiny_model, records_file, tmp_path
):
    pytest.importorskip("rna_structure_audit", reason="needs the extra 'audit' (rna-structure-audit)")
    assert "this model reads at most 62" in audited(tiny_model, records_file, tmp_path)


def test_a_published_model_of_another_kind_gets_its_page(shared_data, tmp_path):
    page = audited(shared_data / "rnabert", ROOT / "data" / "records.parquet", tmp_path)
    assert stands_alone(page) and "466,560 parameters" in page
    assert page.count("<svg") == 2
    if (tmp_path / "published.json").exists():  # the extra is installed
        report = json.loads((tmp_path / "published.json").read_text())["report"]
        assert report["grade"] == "D" and "No detectable structure signal" in page


@pytest.mark.parametrize(
    ("change", "more", "fault"),
    [
        ({}, ["--families", "1"], "1 families of 2 RNAs cannot be audited: ask for 2"),
        ({"family": "one"}, [], "1 families of .* give records of two or more"),
        ({"secondary_structure": None}, [], "no secondary structures: give records with"),
    ],
)
def test_records_that_cannot_be_audited_are_refused_in_one_sentence(
    tiny_model, records_file, tmp_path, capsys, change, more, fault
):
    table = pd.read_parquet(records_file).assign(**change).dropna(axis=1, how="all")
    table.to_parquet(tmp_path / "records.parquet")
    given = ["--model", str(tiny_model), "--records", str(tmp_path / "records.parquet"), "--sequences", "2"]
    assert main(["audit", *given, "--output", str(tmp_path / "out"), *more]) == 1
    said = capsys.readouterr().err
    assert re.search(fault, said) and said.count("\n") == 1
    assert not (tmp_path / "out" / "audit.html").exists()
