"""Gradients of the batches of a step, on several processes of one thread each or in this process.

A small model's operations are too short to be shared out among threads; whole batches are not. Batches of a
step are taken by whichever process is free, each leaves its gradient in a place of its own, and they are
added in a fixed order: the result does not depend on who did what.
"""

import os
import queue
import traceback
from functools import lru_cache

import numpy as np
import torch
from batches import Batch, Corpus, Pools
from fast_rinalmo import FastRiNALMo, Layout
from torch import multiprocessing


class Work:
    """What a process needs in order to compute the gradient of any batch of the run."""

    def __init__(self, corpus, config, seed: int, batch_tokens: int, batches: int, mixture, compiled: bool):
        corpus = corpus if isinstance(corpus, Corpus) else Corpus.read(corpus)
        self.pools = Pools(corpus, seed, batch_tokens, batches)
        self.model = FastRiNALMo(Layout(config), rows=batch_tokens if compiled else None)
        self.pool = lru_cache(maxsize=1)(lambda pool: self.pools.draw(pool, mixture(pool)))

    def gradient(self, weights_P, pool: int, number: int):
        """Gradient [P] of the summed cross-entropy of batch `number` of a pool, and its sums."""
        batches, synthetic = self.pool(pool)
        batch = batches[number]
        leaf = weights_P.detach().requires_grad_()
        loss = summed_loss(self.model, self.pools.base_ids, leaf, batch)
        (gradient,) = torch.autograd.grad(loss, leaf)
        return gradient, {"loss": loss.item(), "chosen": len(batch.chosen), "nucleotides": batch.nucleotides,
                          "synthetic": synthetic / len(batches)}  # fmt: skip


def log_probabilities(model: FastRiNALMo, base_ids: np.ndarray, weights_P, batch: Batch) -> torch.Tensor:
    """ln P(A, C, G, U) among all tokens at the chosen places, [M, 4]."""
    device = weights_P.device
    ids, lengths, chosen = (torch.as_tensor(a).to(device) for a in (batch.ids, batch.lengths, batch.chosen))
    logits = model.logits(weights_P, ids, lengths, chosen)
    return logits.log_softmax(-1).index_select(1, torch.as_tensor(base_ids).to(device))


def summed_loss(model: FastRiNALMo, base_ids: np.ndarray, weights_P, batch: Batch) -> torch.Tensor:
    """Cross-entropy with the batch's targets, summed over its chosen places, in nats."""
    targets = torch.as_tensor(batch.targets).to(weights_P.device)
    return -(targets * log_probabilities(model, base_ids, weights_P, batch)).sum()


class Gradients:
    """Summed gradients of steps. With `workers` = 0 they are computed here, on the device of the weights."""

    def __init__(self, weights_P: torch.Tensor, workers: int, most: int, **work):
        self.weights, self.processes = weights_P, []
        if not workers:
            self.work = Work(**work)
            return
        torch.set_num_threads(1)  # little is left for this process, and waiting threads would take the cores
        context = multiprocessing.get_context("spawn")
        self.places = torch.zeros(most, len(weights_P)).share_memory_()
        self.tasks, self.results = context.SimpleQueue(), context.Queue()
        arguments = (weights_P, self.places, self.tasks, self.results, os.getpid(), work)
        self.processes = [context.Process(target=_serve, args=arguments, daemon=True) for _ in range(workers)]
        for process in self.processes:
            process.start()

    def sum(self, pool: int, numbers: list[int]) -> tuple[torch.Tensor, dict[str, float]]:
        """Gradient [P] and sums over the batches `numbers` of a pool."""
        if not self.processes:
            parts = [self.work.gradient(self.weights, pool, number) for number in numbers]
            gradients, sums = torch.stack([part[0] for part in parts]), [part[1] for part in parts]
        else:
            for place, number in enumerate(numbers):
                self.tasks.put((place, pool, number))
            answers = dict(self._answer() for _ in numbers)
            gradients, sums = self.places[: len(numbers)], [answers[place] for place in range(len(numbers))]
        return gradients.sum(0), {name: sum(part[name] for part in sums) for name in sums[0]}

    def _answer(self):
        while True:
            try:
                place, sums = self.results.get(timeout=60)
            except queue.Empty:
                if not all(process.is_alive() for process in self.processes):
                    raise RuntimeError(
                        "a process that computes gradients has ended: see its message above"
                    ) from None
                continue
            if isinstance(sums, str):
                raise RuntimeError(f"a process that computes gradients failed:\n{sums}")
            return place, sums

    def close(self):
        for process in self.processes:
            process.terminate()


def _serve(weights_P, places, tasks, results, parent: int, work: dict):
    torch.set_num_threads(1)
    made = None
    while True:
        while not tasks._reader.poll(5.0):
            if os.getppid() != parent:  # the run was killed
                return
        place, *task = tasks.get()
        try:
            made = made or Work(**work)
            gradient, sums = made.gradient(weights_P, *task)
            places[place] = gradient
            results.put((place, sums))
        except Exception:
            results.put((place, traceback.format_exc()))
