"""Gradients on an NVIDIA GPU: pools are drawn ahead by processes, and the forward and backward pass of every
width of batch is a CUDA graph.

The operations of so small a model are shorter than it takes to start them one by one.
"""

import signal

import torch
from batches import Batch, Corpus, Pools
from fast_rinalmo import FastRiNALMo, Layout
from gradients import summed_loss
from torch.utils.data import DataLoader, Dataset

#: Tokens of a row: few widths, as each has a graph of its own.
WIDTHS = (48, 64, 80, 96, 112, 128, 144, 176, 216, 264)
#: Chosen places of a batch at most, as a share of its tokens.
MOST_CHOSEN = 0.32


class StackedPools(Dataset):
    """Pools whose batches are filled up to one size, from pool `first` on."""

    def __init__(self, pools: Pools, mixture, first: int, last: int):
        self.pools, self.mixture, self.first, self.last = pools, mixture, first, last

    def __len__(self):
        return self.last - self.first

    def __getitem__(self, number: int) -> dict[str, torch.Tensor]:
        """Per batch: width, nucleotides, chosen places, freshly drawn nucleotides; ids, lengths, places and
        targets."""
        tokens = self.pools.batch_tokens
        number += self.first
        batches, drawn = self.pools.draw(number, self.mixture(number))
        count, most = len(batches), int(MOST_CHOSEN * tokens)
        pool = {
            "sizes": torch.tensor([[batch.ids.shape[1], batch.nucleotides, len(batch.chosen), int(drawn / count)]
                                   for batch in batches]),
            "ids": torch.full((count, tokens), self.pools.special[2], dtype=torch.uint8),
            "lengths": torch.full((count, tokens // WIDTHS[0]), 2, dtype=torch.int16),
            "chosen": torch.zeros(count, most, dtype=torch.int32),
            "targets": torch.zeros(count, most, 4, dtype=torch.float16),
        }  # fmt: skip
        for row, batch in enumerate(batches):
            pool["ids"][row, : batch.ids.size] = torch.from_numpy(batch.ids.ravel())
            for name in ("lengths", "chosen", "targets"):
                values = torch.from_numpy(getattr(batch, name))
                pool[name][row, : len(values)] = values
        return pool


def _leave_signals_to_the_run(_worker: int):
    for kind in (signal.SIGTERM, signal.SIGINT):
        signal.signal(kind, signal.SIG_IGN)


class GraphGradients:
    """Summed gradients of steps, one pool after the other."""

    def __init__(
        self, weights_P: torch.Tensor, processes: int, first_pool: int, pools: int, corpus, config, seed: int,
        batch_tokens: int, batches: int, mixture,
    ):  # fmt: skip
        corpus = corpus if isinstance(corpus, Corpus) else Corpus.read(corpus)
        self.drawn = Pools(corpus, seed, batch_tokens, batches, WIDTHS)
        self.weights, self.leaf = weights_P, weights_P.detach().requires_grad_()
        self.model = FastRiNALMo(Layout(config), rows=batch_tokens if weights_P.is_cuda else None)
        stacked = StackedPools(self.drawn, mixture, first_pool, pools)
        loader = DataLoader(stacked, batch_size=None, num_workers=processes, pin_memory=weights_P.is_cuda,
                            worker_init_fn=_leave_signals_to_the_run)  # fmt: skip
        self.pools = iter(loader)
        self.number, self.pool, self.sizes = first_pool - 1, {}, []
        self.bases = torch.from_numpy(self.drawn.base_ids).to(
            weights_P.device
        )  # graphs keep its address alone
        self.graphs = {}
        self.memory = torch.cuda.graph_pool_handle() if weights_P.is_cuda else None

    def sum(self, pool: int, numbers: list[int]) -> tuple[torch.Tensor, dict]:
        """Gradient [P] and sums over the batches `numbers` of a pool; pools come in order."""
        while self.number < pool:
            self.number, drawn = self.number + 1, next(self.pools)
            self.sizes = drawn["sizes"].tolist()
            self.pool = {name: drawn[name].to(self.weights.device, non_blocking=True)
                         for name in ("ids", "lengths", "chosen", "targets")}  # fmt: skip
        parts = [self._of_batch(number) for number in numbers]
        gradient = sum(part[0] for part in parts) if len(parts) > 1 else parts[0][0]
        return gradient, {name: sum(part[1][name] for part in parts) for name in parts[0][1]}

    def _of_batch(self, number: int):
        width, nucleotides, chosen, drawn = self.sizes[number]
        if width not in self.graphs:
            self.graphs[width] = self._capture(width)
        run, batch = self.graphs[width]
        rows = len(batch.lengths)
        batch.ids.copy_(self.pool["ids"][number, : rows * width].view(rows, width))
        batch.lengths.copy_(self.pool["lengths"][number, :rows])
        batch.chosen.copy_(self.pool["chosen"][number])
        batch.targets.copy_(self.pool["targets"][number])
        gradient, loss = run()
        sums = {"loss": loss.clone(), "chosen": chosen, "nucleotides": nucleotides, "synthetic": drawn}
        return gradient.clone(), sums

    def _capture(self, width: int):
        """A function that computes gradient and loss of what stands in a batch of this width, and that
        batch."""
        tokens, device = self.drawn.batch_tokens, self.weights.device
        rows, most = tokens // width, int(MOST_CHOSEN * tokens)
        batch = Batch(
            torch.full((rows, width), self.drawn.special[2], device=device),
            torch.full((rows,), 2, device=device), torch.zeros(most, dtype=torch.long, device=device),
            torch.zeros(most, 4, device=device), None, 0,
        )  # fmt: skip

        def compute():
            loss = summed_loss(self.model, self.bases, self.leaf, batch)
            return torch.autograd.grad(loss, self.leaf)[0], loss.detach()

        if device.type == "cpu":  # for tests: the same without a graph
            return compute, batch
        beside = torch.cuda.Stream()
        beside.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(beside):
            for _ in range(3):  # compiles and allocates
                compute()
        torch.cuda.current_stream().wait_stream(beside)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph, pool=self.memory, capture_error_mode="thread_local"):  # others copy
            gradient, loss = compute()

        def replay():
            graph.replay()
            return gradient, loss

        return replay, batch

    def close(self):
        self.pools = iter(())
