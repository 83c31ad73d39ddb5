"""The device of this machine: its processor, or the GPU that torch sees."""

import sys
from types import SimpleNamespace

import pytest

import budget
from budget import device
from budget.device import GIB, machine
from budget.errors import InputError
from budget.fitting.ways import changes


def test_the_processor_of_this_machine():
    d = device.load("cpu")
    assert d == device.cpu()
    assert d.memory_bytes > GIB
    assert 1e9 < d.rate("fp32") < 1e15
    assert d.rate("bf16") == d.rate("vector") == d.rate("fp32")
    assert d.uncertainty > 1
    assert d.provenance.startswith("assumed: ")
    assert d.name


def test_a_processor_serves_with_llama_cpp_from_weights_of_16_bits(monkeypatch, folder):
    """A usual run on a processor; its bandwidth is assumed, and answers say so."""
    monkeypatch.setattr(device.profile, "_measured", lambda folder: [])
    for mode in ("prefill", "decode"):
        e = budget.estimate("llama-3-8b", mode=mode, seq=128, device="cpu")
        assert (e.stack.name, e.task.dtype) == ("llama.cpp", "bfloat16")
        assert e.memory.parameters == 2 * e.params.total
        assert ("MBU is of " in str(e)) == (mode == "decode")
    assert budget.estimate("llama-3-8b", mode="decode", device="cpu", dtype="fp32").task.dtype == "float32"
    assert budget.estimate("gpt2", device="cpu").stack.name == "torch-compile"
    small = device.cpu()._replace(usable_bytes=8 * GIB)
    many = changes("llama-3-8b", mode="decode", device=small, seq=128)
    assert [c.settings for c in many] == [{"quantize": "q8_0"}]


def test_this_mac_has_the_memory_that_it_has(monkeypatch):
    of = machine.facts()._replace(memory_bytes=24 * GIB)
    monkeypatch.setattr(machine, "gpu", lambda: None)
    monkeypatch.setattr(machine, "facts", lambda: of)
    monkeypatch.setattr(machine, "processor", lambda: "Apple M4 Pro")
    found = device.detect()
    assert (found.id, found.memory_bytes) == ("m4-pro", 24 * GIB)


def test_auto_is_this_machine(monkeypatch):
    monkeypatch.setattr(machine, "gpu", lambda: None)  # one that the data does not know is an error
    assert device.load("auto") == device.detect()


@pytest.mark.parametrize(
    ("flags", "expected"),
    [
        ("fpu sse2 avx avx2 fma", ("avx2", 32)),
        ("sse2 avx avx2 avx512f", ("avx512f", 64)),
        ("fp asimd evtstrm", ("asimd", 16)),
        ("", machine.NO_FLAGS),
    ],
)
def test_the_widest_vector_unit_counts(flags, expected):
    assert machine.vector_unit(flags) == expected


def fake_torch(monkeypatch, name, *, available=True):
    properties = SimpleNamespace(name=name, total_memory=85_000_000_000)
    cuda = SimpleNamespace(is_available=lambda: available, get_device_properties=lambda _: properties)
    monkeypatch.setitem(sys.modules, "torch", SimpleNamespace(cuda=cuda))


def test_a_gpu_that_torch_sees_is_looked_up(monkeypatch):
    fake_torch(monkeypatch, "NVIDIA H100 80GB HBM3")
    found = device.detect()
    assert found.id == "h100-sxm"
    assert found.usable_bytes == 85_000_000_000
    assert "driver" in found.provenance


def test_a_driver_shows_one_of_a_boards_two_dies(monkeypatch):
    fake_torch(monkeypatch, "AMD Instinct MI250X")
    found = device.detect()
    assert found.id == "mi250x-gcd"
    assert 2 * found.bandwidth == device.load("mi250x").bandwidth


def test_an_unknown_gpu_is_no_processor(monkeypatch):
    fake_torch(monkeypatch, "NVIDIA GeForce GTX 660")
    with pytest.raises(InputError, match=r"^device: no data on this machine's 'NVIDIA GeForce GTX 660'"):
        device.detect()


def test_without_a_gpu_it_is_the_processor(monkeypatch):
    fake_torch(monkeypatch, "", available=False)
    monkeypatch.setattr(machine, "processor", lambda: "a processor that is no chip of the data")
    assert device.detect().id == "cpu"


def test_an_apple_chip_is_looked_up(monkeypatch):
    monkeypatch.setattr(machine, "gpu", lambda: None)
    monkeypatch.setattr(machine, "processor", lambda: "Apple M1 Max")
    assert device.detect().id == "m1-max"
