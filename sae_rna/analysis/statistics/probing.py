"""Linear probes: what a logistic regression reads of nucleotides, fitted on one set and scored on another.

Shapes: T nucleotides, P columns that are read.
"""

import numpy as np
from scipy import sparse
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

from sae_rna.analysis.statistics.annotations import Annotations
from sae_rna.analysis.statistics.scoring import Sample


def probe(known_TP: np.ndarray, is_known_T: np.ndarray, other_TP: np.ndarray) -> np.ndarray:
    """Log odds of nucleotides [T] from a logistic regression that was fitted on the known ones."""
    reader = make_pipeline(StandardScaler(), LogisticRegression(solver="newton-cholesky"))
    return reader.fit(known_TP, is_known_T).decision_function(other_TP)


def base_auroc(guess_T: np.ndarray, is_member_T: np.ndarray, base_T: np.ndarray) -> float:
    """Base-stratified AUROC of any guess (see `Sample.base_auroc`)."""
    members, one_record = np.asarray(is_member_T)[:, None], np.zeros(len(guess_T), int)
    labels = Annotations.of(["member"], [""], members, one_record, np.asarray(base_T))
    ranked = sparse.csr_matrix((guess_T - guess_T.min())[:, None])  # zeros are the lowest
    return float(Sample(ranked, labels, np.ones(1)).base_auroc()[0, 0])


def association(values_TP, is_member_T: np.ndarray, base_T: np.ndarray) -> np.ndarray:
    """Size of every column's correlation with membership among nucleotides of one base, [P].

    values_TP : dense or sparse; a column without variance has 0
    """
    codes = np.unique(np.asarray(base_T), return_inverse=True)[1]
    groups = np.eye(codes.max() + 1)[codes]
    sizes = groups.sum(0)[:, None]
    truth_T = is_member_T - (groups @ ((groups.T @ is_member_T[:, None]) / sizes)).ravel()
    values_TP = values_TP.astype(np.float64)
    squares = values_TP.power(2) if sparse.issparse(values_TP) else values_TP**2
    within_P = np.asarray(squares.sum(0)).ravel() - ((values_TP.T @ groups).T ** 2 / sizes).sum(0)
    spread_P = np.sqrt(np.maximum(within_P, 0)) * np.linalg.norm(truth_T)
    products_P = np.abs(values_TP.T @ truth_T)
    return np.divide(products_P, spread_P, out=np.zeros(len(spread_P)), where=spread_P > 1e-9)
