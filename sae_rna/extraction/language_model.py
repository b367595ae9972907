"""RNA language models, any multimolecule encoder from a folder or a hub id, and their hidden states.

Layers are numbered as in ``hidden_states`` of multimolecule and transformers: 0 is the embedding layer and
`i` the output of block `i`; the last one is taken *after* the encoder's final layer norm, where it has one.
Special tokens, position offsets and the length limit are asked of the model, never assumed.
"""

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from functools import cached_property, partial
from typing import Any, NamedTuple

import numpy as np
import torch
from transformers import BatchEncoding

from sae_rna.extraction import loading
from sae_rna.memory import BATCH_TOKENS
from sae_rna.records.composition import NUCLEOTIDES

_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class HiddenStates(NamedTuple):
    """Hidden states of the nucleotides of one batch of sequences; T tokens, L layers, width D."""

    sequence_T: np.ndarray  # number in the list asked for, int64; no sequence is split over two batches
    position_T: np.ndarray  # 0-based position in the sequence, int64
    values_TLD: torch.Tensor  # float32, not standardised; a view of [L, T, D]: a layer's values lie together


class _AllTaken(Exception):
    """Ends a forward pass once the last state that was asked for is there."""


@dataclass
class LanguageModel:
    """An encoder with its tokenizer, ready to be read. Make one with `load`."""

    source: str
    revision: str | None  # the commit that was read on the hub; None for a folder
    model: torch.nn.Module
    tokenizer: Any
    device: torch.device
    fingerprint: str  # `loading.fingerprint`; a saved SAE is checked against it

    @classmethod
    def load(
        cls,
        source: str,
        revision: str | None = None,
        device: str = "auto",
        random_seed: int | None = None,
        masked: bool = False,
    ) -> "LanguageModel":
        """Load an encoder from a folder in multimolecule's format or by its hub id.

        revision : branch, tag or commit on the hub
        device : ``auto`` takes a GPU where there is one
        random_seed : keep the architecture, draw the weights: the control for what a model has learnt
        masked : with the head that predicts masked nucleotides; other heads are left out

        Raises ValueError if there is no such GPU, if the files cannot be had or are damaged, if a weight is
        missing or of another shape, and if the model has no state for each nucleotide of a single RNA.
        """
        found = "cuda" if torch.cuda.is_available() else "cpu"
        place = torch.device(found if device == "auto" else device)
        if place.type == "cuda" and (place.index or 0) >= (count := torch.cuda.device_count()):
            raise ValueError(f"there is no device '{device}', torch sees {count} GPUs: choose auto or cpu")
        folder, commit = loading.model_folder(source, revision)
        config, tokenizer = loading.configuration(source, folder)
        if random_seed is None:
            model = loading.read_weights(source, folder, masked)
        else:
            model = loading.draw_weights(config, masked, random_seed)
        if hasattr(model, "pooler"):
            model.pooler = None  # never read, and random where the checkpoint has none
        model = model.eval().float().requires_grad_(False)
        return cls(source, commit, model.to(place), tokenizer, place, loading.fingerprint(model))

    @property
    def key(self) -> dict[str, str]:
        """What results depend on, for JSON."""
        return {"model": self.fingerprint}

    @property
    def blocks(self) -> int:
        """Number of transformer blocks."""
        return self.model.config.num_hidden_layers

    @property
    def width(self) -> int:
        """Dimension D of the residual stream."""
        return self.model.config.hidden_size

    @property
    def longest(self) -> int:
        """Nucleotides in the longest sequence the model was trained for (rotary positions could go on)."""
        limit = getattr(self.model.config, "max_position_embeddings", sys.maxsize)
        positions = getattr(self.model.base_model.embeddings, "position_embeddings", None)
        padding = getattr(positions, "padding_idx", None)
        unused = 0 if padding is None else padding + 2  # positions then start at padding + 2, as in fairseq
        return limit - self.tokenizer.num_special_tokens_to_add() - unused

    @property
    def parameter_count(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    @cached_property
    def _lookup(self) -> tuple[list[int], np.ndarray, list[int]]:
        """Ids before a sequence, of each byte (-1: ask the tokenizer), and after a sequence."""
        bare, whole = (self.tokenizer(_LETTERS, add_special_tokens=s)["input_ids"] for s in (False, True))
        first = next(start for start in range(len(whole)) if whole[start : start + len(bare)] == bare)
        id_of_byte = np.full(256, -1)
        id_of_byte[list(_LETTERS.encode())] = bare
        return whole[:first], id_of_byte, whole[first + len(bare) :]

    def tokenize(self, sequences: Sequence[str]) -> BatchEncoding:
        """Token ids and attention mask [B, W], padded on the right: the tokenizer's, 200 times faster."""
        return self._tokens(sequences).to(self.device)

    def _tokens(self, sequences: Sequence[str]) -> BatchEncoding:
        before, id_of_byte, after = self._lookup
        lengths = np.array([len(sequence) for sequence in sequences])
        letters = id_of_byte[np.frombuffer("".join(sequences).encode("ascii", "replace"), np.uint8)]
        if (letters < 0).any():
            options = {"padding": True, "padding_side": "right", "return_attention_mask": True}
            return self.tokenizer(list(sequences), return_tensors="pt", **options)
        ends = (len(before) + lengths)[:, None]
        column = np.arange(len(before) + lengths.max() + len(after))
        ids = np.full((len(sequences), len(column)), self.tokenizer.pad_token_id)
        ids[:, : len(before)] = before
        ids[(column >= len(before)) & (column < ends)] = letters
        for place, token in enumerate(after):
            np.put_along_axis(ids, ends + place, token, 1)
        mask = (column < ends + len(after)).astype(np.int64)
        return BatchEncoding({"input_ids": ids, "attention_mask": mask}, tensor_type="pt")

    @property
    def first(self) -> int:
        """Column of a sequence's first letter among its tokens: special ones may stand before it."""
        return len(self._lookup[0])

    @property
    def base_ids(self) -> torch.Tensor:
        """Ids of A, C, G and U (T, for a model of DNA), [4]."""
        return torch.from_numpy(self._lookup[1][list(NUCLEOTIDES.encode())]).to(self.device)

    def nucleotide_mask(self, ids: torch.Tensor) -> torch.Tensor:
        """Where `ids` [B, W] holds A, C, G or U."""
        return torch.isin(ids, self.base_ids.to(ids.device))

    def batches(
        self, sequences: Sequence[str], batch_tokens=BATCH_TOKENS, rng: np.random.Generator | None = None
    ) -> list[np.ndarray]:
        """Numbers of the sequences of each batch: of similar length, at most `batch_tokens` tokens if padded.

        In the order of the lengths, or with `rng` a random one. Raises ValueError for too long a sequence.
        """
        lengths = np.array([len(sequence) for sequence in sequences])
        if (lengths > self.longest).any():
            first = int(np.argmax(lengths > self.longest))
            problem = f"has {lengths[first]} nt, but {self.source} reads at most {self.longest}"
            raise ValueError(f"sequence {first + 1} {problem}: shorten or leave out longer ones")
        special = self.tokenizer.num_special_tokens_to_add()
        order = np.lexsort((rng.random(len(lengths)) if rng else np.arange(len(lengths)), lengths))
        batches, start = list[np.ndarray](), 0
        for end in range(1, len(order) + 1):
            if end == len(order) or (lengths[order[end]] + special) * (end + 1 - start) > batch_tokens:
                batches.append(order[start:end])
                start = end
        if rng:
            rng.shuffle(batches)
        return batches

    @torch.inference_mode()
    def hidden_states(
        self, sequences: Sequence[str], layers: Sequence[int], batches: list[np.ndarray] | None = None
    ) -> Iterator[HiddenStates]:
        """Hidden states of the nucleotides of `sequences`, all of `layers` in one forward pass a batch.

        The pass is the model's own, token dropout's rescaling and the final layer norm included, and ends at
        the deepest layer. Beside the model it takes 4 x T x L x D bytes for a batch of T nucleotides and some
        130 x D (RiNALMo) a token, padding included. ValueError for a layer that is not there.
        """
        layers = self.check_layers(layers)
        for rows in batches if batches is not None else self.batches(sequences):
            tokens = self._tokens([sequences[row] for row in rows])
            row, column = self.nucleotide_mask(tokens["input_ids"]).nonzero(as_tuple=True)
            chosen_T = (row * tokens["input_ids"].shape[1] + column).to(self.device, non_blocking=True)
            values_LTD = torch.empty(len(layers), len(row), self.width, device=self.device)
            self._read(tokens.to(self.device, non_blocking=True), layers, values_LTD, chosen_T)
            position_T = column.numpy() - self.first
            yield HiddenStates(rows[row.numpy()], position_T, values_LTD.transpose(0, 1))

    def _read(self, tokens, layers: list[int], values_LTD: torch.Tensor, chosen_T: torch.Tensor):
        """Write the states of `layers` at the places `chosen_T` of the flattened batch to `values_LTD`."""

        def take(layer: int, state_BWD: torch.Tensor):
            flat = state_BWD.reshape(-1, self.width).float()
            for number in (number for number, wanted in enumerate(layers) if wanted == layer):
                torch.index_select(flat, 0, chosen_T, out=values_LTD[number])
            if layer == max(layers):
                raise _AllTaken

        with ExitStack() as hooks, suppress(_AllTaken):
            for layer in set(layers):
                hooks.enter_context(self.hooked(layer, partial(take, layer)))
            self.model(**tokens)

    @contextmanager
    def hooked(self, layer: int, use: Callable[[torch.Tensor], torch.Tensor | None]) -> Iterator[None]:
        """While it lasts, every pass shows `use` the state [B, W, D] of `layer`, and goes on from what it
        returns, if anything."""

        def enter_block(_, inputs):
            state = use(inputs[0])
            return None if state is None else (state, *inputs[1:])

        def leave_encoder(_, __, output):
            state = use(output["last_hidden_state"])
            output["last_hidden_state"] = output["last_hidden_state"] if state is None else state

        encoder = self.model.base_model.encoder
        if layer < self.blocks:  # a block is entered by what the layer before it, or the embedding, put out
            hook = encoder.layer[layer].register_forward_pre_hook(enter_block)
        else:  # the encoder's own output is after its final layer norm, whatever that is called
            hook = encoder.register_forward_hook(leave_encoder)
        with hook:
            yield

    def check_layers(self, layers: Sequence[int]) -> list[int]:
        """`layers` as a list, or a ValueError naming the one that the model does not have."""
        for layer in layers:
            if not 0 <= layer <= self.blocks:
                there = f"{self.source} has blocks 1 to {self.blocks} (0 is the embedding layer)"
                raise ValueError(f"layer {layer} is asked for, but {there}")
        return list(layers)
