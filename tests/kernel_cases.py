"""The native operators against references in fp64; a program, for a process has one level (tests/test_kernels.py).

python tests/kernel_cases.py LIBRARY answers     raises at the first wrong answer, prints the worst errors
python tests/kernel_cases.py LIBRARY refusals    prints as JSON what each bad call raises, by its name
"""

from __future__ import annotations

import itertools
import json
import math
import sys
import threading
from collections.abc import Callable
from typing import Any

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

TYPES = (torch.float32, torch.bfloat16)
# Of the largest number of the expected answer.
ATTENTION_BOUND = {torch.float32: 2e-6, torch.bfloat16: 8e-3}
NORM_BOUND = {torch.float32: 2e-6, torch.bfloat16: 4.5e-3}
LINEAR_BOUND = {torch.float32: 3e-6, torch.bfloat16: 8e-3}
# Inputs of fp32 are rounded to bf16 where the processor multiplies pairs of bf16.
PAIRS = ("avx512_bf16", "amx")
PAIRS_BOUND = {torch.float32: 8e-3, torch.bfloat16: 8e-3}
# Codes of 4 bits in tiles of bf16, numbers in two parts of which each holds 8 bits: each product is wrong by 2^-17.
TILED_BOUND = {torch.float32: 1e-5, torch.bfloat16: 8e-3}
LENGTHS = (1, 2, 15, 16, 17, 31, 33, 63, 100, 129, 255, 513, 1023, 1025, 2049, 4096)

worst: dict[str, float] = {}


def compare(
    what: str, found: Tensor, expected: Tensor, bound: dict[torch.dtype, float], *facts: object, least: float = 1e-3
) -> None:
    """The largest error by the largest number of the expected answer, or by `least` if that is more."""
    assert found.shape == expected.shape, (what, facts, found.shape, expected.shape)
    if expected.numel() == 0:
        return
    scale = max(expected.abs().max().item(), least)
    error = (found.double() - expected).abs().max().item() / scale
    assert error <= bound[found.dtype], (what, facts, error)
    name = f"{what} {str(found.dtype).removeprefix('torch.')}"
    worst[name] = max(worst.get(name, 0.0), error)


def reference(
    query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None, scale: float, causal: bool, window: int
) -> Tensor:
    """Attention in fp64. Queries that may see nothing give zeros."""
    groups = query.shape[1] // key.shape[1]
    query, key, value = query.double(), key.double(), value.double()
    key, value = key.repeat_interleave(groups, 1), value.repeat_interleave(groups, 1)
    scores = query @ key.transpose(2, 3) * scale
    queries, keys = scores.shape[2:]
    position = torch.arange(queries)[:, None] + keys - queries
    distance = position - torch.arange(keys)
    allowed = torch.ones_like(distance, dtype=torch.bool)
    if causal:
        allowed &= distance >= 0
    if window:
        allowed &= distance < window
        allowed &= torch.tensor(causal) | (-distance < window)
    if mask is not None:
        scores = scores + mask.double()
    scores = scores.masked_fill(~allowed, -math.inf)
    probabilities = torch.softmax(scores, -1)
    return probabilities.masked_fill(torch.isneginf(scores).all(-1, keepdim=True), 0.0) @ value


def attention(
    query: Tensor, key: Tensor, value: Tensor, offsets: Tensor | None = None, mask: Tensor | None = None, **options: Any
) -> Tensor:
    settings = {"scale": max(query.shape[-1], 1) ** -0.5, "causal": False, "window": 0, "coarse": False} | options
    found: Tensor = torch.ops.em_native.attention(query, key, value, offsets, mask, *settings.values())
    assert found.transpose(1, 2).is_contiguous()
    return found


