"""One process of the sweep: reads entry numbers from standard input, one a line, and answers each with a line of JSON.

It runs the samples of PyTorch's operator database on the CPU device and on `npu`, and compares. torch_npu warns once per
operator and process when it runs something on the CPU, so the worker records the names that were dispatched while each entry
ran, and the names that ever warned; the parent puts them together. The warnings go to standard error, past Python's filters:
the worker reads its own standard error, which must be a file.
"""

from __future__ import annotations

import json
import os
import re
import sys
import traceback
import warnings

ANSWERS = os.fdopen(os.dup(1), "w", buffering=1)
os.dup2(2, 1)  # whatever libraries print to standard output must not mix with the answers

import torch  # noqa: E402
import torch_npu  # noqa: E402, F401
from torch.testing._internal.common_methods_invocations import op_db  # noqa: E402
from torch.utils import _pytree as pytree  # noqa: E402
from torch.utils._python_dispatch import TorchDispatchMode  # noqa: E402

FALLBACK = re.compile(r"fall back to (run on the )?CPU|fall back to run on the CPU|running on CPU", re.IGNORECASE)
# rtol, atol: results of one formula in two orders of summation, a few hundred terms.
TOLERANCE = {torch.float64: (1e-9, 1e-9), torch.float32: (2e-4, 2e-5), torch.float16: (5e-3, 5e-3), torch.bfloat16: (3e-2, 3e-2),
             torch.complex64: (2e-4, 2e-5), torch.complex128: (1e-9, 1e-9)}
DECOMPOSITIONS = {"svd", "linalg.svd", "svd_lowrank", "pca_lowrank"}  # unique up to signs
HOST_ARGUMENTS = {"tensor_split"}  # PyTorch wants its indices on the CPU, whatever the device
UNINITIALISED = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted"}

caught: list[str] = []  # what this process wrote to standard error
WRITTEN = open("/proc/self/fd/2", "rb")
WRITTEN.seek(0, os.SEEK_END)


def new_warnings():
    text = WRITTEN.read().decode(errors="replace")
    if not text:
        return []
    caught.append(text)
    return [text] if FALLBACK.search(text) else []


class Names(TorchDispatchMode):
    """Records the operators that are dispatched, and those that warned of running on the CPU."""

    def __init__(self):
        super().__init__()
        self.dispatched: set[str] = set()
        self.warned: set[str] = set()

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = str(func.name()) if hasattr(func, "name") else str(func)
        self.dispatched.add(name)
        new_warnings()
        result = func(*args, **(kwargs or {}))
        if new_warnings():
            self.warned.add(name)
        return result


def move_tensor(x):
    """A tensor on the device with its strides and offset, in a copy of its whole storage."""
    if x.layout != torch.strided or x.is_nested or x.is_conj() or x.is_neg() or x.is_quantized:
        return x.detach().to("npu").requires_grad_(x.requires_grad)
    storage = x.untyped_storage()
    flat = torch.empty(0, dtype=x.dtype).set_(storage, 0, (storage.nbytes() // x.element_size(),))
    return flat.to("npu").as_strided(x.shape, x.stride(), x.storage_offset()).requires_grad_(x.requires_grad)


def to_npu(value):
    def move(x):
        if isinstance(x, torch.Tensor):
            return move_tensor(x)
        if isinstance(x, torch.device) or x == "cpu" and isinstance(x, str):
            return torch.device("npu")
        return x
    return pytree.tree_map(move, value)


def tensors(value):
    return [x for x in pytree.tree_leaves(value) if isinstance(x, torch.Tensor)]


def gradients(op, sample, invariant):
    """The gradients of a fixed weighting of the outputs, with respect to every input that wants one. `invariant` makes of the
    outputs what can be differentiated, and does not depend on an algorithm's choices (signs of singular vectors)."""
    input_, args, kwargs = sample
    result = invariant(op.op(input_, *args, **kwargs))
    outputs = [t for t in tensors(result) if t.requires_grad and (t.is_floating_point() or t.is_complex())]
    inputs = [t for t in tensors(sample) if t.requires_grad]
    if not outputs or not inputs:
        return []
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.dtype).to(t.device) for t in outputs]
    return torch.autograd.grad(outputs, inputs, weights, allow_unused=True)


def run(op, sample, backward, invariant):
    input_, args, kwargs = sample
    torch.manual_seed(17)
    if backward:
        return gradients(op, sample, invariant)
    with torch.no_grad():
        return op.op(input_, *args, **kwargs)


def same(a, b):
    try:
        torch.testing.assert_close(a, b, rtol=0, atol=0, equal_nan=True, check_stride=False)
        return True
    except (AssertionError, ValueError, TypeError):
        return False


