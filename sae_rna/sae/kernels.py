"""The arithmetic of sparse training on a CPU, compiled by numba: all of a step but the encoder's product.

With K active latents only the encoder needs a product of matrices, 2 D F of a dense step's 12 D F operations
a token; reconstruction and gradients touch K rows of the dictionary, in bfloat16 or float32.

B tokens, D width, F latents, N active latents of the batch. Sparse codes are in CSR form: those of token b
are at ``indices[start[b]:start[b + 1]]``. Results are the same for any number of threads.
"""

import numba
import numpy as np
import torch
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

_reductions = {"reassoc", "contract", "nsz"}  # sums may use vector registers; infinities and NaN keep meaning


def as_array(tensor: torch.Tensor) -> np.ndarray:
    """A tensor's memory as NumPy sees it; bfloat16 as uint16, since NumPy has no such type."""
    tensor = tensor.detach()
    return (tensor.view(torch.uint16) if tensor.dtype == torch.bfloat16 else tensor).numpy()


def as_bits(tensor: torch.Tensor) -> np.ndarray:
    """bfloat16 or float32 as signed integers, in which positive numbers keep their order."""
    return tensor.detach().view(torch.int16 if tensor.dtype == torch.bfloat16 else torch.int32).numpy()


@intrinsic
def _f32(context, value):
    """The float32 that 16 bits (bfloat16), 32 bits or a float32 stand for."""

    def generate(_, builder, signature, arguments):
        (value,), (kind,) = arguments, signature.args
        if kind in (types.uint16, types.int16):
            value = builder.shl(builder.zext(value, ir.IntType(32)), ir.Constant(ir.IntType(32), 16))
        return value if kind == types.float32 else builder.bitcast(value, ir.FloatType())

    return types.float32(value), generate


@intrinsic
def _rounded(context, value, target):
    """A float32 as an element of `target`: as it is, or the nearest bfloat16 (ties to even, no NaN)."""

    def generate(_, builder, signature, arguments):
        value = arguments[0]
        if signature.args[1].dtype == types.float32:
            return value
        word = ir.IntType(32)
        bits = builder.bitcast(value, word)
        odd = builder.and_(builder.lshr(bits, ir.Constant(word, 16)), ir.Constant(word, 1))
        rounded = builder.add(builder.add(bits, ir.Constant(word, 0x7FFF)), odd)
        return builder.trunc(builder.lshr(rounded, ir.Constant(word, 16)), ir.IntType(16))

    return target.dtype(types.float32, target), generate


@numba.njit(cache=True)
def _kth_largest(values, count, k):
    """The k-th largest of the first `count` positive integers, 0 if there are fewer, bit by bit."""
    found = 0
    for bit in range(values.itemsize * 8 - 2, -1, -1):
        trial = values.dtype.type(found | (1 << bit))
        above = np.int32(0)
        for i in range(count):
            above += np.int32(1) if values[i] >= trial else np.int32(0)
        if above >= k:
            found |= 1 << bit
    return values.dtype.type(found)


@numba.njit(cache=True)
def _bound(values, count, k):
    """The k-th largest of the first `count` positive integers, or 1, and how many equal to it to take."""
    last, ties = values.dtype.type(1), k
    if count > k:
        last = _kth_largest(values, count, k)
    for i in range(count):
        ties -= 1 if values[i] > last else 0
    return last, ties


@numba.njit(parallel=True, cache=True)
def top_k(bits, k):
    """Per token the k largest positive numbers, in no order: indices, values [B, k] and their count [B].

    `bits` [B, F] are `as_bits`. Of equal numbers any may be taken, the same ones each time. The k-th largest
    of group maxima is a lower bound, so only groups that reach it are looked at again.
    """
    tokens, latents = bits.shape
    groups = min(8 * k, latents)
    whole = latents // groups * groups
    indices, values = np.empty((tokens, k), np.int32), np.empty((tokens, k), np.float32)
    counts = np.empty(tokens, np.int64)
    for b in numba.prange(tokens):
        row = bits[b]
        largest = np.zeros(groups, bits.dtype)
        for start in range(0, whole, groups):
            part = row[start : start + groups]
            for i in range(groups):
                largest[i] = part[i] if part[i] > largest[i] else largest[i]
        for i in range(whole, latents):
            largest[i - whole] = max(largest[i - whole], row[i])
        bound = max(_kth_largest(largest, groups, k), bits.dtype.type(1))
        candidates, places, found = np.empty(latents, bits.dtype), np.empty(latents, np.int32), 0
        for i in range(groups):
            if largest[i] >= bound:
                for j in range(i, latents, groups):
                    if row[j] >= bound:
                        candidates[found], places[found] = row[j], j
                        found += 1
        last, ties = _bound(candidates, found, k)
        kept = 0
        for i in range(found):
            if candidates[i] > last or (candidates[i] == last and ties > 0):
                ties -= 1 if candidates[i] == last else 0
                indices[b, kept], values[b, kept] = places[i], _f32(candidates[i])
                kept += 1
        counts[b] = kept
    return indices, values, counts