def joined(rows: int, tokens: int, heads: int, width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    query, key, value = torch.randn(rows, tokens, 3, heads, width).to(dtype).permute(2, 0, 3, 1, 4).unbind(0)
    return query, key, value


def check(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None = None, **options: Any) -> None:
    settings = {"scale": max(query.shape[-1], 1) ** -0.5, "causal": False, "window": 0} | options
    before = [tensor.clone() for tensor in (query, key, value)]
    found = attention(query, key, value, None, mask, **settings)
    shapes = [tuple(tensor.shape) for tensor in (query, key)]
    compare(
        "attention",
        found,
        reference(query, key, value, mask, **settings),
        ATTENTION_BOUND,
        shapes,
        settings,
        query.dtype,
    )
    assert all(map(torch.equal, before, (query, key, value)))


def lengths_and_widths() -> None:
    for dtype, tokens in itertools.product(TYPES, LENGTHS):
        check(*joined(1, tokens, 2, 32, dtype))
        check(*joined(1, min(tokens, 300), 1, 64, dtype), causal=True, window=tokens // 3)
    for dtype, width in itertools.product(TYPES, (1, 8, 16, 17, 24, 33, 48, 80, 96, 127, 128, 192, 255, 256)):
        check(*joined(2, 37, 2, width, dtype))
        query, key, _ = joined(1, 29, 2, width, dtype)
        check(query, key, torch.randn(1, 2, 29, 257 - width).to(dtype))


def heads_windows_masks() -> None:
    for dtype, (heads, kv_heads), (queries, keys) in itertools.product(
        TYPES, ((1, 1), (4, 2), (6, 1)), ((1, 70), (50, 50), (33, 90), (20, 7))
    ):
        query = torch.randn(2, heads, queries, 40).to(dtype)
        key, value = torch.randn(2, 2, kv_heads, keys, 40).to(dtype)
        for causal, window in itertools.product((False, True), (0, 1, 5, 1000)):
            check(query, key, value, causal=causal, window=window)
        for sizes in itertools.product((1, 2), (1, heads), (1, queries), (1, keys)):
            check(query, key, value, torch.randn(sizes))
        check(query, key, value, torch.randn(2, heads, queries, keys).to(dtype), causal=True)
        check(query, key, value, torch.randn(2, heads, queries, 1).expand(2, heads, queries, keys))
        check(query, key, value, torch.randn(2, heads, keys, queries).transpose(2, 3))
        # Padding as transformers writes it, and strides that no view of a joined product has.
        mask = torch.zeros(2, 1, 1, keys).masked_fill(torch.rand(2, 1, 1, keys) < 0.5, torch.finfo(torch.float32).min)
        check(query, key, value, mask.expand(2, heads, queries, keys))
        check(
            query.transpose(2, 3).contiguous().transpose(2, 3),
            key.expand(2, kv_heads, keys, 40),
            value[:1].expand_as(key),
        )


def masked_rows() -> None:
    """All keys hidden: as PyTorch's softmax answers for the least number; zeros for -inf."""
    for dtype in TYPES:
        query, key, value = joined(1, 40, 2, 32, dtype)
        least = torch.full((1, 1, 40, 40), torch.finfo(dtype).min, dtype=dtype)
        scores = query.float() @ key.float().transpose(2, 3) * 32**-0.5 + least.float()
        expected = torch.softmax(scores, -1).double() @ value.double()
        compare("masked", attention(query, key, value, None, least), expected, ATTENTION_BOUND)
        assert not attention(query, key, value, None, torch.full((1, 1, 1, 1), -math.inf)).any()
        assert not attention(query, key[:, :, :0], value[:, :, :0]).any()
        # NaN and infinity are not hidden.
        query[0, 1, 3, 0] = math.nan
        found = attention(query, key, value)
        assert found[0, 1, 3].isnan().all()
        assert found.isnan().sum() == 32


def segments() -> None:
    for dtype, offsets in itertools.product(
        TYPES, ((0,), (0, 0), (0, 70), (0, 12, 12, 13, 50), (0, 5, 70), (0, 0, 3, 70, 70), tuple(range(71)))
    ):
        for causal, window, masked in itertools.product((False, True), (0, 4), (False, True)):
            query, key, value = joined(1, 70, 3, 24, dtype)
            longest = max([end - start for start, end in itertools.pairwise(offsets)], default=0)
            mask = torch.randn(1, 3, max(longest, 1), max(longest, 1)) if masked else None
            found = attention(query, key, value, torch.tensor(offsets), mask, causal=causal, window=window)
            expected = torch.zeros(found.shape, dtype=torch.float64)
            for start, end in itertools.pairwise(offsets):
                q, k, v = (tensor[:, :, start:end] for tensor in (query, key, value))
                bias = None if mask is None else mask[:, :, : end - start, : end - start]
                expected[:, :, start:end] = reference(q, k, v, bias, 24**-0.5, causal, window)
            compare("segments", found, expected, ATTENTION_BOUND, offsets, causal, window, masked)
            assert not found[:, :, offsets[-1] :].any()


def cached(
    query: Tensor, key: Tensor, value: Tensor, caches: tuple[Tensor, Tensor], positions: Tensor, **options: Any
) -> Tensor:
    """What the operator gives; the caches are written to."""
    settings = {"mask": None, "scale": query.shape[-1] ** -0.5, "window": 0} | options
    found: Tensor = torch.ops.em_native.attend_cached(query, key, value, *caches, positions, *settings.values())
    return found.transpose(1, 2)


def cached_reference(query: Tensor, caches: tuple[Tensor, Tensor], positions: Tensor, **options: Any) -> Tensor:
    """Each token of each row by itself, in fp64, over caches that hold the new keys and values."""
    rows = []
    for row, tokens in enumerate(positions.tolist()):
        found = []
        for token, place in enumerate(tokens):
            keys, values = (cache[row : row + 1, :, : place + 1] for cache in caches)
            mask = options.get("mask")
            bias = None if mask is None else mask[row : row + 1, :, token : token + 1, : place + 1]
            one = query[row : row + 1, :, token : token + 1]
            found.append(reference(one, keys, values, bias, query.shape[-1] ** -0.5, True, options.get("window", 0)))
        rows.append(torch.cat(found, 2))
    return torch.cat(rows)


def caches() -> None:
    """Rows that stand at different places; single tokens, pieces and prompts; windows, biases, tokens in any order."""
    for dtype, (heads, kv_heads), tokens, width in itertools.product(
        TYPES, ((3, 3), (6, 2), (5, 1)), (1, 3, 8, 40), (16, 33, 64)
    ):
        for length, starts in ((300, (0, 1, 255)), (700, (650, 3, 290)), (64, (0, 0, 24))):
            places = torch.tensor([[start + i for i in range(tokens)] for start in starts]).clamp(max=length - 1)
            query, key = (torch.randn(3, tokens, count, width).to(dtype).transpose(1, 2) for count in (heads, kv_heads))
            value = torch.randn(3, kv_heads, tokens, width + 3).to(dtype)
            before = tuple(torch.randn(3, kv_heads, length, each.shape[3]).to(dtype) for each in (key, value))
            mask = torch.randn(3, 1, tokens, length)
            for options in ({}, {"window": 7}, {"mask": mask}, {"mask": mask, "window": 300}):
                written = before[0].clone(), before[1].clone()
                found = cached(query, key, value, written, places, **options)
                for cache, old, new in zip(written, before, (key, value), strict=True):
                    expected = old.clone()
                    for row, token in itertools.product(range(3), range(tokens)):
                        expected[row, :, places[row, token]] = new[row, :, token]
                    assert torch.equal(cache, expected)
                wanted = cached_reference(query, written, places, **options)
                facts = heads, kv_heads, tokens, width, length, sorted(options)
                compare("attention over a cache", found, wanted, ATTENTION_BOUND, *facts)
    half_caches()
    # Neither the threads nor the other rows change an answer.
    query, key, value = (torch.randn(4, count, 1, 32) for count in (6, 2, 2))
    both = torch.randn(4, 2, 3000, 32), torch.randn(4, 2, 3000, 32)
    places = torch.tensor([[2999], [1500], [3], [800]])
    threads = torch.get_num_threads()
    whole = cached(query, key, value, both, places)
    for count in (1, 2, 3, 7):
        torch.set_num_threads(count)
        assert torch.equal(cached(query, key, value, both, places), whole)
        alone = cached(query[1:2], key[1:2], value[1:2], (both[0][1:2], both[1][1:2]), places[1:2])
        assert torch.equal(alone, whole[1:2])
    torch.set_num_threads(threads)
    # A prompt of no tokens changes nothing, nor does what nobody may see.
    none = torch.zeros(4, 0, dtype=torch.int64)
    assert cached(query[:, :, :0], key[:, :, :0], value[:, :, :0], both, none).shape == (4, 6, 0, 32)
    hidden = torch.full((1, 1, 1, 1), -math.inf)
    assert not cached(query, key, value, both, places, mask=hidden).any()


def half_caches() -> None:
    """Caches of bf16 for numbers of fp32: few queries are not rounded, many are; masks and windows as ever."""
    for tokens, (heads, kv_heads) in itertools.product((1, 4, 40), ((3, 3), (6, 2))):
        places = torch.arange(tokens) + torch.tensor([[0], [290]])
        query, key = (torch.randn(2, tokens, count, 34).transpose(1, 2) for count in (heads, kv_heads))
        value = torch.randn(2, kv_heads, tokens, 20)
        before = tuple(torch.randn(2, kv_heads, 330, each.shape[3]).bfloat16() for each in (key, value))
        few = tokens * heads // kv_heads <= 24
        for options in ({}, {"window": 7}, {"mask": torch.randn(2, 1, tokens, 330)}):
            written = before[0].clone(), before[1].clone()
            found = cached(query, key, value, written, places, **options)
            expected = before[0].clone()
            for row, token in itertools.product(range(2), range(tokens)):
                expected[row, :, places[row, token]] = key[row, :, token].bfloat16()
            assert torch.equal(written[0], expected)
            asked = query if few else query.bfloat16().float()
            bound = ATTENTION_BOUND[torch.float32 if few else torch.bfloat16]
            wanted = cached_reference(asked, written, places, **options)
            compare("attention over bf16", found, wanted, {torch.float32: bound}, tokens, heads, sorted(options))


def rotations() -> None:
    for dtype, width, (rows, heads, tokens) in itertools.product(
        TYPES, (2, 16, 30, 64, 66, 128), ((1, 1, 1), (2, 3, 17), (3, 2, 40))
    ):
        x = torch.randn(rows, tokens, heads + 2, width).to(dtype)[:, :, 1:-1].transpose(1, 2)
        for angle_type, shape in itertools.product({torch.float32, dtype}, (rows, 1)):
            cosines, sines = torch.randn(2, shape, 1, tokens, width).to(angle_type)
            turned = torch.cat([-x[..., width // 2 :], x[..., : width // 2]], -1)
            wanted = x.double() * cosines.double() + turned.double() * sines.double()
            found = torch.ops.em_native.rotate(x, cosines, sines)
            compare("rotation", found, wanted, NORM_BOUND, rows, heads, tokens, width)


def joined_caches() -> None:
    """The bits that rotations and attention give one after the other, from parts of one tensor."""
    ops = torch.ops.em_native
    for dtype, (heads, kv_heads), tokens, (width, value_width) in itertools.product(
        TYPES, ((3, 3), (6, 2), (5, 1)), (1, 3, 40), ((16, 16), (34, 7), (64, 64))
    ):
        sizes = heads * width, kv_heads * width, kv_heads * value_width
        whole = torch.randn(2, tokens, sum(sizes) + 3).to(dtype)[..., 1:-2]
        query, key, value = (
            part.unflatten(2, (-1, each)).transpose(1, 2)
            for part, each in zip(whole.split(sizes, 2), (width, width, value_width), strict=True)
        )
        places = torch.arange(tokens) + torch.tensor([[0], [290]])
        kept = {dtype, torch.bfloat16}
        angles: list[tuple[Tensor, ...] | None] = [None]
        for angle_type, rows in itertools.product({torch.float32, dtype}, (1, 2)):
            angles.append(torch.randn(2, rows, 1, tokens, width).to(angle_type).unbind(0))
        masks = (None, torch.randn(2, 1, tokens, 330))
        for both, window, mask, cache_type in itertools.product(angles, (0, 7), masks, kept):
            before = [torch.randn(2, kv_heads, 330, each).to(cache_type) for each in (width, value_width)]
            turned = [each if both is None else ops.rotate(each, *both) for each in (query, key)]
            first, second = [each.clone() for each in before], [each.clone() for each in before]
            expected = ops.attend_cached(*turned, value, *first, places, mask, 0.3, window)
            found = ops.attend_joined(whole, *(both or (None, None)), *second, places, mask, 0.3, window)
            assert torch.equal(found, expected.flatten(2)), (dtype, cache_type, heads, kv_heads, tokens, width, window)
            assert all(map(torch.equal, first, second)) and not torch.equal(first[0], before[0])
    none = torch.zeros(2, 0, dtype=torch.int64)
    assert ops.attend_joined(whole[:, :0], None, None, *second, none, None, 1.0, 0).shape == (2, 0, 5 * 64)


def norms() -> None:
    for dtype, size, rows in itertools.product(TYPES, (8, 17, 33, 384, 768, 1000, 5001, 70000), (1, 3)):
        for weights, has_residual in itertools.product((None, torch.float32, dtype), (False, True)):
            x, residual = (torch.randn(2, rows, 2, size) * 2 + 1).to(dtype)
            # Another order in memory.
            x = x.transpose(0, 1).contiguous().transpose(0, 1)
            weight, bias = (None, None) if weights is None else torch.randn(2, size).to(weights).unbind(0)
            second = residual if has_residual else None
            total = x.double() + (residual.double() if has_residual else 0)
            wide, shift = (None if tensor is None else tensor.double() for tensor in (weight, bias))
            expected = torch.nn.functional.layer_norm(total, (size,), wide, shift, 1e-5)
            found = torch.ops.em_native.add_layer_norm(x, second, weight, bias, 1e-5)
            compare("layer norm", found, expected, NORM_BOUND, size, rows, weights)
            expected = total / (total.square().mean(-1, keepdim=True) + 1e-6).sqrt()
            found, kept = torch.ops.em_native.add_rms_norm(x, second, weight, 1e-6)
            compare("RMS norm", found, expected if wide is None else expected * wide, NORM_BOUND, size, rows, weights)
            assert torch.equal(kept, x + residual if has_residual else x)
            if not has_residual:
                assert torch.equal(torch.ops.em_native.rms_norm(x, weight, 1e-6), found)
            assert kept.data_ptr() != x.data_ptr()
    # A mean a thousand times the deviation.
    x = torch.randn(4, 768) + 1000
    expected = torch.nn.functional.layer_norm(x.double(), (768,))
    found = torch.ops.em_native.add_layer_norm(x, None, None, None, 1e-5)
    compare("layer norm, large mean", found, expected, {torch.float32: 1e-4})
    for shape in ((0, 5), (3, 0, 5)):
        assert torch.ops.em_native.add_layer_norm(torch.empty(shape), None, None, None, 0.0).shape == shape


ACTIVATIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "none": lambda x: x,
    "gelu": torch.nn.functional.gelu,
    "gelu_tanh": lambda x: torch.nn.functional.gelu(x, approximate="tanh"),
    "relu": torch.relu,
    "silu": torch.nn.functional.silu,
    "tanh": torch.tanh,
    "sigmoid": torch.sigmoid,
}


def linears() -> None:
    """Packed and not, rows of every kind of stride, each activation, bias and residual or neither."""
    ops = torch.ops.em_native
    sizes = ((1, 1, 1), (1, 384, 384), (3, 17, 33), (7, 385, 50), (32, 100, 64), (300, 64, 40), (13, 1700, 31))
    for (rows, inputs, outputs), x_type, wide in itertools.product(sizes, TYPES, (False, True)):
        weight_type = torch.bfloat16 if wide or x_type == torch.bfloat16 else torch.float32
        weight = (torch.randn(outputs, inputs) / inputs**0.5).to(weight_type)
        bound = PAIRS_BOUND if weight_type == torch.bfloat16 and ops.level() in PAIRS else LINEAR_BOUND
        whole = torch.randn(2, rows, inputs + 3).to(x_type)
        for x in (whole[..., :inputs], whole[0, :, :inputs].contiguous(), whole[:, rows // 2, :inputs]):
            for name, function in ACTIVATIONS.items():
                bias = torch.randn(outputs).to(x_type) if name != "relu" else None
                residual = (
                    torch.randn(*x.shape[:-1], outputs + 1).to(x_type)[..., 1:] if name in ("none", "tanh") else None
                )
                product = x.double() @ weight.double().t()
                expected = function(product + (0 if bias is None else bias.double()))
                expected = expected + (0 if residual is None else residual.double())
                # One number may be next to nothing because its bias cancels it; the rounding is that of the product.
                least = product.abs().max().item() if outputs == 1 else 1e-3
                for form in (weight, ops.pack_linear(weight)):
                    found = ops.linear(x, form, bias, residual, outputs, name)
                    compare("linear", found, expected, bound, x.shape, outputs, name, weight_type, least=least)
    assert ops.linear(torch.randn(2, 0, 5), torch.randn(3, 5), None, None, 3, "none").shape == (2, 0, 3)
    nan = torch.full((2, 5), math.nan)
    for name in ACTIVATIONS:
        assert ops.linear(nan, torch.randn(3, 5), None, None, 3, name).isnan().all()
    # A batch of rows that repeats without memory of its own.
    x = torch.randn(5, 1, 20).expand(5, 4, 20)
    weight = torch.randn(6, 20)
    compare("linear", ops.linear(x, weight, None, None, 6, "none"), x.double() @ weight.double().t(), LINEAR_BOUND)


def gates() -> None:
    ops = torch.ops.em_native
    for dtype, size, rows in itertools.product(TYPES, (1, 15, 16, 33, 384, 1537), (1, 7, 90)):
        whole = torch.randn(2, rows, 2 * size + 3).to(dtype) * 3
        for x in (whole[..., : 2 * size], whole[0, :, 3:].contiguous(), whole[:, rows // 2, 1:-2]):
            for name, function in ACTIVATIONS.items():
                gate, up = x.double().chunk(2, -1)
                # gelu's error is that of a function near -1 where gelu is near 0, so not relative to a small one.
                least = 1.0 if name.startswith("gelu") else 1e-3
                compare("gated", ops.gated(x, name), function(gate) * up, LINEAR_BOUND, x.shape, name, least=least)
    assert ops.gated(torch.randn(2, 0, 6), "silu").shape == (2, 0, 3)


def linears_on_codes() -> None:
    """Codes of each row, exact sums, and codes straight from the layer norm."""
    ops = torch.ops.em_native
    for (rows, inputs, outputs), dtype in itertools.product(
        ((1, 1, 1), (5, 37, 33), (40, 384, 70), (9, 1001, 16)), TYPES
    ):
        x = (torch.randn(2, rows, inputs) + 0.3).to(dtype)
        x[0, 0] = 0
        codes, scales = ops.quantise_rows(x)
        meant = (codes.double() - scales[..., 1:].double()) * scales[..., :1].double()
        assert ((meant - x.double()).abs() <= 0.501 * scales[..., :1].double()).all()
        weight = torch.randint(-127, 128, (outputs, inputs), dtype=torch.int8)
        weight_scales, bias = torch.rand(outputs) / inputs, torch.randn(outputs)
        product = meant @ (weight.double() * weight_scales.double()[:, None]).t() + bias.double()
        for form, (name, function) in itertools.product((weight, ops.pack_linear(weight)), ACTIVATIONS.items()):
            half = dtype == torch.bfloat16
            for asked, type_ in {half: dtype, True: torch.bfloat16}.items():
                given = ops.linear_int8(codes, scales, form, weight_scales, bias, None, outputs, name, asked)
                assert given.dtype == type_
                compare("linear on codes", given, function(product), LINEAR_BOUND, rows, inputs, outputs, name)
            residual = torch.randn(2, rows, outputs).to(dtype)
            own = ops.linear_int8(x, None, form, weight_scales, bias, residual, outputs, name, half)
            compare("linear on codes", own, function(product) + residual.double(), LINEAR_BOUND, rows, inputs, name)
    for dtype in TYPES:
        x, residual = (torch.randn(2, 3, 7, 500) + 0.3).to(dtype)
        weight, bias = torch.randn(2, 500).to(dtype)
        normed, codes, scales = ops.add_layer_norm_int8(x, residual, weight, bias, 1e-5)
        assert torch.equal(normed, ops.add_layer_norm(x, residual, weight, bias, 1e-5))
        meant = (codes.double() - scales[..., 1:].double()) * scales[..., :1].double()
        wide = torch.nn.functional.layer_norm(
            x.double() + residual.double(), (500,), weight.double(), bias.double(), 1e-5
        )
        assert ((meant - wide).abs() <= 0.501 * scales[..., :1].double() + 1e-5).all()
    bad = torch.randn(3, 40)
    bad[1, 39] = math.nan
    found = ops.linear_int8(bad, None, torch.ones(4, 40, dtype=torch.int8), torch.ones(4), None, None, 4, "none", False)
    assert found[1].isnan().all()
    assert not found[::2].isnan().any()


def in_panels(rows: Tensor) -> Tensor:
    """[outputs, steps, ...] as the operators read it: [panels, steps, 32, ...]."""
    rows = torch.cat([rows, rows.new_zeros([-len(rows) % 32, *rows.shape[1:]])])
    panels: Tensor = rows.unflatten(0, (-1, 32)).transpose(1, 2).contiguous()
    return panels


def coded(outputs: int, inputs: int, group: int) -> tuple[tuple[Tensor, Tensor, Tensor | None], Tensor]:
    """Codes, scales and zeros at random, as `linear_codes` takes them, and the numbers that they stand for."""
    if not group:
        codes = torch.randint(-128, 128, (outputs, inputs), dtype=torch.int8)
        scales = torch.rand(outputs) / inputs
        return (in_panels(codes), scales, None), codes.double() * scales.double()[:, None]
    codes = torch.randint(0, 16, (outputs, inputs), dtype=torch.uint8)
    groups = -(-inputs // group)
    scales, zeros = torch.rand(outputs, groups).half() / inputs**0.5, (torch.rand(outputs, groups) * 18 - 1).half()
    wide = [each.double().repeat_interleave(group, 1)[:, :inputs] for each in (scales, zeros)]
    whole = torch.nn.functional.pad(codes, (0, -inputs % 8))
    pairs = (whole[:, ::2] | whole[:, 1::2] << 4).view(outputs, -1, 4)
    return (in_panels(pairs), in_panels(scales), in_panels(zeros)), (codes.double() - wide[1]) * wide[0]


def linears_of_codes() -> None:
    """Weights of 8 and 4 bits: right, and with the same bits for any number of rows and of threads.

    With AMX many rows go through tiles, so that last digits depend on the number of rows, not on that of threads.
    """
    ops = torch.ops.em_native
    sizes = ((1, 1, 1), (1, 384, 384), (2, 1500, 33), (3, 17, 96), (7, 385, 50), (13, 1700, 31), (130, 200, 70))
    before = torch.get_num_threads()
    for (rows, inputs, outputs), dtype, group in itertools.product(sizes, TYPES, (0, 32, 64, 128)):
        parts, numbers = coded(outputs, inputs, group)
        whole = torch.randn(2, rows, inputs + 3).to(dtype)
        for x in (whole[..., :inputs], whole[0, :, :inputs].contiguous()):
            for name in ("none", "silu", "gelu"):
                bias = torch.randn(outputs).to(dtype) if name != "silu" else None
                residual = torch.randn(*x.shape[:-1], outputs + 1).to(dtype)[..., 1:] if name == "none" else None
                product = x.double() @ numbers.t() + (0 if bias is None else bias.double())
                expected = ACTIVATIONS[name](product) + (0 if residual is None else residual.double())
                found = ops.linear_codes(x, *parts, bias, residual, outputs, group, name)
                bound = TILED_BOUND if ops.level() == "amx" and group else LINEAR_BOUND
                compare("linear of codes", found, expected, bound, x.shape, outputs, group, name)
        found = ops.linear_codes(whole[0, :, :inputs], *parts, None, None, outputs, group, "none")
        for count in (1, 3):
            torch.set_num_threads(count)
            few = ops.linear_codes(whole[0, rows // 2 :, :inputs], *parts, None, None, outputs, group, "none")
            alone = ops.linear_codes(whole[0, rows // 2, :inputs], *parts, None, None, outputs, group, "none")
            for part, again in ((few, found[rows // 2 :]), (alone, found[rows // 2])):
                if ops.level() == "amx" and rows >= 24:
                    compare("few rows", part, again.double(), TILED_BOUND, rows, inputs, outputs, group, count)
                else:
                    assert torch.equal(part, again), (rows, inputs, outputs, group, count)
        torch.set_num_threads(before)
    for group in (0, 32):
        parts, _ = coded(40, 50, group)
        assert ops.linear_codes(torch.randn(2, 0, 50), *parts, None, None, 40, group, "none").shape == (2, 0, 40)
        assert ops.linear_codes(torch.full((1, 50), math.nan), *parts, None, None, 40, group, "none").isnan().all()
    (codes, scales, _), numbers = coded(70, 48, 0)
    for ids in (torch.tensor([[0, 69, 31], [32, 5, 5]]), torch.tensor(7), torch.zeros(3, 0, dtype=torch.int64)):
        assert torch.equal(ops.embed_codes(ids, codes, scales), numbers.float()[ids])
    ids = torch.randint(0, 70, (900, 2)).t()
    assert torch.equal(ops.embed_codes(ids, codes, scales), numbers.float()[ids])


def eight_threads() -> None:
    """Eight callers at once get what one gets, bit for bit."""
    inputs = [joined(2, 30 + 17 * number, 4, 32, TYPES[number % 2]) for number in range(8)]
    alone = [attention(*each) for each in inputs]
    wrong: list[int] = []

    def call(number: int) -> None:
        for _ in range(30):
            if not torch.equal(attention(*inputs[number]), alone[number]):
                wrong.append(number)

    threads = [threading.Thread(target=call, args=(number,)) for number in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not wrong


def threads_of_its_own() -> None:
    """Each number of threads cuts the work its own way, and none changes an answer."""
    before = torch.get_num_threads()
    query, key, value = joined(1, 150, 5, 32, torch.float32)
    offsets = torch.tensor([0, 3, 90, 91, 150])
    x, weight = torch.randn(150, 500), torch.ops.em_native.pack_linear(torch.randn(70, 500))
    found = []
    for count in (1, 2, 3, 7):
        torch.set_num_threads(count)
        linear = torch.ops.em_native.linear(x, weight, None, None, 70, "gelu")
        found.append((attention(query, key, value, causal=True), attention(query, key, value, offsets), linear))
    torch.set_num_threads(before)
    for each in found[1:]:
        assert all(map(torch.equal, each, found[0]))
    # Nor does the number of rows.
    assert torch.equal(torch.ops.em_native.linear(x[40:47], weight, None, None, 70, "gelu"), found[0][2][40:47])


def any_shapes() -> None:
    sizes = st.tuples(st.integers(1, 3), st.integers(1, 3), st.integers(1, 3), st.integers(1, 70), st.integers(0, 90))

    @settings(derandomize=True, deadline=None, database=None, max_examples=150)
    @given(sizes, st.integers(1, 256), st.integers(1, 256), st.sampled_from(TYPES), st.booleans(), st.integers(0, 100))
    def check_one(
        sizes: tuple[int, ...], width: int, value_width: int, dtype: torch.dtype, causal: bool, window: int
    ) -> None:
        rows, kv_heads, group, queries, keys = sizes
        query = torch.randn(rows, queries, kv_heads * group, width).to(dtype).transpose(1, 2)
        key = torch.randn(rows, kv_heads, keys, width).to(dtype)
        value = torch.randn(rows, keys, kv_heads, value_width).to(dtype).transpose(1, 2)
        check(query, key, value, causal=causal, window=window)

    check_one()


def answers() -> None:
    torch.manual_seed(0)
    with torch.no_grad():
        for part in (
            *(lengths_and_widths, heads_windows_masks, masked_rows, segments, caches, rotations, joined_caches, norms),
            *(linears, gates, linears_on_codes, linears_of_codes, eight_threads, threads_of_its_own, any_shapes),
        ):
            part()
    print(json.dumps({"level": torch.ops.em_native.level(), "worst": worst}))


def bad_calls() -> dict[str, Callable[[], object]]:
    x = torch.randn(1, 2, 6, 16)
    norm, rms = torch.ops.em_native.add_layer_norm, torch.ops.em_native.add_rms_norm
    rows = torch.randn(3, 8)
    twice = x.expand(2, 2, 6, 16)
    emptied = torch.randn(1, 2, 6, 16)
    emptied.untyped_storage().resize_(8)

    ops = torch.ops.em_native
    weight, packed = torch.randn(6, 8), ops.pack_linear(torch.randn(6, 8))
    codes, packed_codes = torch.ones(6, 8, dtype=torch.int8), ops.pack_linear(torch.ones(6, 8, dtype=torch.int8))
    scales = torch.ones(6)
    emptied_weight = packed.clone()
    emptied_weight.untyped_storage().resize_(8)

    def linear(x: Tensor = rows, weight: Tensor = weight, *rest: Any, outputs: int = 6, act: str = "none") -> object:
        bias, residual = rest or (None, None)
        return ops.linear(x, weight, bias, residual, outputs, act)

    def int8(
        x: Tensor = rows, x_scales: Tensor | None = None, weight: Tensor = codes, w_scales: Tensor = scales
    ) -> object:
        return ops.linear_int8(x, x_scales, weight, w_scales, None, None, 6, "none", False)

    byte, four = coded(6, 8, 0)[0], coded(6, 8, 32)[0]
    emptied_codes = byte[0].clone()
    emptied_codes.untyped_storage().resize_(8)

    def of_codes(
        x: Tensor = rows,
        codes: Tensor = four[0],
        scales: Tensor = four[1],
        zeros: Tensor | None = four[2],
        outputs: int = 6,
        group: int = 32,
    ) -> object:
        return ops.linear_codes(x, codes, scales, zeros, None, None, outputs, group, "none")

    def embed(ids: Tensor, codes: Tensor = byte[0], scales: Tensor = byte[1]) -> object:
        return ops.embed_codes(ids, codes, scales)

    def with_offsets(*numbers: int, **options: Any) -> Callable[[], object]:
        return lambda: attention(x, x, x, torch.tensor(numbers, dtype=options.get("dtype", torch.int64)))

    keys, values, places = torch.zeros(1, 2, 9, 16), torch.zeros(1, 2, 9, 16), torch.arange(6)[None]

    def over(
        q: Tensor = x,
        k: Tensor = x,
        v: Tensor = x,
        key_cache: Tensor = keys,
        value_cache: Tensor = values,
        at: Tensor = places,
        mask: Tensor | None = None,
        window: int = 0,
    ) -> object:
        try:
            return ops.attend_cached(q, k, v, key_cache, value_cache, at, mask, 1.0, window)
        finally:
            # Nothing is written by a call that is refused.
            assert not keys.any() and not values.any()

    # 4 heads of queries and 2 of keys and values.
    qkv, angle = torch.randn(1, 6, 8 * 16), torch.randn(1, 1, 6, 16)
    emptied_qkv = qkv.clone()
    emptied_qkv.untyped_storage().resize_(8)

    def in_one(
        whole: Tensor = qkv,
        cosines: Tensor | None = angle,
        sines: Tensor | None = angle,
        key_cache: Tensor = keys,
        value_cache: Tensor = values,
        at: Tensor = places,
        mask: Tensor | None = None,
        scale: float = 1.0,
        window: int = 0,
    ) -> object:
        try:
            return ops.attend_joined(whole, cosines, sines, key_cache, value_cache, at, mask, scale, window)
        finally:
            assert not keys.any() and not values.any()

    return {
        "joined axes": lambda: in_one(qkv[0]),
        "joined type": lambda: in_one(qkv.double()),
        "joined emptied": lambda: in_one(emptied_qkv),
        "joined huge": lambda: in_one(qkv[:, :1].expand(1, 2**31, 128)),
        "joined features": lambda: in_one(qkv[..., :-1]),
        "joined no queries": lambda: in_one(qkv[..., :64]),
        "joined heads": lambda: in_one(qkv[..., :112]),
        "joined scale": lambda: in_one(scale=math.nan),
        "joined window": lambda: in_one(window=-1),
        "joined one angle": lambda: in_one(sines=None),
        "joined angles": lambda: in_one(sines=angle[:, :, :5]),
        "joined angles type": lambda: in_one(cosines=angle.bfloat16()),
        "joined odd": lambda: in_one(
            qkv[..., :120], key_cache=torch.zeros(1, 2, 9, 15), value_cache=torch.zeros(1, 2, 9, 15)
        ),
        "joined keys axes": lambda: in_one(key_cache=keys[0]),
        "joined keys heads": lambda: in_one(key_cache=keys[:, :0]),
        "joined keys wide": lambda: in_one(key_cache=torch.zeros(1, 2, 9, 257)),
        "joined keys type": lambda: in_one(key_cache=keys.double()),
        "joined two types": lambda: in_one(value_cache=values.bfloat16()),
        "joined keys rows": lambda: in_one(key_cache=torch.zeros(2, 2, 9, 16)),
        "joined keys strides": lambda: in_one(key_cache=torch.zeros(1, 2, 18, 16)[:, :, ::2]),
        "joined values heads": lambda: in_one(value_cache=torch.zeros(1, 3, 9, 16)),
        "joined lengths": lambda: in_one(value_cache=torch.zeros(1, 2, 8, 16)),
        "joined keys emptied": lambda: in_one(key_cache=emptied),
        "joined positions": lambda: in_one(at=places.expand(2, 6)),
        "joined positions type": lambda: in_one(at=places.int()),
        "joined positions below": lambda: in_one(at=places - 1),
        "joined positions beyond": lambda: in_one(at=places + 4),
        "joined one cache": lambda: in_one(value_cache=keys),
        "joined overlap": lambda: in_one(torch.as_strided(keys, (1, 6, 128), (1, 1, 1))),
        "joined angles overlap": lambda: in_one(cosines=values[:, :1, :6]),
        "joined mask": lambda: in_one(mask=torch.zeros(1, 1, 6, 5)),
        "joined mask type": lambda: in_one(mask=torch.zeros(1, 1, 6, 9).bfloat16()),
        "joined mask overlap": lambda: in_one(mask=keys[:, :1, :6, :9]),
        "cached axes": lambda: over(x[0]),
        "cached types": lambda: over(x, x.bfloat16()),
        "cached heads": lambda: over(x[:, :1]),
        "cached tokens": lambda: over(x[:, :, :5], at=places[:, :5]),
        "cached window": lambda: over(window=-1),
        "cached keys type": lambda: over(key_cache=keys.double()),
        "cached two types": lambda: over(key_cache=keys.bfloat16()),
        "cached narrow": lambda: over(x.bfloat16(), x.bfloat16(), x.bfloat16()),
        "cached keys rows": lambda: over(key_cache=torch.zeros(2, 2, 9, 16)),
        "cached keys width": lambda: over(key_cache=torch.zeros(1, 2, 9, 15)),
        "cached keys strides": lambda: over(key_cache=torch.zeros(1, 2, 18, 16)[:, :, ::2]),
        "cached keys repeat": lambda: over(key_cache=torch.zeros(1, 1, 9, 16).expand(1, 2, 9, 16)),
        "cached values heads": lambda: over(value_cache=torch.zeros(1, 3, 9, 16)),
        "cached lengths": lambda: over(value_cache=torch.zeros(1, 2, 8, 16)),
        "cached emptied": lambda: over(key_cache=emptied),
        "cached positions type": lambda: over(at=places.int()),
        "cached positions axes": lambda: over(at=places[0]),
        "cached positions rows": lambda: over(at=places.expand(2, 6)),
        "cached positions below": lambda: over(at=places - 1),
        "cached positions beyond": lambda: over(at=places + 4),
        "cached positions huge": lambda: over(at=places + 2**62),
        "cached one cache": lambda: over(value_cache=keys),
        "cached overlap": lambda: over(keys[:, :, 1:7]),
        "cached mask": lambda: over(mask=torch.zeros(1, 1, 6, 5)),
        "cached mask queries": lambda: over(mask=torch.zeros(1, 1, 7, 9)),
        "cached mask type": lambda: over(mask=torch.zeros(1, 1, 6, 9).bfloat16()),
        "rotate axes": lambda: ops.rotate(x[0], x, x),
        "rotate odd": lambda: ops.rotate(x[..., :15], x, x),
        "rotate angles": lambda: ops.rotate(x, x[:, :1], x[:, :1, :, :8]),
        "rotate heads": lambda: ops.rotate(x, x, x),
        "rotate types": lambda: ops.rotate(x, x[:, :1].bfloat16(), x[:, :1]),
        "rotate unlike": lambda: ops.rotate(x.bfloat16(), x[:, :1].bfloat16(), x[:, :1]),
        "axes": lambda: attention(x[0], x, x),
        "type": lambda: attention(x.double(), x.double(), x.double()),
        "types": lambda: attention(x, x.bfloat16(), x),
        "rows": lambda: attention(x, x.expand(2, 2, 6, 16), x),
        "width": lambda: attention(x, x[..., :8], x),
        "wide": lambda: attention(*[torch.randn(1, 1, 2, 257)] * 3),
        "no width": lambda: attention(x[..., :0], x[..., :0], x),
        "values": lambda: attention(x, x, x[:, :, :5]),
        "heads": lambda: attention(x, x[:, :1].expand(1, 3, 6, 16), x[:, :1].expand(1, 3, 6, 16)),
        "no heads": lambda: attention(x, x[:, :0], x[:, :0]),
        "huge": lambda: attention(x, x[:, :, :1].expand(1, 2, 2**31, 16), x[:, :, :1].expand(1, 2, 2**31, 16)),
        "huge rows": lambda: attention(*[torch.empty(2**40, 2**20, 0, 16)] * 3),
        "huge output": lambda: attention(*[x[:, :1, :1].expand(2**21, 2**21, 1, 16)] * 3),
        "emptied": lambda: attention(x, emptied, x),
        "scale": lambda: attention(x, x, x, scale=math.inf),
        "large scale": lambda: attention(x, x, x, scale=1e300),
        "NaN scale": lambda: attention(x, x, x, scale=math.nan),
        "window": lambda: attention(x, x, x, window=-1),
        "offsets start": with_offsets(1, 6),
        "offsets fall": with_offsets(0, 5, 4),
        "offsets end": with_offsets(0, 7),
        "offsets below": with_offsets(0, -1),
        "offsets huge": with_offsets(0, 2**62, 6),
        "no offsets": with_offsets(),
        "offsets type": with_offsets(0, 6, dtype=torch.int32),
        "offsets strides": lambda: attention(x, x, x, torch.zeros(1, dtype=torch.int64).expand(4)),
        "offsets axes": lambda: attention(x, x, x, torch.zeros(1, 2, dtype=torch.int64)),
        "offsets rows": lambda: attention(twice, twice, twice, torch.tensor([0, 6])),
        "offsets keys": lambda: attention(x, x[:, :, :5], x[:, :, :5], torch.tensor([0, 5])),
        "mask axes": lambda: attention(x, x, x, None, torch.zeros(6, 6)),
        "mask size": lambda: attention(x, x, x, None, torch.zeros(1, 1, 6, 5)),
        "mask rows": lambda: attention(x, x, x, None, torch.zeros(2, 1, 6, 6)),
        "mask short": lambda: attention(x, x, x, torch.tensor([0, 6]), torch.zeros(1, 1, 5, 6)),
        "mask type": lambda: attention(x, x, x, None, torch.zeros(1, 1, 6, 6, dtype=torch.bool)),
        "mask half": lambda: attention(x, x, x, None, torch.zeros(1, 1, 6, 6, dtype=torch.bfloat16)),
        "norm axes": lambda: norm(torch.tensor(1.0), None, None, None, 0.0),
        "norm type": lambda: norm(rows.half(), None, None, None, 0.0),
        "norm empty": lambda: norm(rows[:, :0], None, None, None, 0.0),
        "norm residual": lambda: norm(rows, rows[:2], None, None, 0.0),
        "norm residual type": lambda: rms(rows, rows.bfloat16(), None, 0.0),
        "norm weight": lambda: norm(rows, None, torch.ones(7), None, 0.0),
        "norm weight axes": lambda: rms(rows, None, torch.ones(1, 8), 0.0),
        "norm bias type": lambda: norm(rows, None, None, torch.ones(8).bfloat16(), 0.0),
        "norm two types": lambda: norm(rows.bfloat16(), None, torch.ones(8), torch.ones(8).bfloat16(), 0.0),
        "norm root": lambda: ops.rms_norm(rows, torch.ones(9), 0.0),
        "norm epsilon": lambda: norm(rows, None, None, None, -1.0),
        "norm NaN": lambda: rms(rows, None, None, math.nan),
        "norm codes": lambda: ops.add_layer_norm_int8(torch.zeros(1, 65537), None, None, None, 0.0),
        "pack axes": lambda: ops.pack_linear(rows[0]),
        "pack type": lambda: ops.pack_linear(rows.double()),
        "pack empty": lambda: ops.pack_linear(rows[:0]),
        "pack codes": lambda: ops.pack_linear(torch.ones(1, 65537, dtype=torch.int8)),
        "pack huge": lambda: ops.pack_linear(torch.ones(1, 1).expand(2**31, 1)),
        "linear x": lambda: linear(torch.tensor(1.0)),
        "linear x type": lambda: linear(rows.double()),
        "linear x empty": lambda: linear(rows[:, :0]),
        "linear weight type": lambda: linear(rows, weight.double()),
        "linear types": lambda: linear(rows.bfloat16(), weight),
        "linear weight": lambda: linear(rows, weight[:, :7]),
        "linear outputs": lambda: linear(outputs=7),
        "linear no outputs": lambda: linear(outputs=0),
        "linear many outputs": lambda: linear(rows, packed, outputs=2**40),
        "linear packed": lambda: linear(rows[:, :7], packed),
        "linear packed outputs": lambda: linear(rows, packed, outputs=100),
        "linear packed view": lambda: linear(rows, torch.zeros(1, 8, 32)[..., ::2]),
        "linear packed elsewhere": lambda: linear(rows, torch.zeros(1, 8, 48)),
        "linear emptied": lambda: linear(rows, emptied_weight),
        "linear bias": lambda: linear(rows, weight, torch.ones(7), None),
        "linear bias type": lambda: linear(rows, weight, torch.ones(6).bfloat16(), None),
        "linear residual": lambda: linear(rows, weight, None, torch.ones(2, 6)),
        "linear residual type": lambda: linear(rows, weight, None, torch.ones(3, 6).bfloat16()),
        "linear activation": lambda: linear(act="x" * 1000),
        "codes weight": lambda: int8(weight=weight),
        "codes packed": lambda: int8(rows[:, :3], weight=packed_codes),
        "codes x": lambda: int8(rows.double()),
        "codes without scales": lambda: int8(rows.byte()),
        "codes with scales": lambda: int8(rows, torch.ones(3, 2)),
        "codes scales": lambda: int8(rows.byte(), torch.ones(2, 2)),
        "codes scales type": lambda: int8(rows.byte(), torch.ones(3, 2).double()),
        "codes wide": lambda: int8(torch.ones(1, 65537)),
        "codes weight scales": lambda: int8(w_scales=torch.ones(5)),
        "coded x": lambda: of_codes(rows.double()),
        "coded inputs": lambda: of_codes(torch.randn(3, 9)),
        "coded outputs": lambda: of_codes(outputs=33),
        "coded type": lambda: of_codes(codes=four[0].char()),
        "coded plain": lambda: of_codes(codes=torch.ones(6, 4, dtype=torch.uint8)),
        "coded group": lambda: of_codes(group=16),
        "coded scales": lambda: of_codes(scales=four[1].float()),
        "coded scales size": lambda: of_codes(scales=torch.ones(1, 2, 32).half()),
        "coded no zeros": lambda: of_codes(zeros=None),
        "coded zeros": lambda: of_codes(zeros=torch.ones(1, 1, 31).half()),
        "coded view": lambda: of_codes(codes=torch.ones(1, 1, 32, 8, dtype=torch.uint8)[..., ::2]),
        "coded byte zeros": lambda: of_codes(rows, *byte[:2], torch.ones(6), group=0),
        "coded byte scales": lambda: of_codes(rows, byte[0], torch.ones(7), None, group=0),
        "coded emptied": lambda: of_codes(rows, emptied_codes, byte[1], None, group=0),
        "embed ids": lambda: embed(torch.tensor([0.0])),
        "embed below": lambda: embed(torch.tensor([0, -1])),
        "embed beyond": lambda: embed(torch.tensor([[6]])),
        "embed codes": lambda: embed(torch.tensor([0]), codes=torch.ones(6, 8, dtype=torch.int8)),
        "embed rows": lambda: embed(torch.tensor([0]), scales=torch.ones(33)),
        "embed scales": lambda: embed(torch.tensor([0]), scales=torch.ones(6, 1)),
        "embed type": lambda: embed(torch.tensor([0]), codes=torch.ones(1, 8, 32)),
        "gated axes": lambda: ops.gated(torch.tensor(1.0), "silu"),
        "gated odd": lambda: ops.gated(rows[:, :7], "silu"),
        "gated type": lambda: ops.gated(rows.half(), "silu"),
        "gated emptied": lambda: ops.gated(emptied, "silu"),
        "gated activation": lambda: ops.gated(rows, "swish"),
        "rows axes": lambda: ops.quantise_rows(torch.tensor(1.0)),
        "rows type": lambda: ops.quantise_rows(rows.int()),
    }


def refusals() -> None:
    found = {}
    for name, call in bad_calls().items():
        try:
            call()
        except RuntimeError as error:
            found[name] = str(error)
    print(json.dumps(found))


if __name__ == "__main__":
    torch.ops.load_library(sys.argv[1])
    {"answers": answers, "refusals": refusals}[sys.argv[2]]()
