"""torch_npu's own surface over the runtime: devices, streams, events, memory, random numbers, graphs, profiler."""

import os
import subprocess
import sys

import pytest
import torch
import torch_npu

NPU = torch.device("npu:0")


@pytest.mark.parametrize("imports", ["import torch", "import torch_npu", "import torch, torch_npu", "import numpy, torch_npu, torch"])
@pytest.mark.parametrize("autoload", ["0", "1"])
def test_import_in_any_order(imports, autoload):
    if imports == "import torch" and autoload == "0":
        imports += "; import torch_npu"
    program = f"{imports}; import torch; print((torch.ones(2, 2).npu() @ torch.ones(2, 2).npu()).sum().item())"
    p = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120,
                       env=dict(os.environ, TORCH_DEVICE_BACKEND_AUTOLOAD=autoload))
    assert p.returncode == 0, p.stderr[-2000:]
    assert p.stdout.split()[-1] == "8.0"


def test_exits_without_a_word_about_errors():
    program = "import torch, torch_npu; x = torch.randn(100, device='npu'); y = (x * 2).sum(); s = torch.npu.Stream()"
    p = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120)
    assert p.returncode == 0, p.stderr[-2000:]
    assert "rror" not in p.stderr, p.stderr


def test_device_queries():
    assert torch.npu.is_available()
    assert torch.npu.device_count() >= 1
    assert torch.npu.get_device_name(0).startswith("Ascend")
    assert torch.npu.get_device_properties(0).total_memory > 1 << 28
    assert torch.npu.current_device() == 0


@pytest.mark.parametrize("devices", [1, 2])
def test_device_count_follows_the_environment(devices):
    program = ("import torch, torch_npu; n = torch.npu.device_count(); "
               "print(n, sum((torch.ones(3, device=f'npu:{i}') * (i + 1)).sum().item() for i in range(n)))")
    p = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=120,
                       env=dict(os.environ, ANYCANN_DEVICES=str(devices)))
    assert p.stdout.split() == [str(devices), str({1: 3.0, 2: 9.0}[devices])], p.stdout + p.stderr


def test_copies_to_and_from_the_device():
    x = torch.randn(4, 5, 6)
    assert torch.equal(x.npu().cpu(), x)
    assert torch.equal(x.transpose(0, 2).npu().cpu(), x.transpose(0, 2))
    pinned = x.pin_memory()
    assert pinned.is_pinned()
    y = pinned.to(NPU, non_blocking=True)
    back = torch.empty_like(x).pin_memory()
    back.copy_(y, non_blocking=True)
    torch.npu.synchronize()
    assert torch.equal(back, x)


def test_dataloader_with_pinned_memory():
    data = torch.utils.data.TensorDataset(torch.arange(64, dtype=torch.float32).view(64, 1), torch.arange(64))
    loader = torch.utils.data.DataLoader(data, batch_size=16, pin_memory=True, num_workers=2)
    total = 0.0
    for x, y in loader:
        total += (x.to(NPU, non_blocking=True).sum() + y.to(NPU, non_blocking=True).sum()).item()
    assert total == 2 * 63 * 64 / 2


def test_streams_and_events():
    a = torch.randn(256, 256, device=NPU)
    side = torch.npu.Stream()
    event = torch.npu.Event()
    b = a @ a
    event.record()
    with torch.npu.stream(side):
        side.wait_event(event)
        c = b @ a
    done = side.record_event()
    torch.npu.current_stream().wait_event(done)
    d = c + 1
    expected = (a.cpu().double() @ a.cpu().double() @ a.cpu().double() + 1).float()
    torch.testing.assert_close(d.cpu(), expected, rtol=1e-3, atol=1e-2)
    side.synchronize()
    assert side.query() and done.query()


def test_event_timing():
    start, end = torch.npu.Event(enable_timing=True), torch.npu.Event(enable_timing=True)
    a = torch.randn(512, 512, device=NPU)
    start.record()
    for _ in range(5):
        a = a @ a / 512
    end.record()
    end.synchronize()
    assert 0 < start.elapsed_time(end) < 60000


