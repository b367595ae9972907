"""Activations that a test has made, where no language model is needed."""

import numpy as np
import pandas as pd

from sae_rna.sae.activations import Activations


class Given(Activations):
    """`activations` of layer 1, or of several by layer; without `tokens` a row is a sequence."""

    def __init__(self, activations, records: pd.DataFrame, tokens: pd.DataFrame | None = None):
        self.by_layer = activations if isinstance(activations, dict) else {1: activations}
        super().__init__("given", records, [*self.by_layer], {}, folder_of=None, summarise=None)
        self.tokens = pd.DataFrame({"record": np.arange(len(records))}) if tokens is None else tokens

    def features(self, layer):
        return self.by_layer[layer]

    def retained(self, layer):
        return np.ones(self.features(layer).shape[1], bool)
