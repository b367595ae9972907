"""RiNALMo's forward pass for training: the architecture of multimolecule's `RiNALMoForMaskedLM`, all weights
in one vector.

Same numbers as the library's model (tests/data_build/test_fast_rinalmo.py), several times as fast on a CPU:
matrices of all blocks lie side by side, so that they are cast to bfloat16 in one go, query, key and value are
one matrix product, all but the attention is compiled, once for all blocks and shapes, and the head reads
chosen positions alone.

Shapes: B sequences of W tokens, L blocks, D width, F hidden units of the gated feed-forward layer, V tokens
of the vocabulary, P weights in all, M chosen positions.
"""

from typing import NamedTuple

import torch
from torch.nn import functional as F

#: Rotary embeddings' base, and the share of mask tokens that RiNALMo's token dropout assumes in training.
ROTARY_BASE, MASK_RATIO = 10000.0, 0.15 * 0.8
NORM_EPS = 1e-5


class Part(NamedTuple):
    """A run of the weight vector."""

    shape: tuple[int, ...]
    names: list[str]
    """Parameters of the library's model, in the order in which they lie here."""
    muon: bool
    """Whether it is a stack of the encoder's matrices, for the Muon optimiser."""


class Layout:
    """Where each parameter of a RiNALMo lies in the weight vector."""

    def __init__(self, config):
        self.blocks, self.heads = config.num_hidden_layers, config.num_attention_heads
        width, hidden, tokens = config.hidden_size, int(2 / 3 * config.intermediate_size), config.vocab_size
        self.width, self.mask_token = width, config.mask_token_id

        def of_blocks(*names):
            return [f"model.encoder.layer.{block}.{name}" for block in range(self.blocks) for name in names]

        attention, feed_forward = "attention.self.", "intermediate.linear"
        norms = (
            "attention.layer_norm.weight",
            "attention.layer_norm.bias",
            "layer_norm.weight",
            "layer_norm.bias",
        )
        matrices = [attention + name + ".weight" for name in ("query", "key", "value")]
        head, last = "lm_head.transform.", "model.encoder.layer_norm."
        head_rest = [head + name for name in ("dense.bias", "layer_norm.weight", "layer_norm.bias")]
        self.parts = {
            "attention": Part((self.blocks, 4, width, width),
                              of_blocks(*matrices, "attention.output.dense.weight"), True),
            "gate": Part((self.blocks, 2, hidden, width),
                         of_blocks(feed_forward + ".weight", feed_forward + "_gate.weight"), True),
            "down": Part((self.blocks, width, hidden), of_blocks("output.dense.weight"), True),
            "norms": Part((self.blocks, 4, width), of_blocks(*norms), False),
            "gate_bias": Part((self.blocks, 2 * hidden),
                              of_blocks(feed_forward + ".bias", feed_forward + "_gate.bias"), False),
            "beta": Part((self.blocks, 1), of_blocks("intermediate.bias"), False),
            "down_bias": Part((self.blocks, width), of_blocks("output.dense.bias"), False),
            "last_norm": Part((2, width), [last + "weight", last + "bias"], False),
            "embedding": Part((tokens, width), ["model.embeddings.word_embeddings.weight"], False),
            "head": Part((width, width), [head + "dense.weight"], False),
            "head_rest": Part((3, width), head_rest, False),
            "decoder": Part((tokens, width), ["lm_head.decoder.weight"], False),
            "decoder_bias": Part((tokens,), ["lm_head.bias"], False),
        }  # fmt: skip
        self.sizes = [torch.Size(part.shape).numel() for part in self.parts.values()]

    def pack(self, weights: dict[str, torch.Tensor]) -> torch.Tensor:
        """The weight vector [P] of named weights, such as a model's `state_dict()`."""
        return torch.cat(
            [weights[name].detach().float().flatten() for part in self.parts.values() for name in part.names]
        )

    @torch.no_grad()
    def unpack(self, vector_P: torch.Tensor, model: torch.nn.Module):
        """Put the weights of `vector_P` into the library's model."""
        parameters, first = dict(model.named_parameters()), 0
        for name in (name for part in self.parts.values() for name in part.names):
            size = parameters[name].numel()
            parameters[name].copy_(vector_P[first : first + size].view_as(parameters[name]))
            first += size
        assert first == len(vector_P)

    def split(self, vector_P: torch.Tensor) -> dict[str, torch.Tensor]:
        """Views of a vector, one a part."""
        views = vector_P.split(self.sizes)
        return {name: view.view(part.shape) for (name, part), view in zip(self.parts.items(), views)}


def rotary_table(width: int, head_width: int, device=None) -> torch.Tensor:
    """cos and sin of the rotary embedding, [2, W, D / heads]."""
    inverse = ROTARY_BASE ** -(torch.arange(0, head_width, 2, device=device) / head_width)
    angle = torch.outer(torch.arange(width, device=device, dtype=torch.float32), inverse).repeat(1, 2)
    return torch.stack([angle.cos(), angle.sin()])


