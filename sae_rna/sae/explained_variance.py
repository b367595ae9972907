"""Explained variance over a whole set, with global moments."""

import torch


class ExplainedVariance:
    """Explained variance over any number of batches [M, B, D], one value per member M.

    EV = 1 - sum_d Var(x - x^)_d / sum_d Var(x)_d, the variances taken over all tokens seen. Predicting the
    mean gives exactly 0; averaging per-batch ratios, as some libraries do, does not.
    """

    def __init__(self):
        self.count = 0
        self._shift, self._sums = 0.0, None

    def update(self, x_MBD: torch.Tensor, reconstruction_MBD: torch.Tensor):
        """Add a batch."""
        x, residual = x_MBD.double(), (x_MBD - reconstruction_MBD).double()
        if self._sums is None:  # sums of squares around a typical value keep their precision
            self._shift = x.mean(1, keepdim=True)
        x = x - self._shift
        sums = [x.sum(1), x.square().sum(1), residual.sum(1), residual.square().sum(1)]
        self.add(x.shape[1], torch.stack(sums))

    def add(self, tokens: int, sums_4MD: torch.Tensor):
        """Add float64 sums of x, x^2, residual and residual^2 over a batch of data that stand around 0."""
        self.count += tokens
        self._sums = sums_4MD if self._sums is None else self._sums + sums_4MD

    def sums(self) -> torch.Tensor:
        """The sums so far [4, M, D], empty before the first batch: what `restore` takes, with `count`."""
        return torch.empty(0, dtype=torch.float64) if self._sums is None else self._sums

    @classmethod
    def restore(cls, count: int, sums: torch.Tensor) -> "ExplainedVariance":
        """Go on from `sums` of data that stand around 0."""
        variance = cls()
        variance.count, variance._sums = count, sums if sums.numel() else None
        return variance

    def value(self) -> torch.Tensor:
        """Explained variance of every member, shape [M], float64."""
        mean_x, square_x, mean_r, square_r = self._sums / self.count
        return 1 - (square_r - mean_r.square()).sum(-1) / (square_x - mean_x.square()).sum(-1)
