"""Small versions of the models of `make models`: three training steps on npu give the numbers of the CPU."""

import pathlib
import sys

import pytest
import torch
import torch_npu  # noqa: F401
import torchvision

sys.path.insert(0, str(pathlib.Path(__file__).parent))

import compare
import models
import networks


@pytest.mark.parametrize("name", models.MODELS)
def test_trains_as_on_the_cpu(name, recwarn, capfd):
    case = models.make(name, tiny=True)
    reference = compare.train(case, "cpu", torch.float64)
    npu, cpu = (compare.errors(compare.train(case, device), reference) for device in ("npu:0", "cpu"))
    assert not compare.outside(npu, cpu)
    # torch_npu warns about what it runs on the CPU: once for each operator of a process, here or on standard error.
    said = "\n".join(str(w.message) for w in recwarn) + capfd.readouterr().err
    assert "not currently supported on the NPU backend" not in said


@pytest.mark.parametrize("device", ["cpu", "npu:0"])
def test_nms_and_roi_align_are_those_of_torchvision(device):
    torch.manual_seed(3)
    corners = torch.rand(60, 2) * 40
    boxes, scores = torch.cat([corners, corners + 1 + torch.rand(60, 2) * 30], 1), torch.rand(60)
    kept = networks.nms(boxes.to(device), scores.to(device), 0.5).cpu()
    assert kept.tolist() == torchvision.ops.nms(boxes, scores, 0.5).tolist()

    features, batch = torch.randn(2, 3, 12, 10, requires_grad=True), torch.randint(2, (60,))
    theirs = torchvision.ops.roi_align(features, torch.cat([batch[:, None].float(), boxes], 1), 5, 0.2, 2, aligned=True)
    mine_in = features.detach().to(device).requires_grad_()
    mine = networks.roi_align(mine_in, boxes.to(device), batch.to(device), 5, 0.2)
    weight = torch.randn(theirs.shape)
    theirs.backward(weight)
    mine.backward(weight.to(device))
    torch.testing.assert_close(mine.cpu(), theirs, rtol=1e-4, atol=1e-5)
    torch.testing.assert_close(mine_in.grad.cpu(), features.grad, rtol=1e-4, atol=1e-4)
