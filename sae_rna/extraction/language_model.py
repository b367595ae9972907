"""RNA language models: any multimolecule encoder, from a folder or a hub id, and the hidden states of its layers.

Layer numbering follows ``hidden_states`` of multimolecule and transformers: 0 is the embedding layer and `i` the output of block
`i`. The last one is taken *after* the encoder's final layer norm, where it has one, since the library overwrites it with
``last_hidden_state``.

Every encoder with one token a nucleotide can be read; the others are refused when they are loaded. What a model puts before, between and
after the nucleotides (special tokens, position offsets, length limit) is asked of its tokenizer and its embeddings, never assumed.
"""

import hashlib
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from textwrap import shorten
from typing import NamedTuple

import numpy as np
import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import LocalEntryNotFoundError
from multimolecule import DnaTokenizer, RnaTokenizer  # also registers all its models with transformers
from safetensors import SafetensorError
from transformers import MODEL_MAPPING, AutoConfig, AutoModel, AutoModelForMaskedLM, AutoTokenizer
from transformers.utils import logging as transformers_logging

from sae_rna.records.composition import NUCLEOTIDES

BATCH_TOKENS = 8192
"""With padding, in one forward pass: larger ones leave a CPU's caches and are a third slower there, smaller ones leave a GPU idle."""
UNREADABLE = {
    "rnamsm": "it reads alignments of many RNAs, not single ones",
    "ribonanzanet": "its states of an RNA change with the padding that longer ones in the same batch bring",
}
"""Model types that have hidden states, but none that are the RNA's alone."""
_FILES = ["*.json", "*.txt", "*.safetensors"]  # of a model on the hub: configuration, tokenizer and weights
_LETTERS = "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


class HiddenStates(NamedTuple):
    """Hidden states of the nucleotides of one batch of sequences; T tokens, L layers, width D."""

    sequence_T: np.ndarray
    """Number of the sequence in the list that was asked for, int64. Sequences are never split over two batches."""
    position_T: np.ndarray
    """0-based position in the sequence, int64."""
    values_TLD: torch.Tensor
    """float32 on the model's device, not standardised. One layer's values lie together: it is a view of [L, T, D]."""


class _AllTaken(Exception):
    """Ends a forward pass once the last state that was asked for is there."""