def to_csr(indices, values, counts):
    """What `top_k` found as start [B + 1], indices and values [N]."""
    kept = np.arange(indices.shape[1]) < counts[:, None]
    return np.concatenate([[0], np.cumsum(counts)]), indices[kept], values[kept]


@numba.njit(parallel=True, cache=True)
def _at_least(bits, bound):
    """Numbers of `bits` [B, F] that are at least `bound`, as start [B + 1], indices and bits [N]."""
    tokens, latents = bits.shape
    start = np.zeros(tokens + 1, np.int64)
    for b in numba.prange(tokens):
        count = np.int32(0)
        for j in range(latents):
            count += np.int32(1) if bits[b, j] >= bound else np.int32(0)
        start[b + 1] = count
    start = np.cumsum(start)
    indices, found = np.empty(start[-1], np.int32), np.empty(start[-1], bits.dtype)
    for b in numba.prange(tokens):
        # without a branch, which would be mispredicted: what is not kept is written over
        places, values, kept = np.empty(latents + 1, np.int32), np.empty(latents + 1, bits.dtype), 0
        for j in range(latents):
            places[kept], values[kept] = j, bits[b, j]
            kept += 1 if bits[b, j] >= bound else 0
        indices[start[b] : start[b + 1]], found[start[b] : start[b + 1]] = places[:kept], values[:kept]
    return start, indices, found


@numba.njit(cache=True)
def _largest(start, indices, found, wanted):
    """The `wanted` largest of what `_at_least` found, of equal ones the first: start, indices and values."""
    last, ties = _bound(found, len(found), wanted)
    few, kept = min(wanted, len(found)), 0
    places, values = np.empty(few + 1, np.int32), np.empty(few + 1, np.float32)
    ends = np.zeros_like(start)
    for b in range(len(start) - 1):
        for entry in range(start[b], start[b + 1]):
            tied = 1 if found[entry] == last and ties > 0 else 0
            places[kept], values[kept] = indices[entry], _f32(found[entry])
            kept += 1 if found[entry] > last else tied
            ties -= tied
        ends[b + 1] = kept
    return ends, places[:kept], values[:kept]


def batch_top_k(bits: np.ndarray, wanted: int, guess: float):
    """The `wanted` largest positive numbers of a batch: start [B + 1], indices and values, by token, latent.

    `guess` should be somewhat below the smallest number kept; too high a one costs a second pass.
    """
    shift = 16 if bits.dtype == np.int16 else 0
    one = np.array([guess], np.float32).view(np.int32) >> shift
    candidates = _at_least(bits, bits.dtype.type(max(int(one[0]), 1)))
    if candidates[0][-1] < wanted:
        candidates = _at_least(bits, bits.dtype.type(1))
    return _largest(*candidates, wanted)


