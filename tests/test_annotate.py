"""`sae-rna annotate`: values against encoding, files whole and the same after a stop, faults in one sentence."""

import json
import re
from dataclasses import asdict

import numpy as np
import pandas as pd
import pytest

from sae_rna import annotate as annotation
from sae_rna.__main__ import main
from sae_rna.analysis import structure_features
from sae_rna.analysis.familiar import MEASURES
from sae_rna.annotate import Annotator, annotate
from sae_rna.parameters import ROOT
from sae_rna.records.readers import read_records
from sae_rna.sae.encoding import encode_group, features_file, token_table
from sae_rna.sae.features import load_csr

PAPER = ["bpRNA_RFAM_25894", "bpRNA_RFAM_42383", "bpRNA_CRW_29143"]  # its Figures 3 and 4


@pytest.fixture(scope="module")
def profile(study, tmp_path_factory):
    path = tmp_path_factory.mktemp("profile") / "study.yml"
    path.write_text(json.dumps(asdict(study.parameters)))
    return str(path)


@pytest.fixture(scope="module")
def annotator(profile):
    return Annotator.load(profile=profile)


@pytest.fixture
def rnas(study):
    """Records with places and structures, in an order that is not by length."""
    records = study.structures[["id", "sequence", "secondary_structure"]].head(30)
    lengths = records.sequence.str.len()
    names = [f"chr1:{1000 * at}-{1000 * at + length}({'+-'[at % 2]})" for at, length in enumerate(lengths)]
    return records.assign(id=names)


def test_the_values_are_those_of_the_notebooks(study, annotator):
    rnas = study.activations("structures")
    nucleotides, by_rna = annotator.tables(study.structures)
    known = nucleotides[nucleotides.base.isin(list("ACGU"))]
    assert len(known) == len(rnas.tokens)
    for of in annotator.features.itertuples():
        expected = rnas.features(of.layer)[:, [of.feature]].toarray().ravel()
        np.testing.assert_allclose(known[of.name], expected, atol=1e-6)
        own = pd.Series(expected).groupby(rnas.tokens.record)
        np.testing.assert_allclose(by_rna[f"{of.name} mean"], own.mean(), atol=1e-6)
        np.testing.assert_allclose(by_rna[f"{of.name} max"], own.max(), atol=1e-6)
        assert by_rna[f"{of.name} share"].sum() == pytest.approx(
            own.agg(lambda value: (value > 1e-7).mean()).sum(), abs=0.1
        )
    assert nucleotides[nucleotides.position == 1].id.tolist() == study.structures.id.tolist()
    assert "".join(nucleotides.element) == "".join(study.structures.element)


def test_on_the_papers_rnas_the_values_are_those_of_encoding(shared_data, tmp_path):
    """With the embedded model and autoencoders as they are drawn, whose mathematics is that of trained ones."""
    import torch

    from sae_rna.extraction.language_model import LanguageModel
    from sae_rna.extraction.stream import Standardiser
    from sae_rna.sae.autoencoder import AutoencoderConfig, Member, SparseAutoencoders

    table = pd.read_parquet(shared_data / "bprna-90-short.parquet")[["id", "sequence", "secondary_structure"]]
    table[table.id.isin(PAPER)].to_parquet(tmp_path / "rnas.parquet")
    records, folder = read_records(tmp_path / "rnas.parquet"), ROOT / "data" / "rinalmo-nano"
    model = LanguageModel.load(str(folder), device="cpu")
    members, facts = (Member(2, 16), Member(5, 16)), {"model": str(folder), "fingerprint": model.fingerprint}
    config = AutoencoderConfig("relu-l1-matched", members, model.width, 256, **facts)
    statistics = torch.zeros(2, model.width), torch.full((2, model.width), 2.0)
    stack = SparseAutoencoders(config, Standardiser(*statistics)).requires_grad_(False).eval()
    stack.save(tmp_path / "sae")
    encode_group({tmp_path: stack}, model, records, [tmp_path], summarise=False)
    wanted = [f"L{layer}/{feature}" for layer in (2, 5) for feature in (0, 100, 255)]
    nucleotides, rnas = Annotator.load(wanted, dictionary=str(tmp_path / "sae")).tables(records)
    tokens = token_table(records)
    assert len(tokens) == len(nucleotides) and rnas.id.tolist() == records.id.tolist()
    for name in wanted:
        layer, feature = map(int, name[1:].split("/"))
        expected = load_csr(tmp_path / features_file(layer))[:, [feature]].toarray().ravel()
        assert expected.max() > 0.1
        np.testing.assert_allclose(nucleotides[name], expected, atol=1e-6)