def test_memory_statistics_and_out_of_memory():
    torch.npu.empty_cache()
    before = torch.npu.memory_allocated()
    x = torch.empty(1 << 22, device=NPU)
    assert torch.npu.memory_allocated() - before >= 1 << 24
    assert torch.npu.max_memory_allocated() >= 1 << 24
    del x
    assert torch.npu.memory_allocated() == before
    free, total = torch.npu.mem_get_info()
    assert 0 < free <= total
    with pytest.raises(torch.OutOfMemoryError if hasattr(torch, "OutOfMemoryError") else RuntimeError):
        torch.empty(total * 2, dtype=torch.uint8, device=NPU)
    assert (torch.ones(10, device=NPU) + 1).sum().item() == 20.0  # the next call works


def test_random_seed_and_state():
    torch.npu.manual_seed(7)
    a = torch.randn(1000, device=NPU).cpu()
    state = torch.npu.get_rng_state()
    b = torch.rand(1000, device=NPU).cpu()
    torch.npu.manual_seed(7)
    assert torch.equal(torch.randn(1000, device=NPU).cpu(), a)
    torch.npu.set_rng_state(state)
    assert torch.equal(torch.rand(1000, device=NPU).cpu(), b)
    assert abs(a.mean().item()) < 0.15 and abs(a.std().item() - 1) < 0.1
    assert sorted(torch.randperm(100, device=NPU).cpu().tolist()) == list(range(100))


def test_save_and_load(tmp_path):
    model = torch.nn.Linear(3, 4).npu()
    torch.save({"model": model.state_dict(), "x": torch.arange(5, device=NPU)}, tmp_path / "m.pt")
    loaded = torch.load(tmp_path / "m.pt")
    assert loaded["x"].device.type == "npu" and loaded["x"].cpu().tolist() == [0, 1, 2, 3, 4]
    cpu = torch.load(tmp_path / "m.pt", map_location="cpu")
    assert torch.equal(cpu["model"]["weight"], model.weight.detach().cpu())


def test_graph_capture_and_replay():
    torch.manual_seed(0)
    model = torch.nn.Sequential(torch.nn.Linear(8, 16), torch.nn.ReLU(), torch.nn.Linear(16, 4)).npu()
    x = torch.randn(5, 8, device=NPU)
    side = torch.npu.Stream()
    side.wait_stream(torch.npu.current_stream())
    with torch.npu.stream(side), torch.no_grad():
        for _ in range(2):
            model(x)
    torch.npu.current_stream().wait_stream(side)
    graph = torch.npu.NPUGraph()
    with torch.no_grad(), torch.npu.graph(graph):
        y = model(x)
    for seed in range(3):
        fresh = torch.randn(5, 8, generator=torch.Generator().manual_seed(seed))
        x.copy_(fresh)
        graph.replay()
        torch.npu.synchronize()
        with torch.no_grad():
            expected = copy_to_cpu(model)(fresh)
        torch.testing.assert_close(y.cpu(), expected, rtol=1e-4, atol=1e-5)


def copy_to_cpu(model):
    import copy

    return copy.deepcopy(model).cpu()


def test_profiler_calls_do_not_fail(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)  # it leaves a folder behind
    with torch_npu.profiler.profile(activities=[torch_npu.profiler.ProfilerActivity.CPU]) as profiler:
        (torch.ones(10, device=NPU) * 2).sum().item()
        profiler.step()
    with torch.npu.profiler.range("region") if hasattr(torch.npu, "profiler") and hasattr(torch.npu.profiler, "range") else _nothing():
        torch.ones(1, device=NPU)


def _nothing():
    import contextlib

    return contextlib.nullcontext()


def test_errors_name_operator_and_shapes():
    with pytest.raises(RuntimeError, match="(?i)size|shape|broadcast"):
        torch.ones(2, 3, device=NPU) + torch.ones(4, device=NPU)
    x = torch.arange(5, device=NPU)
    with pytest.raises(RuntimeError):
        torch.index_select(x, 0, torch.tensor([9], device=NPU)).cpu()
        torch.npu.synchronize()


def test_printing():
    assert "2.5000" in repr(torch.full((2,), 2.5, device=NPU))
