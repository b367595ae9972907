"""Page 00: the boxes hold this run's own numbers."""

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


def test_findings_are_a_sentence_for_every_verdict_there_is():
    named = [("stems", "holds"), ("loops", "does not hold here"), ("types", "holds")]
    found = [Finding(claim, "", 1.0, "", 0.0, verdict, "", "") for claim, verdict in named]
    assert overview.findings(found) == [
        "Holds (2 of 3): stems; types.", "Does not hold here (1 of 3): loops."
    ]  # fmt: skip
