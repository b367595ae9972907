"""What a sparse autoencoder must beat: dictionaries without one, read and scored by the same code.

A dictionary turns hidden states of one layer, as `LanguageModel.hidden_states` gives them (not standardised), into non-negative
activations: ``latents`` is its size F, ``encode(values_TD)`` gives [T, F]. A direction that may be negative counts as two
features, one for each sign. Windows and k-mers need no language model: they are read from the sequences, with rows as `hidden_states`
has them. Shapes: T nucleotides, D width, F features.
"""

import warnings
from dataclasses import replace
from typing import Protocol

import numpy as np
import torch
from scipy import sparse
from sklearn.decomposition import PCA, FastICA
from sklearn.exceptions import ConvergenceWarning

from sae_rna.extraction.stream import Standardiser
from sae_rna.records.composition import NUCLEOTIDES
from sae_rna.sae.autoencoder import SparseAutoencoders
from sae_rna.sae.features import to_csr

ICA_TOKENS = 20_000
"""Drawn at random to fit independent components on; more cost time and change little."""
ICA_ITERATIONS = 200
ENCODED_TOKENS = 4096
"""Tokens that an autoencoder encodes at a time."""


class Dictionary(Protocol):
    """What scores of features need; `Neurons`, `Components` and `Latents` are dictionaries."""

    @property
    def latents(self) -> int:
        """F."""

    def encode(self, values_TD: torch.Tensor | np.ndarray) -> np.ndarray | sparse.csr_matrix:
        """Non-negative activations [T, F] of hidden states [T, D]."""


def _both_signs(values_TD: np.ndarray) -> np.ndarray:
    """relu(x) and relu(-x), side by side."""
    width = values_TD.shape[1]
    both = np.empty((len(values_TD), 2 * width), values_TD.dtype)
    np.maximum(values_TD, 0, out=both[:, :width])
    np.maximum(-values_TD, 0, out=both[:, width:])
    return both


def _hidden_states(values_TD: torch.Tensor | np.ndarray, width: int | None = None) -> torch.Tensor:
    values_TD = torch.as_tensor(values_TD).float()
    if values_TD.ndim != 2 or width not in (None, values_TD.shape[1]):
        shape = ", ".join(map(str, values_TD.shape))
        raise ValueError(
            f"hidden states of one layer have the shape [tokens, {width or 'width'}], not [{shape}]: choose the layer first"
        )
    return values_TD


class Neurons:
    """The raw dimensions of a layer, standardised: feature d is relu(x_d), feature D + d is relu(-x_d)."""

    def __init__(self, standardise: Standardiser):
        """`standardise` holds the statistics [D] of one layer."""
        self.standardise = standardise

    @classmethod
    def fit(cls, values_TD: torch.Tensor | np.ndarray) -> "Neurons":
        """With the mean and the standard deviation of `values_TD`, hidden states of training tokens."""
        return cls(Standardiser.fit(_hidden_states(values_TD)))

    @property
    def latents(self) -> int:
        return 2 * len(self.standardise.mean)

    def encode(self, values_TD: torch.Tensor | np.ndarray) -> np.ndarray:
        """Non-negative activations [T, 2 D] of hidden states [T, D]."""
        return _both_signs(_standardised(self.standardise, values_TD))


def _standardised(standardise: Standardiser, values_TD: torch.Tensor | np.ndarray) -> np.ndarray:
    values_TD = _hidden_states(values_TD, len(standardise.mean))
    return standardise(values_TD.to(standardise.mean.device)).cpu().numpy()