def test_the_features_are_the_best_of_each_concept_and_can_be_named(study, profile, annotator):
    rnas, p = study.activations("structures"), study.parameters
    scores = study.kept(structure_features.score_elements, rnas, shuffles=p.shuffles, seed=p.seed)
    stem = structure_features.best(scores, "stem")
    (own,) = [of for of in annotator.features.itertuples() if "stem" in of.concept.split(", ")]
    assert (own.layer, own.feature) == (stem.layer, stem.feature)
    summary = rnas.summary.set_index(["layer", "feature"])
    assert own.maximum == summary.maximum[own.layer, own.feature]
    named = Annotator.load(["L2/5", "stem", own.name], profile=profile).features
    assert named.name.tolist() == ["L2/5", own.name] and named.concept.tolist() == ["", own.concept]
    assert set(Annotator.load(layer=2, profile=profile).features.layer) == {2}


def test_the_command_writes_every_file_and_nothing_is_left_over(profile, annotator, rnas, tmp_path, capsys):
    file = tmp_path / "rnas.dbn"
    file.write_text(
        "".join(f">{of.id}\n{of.sequence}\n{of.secondary_structure}\n" for of in rnas.itertuples())
    )
    assert main(["annotate", str(file), "--profile", profile, "--output", str(tmp_path / "out")]) == 0
    found = {path.name for path in (tmp_path / "out").iterdir()}
    listed = {line.rpartition("/")[2] for line in capsys.readouterr().out.split()}
    assert found == listed | {".lock"}
    nucleotides, by_rna = annotator.tables(read_records(file))
    kept = pd.read_parquet(tmp_path / "out" / "nucleotides.parquet")
    pd.testing.assert_frame_equal(kept, nucleotides, check_dtype=False)
    tsv = pd.read_csv(tmp_path / "out" / "nucleotides.tsv", sep="\t")
    pd.testing.assert_frame_equal(tsv, nucleotides, check_dtype=False, rtol=1e-5)
    table = pd.read_csv(tmp_path / "out" / "rnas.tsv", sep="\t", keep_default_na=False)
    pd.testing.assert_frame_equal(table, by_rna, check_dtype=False, rtol=1e-5)
    for name in annotator.features.name:  # the second RNA is on the minus strand
        own = nucleotides[(nucleotides.id == rnas.id[1]) & (nucleotides[name] > 0)]
        track = pd.read_csv(
            tmp_path / "out" / f"{name.replace('/', '-')}.bedgraph", sep="\t", skiprows=1, header=None
        )
        track = track[track[1].between(1000, 1999)]
        assert track[2].tolist() == sorted(1000 + len(rnas.sequence[1]) - own.position + 1)
        np.testing.assert_allclose(track[3][::-1], own[name], rtol=1e-5)
    drawn = [path for path in found if path.startswith("drawing-")]
    assert len(drawn) == annotation.DRAWN * min(annotation.PANELS, len(annotator.features))


def test_after_a_stop_only_the_missing_parts_are_made_and_all_files_are_the_same(
    annotator, rnas, tmp_path, monkeypatch
):
    monkeypatch.setattr(annotation, "PART", 200)
    tables, sizes = Annotator.tables, []

    def counted(self, records, bar=None):
        if len(sizes) == stop_at:
            raise KeyboardInterrupt
        sizes.append(records.sequence.str.len().sum())
        return tables(self, records, bar)

    monkeypatch.setattr(Annotator, "tables", counted)
    stop_at = -1
    whole = contents_of(annotate(annotator, rnas, tmp_path / "whole"))
    made, longest = sizes.copy(), rnas.sequence.str.len().max()
    assert sum(made) == rnas.sequence.str.len().sum() and len(made) > 4
    assert max(made) < 200 + longest  # memory is that of a part, however many there are
    sizes.clear()
    stop_at = 3
    with pytest.raises(KeyboardInterrupt):
        annotate(annotator, rnas, tmp_path / "stopped")
    assert not list((tmp_path / "stopped").glob("[!.]*"))  # nothing is half-written
    stop_at = -1
    assert contents_of(annotate(annotator, rnas, tmp_path / "stopped")) == whole
    assert sizes == made


