"""Power modes of boards: rates by NVIDIA's clocks, and the interval of who does not say the mode."""

import pytest

from budget import device, estimate, serve, table
from budget.answer.unsaid import quickest, unsure
from budget.device import modes
from budget.errors import InputError


# NVIDIA's nvpmodel: multiprocessors of 128 or 64 lanes, MHz of the GPU, and the memory's bandwidth by its
# clock.
@pytest.mark.parametrize(
    ("name", "lanes", "units", "mhz", "gb_s"),
    [
        ("jetson-agx-orin-30w", 128, 8, 612, 204.8),
        ("Jetson AGX Orin 64GB 15W", 128, 6, 408, 204.8 * 2133 / 3199),
        ("orin nx 16GB 15W", 128, 4, 612, 102.4),
        ("AGX Xavier 10W", 64, 4, 520, 136.5 * 1066 / 2133),
        ("jetson-tx2-max-q", 128, 2, 850, 59.71),
        ("Jetson Nano 5W", 128, 1, 640, 25.6),
    ],
)
def test_a_mode_has_the_rates_of_its_clocks(name, lanes, units, mhz, gb_s):
    found = device.load(name)
    assert found.flops["vector"] == pytest.approx(2 * lanes * units * mhz * 1e6)
    assert (found.sms, found.hertz) == (units, pytest.approx(mhz * 1e6))
    assert found.bandwidth == pytest.approx(gb_s * 1e9, rel=1e-3)
    whole = device.find(found.id.rsplit("-", 2 if "max-" in found.id else 1)[0])
    assert found.flops.keys() == whole.flops.keys()
    for kind, rate in found.flops.items():
        assert rate / whole.flops[kind] == pytest.approx(found.flops["vector"] / whole.flops["vector"])
    assert found.memory_bytes == whole.memory_bytes and not found.modes


@pytest.mark.parametrize("name", [d for d in device.names() if "modes" in table.load("devices", f"{d}.json")])
def test_every_mode_is_a_device_and_none_is_faster_than_the_highest(name):
    about, whole = table.load("devices", f"{name}.json"), device.load(name)
    found = {mode: device.load(f"{name}-{mode.lower()}") for mode, _ in modes.tables(about)}
    highest = found.pop(about["modes"]["highest"])
    same = ("flops", "bandwidth", "sms", "generation", "memory_bytes")
    assert all(getattr(highest, field) == getattr(whole, field) for field in same)
    for slower in found.values():
        assert slower.rate("fp16") < whole.rate("fp16") and slower.bandwidth <= whole.bandwidth
    assert whole.shipped in ("", *(d.id for d in found.values()))


def test_who_names_no_mode_gets_an_interval_that_reaches_to_the_mode_of_a_new_board():
    def of(name, **more):
        return estimate("resnet50", mode="forward", stack="tensorrt", dtype="fp16", device=name, **more)

    bare, highest, shipped = (of(f"jetson-agx-orin{mode}") for mode in ("", "-maxn", "-30w"))
    assert bare.times.step == highest.times.step < shipped.times.step
    assert bare.interval[0] == highest.interval[0]
    slower = bare.interval[1] / bare.profile.high ** unsure(bare)
    assert bare.times.step * slower == pytest.approx(shipped.times.step)
    assert "mode        MAXN assumed; --device jetson-agx-orin-30w as shipped" in str(bare)
    assert bare.to_dict()["device"]["mode"] and "mode" not in highest.to_dict()["device"]
    assert "mode  " not in str(highest)
    nano, own = of("jetson-nano"), of("jetson-nano-maxn")
    assert nano.interval == own.interval and "MAXN assumed, as shipped" in str(nano)


def test_wrong_modes_are_named():
    good = {"highest": "MAXN", "shipped": "15W", "others": {"15W": [4, 612, 1]}, "source": "a page"}
    modes.check("modes", good)
    for wrong, said in (
        ({"shipped": "30W"}, "modes.shipped: got '30W'; allowed: MAXN, 15W"),
        ({"others": {"15W": [4, 612]}}, "modes.others.15W: got [4, 612]; allowed: multiprocessors, MHz"),
        ({"others": {"15W": [4, "fast", 1]}}, "modes.others.15W: got 'fast'"),
    ):
        with pytest.raises(InputError) as raised:
            modes.check("modes", {**good, **wrong})
        assert str(raised.value).startswith(said)


def test_a_server_says_the_mode_too():
    def of(name):
        return str(serve("gpt2", device=name))

    assert "mode        MAXN assumed; --device jetson-agx-orin-30w as shipped" in of("jetson-agx-orin")
    assert "mode  " not in of("jetson-agx-orin-maxn")


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("jetson-agx-orin 45w", "jetson-agx-orin-30w, jetson-agx-orin-15w, jetson-agx-orin-maxn"),
        ("orin nano:99W", "allowed: jetson-orin-nano-7w, jetson-orin-nano-15w"),
        ("jetson-thor maxn", "no power modes of Jetson T5000 (AGX Thor) are known"),
        ("rtx 3090 250w", "times are at full power; allowed: rtx-3090"),
        ("nonsense 5w", "`budget list devices` has the names"),
    ],
)
def test_a_mode_that_a_board_has_not_is_told_those_that_it_has(name, says):
    with pytest.raises(InputError) as error:
        device.load(name)
    assert says in str(error.value)
    for allowed in str(error.value).partition("allowed: ")[2].split(", "):
        assert not allowed or device.load(allowed)


def test_a_notebook_s_interval_reaches_to_its_highest_clock():
    def of(name):
        return estimate(
            "resnet50", batch=64, mode="forward", stack="torch-compile", dtype="fp16", device=name
        )

    least = of("rtx-5060-laptop")
    quick, times = quickest(least.device)
    assert times == pytest.approx(2497 / 1455, rel=1e-3)
    assert quick.rate("fp16") == pytest.approx(times * least.device.rate("fp16"))
    assert quick.bandwidth == least.device.bandwidth
    assert 1 / times <= least.interval[0] / least.profile.low ** unsure(least) < 1
    assert "45 W assumed" in str(least) and least.to_dict()["device"]["mode"]
    desk = of("rtx-5060")
    assert quickest(desk.device) == (desk.device, 1.0) and not desk.device.modes
