"""Sparse autoencoders for RNA language models: from sequences to activations, features and figures."""

import os
import warnings

# OpenMP's workers spin at barriers unless they are told to wait: beside another job each step then takes ten
# times as long. And numba starts a worker for every core unless it is told how many a job may use.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
# OpenBLAS, NumPy's, spins too and cannot be told not to: on half of the cores there is none to wait for.
os.environ.setdefault("OPENBLAS_NUM_THREADS", str(max(1, (os.cpu_count() or 1) // 2)))
if "OMP_NUM_THREADS" in os.environ:
    os.environ.setdefault("NUMBA_NUM_THREADS", os.environ["OMP_NUM_THREADS"])
# multimolecule's libraries look for Jupyter's progress widgets; this package shows plain progress bars.
warnings.filterwarnings("ignore", message="IProgress not found")

__version__ = "0.1.0"
