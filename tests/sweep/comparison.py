"""Moves arguments to the device as they are laid out on the CPU, and compares what came back."""

from __future__ import annotations

import torch
from torch.utils import _pytree as pytree

# rtol, atol: results of one formula in two orders of summation, a few hundred terms.
TOLERANCE = {torch.float64: (1e-9, 1e-9), torch.float32: (2e-4, 2e-5), torch.float16: (5e-3, 5e-3), torch.bfloat16: (3e-2, 3e-2),
             torch.complex64: (2e-4, 2e-5), torch.complex128: (1e-9, 1e-9)}


def _place_tensor(x, device, storages):
    """A copy on the device, with the tensor's strides and offset in a copy of its whole storage. Tensors that share their
    memory still do afterwards."""
    if x.layout != torch.strided or x.is_nested or x.is_conj() or x.is_neg() or x.is_quantized:
        return x.detach().to(device, copy=True).requires_grad_(x.requires_grad)
    storage = x.untyped_storage()
    key = (storage.data_ptr(), x.dtype)
    if key not in storages or not storage.data_ptr():
        flat = torch.empty(0, dtype=x.dtype).set_(storage, 0, (storage.nbytes() // x.element_size(),))
        storages[key] = flat.to(device, copy=True)
    return storages[key].as_strided(x.shape, x.stride(), x.storage_offset()).requires_grad_(x.requires_grad)


def _place(value, device):
    tensors, storages = {}, {}

    def move(x):
        if isinstance(x, torch.Tensor) and x.device.type == "cpu":
            if id(x) not in tensors:
                tensors[id(x)] = _place_tensor(x, device, storages)
            return tensors[id(x)]
        if isinstance(x, torch.device) or x == "cpu" and isinstance(x, str):
            return torch.device(device)
        return x
    return pytree.tree_map(move, value)


def to_npu(value):
    """The same values on the device."""
    return _place(value, "npu")


def copy(value):
    """The same values in tensors of their own, on the CPU."""
    return _place(value, "cpu")


def widen(value, dtype):
    """Tensors of this type as float64, in tensors of their own."""
    def convert(x):
        if not isinstance(x, torch.Tensor):
            return x
        return x.detach().to(torch.float64) if x.dtype == dtype else x.detach().clone()
    return pytree.tree_map(convert, value)


def tensors(value):
    return [x for x in pytree.tree_leaves(value) if isinstance(x, torch.Tensor)]


def describe(x):
    if isinstance(x, torch.Tensor):
        layout = str(x.layout) if x.layout != torch.strided else "" if x.is_contiguous() else " strided"
        return f"{str(x.dtype).removeprefix('torch.')}{list(x.shape)}{layout.replace('torch.', ' ')}"
    if isinstance(x, (list, tuple)):
        return "(" + ", ".join(describe(y) for y in x[:6]) + ")"
    if isinstance(x, dict):
        return "{" + ", ".join(f"{k}={describe(v)}" for k, v in x.items()) + "}"
    return str(x)[:60]


def same(a, b):
    try:
        return _difference(a, b, rtol=0, atol=0, equal_nan=True, check_stride=False) is None
    except (ValueError, TypeError):
        return False


def _largest(x):
    """The largest finite size of a tensor's elements."""
    if x.layout != torch.strided or not (x.is_floating_point() or x.is_complex()) or not x.numel():
        return 0.0
    finite = x.detach()[torch.isfinite(x.detach())].abs()
    return finite.max().item() if finite.numel() else 0.0


def _difference(actual, expected, **options):
    try:
        torch.testing.assert_close(actual, expected, **options)
    except AssertionError as e:
        return str(e)
    return None


def compare(expected, actual, metadata_only, inputs):
    """None, or what differs. Tolerances are relative to the largest of the expected values and the inputs: a result that
    cancels is as wrong as what it was made of."""
    left, right = pytree.tree_leaves(expected), pytree.tree_leaves(actual)
    if len(left) != len(right):
        return f"{len(right)} results instead of {len(left)}"
    for i, (a, b) in enumerate(zip(left, right)):
        if isinstance(a, torch.Tensor):
            if not isinstance(b, torch.Tensor):
                return f"result {i} is {type(b).__name__}"
            b = b.detach().cpu()
            if a.dtype == torch.int64 and b.dtype == torch.int32:
                b = b.long()  # torch_npu gives some indices as int32
            if a.shape != b.shape or a.dtype != b.dtype:
                return f"result {i} is {describe(b)}, expected {describe(a)}"
            if metadata_only:
                continue
            rtol, atol = TOLERANCE.get(a.dtype, (0, 0))
            scale = max(1.0, _largest(a), *map(_largest, tensors(inputs)))
            difference = _difference(b, a.detach(), rtol=rtol, atol=atol * scale, equal_nan=True, check_stride=False)
        elif isinstance(a, (int, float, complex, bool)) and not metadata_only:
            difference = _difference(b, a, rtol=1e-5, atol=1e-6, equal_nan=True)
        else:
            continue
        if difference:
            return difference
    return None


def confirms(exact, expected, actual, inputs):
    """Whether what float64 arithmetic gave, in the types of `expected`, is what came back; bytes may be half a step away."""
    exact, like = pytree.tree_leaves(exact), pytree.tree_leaves(expected)
    if len(exact) != len(like):
        return False
    for a, e, b in zip(exact, like, pytree.tree_leaves(actual)):
        if isinstance(e, torch.Tensor) and e.dtype == torch.uint8 and isinstance(b, torch.Tensor):
            b = b.detach().cpu()
            if b.shape != e.shape or b.dtype != e.dtype or (b.double() - a.double().clamp(0, 255)).abs().max() > 0.5 + 1e-3:
                return False
        elif compare(a.to(e.dtype) if isinstance(e, torch.Tensor) else a, b, False, inputs) is not None:
            return False
    return len(pytree.tree_leaves(actual)) == len(like)