@dataclass
class LanguageModel:
    """An encoder with its tokenizer, ready to be read. Make one with `load`."""

    source: str
    revision: str | None
    """The commit that was read on the hub; None for a folder."""
    model: torch.nn.Module
    tokenizer: object
    device: torch.device
    fingerprint: str
    """SHA-256 of the weights in float32, 16 hexadecimal digits: what a saved SAE is checked against. The same in every precision."""

    @classmethod
    def load(
        cls,
        source: str,
        revision: str | None = None,
        device: str = "auto",
        random_seed: int | None = None,
        precision: str = "float32",
        masked: bool = False,
    ) -> "LanguageModel":
        """Load an encoder, without its heads unless asked for.

        Parameters
        ----------
        source
            A folder in multimolecule's format (``config.json``, ``model.safetensors``, tokenizer) or a hub id such as
            ``multimolecule/rinalmo-giga``.
        revision
            Branch, tag or commit on the hub.
        device
            ``auto`` takes a GPU where there is one.
        random_seed
            Keep the architecture, draw the weights afresh: the control for every claim about what a model has learnt.
        precision
            ``float32``, or ``bfloat16`` for the weights and products of all linear layers and of attention (half the memory, and several
            times faster where the machine has such products). Embeddings, layer norms and the residual stream stay in float32.
            Beside float32, rinalmo-nano's hidden states of 600 RNAs then have a relative error of .008 or less in the mean of a layer and
            a cosine of at least .998; standardised, their error is at most .0002 of the variance.
        masked
            With the head that predicts masked nucleotides.

        Raises
        ------
        ValueError
            If a weight of the encoder is missing in the checkpoint or has another shape (random weights would pass unnoticed), if the
            folder or the hub cannot be read, if a downloaded file is damaged, and if the model has no state for each nucleotide of a
            single RNA: its tokens are codons or longer words, or it is no encoder of RNA or DNA.
        """
        if precision not in ("float32", "bfloat16"):
            raise ValueError(f"'{precision}' is no precision of a language model: choose float32 or bfloat16")
        if not Path(source).is_dir() and (Path(source).is_absolute() or source.count("/") != 1):
            raise ValueError(
                f"{source} is neither a folder nor a hub id of the form owner/name: check the parameter 'model'"
            )
        device = torch.device(
            ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        )
        if Path(source).is_dir() and not (Path(source) / "config.json").exists():
            raise ValueError(f"{source} holds no config.json: it is no folder of a multimolecule model")
        local = Path(source).is_dir()
        folder = Path(source) if local else _download(source, revision)
        commit = None if local else folder.name
        try:
            config, tokenizer = AutoConfig.from_pretrained(folder), AutoTokenizer.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise ValueError(
                f"{source} is no model that can be loaded ({_reason(error)}): give a model of multimolecule"
            ) from error
        _check_readable(source, config, tokenizer)
        auto_class = AutoModelForMaskedLM if masked else AutoModel
        attention = {
            "attn_implementation": "sdpa"
        }  # faster than the library's choice, and no matrix [B, heads, W, W] in memory
        if random_seed is None:
            verbosity = transformers_logging.get_verbosity()
            transformers_logging.set_verbosity_error()  # what matters of the loading report is raised below
            transformers_logging.disable_progress_bar()
            try:
                model, report = auto_class.from_pretrained(
                    folder, use_safetensors=True, output_loading_info=True, **attention
                )
            except (OSError, SafetensorError) as error:
                raise ValueError(
                    f"{source}: its weights cannot be read ({_reason(error)}): give a folder with model.safetensors"
                ) from error
            finally:
                transformers_logging.set_verbosity(verbosity)
                transformers_logging.enable_progress_bar()
            # Neither is read here: masked-LM checkpoints come without a pooler, and decoder.bias is a second name of lm_head.bias.
            absent = [
                key
                for key in report["missing_keys"]
                if "pooler." not in key and key != "lm_head.decoder.bias"
            ]
            absent += [str(key) for key in report["mismatched_keys"]]
            if absent:
                raise ValueError(
                    f"{source}: {len(absent)} weights of the model are not in the checkpoint or have another shape, the first is "
                    f"{sorted(absent)[0]}; this is a checkpoint of another model"
                )
        else:
            torch.manual_seed(random_seed)
            model = auto_class.from_config(config, **attention)
        if hasattr(model, "pooler"):
            model.pooler = None  # never read, and random where the checkpoint has none
        model = model.eval().float().requires_grad_(False)
        fingerprint = _fingerprint(model)
        if precision == "bfloat16":
            for module in model.modules():
                if isinstance(module, torch.nn.Linear):
                    module.bfloat16()
            model.forward = torch.autocast(device.type, torch.bfloat16)(model.forward)
        return cls(source, commit, model.to(device), tokenizer, device, fingerprint)

    @property
    def layers(self) -> int:
        """Number of transformer blocks."""
        return self.model.config.num_hidden_layers

    @property
    def width(self) -> int:
        """Dimension D of the residual stream."""
        return self.model.config.hidden_size

    @property
    def longest(self) -> int:
        """Nucleotides in the longest sequence the model takes: the configuration's limit less special tokens, and less the rows of its
        position embeddings that padding takes. Rotary positions could go on, but the model was not trained there."""
        limit = getattr(self.model.config, "max_position_embeddings", sys.maxsize)
        padding = getattr(
            getattr(self.model.base_model.embeddings, "position_embeddings", None), "padding_idx", None
        )
        unused = 0 if padding is None else padding + 2  # positions then start at padding + 2, as in fairseq
        return limit - self.tokenizer.num_special_tokens_to_add() - unused

    @property
    def parameters(self) -> int:
        return sum(parameter.numel() for parameter in self.model.parameters())

    @cached_property
    def _lookup(self) -> tuple[list[int], np.ndarray, list[int]]:
        """Ids before a sequence, of each byte (-1: ask the tokenizer), and after a sequence."""
        bare, whole = (
            self.tokenizer(_LETTERS, add_special_tokens=special)["input_ids"] for special in (False, True)
        )
        first = next(start for start in range(len(whole)) if whole[start : start + len(bare)] == bare)
        id_of_byte = np.full(256, -1)
        id_of_byte[list(_LETTERS.encode())] = bare
        return whole[:first], id_of_byte, whole[first + len(bare) :]

    @property
    def nucleotides_start(self) -> int:
        """Column of the first nucleotide: special tokens before it."""
        return len(self._lookup[0])

    def tokenize(self, sequences: Sequence[str]) -> dict[str, torch.Tensor]:
        """Token ids and attention mask [B, W], padded on the right to the longest of `sequences`, on the model's device.

        They are those of the tokenizer, by a look-up, which is some 200 times faster.
        """
        return {
            name: values.to(self.device, non_blocking=True)
            for name, values in self._tokens(sequences).items()
        }

    def _tokens(self, sequences: Sequence[str]) -> dict[str, torch.Tensor]:
        before, id_of_byte, after = self._lookup
        lengths = np.array([len(sequence) for sequence in sequences])
        letters = id_of_byte[np.frombuffer("".join(sequences).encode("ascii", "replace"), np.uint8)]
        if (letters < 0).any():
            options = {"padding": True, "padding_side": "right", "return_attention_mask": True}
            return dict(self.tokenizer(list(sequences), return_tensors="pt", **options))
        ends = (len(before) + lengths)[:, None]
        column = np.arange(len(before) + lengths.max() + len(after))
        ids = np.full((len(sequences), len(column)), self.tokenizer.pad_token_id)
        ids[:, : len(before)] = before
        ids[(column >= len(before)) & (column < ends)] = letters
        for place, token in enumerate(after):
            np.put_along_axis(ids, ends + place, token, 1)
        mask = column < ends + len(after)
        return {"input_ids": torch.from_numpy(ids), "attention_mask": torch.from_numpy(mask.astype(np.int64))}

    def nucleotide_mask(self, ids: torch.Tensor) -> torch.Tensor:
        """Where `ids` [B, W] holds A, C, G or U (T, for a model of DNA). Special tokens, N and other codes are no nucleotides here."""
        known = torch.from_numpy(self._lookup[1][list(NUCLEOTIDES.encode())]).to(ids.device)
        return torch.isin(ids, known)

    def batches(
        self,
        sequences: Sequence[str],
        batch_tokens: int = BATCH_TOKENS,
        rng: np.random.Generator | None = None,
    ) -> list[np.ndarray]:
        """Numbers of the sequences of each batch: of similar length, at most `batch_tokens` tokens with padding.

        With `rng`, ties and the order of the batches are random; without it the order is that of the lengths.

        Raises ValueError naming the first sequence that is longer than the model allows.
        """
        lengths, special = self._checked_lengths(sequences), self.tokenizer.num_special_tokens_to_add()
        order = np.lexsort((rng.random(len(lengths)) if rng else np.arange(len(lengths)), lengths))
        batches, start = [], 0
        for end in range(1, len(order) + 1):
            if end == len(order) or (lengths[order[end]] + special) * (end + 1 - start) > batch_tokens:
                batches.append(order[start:end])
                start = end
        if rng:
            rng.shuffle(batches)
        return batches

    def _checked_lengths(self, sequences: Sequence[str]) -> np.ndarray:
        lengths = np.array([len(sequence) for sequence in sequences])
        if (lengths > self.longest).any():
            first = int(np.argmax(lengths > self.longest))
            raise ValueError(
                f"sequence {first + 1} has {lengths[first]} nt, but {self.source} reads at most {self.longest}: "
                "shorten or leave out longer ones"
            )
        return lengths

    @torch.inference_mode()
    def hidden_states(
        self, sequences: Sequence[str], layers: Sequence[int], batches: list[np.ndarray] | None = None
    ) -> Iterator[HiddenStates]:
        """Hidden states of the nucleotides of `sequences`, all of `layers` in one forward pass a batch, which ends at the deepest of them.

        The forward pass is the model's own: token dropout's rescaling of unmasked sequences and the final layer norm included.

        Memory, besides the model's: 4 x T x L x D bytes of values for a batch of T nucleotides and L layers, and what the forward pass
        needs for one block at a time, as no padded state is kept: some 130 x D bytes (RiNALMo) for each of its tokens, padding included.

        Raises ValueError for a layer that the model does not have and for the first sequence that is longer than it allows.
        """
        layers = self.check_layers(layers)
        self._checked_lengths(sequences)
        for rows in batches if batches is not None else self.batches(sequences):
            tokens = self._tokens([sequences[row] for row in rows])
            row, column = self.nucleotide_mask(tokens["input_ids"]).nonzero(as_tuple=True)
            chosen_T = (row * tokens["input_ids"].shape[1] + column).to(self.device, non_blocking=True)
            values_LTD = torch.empty(len(layers), len(row), self.width, device=self.device)
            tokens = {name: values.to(self.device, non_blocking=True) for name, values in tokens.items()}
            self._read(tokens, layers, values_LTD, chosen_T)
            yield HiddenStates(
                rows[row.numpy()], column.numpy() - self.nucleotides_start, values_LTD.transpose(0, 1)
            )

    def _read(
        self,
        tokens: dict[str, torch.Tensor],
        layers: list[int],
        values_LTD: torch.Tensor,
        chosen_T: torch.Tensor,
    ):
        """Write the states of `layers` at the places `chosen_T` of the flattened batch to `values_LTD`, in one forward pass."""
        base, deepest = self.model.base_model, max(layers)
        blocks = base.encoder.layer

        def take(layer: int, state_BWD: torch.Tensor):
            for number in range(len(layers)):
                if layers[number] == layer:
                    torch.index_select(
                        state_BWD.reshape(-1, self.width).float(), 0, chosen_T, out=values_LTD[number]
                    )
            if layer == deepest:
                raise _AllTaken

        with ExitStack() as hooks, suppress(_AllTaken):
            for layer in set(layers):
                if layer == 0:
                    hook = blocks[0].register_forward_pre_hook(lambda _, inputs: take(0, inputs[0]))
                elif layer == self.layers:
                    hook = base.register_forward_hook(
                        lambda _, __, output: take(self.layers, output.last_hidden_state)
                    )
                else:
                    hook = blocks[layer - 1].register_forward_hook(
                        lambda _, __, output, layer=layer: take(
                            layer, output[0] if isinstance(output, tuple) else output
                        )
                    )
                hooks.enter_context(hook)
            self.model(**tokens)

    def check_layers(self, layers: Sequence[int]) -> list[int]:
        """`layers` as a list, or a ValueError naming the one that the model does not have."""
        for layer in layers:
            if not 0 <= layer <= self.layers:
                raise ValueError(
                    f"layer {layer} is asked for, but {self.source} has blocks 1 to {self.layers} (0 is the embedding layer)"
                )
        return list(layers)


