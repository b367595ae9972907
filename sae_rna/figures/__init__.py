"""Figures: a tidy table in, an Altair chart out; a file per page of the book, a public function per figure.

Importing this package enables its Altair theme. Every chart carries its description (read by screen readers),
tooltips, and at most `theme.MAXIMUM_ROWS` rows of data. A table without rows raises a ValueError.
"""

from sae_rna.figures.atlas import feature_index as feature_index
from sae_rna.figures.atlas import feature_pages as feature_pages
from sae_rna.figures.autoencoders import training as training
from sae_rna.figures.base_pairs import contact_maps as contact_maps
from sae_rna.figures.base_pairs import contact_precision as contact_precision
from sae_rna.figures.causes import mutation_map as mutation_map
from sae_rna.figures.causes import pairing_effects as pairing_effects
from sae_rna.figures.compare import firing_places as firing_places
from sae_rna.figures.compare import volcano as volcano
from sae_rna.figures.confounds import confounds as confounds
from sae_rna.figures.controls import controls as controls
from sae_rna.figures.data import length_distribution as length_distribution
from sae_rna.figures.dictionary import dictionary_features as dictionary_features
from sae_rna.figures.dictionary import dictionary_frontier as dictionary_frontier
from sae_rna.figures.dictionary import dictionary_training as dictionary_training
from sae_rna.figures.fidelity import fidelity as fidelity
from sae_rna.figures.fine_tuning import tuned_examples as tuned_examples
from sae_rna.figures.fine_tuning import tuned_methods as tuned_methods
from sae_rna.figures.ground_truth import falsification as falsification
from sae_rna.figures.ground_truth import planted_latents as planted_latents
from sae_rna.figures.hypotheses import funnel as funnel
from sae_rna.figures.hypotheses import lead_logos as lead_logos
from sae_rna.figures.hypotheses import relations as relations
from sae_rna.figures.language_model import masked_accuracy as masked_accuracy
from sae_rna.figures.language_model import stem_readers as stem_readers
from sae_rna.figures.layers import layer_sparsity as layer_sparsity
from sae_rna.figures.layers import retained_features as retained_features
from sae_rna.figures.layers import type_sparsity as type_sparsity
from sae_rna.figures.lineage import lineage as lineage
from sae_rna.figures.overview import findings as findings
from sae_rna.figures.overview import overview as overview
from sae_rna.figures.recurrence import recurrence as recurrence
from sae_rna.figures.structure_features import element_scores as element_scores
from sae_rna.figures.structure_features import sparse_probe as sparse_probe
from sae_rna.figures.theme import readable as readable
from sae_rna.figures.tracks import feature_tracks as feature_tracks
from sae_rna.figures.tracks import layout as layout
from sae_rna.figures.type_features import type_effects as type_effects
from sae_rna.figures.type_features import type_features as type_features
from sae_rna.figures.type_features import type_probe as type_probe
from sae_rna.figures.use import dose_response as dose_response
from sae_rna.figures.use import interventions as interventions
from sae_rna.figures.use import logo as logo