def before_attention(x, rotary, matrices, norms):
    """Normalised state [N, D] and rotated query, key and value [N, heads, D / heads] of the rows of x [N,
    D]."""
    width, head_width = x.shape[-1], rotary.shape[-1]
    h = F.layer_norm(x, (width,), norms[0], norms[1], NORM_EPS)
    mixed = F.linear(h.to(matrices.dtype), matrices[:3].reshape(3 * width, width))
    query, key, value = mixed.view(-1, 3, width // head_width, head_width).unbind(1)
    query = _rotate(query.float() * head_width**-0.5, rotary).to(value.dtype)
    return h, query, _rotate(key.float(), rotary).to(value.dtype), value.contiguous()


def _rotate(x, rotary):
    first, second = x.chunk(2, -1)
    return x * rotary[0] + torch.cat((-second, first), -1) * rotary[1]


def attention(query, key, value, bias):
    """What each token reads, [B W, heads, D / heads]; `bias` [B, 1, 1, W] is added to the scores."""
    batch, width = bias.shape[0], bias.shape[-1]
    query, key, value = (
        x[: batch * width].unflatten(0, (batch, width)).transpose(1, 2) for x in (query, key, value)
    )
    if query.is_cuda:  # the fused kernel is the fastest there, and the slowest on a CPU
        mask = bias.expand(-1, -1, width, -1)
        read = F.scaled_dot_product_attention(query, key, value, mask, scale=1.0)
    else:
        read = ((query @ key.transpose(-1, -2) + bias).softmax(-1)) @ value
    return read.transpose(1, 2).flatten(0, 1)


def after_attention(h, read, output, gate, down, norms, gate_bias, beta, down_bias):
    """The block's state [N, D]. RiNALMo adds the attention's output to the normalised state `h`, not to the
    state itself."""
    width, low = h.shape[-1], output.dtype
    x = F.linear(read, output).float() + h
    hidden = F.layer_norm(x, (width,), norms[2], norms[3], NORM_EPS).to(low)
    linear, gated = F.linear(hidden, gate.reshape(-1, width), gate_bias.to(low)).float().chunk(2, -1)
    return (
        F.linear((linear * torch.sigmoid(beta * linear) * gated).to(low), down, down_bias.to(low)).float() + x
    )


class FastRiNALMo:
    """A forward pass from a weight vector to logits."""

    def __init__(self, layout: Layout, precision: torch.dtype = torch.bfloat16, rows: int | None = None):
        """Given `rows`, all but the attention is compiled, for so many tokens a batch: others are filled up
        with nothing."""
        self.layout, self.precision, self.rows = layout, precision, rows
        self.before, self.after = before_attention, after_attention
        if rows:
            self.before, self.after = (
                torch.compile(step, dynamic=False) for step in (self.before, self.after)
            )

    def logits(
        self, vector_P: torch.Tensor, ids_BW: torch.Tensor, lengths_B: torch.Tensor, chosen_M: torch.Tensor
    ):
        """Logits [M, V] at the places `chosen_M` of the flattened batch; sequences are padded on the right.

        `lengths_B` counts their tokens, special ones included.
        """
        layout, (batch, tokens) = self.layout, ids_BW.shape
        weights, device = layout.split(vector_P), ids_BW.device
        inside = torch.arange(tokens, device=device) < lengths_B[:, None]
        masked = ids_BW == layout.mask_token
        scale = (1 - MASK_RATIO) / (1 - masked.sum(1) / lengths_B)
        tokens_V = torch.arange(len(weights["embedding"]), device=device)
        one_hot = (ids_BW[..., None] == tokens_V).float()  # as a product its gradient needs no sorting of ids
        x = one_hot @ weights["embedding"] * (scale[:, None] * (inside & ~masked))[..., None]
        filling = (self.rows or batch * tokens) - batch * tokens
        x = F.pad(x.flatten(0, 1), (0, 0, 0, filling))
        bias = torch.zeros(batch, 1, 1, tokens, device=device, dtype=self.precision)
        bias.masked_fill_(~inside[:, None, None], -1e9)
        rotary = rotary_table(tokens, layout.width // layout.heads, device)
        rotary = F.pad(rotary.repeat(1, batch, 1), (0, 0, 0, filling))[:, :, None]
        matrices = [weights[name].to(self.precision).unbind() for name in ("attention", "gate", "down")]
        vectors = [weights[name].unbind() for name in ("norms", "gate_bias", "beta", "down_bias")]
        for projections, gate, down, norms, gate_bias, beta, down_bias in zip(*matrices, *vectors):
            h, query, key, value = self.before(x, rotary, projections, norms)
            read = F.pad(attention(query, key, value, bias).flatten(1), (0, 0, 0, filling))
            x = self.after(h, read, projections[3], gate, down, norms, gate_bias, beta, down_bias)
        x = F.layer_norm(
            x.index_select(0, chosen_M), (layout.width,), *weights["last_norm"].unbind(), NORM_EPS
        )
        dense_bias, scale, shift = weights["head_rest"].unbind()
        x = F.gelu(F.linear(x, weights["head"], dense_bias))
        return F.linear(
            F.layer_norm(x, (layout.width,), scale, shift, NORM_EPS),
            weights["decoder"],
            weights["decoder_bias"],
        )
