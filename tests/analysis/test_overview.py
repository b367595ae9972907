"""Page 00: the boxes hold this run's own numbers."""

import numpy as np
import pandas as pd

from sae_rna.analysis import overview
from sae_rna.analysis.claims import Finding


def test_boxes_say_what_this_run_was(study):
    rnas, p = study.activations("types"), study.parameters
    config = study.autoencoders()[3].config
    steps = overview.pipeline(study.model, config, p.architectures, rnas, study.structures)
    details = steps.set_index("title").detail
    assert steps.step.tolist()[:2] == ["sequences", "hidden states"] and len(steps) == 6
    evaluated = len({*study.types.id, *study.structures.id})
    assert f"{len(study.training):,} to train on, {evaluated:,} others to evaluate" in details["RNA records"]
    assert f"{study.model.parameter_count:,} parameters" in details["language model"]
    assert f"{study.training.sequence.str.len().sum():,} nucleotides x 3 layers" in details["activations"]
    assert details["sparse autoencoders"].startswith(f"96 latents a layer; {', '.join(p.architectures)}")
    assert details["annotations"].split(" RNA types")[0].endswith(" 2")


def test_retained_features_fire_in_so_many_rnas(study):
    rnas, counts = study.activations("types"), []
    for layer in study.layers:
        firing = pd.DataFrame(rnas.features(layer).toarray() > 0).groupby(rnas.tokens.record.to_numpy()).any()
        counts.append((firing.sum() >= 2).sum())
    expected = {"fewest": min(counts), "most": max(counts), "min_sequences": 2}
    assert overview.retained_range(rnas) == expected


def test_an_element_counts_if_both_selection_and_heldout_rnas_have_it():
    splits = ["selection", "selection", "heldout", "natural"]
    records = pd.DataFrame({"split": splits, "element": ["SSHH", "EE", "SIH", "MMM"]})
    assert overview._elements(records) == 2
    assert overview._elements(records[records.split != "heldout"]) == 0


def scored(source: str, layer, concept: str, chosen: float, score: float, **changes) -> dict:
    row = {
        "source": source,
        "layer": layer,
        "group": "element",
        "concept": concept,
        "setting": "seen families",
    }
    row |= {"selection_base_auroc": chosen, "base_auroc": score, "null_p95": 0.55, "discovery": True}
    return row | {"base_auroc_resampled": np.array([score - 0.01, score, score + 0.01])} | changes


def test_the_figure_shows_the_control_that_the_choosing_families_prefer():
    concepts = pd.DataFrame([
        scored("SAE", 1, "stem", 0.7, 0.68), scored("PCA", 1, "stem", 0.8, 0.6, null_p95=np.nan),
        scored("ICA", 1, "stem", 0.6, 0.9, null_p95=np.nan), scored("SAE", 1, "bulge", 0.7, 0.68),
        scored("5-mers", np.nan, "stem", 0.9, 0.95, null_p95=np.nan),
    ])  # fmt: skip
    table = overview.by_layer(concepts.astype({"layer": "Int64"}))
    assert table.set_index("line").base_auroc.to_dict() == {
        "autoencoder": 0.68, "best control": 0.6, "chance": 0.55
    }  # fmt: skip
    assert set(table.concept) == {"stem"}


def test_the_sentences_name_scores_types_and_verdicts_by_setting():
    concepts = pd.DataFrame([
        scored("SAE", 1, "stem", 0.7, 0.68), scored("PCA", 1, "stem", 0.8, 0.6),
        scored("SAE", 1, "hairpin loop", 0.7, 0.5), scored("PCA", 1, "hairpin loop", 0.8, 0.6),
    ])  # fmt: skip
    effects = pd.DataFrame({
        "setting": ["seen families"] * 3 + ["unseen families"], "type": ["a", "a", "b", "a"], "layer": [1, 2, 1, 1],
        "surviving": [0, 2, 0, 0], "tested": 5,
    })  # fmt: skip
    named = [("stems", "holds"), ("loops", "does not hold here"), ("types", "holds")]
    found = [Finding(claim, "", 1.0, "", 0.0, verdict, "", "") for claim, verdict in named]
    facts = overview.numbers(concepts, effects, found)
    assert facts["stem"] == "0.68 (best control 0.60) in seen families"
    assert facts["types"] == "1 of 2 types in seen families and 0 of 1 types in unseen families"
    assert (facts["concepts"], facts["clearly"], facts["behind"]) == (2, 1, 1)
    assert facts["verdicts"] == "2 hold, 1 does not hold here"