@numba.njit(parallel=True, cache=True, fastmath=_reductions)
def residuals(x, bias, dictionary, start, indices, values, prefixes, scale, residual, slopes, errors):
    """Reconstruct, and compare with the truth: x [B, D], bias [D], dictionary [F, D].

    `prefixes` [G] are the loss's dictionary sizes, F alone except for Matryoshka, which needs each token's
    indices in ascending order. Writes residual [G, B, D], scale * (sum of x^ - x of prefix g and all larger
    ones); slopes [N], d loss / d activation, the loss being scale / 2 * sum of squared residuals over
    prefixes; errors [G, B], squared residuals of tokens, not scaled.
    """
    tokens, width = x.shape
    for b in numba.prange(tokens):
        rest = np.empty((len(prefixes), width), np.float32)
        gap, place = bias - x[b], start[b]
        for g in range(len(prefixes)):
            while place + 4 <= start[b + 1] and indices[place + 3] < prefixes[g]:
                v0, v1, v2, v3 = values[place], values[place + 1], values[place + 2], values[place + 3]
                w0, w1 = dictionary[indices[place]], dictionary[indices[place + 1]]
                w2, w3 = dictionary[indices[place + 2]], dictionary[indices[place + 3]]
                for d in range(width):
                    gap[d] += (v0 * _f32(w0[d]) + v1 * _f32(w1[d])) + (v2 * _f32(w2[d]) + v3 * _f32(w3[d]))
                place += 4
            while place < start[b + 1] and indices[place] < prefixes[g]:
                row, value = dictionary[indices[place]], values[place]
                for d in range(width):
                    gap[d] += value * _f32(row[d])
                place += 1
            error = np.float32(0)
            for d in range(width):
                error += gap[d] * gap[d]
                rest[g, d] = scale * gap[d]
            errors[g, b] = error
        for g in range(len(prefixes) - 1, -1, -1):
            suffix, target = rest[g], residual[g, b]
            if g + 1 < len(prefixes):
                suffix += rest[g + 1]
            for d in range(width):
                target[d] = _rounded(suffix[d], target)
            smallest = prefixes[g - 1] if g else 0
            while place > start[b] and indices[place - 1] >= smallest:
                place -= 1
                row, slope = dictionary[indices[place]], np.float32(0)
                for d in range(width):
                    slope += suffix[d] * _f32(row[d])
                slopes[place] = slope


@numba.njit(cache=True)
def by_latent(start, indices, latents):
    """CSR by token -> by latent: first [F + 1] and, in latent order, tokens and places in `indices`, [N]."""
    first = np.zeros(latents + 1, np.int64)
    for j in indices:
        first[j + 1] += 1
    first = np.cumsum(first)
    free, tokens, places = (
        first[:-1].copy(),
        np.empty(len(indices), np.int32),
        np.empty(len(indices), np.int64),
    )
    for b in range(len(start) - 1):
        for place in range(start[b], start[b + 1]):
            slot = free[indices[place]]
            tokens[slot], places[slot] = b, place
            free[indices[place]] = slot + 1
    return first, tokens, places


@numba.njit(parallel=True, cache=True, fastmath=_reductions)
def gradients(inputs, residual, first, tokens, values, slopes, prefixes, encoder, decoder, bias, squares):
    """Gradients of the dictionary's rows that fired: encoder, decoder [F, D] and bias [F].

    `inputs` [B, D] is what the encoder saw; tokens, values and slopes [N] are in the order of `by_latent`.
    `squares` [F] are squared norms. Rows that did not fire stay as they are, their bias and square are 0.
    """
    latents, width = decoder.shape
    for j in numba.prange(latents):
        bias[j] = squares[j] = 0
        if first[j] == first[j + 1]:
            continue
        group = 0
        while j >= prefixes[group]:
            group += 1
        errors, down, up, slope_sum = residual[group], decoder[j], encoder[j], np.float32(0)
        down[:] = 0
        up[:] = 0
        slot, end = first[j], first[j + 1]
        while slot + 4 <= end:
            t0, t1, t2, t3 = tokens[slot], tokens[slot + 1], tokens[slot + 2], tokens[slot + 3]
            v0, v1, v2, v3 = values[slot], values[slot + 1], values[slot + 2], values[slot + 3]
            s0, s1, s2, s3 = slopes[slot], slopes[slot + 1], slopes[slot + 2], slopes[slot + 3]
            e0, e1, e2, e3 = errors[t0], errors[t1], errors[t2], errors[t3]
            x0, x1, x2, x3 = inputs[t0], inputs[t1], inputs[t2], inputs[t3]
            for d in range(width):
                down[d] += (v0 * _f32(e0[d]) + v1 * _f32(e1[d])) + (v2 * _f32(e2[d]) + v3 * _f32(e3[d]))
            for d in range(width):
                up[d] += (s0 * _f32(x0[d]) + s1 * _f32(x1[d])) + (s2 * _f32(x2[d]) + s3 * _f32(x3[d]))
            slope_sum += (s0 + s1) + (s2 + s3)
            slot += 4
        while slot < end:
            value, slope = values[slot], slopes[slot]
            error, seen = errors[tokens[slot]], inputs[tokens[slot]]
            for d in range(width):
                down[d] += value * _f32(error[d])
                up[d] += slope * _f32(seen[d])
            slope_sum += slope
            slot += 1
        square = slope_sum * slope_sum
        for d in range(width):
            square += down[d] * down[d] + up[d] * up[d]
        bias[j], squares[j] = slope_sum, square


