"""Page 03: training curves in one table, where they end, and which architecture is sparse."""

import pandas as pd
import pytest

from sae_rna.analysis import autoencoders


def test_curves_are_those_of_every_group_and_architecture(study):
    variants = study.parameters.main
    folders = [study.train(variants, group) for group in study.groups]
    curves = autoencoders.training_curves(folders)
    assert list(dict.fromkeys(curves.architecture)) == study.parameters.architectures
    assert sorted(set(curves.layer)) == study.layers
    assert len(curves) == curves.step.nunique() * len(study.layers) * len(variants)


def test_architectures_stay_together_where_layers_are_trained_in_groups(tmp_path):
    folders = []
    for group in ("1-2", "3"):
        folders.append([tmp_path / f"{name}-{group}" for name in ("topk", "relu-l1")])
        for folder in folders[-1]:
            folder.mkdir()
            pd.DataFrame({"from": [folder.name]}).to_parquet(folder / "training.parquet")
    curves = autoencoders.training_curves(folders)
    assert curves["from"].tolist() == ["topk-1-2", "topk-3", "relu-l1-1-2", "relu-l1-3"]


@pytest.fixture
def curves():
    rows = [
        (step, architecture, layer, l0 + step, 0.5 + layer / 10, 0.1 * layer, 1.0)
        for step in (4, 10)
        for architecture, l0 in (("topk", 6), ("relu-l1", 30))
        for layer in (2, 1)
    ]
    columns = ["step", "architecture", "layer", "l0", "explained_variance", "dead_share", "loss"]
    return pd.DataFrame(rows, columns=columns)


def test_the_end_is_the_last_report_and_what_it_is_the_mean_of(curves):
    end = autoencoders.training_end(curves)
    assert end[["architecture", "layer", "l0"]].to_numpy().tolist() == [
        ["relu-l1", 1, 40], ["relu-l1", 2, 40], ["topk", 1, 16], ["topk", 2, 16]
    ]  # fmt: skip
    assert autoencoders.report_steps(curves) == 6
    assert autoencoders.report_steps(curves[curves.step == 4]) == 4  # a single report counts from the start


def test_the_conclusion_names_the_sparsest_and_the_densest_architecture(curves):
    facts = autoencoders.conclusion(autoencoders.training_end(curves), latents=80)
    assert (facts["sparsest"], facts["densest"], facts["architectures"]) == ("topk", "relu-l1", 2)
    assert (facts["sparsest_l0"], facts["densest_l0"], facts["densest_share"]) == (16, 40, 0.5)
    assert facts["dead"] == 0.2 and facts["densest_explained"] == pytest.approx(0.65)