def _check_readable(source: str, config, tokenizer):
    """ValueError unless every nucleotide is a token of its own and the model is a stack of attention blocks with states of single RNAs."""
    if not isinstance(tokenizer, RnaTokenizer | DnaTokenizer):
        raise ValueError(
            f"{source} is no model of RNA or DNA (its tokenizer is {type(tokenizer).__name__}): give an encoder of multimolecule"
        )
    try:
        ids = tokenizer(NUCLEOTIDES, add_special_tokens=False)["input_ids"]
    except ValueError:  # not a whole number of codons
        ids = []
    if len(set(ids)) != len(NUCLEOTIDES):
        raise ValueError(f"{source} reads {tokenizer.nmers} nucleotides as one token, so none has a hidden state of its own: "
                         "give a model with one token a nucleotide")  # fmt: skip
    if config.model_type in UNREADABLE:
        raise ValueError(
            f"{source} cannot be read: {UNREADABLE[config.model_type]}; give another encoder, such as RiNALMo or RNA-FM"
        )
    kind = MODEL_MAPPING.get(type(config), None)
    if not (kind and kind._supports_sdpa and "hidden_states" in (kind._can_record_outputs or {})):
        raise ValueError(f"{source} is a model of type {config.model_type}, which is not built of attention blocks with a hidden state for "
                         "each nucleotide: give an encoder, such as RiNALMo or RNA-FM")  # fmt: skip