def describe(x):
    if isinstance(x, torch.Tensor):
        return f"{str(x.dtype).removeprefix('torch.')}{list(x.shape)}" + ("" if x.is_contiguous() else " strided")
    if isinstance(x, (list, tuple)):
        return "(" + ", ".join(describe(y) for y in x[:6]) + ")"
    if isinstance(x, dict):
        return "{" + ", ".join(f"{k}={describe(v)}" for k, v in x.items()) + "}"
    return str(x)[:60]


def largest(x):
    """The largest finite size of a tensor's elements."""
    if x.layout != torch.strided or not (x.is_floating_point() or x.is_complex()) or not x.numel():
        return 0.0
    finite = x.detach()[torch.isfinite(x.detach())].abs()
    return finite.max().item() if finite.numel() else 0.0


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
            scale = max(1.0, largest(a), *map(largest, tensors(inputs)))
            torch.testing.assert_close(b, a.detach(), rtol=rtol, atol=atol * scale, equal_nan=True, check_stride=False)
        elif isinstance(a, (int, float, complex, bool)) and not metadata_only:
            torch.testing.assert_close(b, a, rtol=1e-5, atol=1e-6, equal_nan=True)
    return None


def choose(samples, count):
    """`count` samples, spread over all of them: the database puts simple ones first and odd ones last."""
    if len(samples) <= count:
        return samples
    return [samples[i * (len(samples) - 1) // (count - 1)] for i in range(count)]


def sweep_entry(op, dtype, backward, count):
    names = Names()
    answer = {"status": "native", "samples": 0, "refused": 0, "random": False, "detail": ""}
    samples = choose(list(op.sample_inputs("cpu", dtype, requires_grad=backward)), count)
    for sample in samples:
        cpu = (sample.input, sample.args, sample.kwargs)
        invariant = sample.output_process_fn_grad
        try:
            # Before the CPU runs: some operators write to their inputs.
            npu = (to_npu(sample.input), *cpu[1:]) if op.name in HOST_ARGUMENTS else to_npu(cpu)
            again = pytree.tree_map(lambda x: x.detach().clone().requires_grad_(x.requires_grad) if isinstance(x, torch.Tensor) else x, cpu)
            shown = describe(cpu)
            expected = run(op, cpu, backward, invariant)
        except Exception:  # noqa: BLE001: what the CPU refuses says nothing about the device
            answer["refused"] += 1
            continue
        torch.manual_seed(18)
        metadata_only = op.name in UNINITIALISED or answer["random"]
        if not metadata_only:
            with torch.random.fork_rng():
                input_, args, kwargs = again
                seeded = torch.manual_seed
                torch.manual_seed = lambda _seed: seeded(99)
                try:
                    other = run(op, again, backward, invariant)
                finally:
                    torch.manual_seed = seeded
            answer["random"] = metadata_only = not all(map(same, tensors(expected), tensors(other)))
        answer["samples"] += 1
        try:
            with names:
                actual = run(op, npu, backward, invariant)
                torch.npu.synchronize()
            if not backward and op.name in DECOMPOSITIONS:
                expected, actual = invariant(expected), invariant(actual)
            difference = compare(expected, actual, metadata_only, again)
        except AssertionError as e:
            difference = str(e)
        except Exception as e:  # noqa: BLE001
            answer.update(status="error", detail=f"{type(e).__name__}: {e}", sample=shown)
            break
        if difference is not None:
            answer.update(status="wrong", detail=difference, sample=shown)
            break
    answer["dispatched"], answer["warned"] = sorted(names.dispatched), sorted(names.warned)
    new_warnings()
    answer["warnings"] = sorted({line for text in caught for line in text.splitlines() if FALLBACK.search(line)})
    return answer


def main():
    dtype, backward, count = getattr(torch, sys.argv[1]), sys.argv[2] == "backward", int(sys.argv[3])
    torch.set_num_threads(1)
    warnings.simplefilter("ignore")
    torch.npu.set_compile_mode(jit_compile="legacy" in sys.argv[4:])  # "legacy": operators by name (aclop) instead of aclnn
    torch.ones(1).npu().add(1)
    print("ready", file=ANSWERS)
    for line in sys.stdin:
        try:
            answer = sweep_entry(op_db[int(line)], dtype, backward, count)
        except Exception:  # noqa: BLE001
            answer = {"status": "error", "detail": "the worker failed: " + traceback.format_exc()[-800:], "dispatched": [], "warned": [],
                      "warnings": [], "samples": 0, "refused": 0, "random": False}
        print(json.dumps(answer), file=ANSWERS)


if __name__ == "__main__":
    main()
