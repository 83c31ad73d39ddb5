"""YOLOv8 and YOLO11: parameters as published, FLOPs equal to torch's, in both modes."""

from types import SimpleNamespace

import pytest
import torch
from oracles.flops import count_flops, count_params
from oracles.memory import peak
from oracles.yolo import Yolo, loss
from torch.utils.flop_counter import FlopCounterMode

import budget
from budget.errors import InputError
from budget.ir.verify import verify

# of the presets: version, depth, width, most channels, whether all blocks hold blocks; parameters of
# ultralytics 8.4.190's modules, and the GFLOPs at 640 of its documentation
PUBLISHED = {
    "yolov8n": ((8, 0.33, 0.25, 1024), 3_157_200, 8.7),
    "yolov8s": ((8, 0.33, 0.5, 1024), 11_166_560, 28.6),
    "yolov8m": ((8, 0.67, 0.75, 768), 25_902_640, 78.9),
    "yolov8l": ((8, 1, 1, 512), 43_691_520, 165.2),
    "yolov8x": ((8, 1, 1.25, 512), 68_229_648, 257.8),
    "yolo11n": ((11, 0.5, 0.25, 1024), 2_624_080, 6.5),
    "yolo11s": ((11, 0.5, 0.5, 1024), 9_458_752, 21.5),
    "yolo11m": ((11, 0.5, 1, 512, True), 20_114_688, 68.0),
    "yolo11l": ((11, 1, 1, 512, True), 25_372_160, 86.9),
    "yolo11x": ((11, 1, 1.5, 512, True), 56_966_176, 194.9),
}
ODD = {"classes": 7, "bins": 5, "depth": 0.4, "width": 0.35, "most": 256}


@pytest.mark.parametrize("name", PUBLISHED)
def test_presets_are_as_published(name):
    _, params, gflops = PUBLISHED[name]
    ours = budget.estimate(name, mode="forward")
    assert ours.params.total == params
    # Those of version 11 were counted without attention's products.
    assert ours.flops.forward / 1e9 == pytest.approx(gflops, rel=0.007)


@pytest.mark.parametrize("name", PUBLISHED)
@pytest.mark.parametrize("mode", ["train", "forward"])
@pytest.mark.slow
def test_presets_equal_torch(name, mode):
    _equal(name, {}, PUBLISHED[name][0], mode, 96, 2)


@pytest.mark.parametrize("version", [8, 11])
@pytest.mark.parametrize("mode", ["train", "forward"])
def test_odd_networks_equal_torch(version, mode):
    c = {**ODD, "version": version}
    network = (version, *(c[k] for k in ("depth", "width", "most")), False, c["classes"], c["bins"])
    _equal("yolo", c, network, mode, 64, 3)


def _equal(name, config, network, mode, image, batch):
    ours = budget.estimate(name, config=config or None, mode=mode, image=image, batch=batch)
    with torch.device("meta"):
        real, x = Yolo(*network).train(mode == "train"), torch.empty(batch, 3, image, image)
        if mode == "train":

            def module(x):
                sides, scores = real(x)
                return SimpleNamespace(loss=sides.sum() + scores.sum())

            assert ours.flops[:2] == count_flops(module, x)
        else:
            with FlopCounterMode(display=False) as counter:
                real(x)
            assert ours.flops.forward == counter.get_total_flops()
    assert ours.params.total == count_params(real)


class Trained(torch.nn.Module):
    def __init__(self, network):
        super().__init__()
        self.network = network

    def forward(self, x, box, target):
        return SimpleNamespace(loss=loss(self.network(x), box, target))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::UserWarning")  # of MemTracker, about modules that are gone
@pytest.mark.parametrize("name", ["yolov8n", "yolo11n", "yolo11m"])
def test_peak_is_what_torch_measures(name):
    batch, image = 4, 320
    cells = sum((image // stride) ** 2 for stride in (8, 16, 32))

    def build():
        inputs = {
            "x": torch.zeros(batch, 3, image, image),
            "box": torch.zeros(batch, cells, 4),
            "target": torch.zeros(batch, cells, 80),
        }
        return Trained(Yolo(*PUBLISHED[name][0])), inputs

    ours = budget.estimate(
        name, batch=batch, image=image, precision="pure", optimizer="adamw", execution="eager"
    ).memory
    assert ours.peak == pytest.approx(peak(build, training=True)["Total"], rel=0.02)


def test_sides_that_do_not_halve_five_times_are_an_error():
    with pytest.raises(InputError, match="image: got 650; allowed: multiples of 32"):
        budget.estimate("yolov8n", image=650)
    with pytest.raises(InputError, match="version: got 5; allowed: 8, 11"):
        budget.estimate("yolo", config={"version": 5})


@pytest.mark.parametrize("mode", ["train", "forward"])
def test_the_program_is_sound(mode):
    verify(budget.estimate("yolo11n", mode=mode, batch=2).program)