def _download(source: str, revision: str | None) -> Path:
    """The files of a hub model in the hub's cache, complete and undamaged: a folder named after their commit.

    Raises ValueError if they cannot be had. What is broken is removed, so that it is fetched again the next time.
    """
    try:
        folder = Path(snapshot_download(source, revision=revision, allow_patterns=_FILES))
    except Exception as error:  # the hub and the network fail in many ways
        raise ValueError(
            f"{source} cannot be loaded ({_reason(error)}): check its name, its revision and the network, or give a folder"
        ) from error
    damaged = []
    for file in (file for pattern in _FILES for file in folder.rglob(pattern)):
        # The cache names each file after its content: by SHA-256 (64 digits) or, if it is small, by git's SHA-1. Only sizes are
        # compared in a download, and altered weights would load without a word.
        name = file.readlink().name if file.is_symlink() else ""
        if len(name) in (40, 64) and name != _checksum(file, len(name)):
            damaged.append(file.name)
            for path in (file.resolve(), file.parent / file.readlink(), file):
                path.unlink(missing_ok=True)
    if damaged:
        raise ValueError(
            f"{source}: damaged on the way and removed from the cache: {', '.join(damaged)}; load the model again"
        )
    return folder


def _checksum(file: Path, digits: int) -> str:
    digest = hashlib.sha256() if digits == 64 else hashlib.sha1(b"blob %d\0" % file.stat().st_size)
    with file.open("rb") as content:
        while chunk := content.read(1 << 22):
            digest.update(chunk)
    return digest.hexdigest()


def _reason(error: Exception) -> str:
    if (
        isinstance(error, LocalEntryNotFoundError) and error.__cause__
    ):  # "not in the cache either": what the hub said matters
        error = error.__cause__
    return shorten(str(error), 300, placeholder=" ...").rstrip(".: ") or type(error).__name__


def _fingerprint(model: torch.nn.Module) -> str:
    digest = hashlib.sha256()
    for name, parameter in sorted(model.named_parameters()):
        digest.update(name.encode())
        digest.update(parameter.detach().float().cpu().numpy().tobytes())
    return digest.hexdigest()[:16]
