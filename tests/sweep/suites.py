"""What is swept: PyTorch's own databases of operators, wrong calls, modules and optimisers, and the trials each entry gives.

A trial is one call, ready to run on the CPU device and on `npu` with equal arguments. Trials are generated one by one and run
before the next is made: their functions refer to the generator's variables.
"""

from __future__ import annotations

import dataclasses
import itertools
from copy import deepcopy
from typing import Any, Callable

import torch
from torch.nn.parameter import is_lazy
from torch.testing._internal.common_methods_invocations import op_db
from torch.testing._internal.common_modules import module_db
from torch.testing._internal.common_optimizers import optim_db

from comparison import copy, describe, tensors, to_npu, widen

DECOMPOSITIONS = {"svd", "linalg.svd", "svd_lowrank", "pca_lowrank"}  # unique up to signs
HOST_ARGUMENTS = {"tensor_split"}  # PyTorch wants its indices on the CPU, whatever the device
UNINITIALISED = {"empty", "empty_like", "new_empty", "empty_strided", "new_empty_strided", "empty_permuted"}
# Where elements are equal, PyTorch promises no order of their indices: name -> position of `dim` after the input.
UNORDERED_TIES = {"sort": 0, "argsort": 0, "topk": 1, "kthvalue": 1, "mode": 0, "median": 0, "nanmedian": 0}
ROUNDED = (torch.float16, torch.bfloat16)
# Images of bytes, which the CPU device interpolates with weights of few bits and rounds between the dimensions.
FIXED_POINT = {"_upsample_bilinear2d_aa", "nn.functional.interpolate", "nn.functional.upsample_bilinear"}
OPTIMIZER_STEPS = 5


@dataclasses.dataclass
class Trial:
    shown: str
    cpu: Callable[[], Any]
    npu: Callable[[], Any]
    again: Callable[[], Any]  # as `cpu`, on arguments of its own: what differs then depends on the seed
    inputs: Any = ()  # tolerances are relative to these as well
    metadata_only: bool = False
    must_raise: bool = False
    final: Callable[[Any], Any] = lambda result: result  # of both results, before they are compared
    wide: Callable[[], Any] | None = None  # as `cpu`, computed in float64: a second opinion where the CPU rounds on the way


