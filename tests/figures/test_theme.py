"""Colours, ticks and axes."""

import json

import numpy as np
import pandas as pd
import pytest
from charts import layers_table
from hypothesis import given
from hypothesis import strategies as st

from sae_rna import figures
from sae_rna.figures import theme
from sae_rna.records.structure import ELEMENTS


@given(st.lists(st.floats(1e-6, 1e6), min_size=1, max_size=20))
def test_ticks_of_a_logarithmic_axis_are_round_and_inside_it(values):
    axis, scale = theme.log_axis(pd.Series([*values, 0.0, np.nan]))
    low, high = scale.domain
    assert low < min(values) and high > max(values)
    assert all(low <= tick <= high and float(f"{tick:.2g}") == tick for tick in axis.values)
    assert high / low < 10 or axis.values


def test_elements_have_fixed_distinct_colours():
    assert list(theme.ELEMENT_COLOURS) == list(ELEMENTS)
    assert len(set(theme.ELEMENT_COLOURS.values())) == len(ELEMENTS)


def test_colours_keep_their_meaning_over_architectures():
    table = layers_table(2)
    assert theme.architectures(table) == ["topk", "relu-l1"]
    spec = figures.retained_features(table[table.architecture == "relu-l1"]).to_json()
    scale = {"domain": ["ReLU + L1"], "range": [theme.ARCHITECTURE_COLOURS["relu-l1"]]}
    assert json.dumps(scale) in json.dumps(json.loads(spec))


@pytest.mark.parametrize("last, ticks", [(6, [1, 2, 3, 4, 5, 6]), (33, [1, 5, 10, 15, 20, 25, 30, 33])])
def test_layers_are_labelled_as_far_as_there_is_room(last, ticks):
    assert theme.layer_labels(pd.Series(range(1, last + 1)))["values"] == ticks


def test_architectures_are_written_in_tables_and_captions_as_in_figures():
    numbers = {"best": "relu-l1-matched, 2 x width, 16", "count": 3, "frozen": "frozen encoder"}
    assert theme.readable(numbers) == numbers | {"best": "ReLU + L1, matched, 2 x width, 16"}
    table = pd.DataFrame({"model": ["topk", "relu-l1"], "relu-l1-mean": [1.5, 2.0]})
    expected = pd.DataFrame({"model": ["TopK", "ReLU + L1"], "ReLU + L1, mean error": [1.5, 2.0]})
    pd.testing.assert_frame_equal(theme.readable(table), expected)
