"""Results don't depend on the number of threads: the same calls in processes with 1, 2 and 3 threads, bit by bit."""

import os
import subprocess
import sys

PROGRAM = """
import hashlib, sys
import torch, aclnn
out = []
def run(op, *arguments):
    aclnn.call(op, *arguments)
    out.extend(a for a in arguments[1:] if isinstance(a, torch.Tensor))
for shape in [(3, 200001), (200001, 3), (700, 801), (40, 30, 500)]:
    x = torch.randn(shape, generator=torch.Generator().manual_seed(1))
    for dims in ([0], [len(shape) - 1], list(range(len(shape)))):
        e = torch.empty_like(x.sum(dims))
        for op in ("ReduceSum", "Mean"):
            run(op, x, dims, False, torch.float32, e.clone())
        for op in ("Amax", "LogSumExp"):
            run(op, x, dims, False, e.clone())
        run("Std", x, dims, 1, False, e.clone())
        run("LinalgVectorNorm", x, 2.0, dims, False, torch.float32, e.clone())
    for dim in (0, len(shape) - 1):
        for op in ("Softmax", "LogSoftmax"):
            run(op, x, dim, torch.empty_like(x))
        run("Cumsum", x, dim, torch.float32, torch.empty_like(x))
    for op in ("MseLoss", "L1Loss"):
        run(op, x, x.flip(0).contiguous(), 1, torch.empty(()))
print(hashlib.sha256(b"".join(t.contiguous().numpy().tobytes() for t in out)).hexdigest())
"""


def start(threads: int) -> subprocess.Popen:
    environment = dict(os.environ, ANYCANN_THREADS=str(threads), TORCH_DEVICE_BACKEND_AUTOLOAD="0", PYTHONPATH=os.path.dirname(__file__))
    return subprocess.Popen([sys.executable, "-c", PROGRAM], env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)


def digest(process: subprocess.Popen) -> str:
    out, errors = process.communicate(timeout=300)
    assert process.returncode == 0, errors
    return out.split()[-1]


def test_thread_counts():
    assert len({digest(process) for process in [start(n) for n in (1, 2, 3)]}) == 1
