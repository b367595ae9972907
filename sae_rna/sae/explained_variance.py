"""Explained variance over a whole set, with global moments."""

import torch


def moments(x: torch.Tensor, residual: torch.Tensor) -> torch.Tensor:
    """Sums over tokens, the last dimension but one, of x, x^2, residual and residual^2: [4, ..., D]."""
    return torch.stack([part.sum(-2) for part in (x, x.square(), residual, residual.square())])


class ExplainedVariance:
    """Explained variance over any number of batches [M, B, D], one value per member M.

    EV = 1 - sum_d Var(x - x^)_d / sum_d Var(x)_d, the variances taken over all tokens seen. Predicting the
    mean gives exactly 0; averaging per-batch ratios, as some libraries do, does not.
    """

    def __init__(self, count: int = 0, sums: torch.Tensor | None = None):
        """`count` tokens and their `sums` so far, to go on from where these attributes were read."""
        self.count, self.sums = count, torch.zeros((), dtype=torch.float64) if sums is None else sums
        self._shift: torch.Tensor | float = 0.0

    def update(self, x_MBD: torch.Tensor, reconstruction_MBD: torch.Tensor):
        """Add a batch."""
        x, residual = x_MBD.double(), (x_MBD - reconstruction_MBD).double()
        if not self.count:  # sums of squares around a typical value keep their precision
            self._shift = x.mean(1, keepdim=True)
        self.add(x.shape[1], moments(x - self._shift, residual))

    def add(self, tokens: int, sums_4MD: torch.Tensor):
        """Add float64 `moments` of a batch of data that stand around 0."""
        self.count, self.sums = self.count + tokens, self.sums + sums_4MD

    def value(self) -> torch.Tensor:
        """Explained variance of every member, shape [M], float64."""
        mean_x, square_x, mean_r, square_r = self.sums / self.count
        return 1 - (square_r - mean_r.square()).sum(-1) / (square_x - mean_x.square()).sum(-1)