class Components:
    """Principal or independent components of the standardised dimensions: feature c is relu(s_c), feature count + c is relu(-s_c)."""

    def __init__(self, standardise: Standardiser, model: PCA | FastICA, converged: bool = True):
        self.standardise, self.model, self.converged = standardise, model, converged

    @classmethod
    def fit(
        cls,
        values_TD: torch.Tensor | np.ndarray,
        method: str = "pca",
        count: int | None = None,
        seed: int = 0,
    ) -> "Components":
        """`count` components (as many as dimensions if None) of training tokens' hidden states.

        "pca" is scikit-learn's PCA; "ica" its FastICA (Hyvarinen 1999, IEEE Transactions on Neural Networks 10:626) with sources of unit
        variance, on `ICA_TOKENS` random tokens and in `ICA_ITERATIONS` iterations at most: `converged` says whether they were enough.
        Raises ValueError for another method and for more components than dimensions or tokens.
        """
        standardise = Standardiser.fit(_hidden_states(values_TD))
        x_TD = _standardised(standardise, values_TD)
        count = x_TD.shape[1] if count is None else count
        if not 0 < count <= min(x_TD.shape):
            raise ValueError(
                f"{count} components are impossible with {x_TD.shape[0]} tokens of {x_TD.shape[1]} dimensions: ask for fewer"
            )
        if method == "pca":
            return cls(standardise, PCA(count, random_state=seed).fit(x_TD))
        if method != "ica":
            raise ValueError(f'components are found by "pca" or by "ica", not by "{method}"')
        drawn = np.random.default_rng(seed).permutation(len(x_TD))[:ICA_TOKENS]
        model = FastICA(
            count,
            whiten="unit-variance",
            whiten_solver="eigh",
            max_iter=ICA_ITERATIONS,
            tol=1e-3,
            random_state=seed,
        )
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            model.fit(x_TD[drawn])
        return cls(
            standardise,
            model,
            not any(issubclass(warning.category, ConvergenceWarning) for warning in caught),
        )

    @property
    def latents(self) -> int:
        return 2 * len(self.model.components_)

    def encode(self, values_TD: torch.Tensor | np.ndarray) -> np.ndarray:
        """Non-negative activations [T, 2 count] of hidden states [T, D]."""
        return _both_signs(self.model.transform(_standardised(self.standardise, values_TD)))


class Latents:
    """The latents of one autoencoder, trained or not, as a dictionary beside the others."""

    def __init__(self, stack: SparseAutoencoders):
        """Raises ValueError for a stack of several members: choose one by `SparseAutoencoders.only` or `views`."""
        if len(stack.config.members) > 1:
            raise ValueError(
                f"a stack of {len(stack.config.members)} autoencoders is no single dictionary: choose one with only(layer)"
            )
        self.stack = stack.eval()

    @property
    def latents(self) -> int:
        return self.stack.config.latents

    @torch.inference_mode()
    def encode(self, values_TD: torch.Tensor | np.ndarray) -> sparse.csr_matrix:
        """Non-negative activations [T, F] of hidden states [T, D]."""
        stack, parts = self.stack, []
        for part_TD in _hidden_states(values_TD, stack.config.width).split(ENCODED_TOKENS):
            x_1TD = stack.standardise(part_TD.to(stack.encoder_weight.device)[:, None]).transpose(0, 1)
            parts.append(to_csr(stack.encode(x_1TD)[0].cpu().numpy()))
        return sparse.vstack(parts, format="csr")


def untrained(stack: SparseAutoencoders, seed: int = 0) -> SparseAutoencoders:
    """`stack` before its training: the same configuration, k and standardisation, initial weights. Seed 0 gives the very weights that the
    training started from, another one others.

    The threshold of batchtopk and matryoshka is learnt in training, so that the untrained one has none: they are given the topk of the
    same k and the same first weights instead.
    """
    members = tuple(member._replace(seed=member.seed + seed) for member in stack.config.members)
    learnt = stack.config.kind.activation == "batchtopk"
    architecture = "topk" if learnt else stack.config.architecture
    config = replace(stack.config, architecture=architecture, members=members, training={})
    standardise = Standardiser(stack.standardise.mean, stack.standardise.std)
    return SparseAutoencoders(config, standardise).to(stack.encoder_weight.device).eval()


def window_names(reach: int = 5) -> list[str]:
    """Names of the columns of `windows`: base and place, such as "A-5" or "G+0"."""
    return [f"{base}{place:+d}" for base in NUCLEOTIDES for place in range(-reach, reach + 1)]
