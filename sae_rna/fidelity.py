"""What an autoencoder keeps of the activations it was given."""

import torch


class ExplainedVariance:
    """Explained variance over any number of batches, by global moments.

    EV = 1 - sum_d Var(x - x^)_d / sum_d Var(x)_d, the variances taken over all tokens seen. Predicting the mean gives exactly 0;
    averaging per-batch ratios, as some libraries do, does not. Shapes: [M, B, D] batches, one value per member M.
    """

    def __init__(self):
        self._count = 0
        self._shift = None

    def update(self, x_MBD: torch.Tensor, reconstruction_MBD: torch.Tensor):
        """Add a batch."""
        x, residual = x_MBD.double(), (x_MBD - reconstruction_MBD).double()
        if self._shift is None:  # sums of squares around a typical value keep their precision
            self._shift = x.mean(1, keepdim=True)
            self._sums = torch.zeros(4, len(x), x.shape[-1], dtype=torch.float64, device=x.device)
        x = x - self._shift
        self._count += x.shape[1]
        self._sums += torch.stack([x.sum(1), x.square().sum(1), residual.sum(1), residual.square().sum(1)])

    def value(self) -> torch.Tensor:
        """Explained variance of every member, shape [M], float64."""
        mean_x, square_x, mean_r, square_r = self._sums / self._count
        return 1 - (square_r - mean_r.square()).sum(-1) / (square_x - mean_x.square()).sum(-1)
