"""The short-time Fourier transform against torch.stft in double precision."""

import pytest
import torch

import accuracy
import aclnn
from test_norm import arrange

TOLERANCE = {torch.float32: 2e-6, torch.complex64: 2e-6, torch.float64: 1e-13, torch.complex128: 1e-13}


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("n,hop,window", [(1, 1, 1), (8, 3, 8), (12, 5, 7), (400, 160, 400), (49, 10, 40), (34, 9, 34), (97, 13, 97)])
@pytest.mark.parametrize("batch", [None, 3])
@pytest.mark.parametrize("layout", ["contiguous", "offset"])
def test_stft(dtype, n, hop, window, batch, layout):
    torch.manual_seed(0)
    x = arrange(torch.randn((1000,) if batch is None else (batch, 1000), dtype=dtype), layout)
    real = dtype if not dtype.is_complex else (torch.float32 if dtype == torch.complex64 else torch.float64)
    w = torch.hann_window(window, dtype=real) + 0.1
    wide = torch.complex128 if dtype.is_complex else torch.float64
    for with_window in (True, False):
        for onesided in (False,) if dtype.is_complex else (True, False):
            for normalized in (True, False):
                expected = torch.stft(x.to(wide), n, hop, window, w.double() if with_window else None, center=False, normalized=normalized,
                                      onesided=onesided, return_complex=True)
                scale = expected.abs().max().item()
                for complex_out in (True, False):
                    reference = expected if complex_out else torch.view_as_real(expected)
                    out_type = (torch.complex64 if real == torch.float32 else torch.complex128) if complex_out else real
                    out = arrange(torch.empty(reference.shape, dtype=out_type), layout)
                    aclnn.call("aclStft", x, w if with_window else None, out, n, hop, window, normalized, onesided, complex_out)
                    torch.testing.assert_close(out.to(reference.dtype), reference, rtol=0, atol=TOLERANCE[dtype] * max(scale, 1) * 4)
                    accuracy.record(aclnn.writers(out), out, reference)


def test_errors_name_the_argument():
    x, out = torch.ones(100), torch.empty(6, 19, dtype=torch.complex64)
    with pytest.raises(aclnn.Failed, match="nFft is 101, expected 1 to the signal's length 100"):
        aclnn.call("aclStft", x, None, out, 101, 5, 10, False, True, True)
    with pytest.raises(aclnn.Failed, match=r"out has shape \[6,19\], expected \[5,19\]"):
        aclnn.call("aclStft", x, None, out, 8, 5, 8, False, True, True)
