"""Figures: a tidy table in, an Altair chart out, one public function per figure.

Importing this package enables its Altair theme. Every chart carries its description (read by screen readers), tooltips, and
fewer than `theme.MAXIMUM_ROWS` rows of data.
"""

from sae_rna.figures.by_concept import element_scores, masked_accuracy, type_features
from sae_rna.figures.by_layer import layer_sparsity, retained_features, training
from sae_rna.figures.overview import length_distribution, overview
from sae_rna.figures.tracks import feature_tracks, layout
from sae_rna.figures.trust import confounds, controls, fidelity, recurrence, type_effects

__all__ = [
    "confounds",
    "controls",
    "element_scores",
    "feature_tracks",
    "fidelity",
    "layer_sparsity",
    "layout",
    "length_distribution",
    "masked_accuracy",
    "overview",
    "recurrence",
    "retained_features",
    "training",
    "type_effects",
    "type_features",
]