def _choose(samples, count):
    """`count` samples, spread over all of them: the database puts simple ones first and odd ones last."""
    if len(samples) <= count:
        return samples
    return [samples[i * (len(samples) - 1) // (count - 1)] for i in range(count)]


def _gradients(outputs, inputs):
    """Of a fixed weighting of the outputs."""
    outputs = [t for t in tensors(outputs) if t.requires_grad and (t.is_floating_point() or t.is_complex())]
    inputs = [t for t in inputs if t.requires_grad]
    if not outputs or not inputs:
        return []
    generator = torch.Generator().manual_seed(3)
    weights = [torch.randn(t.shape, generator=generator, dtype=torch.float64).to(t.dtype).to(t.device) for t in outputs]
    return torch.autograd.grad(outputs, inputs, weights, allow_unused=True)


# -- operators -------------------------------------------------------------------------------------------------------------


def _name(op):
    return op.name + ("." + op.variant_test_name if op.variant_test_name else "")


def _operators(dtype, backward):
    for i, op in enumerate(op_db):
        types = op.supported_backward_dtypes("cpu") if backward else op.supported_dtypes("cpu")
        if dtype in types and (not backward or op.supports_autograd):
            yield i, _name(op)


def _operator_trials(index, dtype, count, backward):
    op = op_db[index]

    def call(arguments):
        input_, args, kwargs = arguments
        with torch.no_grad():
            return op.op(input_, *args, **kwargs)

    for sample in _choose(list(op.sample_inputs("cpu", dtype, requires_grad=backward)), count):
        # Makes of the outputs what can be differentiated, and does not depend on an algorithm's choices (signs of vectors).
        invariant = sample.output_process_fn_grad

        def gradients(arguments):
            input_, args, kwargs = arguments
            return _gradients(invariant(op.op(input_, *args, **kwargs)), tensors(arguments))

        def without_ties(result):
            """Indices become the elements that they choose."""
            if isinstance(result, torch.Tensor) and op.name != "argsort":
                return result  # no indices: the median of all elements
            values, indices = ([], result) if op.name == "argsort" else result
            given = sample.args[UNORDERED_TIES[op.name]:]
            dim = sample.kwargs.get("dim", given[0] if given else -1)
            indices = indices.cpu() if indices.dim() == sample.input.dim() else indices.cpu().unsqueeze(dim)
            return values, sample.input.gather(dim, indices)

        final = lambda result: result
        if not backward and op.name in DECOMPOSITIONS:
            final = invariant
        elif not backward and op.name in UNORDERED_TIES and not sample.kwargs.get("stable"):
            final = without_ties
        cpu = (sample.input, sample.args, sample.kwargs)
        npu = (to_npu(sample.input), *cpu[1:]) if op.name in HOST_ARGUMENTS else to_npu(cpu)
        again, run = copy(cpu), gradients if backward else call
        rounded = dtype in ROUNDED or (dtype == torch.uint8 and op.name in FIXED_POINT)
        doubles = widen(cpu, dtype) if rounded and not backward else None
        yield Trial(describe(cpu), lambda: run(cpu), lambda: run(npu), lambda: run(again), copy(cpu),
                    metadata_only=op.name in UNINITIALISED,
                    final=final, wide=doubles and (lambda: run(doubles)))


def _wrong_calls(dtype):
    for i, op in enumerate(op_db):
        if op.error_inputs_func is not None:
            yield i, _name(op)


def _wrong_call_trials(index, dtype, count):
    op = op_db[index]

    def call(arguments):
        input_, args, kwargs = arguments
        return op.op(input_, *args, **kwargs)

    for wrong in op.error_inputs("cpu"):
        cpu = (wrong.sample_input.input, wrong.sample_input.args, wrong.sample_input.kwargs)
        npu = to_npu(cpu)
        yield Trial(describe(cpu), lambda: call(cpu), lambda: call(npu), None, must_raise=True)


# -- modules ---------------------------------------------------------------------------------------------------------------


def _modules(dtype):
    for i, info in enumerate(module_db):
        if dtype in info.dtypes:
            yield i, info.name


def _module_trials(index, dtype, count):
    """Results of forward, gradients of inputs and parameters, and the buffers afterwards, in training and in evaluation."""
    info = module_db[index]
    for training in (True, False):
        for given in _choose(list(info.module_inputs_func(info, "cpu", dtype, True, training)), count):
            constructor = (given.constructor_input.args, given.constructor_input.kwargs)
            cpu = (given.forward_input.args, given.forward_input.kwargs)
            torch.manual_seed(16)
            module = info.module_cls(*constructor[0], **constructor[1]).to(dtype).train(training)
            if any(map(is_lazy, module.parameters())):
                module(*copy(cpu)[0])  # its parameters take their shapes from the first input

            def build(device):
                return deepcopy(module).to(device)

            def run(module, arguments):
                result = module(*arguments[0], **arguments[1])
                inputs = [*tensors(arguments), *module.parameters()]
                return result, _gradients(result, inputs), list(module.buffers())

            npu, again = to_npu(cpu), copy(cpu)
            yield Trial(f"{describe(constructor)} {describe(cpu)} {'training' if training else 'evaluation'}",
                        lambda: run(build("cpu"), cpu), lambda: run(build("npu"), npu), lambda: run(build("cpu"), again),
                        (copy(cpu), list(module.parameters())))


# -- optimisers ------------------------------------------------------------------------------------------------------------


def _optimizers(dtype):
    for i, info in enumerate(optim_db):
        yield i, info.optim_cls.__name__


def _optimizer_trials(index, dtype, count):
    """The parameters after some steps, for each configuration of the database and each implementation that it names."""
    info = optim_db[index]
    shapes = [(4, 5), (6, 3)] if info.optim_cls.__name__ == "Muon" else [(4, 5), (7,), (), (2, 3, 3)]
    implementations = [{}, *({name: True} for name in ("foreach", "fused") if name in info.supported_impls)]
    for given, implementation in itertools.product(info.optim_inputs_func(device="cpu"), implementations):

        def run(device):
            options = {**given.kwargs, **implementation}
            if device == "npu":
                options = to_npu(options)
            generator = torch.Generator().manual_seed(5)
            random = lambda shape: torch.randn(shape, generator=generator, dtype=torch.float64).to(dtype).to(device)
            parameters = [random(shape).requires_grad_() for shape in shapes]
            targets = [random(shape) for shape in shapes]
            optimizer = info.optim_cls(parameters, **options)

            def loss():
                optimizer.zero_grad()
                value = sum((p - t).square().sum() + 0.1 * (p - t).pow(4).sum() for p, t in zip(parameters, targets))
                value.backward()
                if info.only_supports_sparse_grads:
                    for p in parameters:
                        p.grad = p.grad.to_sparse()
                return value

            # A step with a closure is a search of its own, which makes much of the last bits after some iterations.
            for _ in range(1 if info.step_requires_closure else OPTIMIZER_STEPS):
                if info.step_requires_closure:
                    optimizer.step(loss)
                else:
                    loss()
                    optimizer.step()
            return [p.detach() for p in parameters]

        yield Trial(f"{describe({**given.kwargs, **implementation})}", lambda: run("cpu"), lambda: run("npu"), lambda: run("cpu"))


_FORWARD = (lambda dtype: _operators(dtype, False), lambda *a: _operator_trials(*a, backward=False))
_BACKWARD = (lambda dtype: _operators(dtype, True), lambda *a: _operator_trials(*a, backward=True))

# name -> (entries(dtype), trials(index, dtype, count)); the worker sends the legacy ones another way
SUITES = {
    "forward": _FORWARD,
    "backward": _BACKWARD,
    "legacy": _FORWARD,
    "legacy_backward": _BACKWARD,
    "errors": (_wrong_calls, _wrong_call_trials),
    "modules": (_modules, _module_trials),
    "optimizers": (_optimizers, _optimizer_trials),
}
