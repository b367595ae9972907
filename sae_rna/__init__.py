"""Sparse autoencoders for RNA language models: from sequences to activations, features and figures."""

import warnings

# multimolecule's libraries look for Jupyter's progress widgets; this package shows plain progress bars.
warnings.filterwarnings("ignore", message="IProgress not found")

__version__ = "0.1.0"