@numba.njit(parallel=True, cache=True)
def relu_slopes(features, slopes, penalty, bias, fired, activity):
    """ReLU's derivative in a dense step: one pass over [B, F] in place, by blocks of columns.

    `slopes` are d error / d activation before and d loss / d pre-activation, with the derivative `penalty` of
    an L1 penalty, after. Writes per latent [F] the sums of slopes, of times it fired and of activations.
    """
    tokens, latents = features.shape
    for block in numba.prange((latents + 511) // 512):
        low, high = 512 * block, min(512 * block + 512, latents)
        total, count, active_sum = bias[low:high], fired[low:high], activity[low:high]
        total[:], count[:], active_sum[:] = 0, 0, 0
        for b in range(tokens):
            active, slope = features[b, low:high], slopes[b, low:high]
            for j in range(high - low):
                on = _f32(active[j]) > np.float32(0)
                value = _f32(slope[j]) + penalty if on else np.float32(0)
                slope[j] = _rounded(value, slope)
                total[j] += value
                count[j] += 1 if on else 0
                active_sum[j] += _f32(active[j])


@numba.njit(parallel=True, cache=True, fastmath=_reductions)
def squared_norms(matrix, squares):
    """Squared norm of every row of a matrix [R, C]."""
    for r in numba.prange(matrix.shape[0]):
        row, square = matrix[r], np.float32(0)
        for c in range(matrix.shape[1]):
            square += _f32(row[c]) * _f32(row[c])
        squares[r] = square


@numba.njit(parallel=True, cache=True)
def moments(x, residual, scale, sums):
    """Sums [4, D] of x, x^2, r and r^2 over the batch, r = residual / scale, in float64."""
    tokens, width = x.shape
    blocks, inverse = (width + 63) // 64, np.float32(1) / scale
    for block in numba.prange(blocks):
        low, high = 64 * block, min(64 * block + 64, width)
        part, total = np.zeros((4, high - low), np.float32), np.zeros((4, high - low), np.float64)
        for start in range(0, tokens, 128):  # short sums in float32, their sum in float64
            part[:] = 0
            for b in range(start, min(start + 128, tokens)):
                truth, rest = x[b, low:high], residual[b, low:high]
                for d in range(high - low):
                    part[0, d] += truth[d]
                    part[1, d] += truth[d] * truth[d]
                    part[2, d] += inverse * _f32(rest[d])
                    part[3, d] += (inverse * _f32(rest[d])) * (inverse * _f32(rest[d]))
            total += part
        sums[:, low:high] = total


@numba.njit(parallel=True, cache=True, fastmath=_reductions)
def adam(parts, numbers, unit_norm, copy):
    """One AdamW step of the rows of `weight` [R, C] that `touched` [R] marks; others rest, as in SparseAdam.

    `parts` are weight, mean, square, gradient and touched; `numbers`, in float32, the factor of the gradient,
    the rate, beta1, beta2, 1 - beta1^t, 1 - beta2^t and the decay. With `unit_norm` the rows are normalised.
    The new rows are also written to `copy` [R, C] in its precision (shape [0, 0] asks for none).
    """
    weight, mean, square, gradient, touched = parts
    scale, rate, beta1, beta2, correction1, correction2, decay = numbers
    rows, columns = weight.shape
    for r in numba.prange(rows):
        if not touched[r]:
            continue
        w, m, v, g = weight[r], mean[r], square[r], gradient[r]
        norm = np.float32(0)
        for c in range(columns):
            slope = scale * _f32(g[c])
            m[c] = beta1 * m[c] + (np.float32(1) - beta1) * slope
            v[c] = beta2 * v[c] + (np.float32(1) - beta2) * slope * slope
            root = np.sqrt(v[c] / correction2) + np.float32(1e-8)
            w[c] = w[c] * (np.float32(1) - rate * decay) - rate * (m[c] / correction1) / root
            norm += w[c] * w[c]
        if unit_norm:
            norm = np.float32(1) / max(np.sqrt(norm), np.float32(1e-12))
            w *= norm
        if copy.shape[0]:
            row = copy[r]
            for c in range(columns):
                row[c] = _rounded(w[c], row)