def contents_of(paths) -> dict[str, bytes]:
    """Contents by name; gradients of drawings are numbered through a process."""
    return {path.name: re.sub(rb"(gradient|clip)_?\d+", b"", path.read_bytes()) for path in paths}


def test_other_letters_have_no_activation_and_count_for_nothing(annotator):
    records = pd.DataFrame({"id": ["a", "b", "n"], "sequence": ["GGGAAACCC", "GGGNAACCC", "NN"]})
    nucleotides, rnas = annotator.tables(records)
    names = annotator.features.name.tolist()
    assert nucleotides.loc[nucleotides.base == "N", names].isna().all(axis=None)
    own = nucleotides[(nucleotides.id == "b") & (nucleotides.base != "N")]
    np.testing.assert_allclose(
        rnas.loc[1, [f"{name} share" for name in names]].tolist(), (own[names] > 0).mean()
    )
    assert rnas.loc[2, [*MEASURES[2:], *(f"{name} max" for name in names)]].isna().all()
    assert "element" not in nucleotides


def test_the_page_stands_alone_and_escapes_ids(annotator, rnas, tmp_path):
    hostile = "<script>alert(1)</script>" + rnas.id.str.replace("chr", '"&')
    annotate(annotator, rnas.assign(id=hostile), tmp_path)
    page = (tmp_path / "report.html").read_text()
    assert "<script" not in page and "&lt;script&gt;alert(1)" in page and "default-src 'none'" in page
    assert not re.findall(r"<link|<img|@import|(?:src|href)=[\"'](?!#)", page)
    assert all("<script" not in file.read_text() for file in tmp_path.glob("*.svg"))


def test_of_a_dictionary_the_features_are_named_or_those_that_fire_most(study, rnas, tmp_path):
    folder = str(study.train(study.parameters.main[:1], [*study.groups][0])[0])
    with pytest.warns(UserWarning, match="those are taken that fire most; --features"):
        found = Annotator.load(dictionary=folder, records=rnas)
    layer = study.layers[-1]
    every = [f"L{layer}/{at}" for at in range(study.autoencoders()[layer].config.latents)]
    nucleotides, _ = Annotator.load(every, dictionary=folder).tables(rnas)
    share = (nucleotides[every] > 0).mean()
    assert set(share[found.features.name]) == set(share.nlargest(annotation.FIRING))
    made = annotate(found, rnas, tmp_path)
    assert len(list(tmp_path.glob("L*.bedgraph"))) == annotation.FIRING
    bare = annotate(
        found,
        rnas.assign(id=range(len(rnas))).astype({"id": str}).drop(columns="secondary_structure"),
        tmp_path,
    )
    assert {path for path in tmp_path.iterdir() if path.name != ".lock"} == set(
        bare
    )  # no track or drawing is left
    assert "is not known here, so none is said to be beyond" in made[-1].read_text()
    assert (pd.read_csv(tmp_path / "rnas.tsv", sep="\t").outside.isna()).all()


@pytest.mark.parametrize(
    ("more", "fault"),
    [
        (["--features", "hairpin loops"], "no feature 'hairpin loops': write L3/12 .*'stem'"),
        (["--features", "L9/1"], "no feature 'L9/1': layers are 1, 2, 3"),
        (["--features", "L1/9999"], "features 0 to 95"),
        (["--layer", "7"], "layer 7 has no features: choose one of 1, 2, 3"),
        (["--model", "some/model"], "some/model needs autoencoders of its own"),
        (["--dictionary", "nowhere/at/all"], "nowhere/at/all"),
        (["--bed", "absent.bed"], "absent.bed: No such file"),
    ],
)
def test_what_there_is_not_is_refused_in_one_sentence_and_nothing_is_written(
    profile, tmp_path, capsys, more, fault
):
    (tmp_path / "rnas.fa").write_text(">a\nGGGAAACCC\n")
    given = ["annotate", str(tmp_path / "rnas.fa"), "--profile", profile, "--output", str(tmp_path / "out")]
    assert main([*given, *more]) == 1
    said = capsys.readouterr().err.splitlines()[-1]
    assert re.search(fault, said) and not list(tmp_path.glob("out/[!.]*"))
