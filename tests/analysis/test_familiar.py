"""States and surprisal from one pass, and what of an RNA is beyond the training RNAs."""

import numpy as np
import pandas as pd
import pytest
import torch

from sae_rna.analysis import familiar
from sae_rna.extraction.language_model import LanguageModel
from sae_rna.extraction.stream import hidden_states

SEQUENCES = ["GGGNAAACCC", "ACGU", "UUAGCGAUCGGCUAAGC"]


@pytest.fixture(scope="module")
def model(tiny_model):
    return LanguageModel.load(str(tiny_model), device="cpu", masked=True)


def read(model, layers=()):
    parts = list(familiar.read(model, SEQUENCES, layers))
    order = np.lexsort(
        [np.concatenate([of.position_T for of in parts]), np.concatenate([of.sequence_T for of in parts])]
    )
    states = {layer: torch.cat([of.states[layer] for of in parts])[order].numpy() for layer in layers}
    return states, np.concatenate([of.surprisal_T for of in parts])[order]


def test_the_states_are_those_that_every_analysis_reads(model):
    states, _ = read(model, [0, 2, 3])
    expected_TLD = hidden_states(model, SEQUENCES, [0, 2, 3])
    for place, layer in enumerate([0, 2, 3]):
        np.testing.assert_allclose(states[layer], expected_TLD[:, place], atol=1e-6)


def test_surprisal_is_minus_the_log_of_the_probability_of_the_base_that_stands_there(model):
    _, surprisal_T = read(model)
    expected = []
    for sequence in SEQUENCES:
        ids = model.tokenizer([sequence], return_tensors="pt")
        with torch.inference_mode():
            logits = model.model(**ids).logits[0, model.first :]
        p = {base: logits[:, model.tokenizer.convert_tokens_to_ids(base)].exp() for base in "ACGU"}
        expected += [
            -float((p[base] / sum(p.values()))[at].log()) for at, base in enumerate(sequence) if base != "N"
        ]
    np.testing.assert_allclose(surprisal_T, expected, rtol=1e-5)


def test_a_model_without_a_head_has_no_surprisal(tiny_model):
    bare = LanguageModel.load(str(tiny_model), device="cpu")
    states, surprisal_T = read(bare, [3])
    assert np.isnan(surprisal_T).all() and np.isfinite(states[3]).all()


def test_ranges_hold_98_percent_of_the_records(model):
    records = pd.DataFrame({"id": range(51), "sequence": ["G" * at + "A" * (60 - at) for at in range(51)]})
    found = familiar.ranges(model, records).set_index("measure")
    assert found.loc["length"].tolist() == [60, 60]
    assert found.loc["gc"].tolist() == pytest.approx([0.5 / 60, 49.5 / 60])
    assert found.loc["surprisal"].low < found.loc["surprisal"].high


def test_what_is_beyond_is_named_and_where_nothing_is_known_nothing_is_beyond():
    known = pd.DataFrame({"measure": familiar.MEASURES, "low": [20, 0.3, 0.2], "high": [99, 0.7, 0.9]})
    rnas = pd.DataFrame({"length": [20, 19, 500], "gc": [0.7, 0.1, 0.8], "surprisal": [0.5, 0.1, np.nan]})
    expected = ["", "short, GC low", "long, GC high"]
    assert familiar.outside(rnas, known) == expected
    assert familiar.outside(rnas, known.head(0)) == [""] * 3
