"""Serving in closed form: against requests that are played through, and by its parts."""

from __future__ import annotations

import json

import pytest

import budget
from budget.__main__ import main
from budget.serving.requests import serve

CONTRACT = {
    "users", "ttft_s", "tpot_s", "output_tokens_per_s", "requests_per_s", "usd_per_million_output_tokens",
    "kv_cache_bytes", "bound", "low", "high",
}  # fmt: skip


def played(batch, answer, decode, prefill, requests):
    """Seconds a token and requests a second of an engine that is always full: every step decodes all, and
    a place that falls free runs a prompt's prefill before the next step. Places start out of step.
    """
    left = [1 + (i * answer) // batch for i in range(batch)]  # tokens that each sequence still makes
    began = [None] * batch  # when its first token was there; the first ones are not measured
    clock, spans, start = 0.0, [], None
    while len(spans) < requests:
        clock += decode
        for place in range(batch):
            left[place] -= 1
            if left[place] == 0:
                if began[place] is not None:
                    spans.append((clock - began[place]) / (answer - 1))
                    start = start or clock
                clock += prefill
                left[place], began[place] = answer - 1, clock
    return sum(spans) / len(spans), len(spans) / (clock - start)


@pytest.mark.parametrize("users", [1, 4, 32])
@pytest.mark.parametrize(("context", "answer"), [(512, 256), (4096, 128)])
def test_the_closed_form_is_what_requests_take_that_are_played_through(users, context, answer):
    found = serve("llama-3-8b", context=context, output_tokens=answer, users=[users], device="h100")
    point = found.points[0]
    decode = budget.estimate(
        "llama-3-8b", mode="decode", batch=users, seq=context + answer // 2, device="h100"
    ).times.step
    tpot, rate = played(users, answer, decode, found.prefill.times.step, 20 * users)
    assert point.tpot_s == pytest.approx(tpot, rel=0.05)
    assert point.requests_per_s == pytest.approx(rate, rel=0.1)


def test_what_bounds_is_of_what_takes_most_of_the_time(capsys):
    """Where answers are short, that is the prompts of the others, whose share is that of the steps played."""
    asked = {"context": 8192, "output_tokens": 32, "device": "h100"}
    found = serve("llama-3-8b", users=[1, 2, 32], **asked)
    prompt = found.prefill.times.step
    for point in found.points:
        settings = {"mode": "decode", "batch": point.batch, "seq": 8192 + 16, "device": "h100"}
        decode = budget.estimate("llama-3-8b", **settings)
        rounds, prompts = 32 * decode.times.step, point.batch * prompt
        assert point.prompts == pytest.approx(prompts / (prompts + rounds))
        of = found.prefill if prompts > rounds else decode
        assert point.bound == of.seconds()["bound"]
    assert [p.bound for p in found.points] == ["memory", "compute", "compute"]
    args = "serve llama-3-8b --device h100 --context 8k --output-tokens 32 --users 1,2,32"
    assert main(args.split()) == 0
    assert "prompts take most of the time from 2 users on" in capsys.readouterr().out
    assert main(["serve", "llama-3-8b", "--device", "h100", "--context", "1k", "--users", "1"]) == 0
    assert "prompts take" not in capsys.readouterr().out


def test_room_is_what_fits():
    found = serve("gpt2-xl", context=512, output_tokens=256, device="l4", share=1)
    settings = {"mode": "decode", "seq": 768, "device": "l4"}
    assert budget.estimate("gpt2-xl", batch=found.places, **settings).fits
    assert not budget.estimate("gpt2-xl", batch=found.places + 1, **settings).fits
    assert found.points[-1].users == found.places
    rates = [p.output_tokens_per_s for p in found.points]
    assert rates == sorted(rates)


def test_a_share_may_be_a_percentage(capsys):
    asked = ("serve", "gpt2-xl", "--context", "512", "--device", "l4", "--format", "json", "--share")
    answers = []
    for share in ("50%", "0.5"):
        assert main([*asked, share]) == 0
        answers.append(json.loads(capsys.readouterr().out))
    assert answers[0] == answers[1]
    assert main([*asked, "500%"]) == 2
    assert capsys.readouterr().err.startswith("budget: --share: got 5; allowed: ")


@pytest.mark.parametrize(("context", "said"), [("7936", False), ("8k", True)])
def test_requests_longer_than_the_network_s_own_length_are_remarked(context, said, capsys):
    """Llama 3 was trained on 8,192 tokens; its rotary positions go on."""
    assert main(["serve", "llama-3-8b", "--device", "h100", "--context", context, "--users", "1"]) == 0
    assert ("8,448 tokens are more than the network's own 8,192" in capsys.readouterr().out) == said


def test_replicas_answer_what_each_of_them_answers():
    one = serve("gpt2-xl", context=512, users=[2, 3], device="h100")
    four = serve("gpt2-xl", context=512, users=[8, 12], device="h100", layout="dp=4")
    assert four.devices == 4 and four.places == 4 * one.places
    for alone, all_ in zip(one.points, four.points, strict=True):
        assert all_.users == 4 * alone.users and all_.tpot_s == alone.tpot_s
        assert all_.output_tokens_per_s == pytest.approx(4 * alone.output_tokens_per_s)
        dollars = all_.usd_per_million_output_tokens
        assert dollars == pytest.approx(alone.usd_per_million_output_tokens)


def test_devices_without_a_layout_are_divided_as_serves_most():
    found = serve("llama-3-8b", context=2048, users=[8], device="2x h100")
    ways = [
        serve("llama-3-8b", context=2048, users=[8], device="h100", layout=layout)
        for layout in ("dp=2", "tp=2")
    ]
    assert found.points[0].output_tokens_per_s == max(w.points[0].output_tokens_per_s for w in ways)


def test_replicas_of_software_that_divides_by_layers():
    found = serve("llama-3-8b", context=512, users=[1], device="2x 3070", quantize="q8_0")
    assert (found.replicas, found.full.spread.layout.pp, found.full.spread.layout.tp) == (1, 2, 1)


@pytest.mark.parametrize(("stack", "late"), [("vllm", 0.5), ("vllm-2024", 1.5), ("sglang", 1.5)])
def test_a_first_token_waits_for_half_a_step_and_the_one_that_hands_it_out(stack, late):
    found = serve("llama-3-8b", context=512, users=[1], device="h100", stack=stack)
    point, request = found.points[0], found.full.stack.request_ms / 1e3
    assert request > 0
    waits = found.prefill.times.step + late * point.tpot_s + request
    assert point.ttft_s == pytest.approx(waits, rel=1e-6)


def test_more_users_than_places_wait():
    few = serve("gpt2-xl", context=512, output_tokens=256, device="l4")
    many = serve("gpt2-xl", context=512, output_tokens=256, users=[3 * few.places], device="l4").points[0]
    assert many.batch == few.places
    assert many.ttft_s > 2 * 256 * many.tpot_s  # two answers before it


def test_the_contract_s_keys(capsys):
    args = "serve llama-3-8b --device h100 --layout tp=2 --context 2k --users 1,4 --format json"
    assert main(args.split()) == 0
    answer = json.loads(capsys.readouterr().out)
    assert {"schema", "stack", "device", "devices", "layout", "points", "answer"} <= set(answer)
    assert answer["devices"] == 2 and answer["layout"]["tp"] == 2
    assert [p["users"] for p in answer["points"]] == [1, 4]
    assert all(set(p) >= CONTRACT for p in answer["points"])


def test_a_request_of_many_is_not_said_to_be_alone(capsys):
    assert main(["serve", "llama-3-8b", "--users", "1"]) == 0
    assert " alone;" in capsys.readouterr().out
    assert main(["serve", "llama-3-8b", "--users", "32"]) == 0
    assert " beside 31 others;" in capsys.readouterr().out


def test_without_a_context_a_prompt_has_what_the_networks_length_leaves():
    assert serve("llama-3-8b", users=[1]).context == 4096
    assert serve("gpt2", users=[1]).context == 1024 - 256
    assert serve("whisper-large-v3", users=[1], output_tokens=48).context == 448 - 48


@pytest.mark.parametrize(
    ("args", "says"),
    [
        ("serve llama-3-70b --device 4090", "not even one user fits RTX 4090"),
        ("serve llama-3-70b --device 2x4090", "not even one user fits 2 x RTX 4090"),
        ("serve gpt-oss-120b --device 2xh100", "allowed: gpt-oss-120b-mxfp4 as it is published, a shorter"),
        ("serve llama-3-8b --context 1,2", "--context"),
        ("serve llama-3-8b --users 0", "--users"),
        ("serve llama-3-8b --ttft soon", "--ttft"),
        ("serve llama-3-8b --rate 5/year", "--rate"),
        ("serve llama-3-8b --rate 0", "--rate"),
        ("serve llama-3-8b --batch 8", "--batch"),
        ("serve resnet50", "decode"),
    ],
)
def test_wrong_calls_are_one_line(capsys, args, says):
    assert main(args.split()) == 2
    output = capsys.readouterr()
    assert says in output.err and output.err.count("\n") == 1 and output.out == ""


LIMITED = {"context": 2048, "output_tokens": 128, "device": "h100"}


def test_limits_name_the_most_users_within():
    found = serve("llama-3-8b", **LIMITED, tpot=0.02, ttft=0.5)
    most = found.within.users
    at, above = serve("llama-3-8b", **LIMITED, users=[most, most + 1]).points
    assert at == found.within and at.tpot_s <= 0.02 and at.ttft_s <= 0.5
    assert above.tpot_s > 0.02 or above.ttft_s > 0.5
    assert serve("llama-3-8b", **LIMITED, tpot=1e-5).within is None


@pytest.mark.parametrize("limits", [{}, {"tpot": 0.02}])
@pytest.mark.parametrize("rate", [0.3, 17.0, 400.0])
def test_a_rate_needs_the_fewest_replicas_that_answer_it(rate, limits):
    found = serve("llama-3-8b", **LIMITED, rate=rate, **limits)
    one = found.within.requests_per_s  # at most, of a replica
    assert (found.needed - 1) * one < rate <= found.needed * one * (1 + 1e-9)
    point = found.at_rate
    assert point.requests_per_s >= rate * (1 - 1e-9)
    if point.users > found.needed:  # one user less on each replica answers less than what comes
        fewer = [point.users - found.needed]
        few = serve("llama-3-8b", **LIMITED, users=fewer, layout={"dp": found.needed}).points[0]
        assert few.requests_per_s < rate


LARGE = {"device": "h100", "quantize": "fp8", "context": 4096}


def test_devices_are_divided_so_that_limits_are_kept():
    """Four replicas of two devices answer the most, but none of them a token in 15 ms; one of eight does."""
    found = serve("llama-3-70b", **LARGE, devices=8, tpot=0.015)
    eight = serve("llama-3-70b", **LARGE, layout="tp=8", tpot=0.015)
    assert found.within is not None and found.within == eight.within
    most = serve("llama-3-70b", **LARGE, devices=8)
    assert most.replicas > 1 and most.points[-1].output_tokens_per_s > eight.points[-1].output_tokens_per_s
    nothing = serve("llama-3-70b", **LARGE, devices=8, tpot=0.001)  # then the nearest, to be told by how much
    assert nothing.within is None and nothing.fewest == eight.fewest


@pytest.mark.parametrize("tpot", [0.03, 0.06])
def test_a_rate_takes_the_replicas_that_need_the_fewest_devices(tpot):
    found = serve("llama-3-70b", **LARGE, rate=50, tpot=tpot)
    each = [serve("llama-3-70b", **LARGE, rate=50, tpot=tpot, layout=f"tp={n}") for n in (1, 2, 4, 8)]
    assert found.devices_needed == min(one.needed * one.devices for one in each if one.needed)
    assert found.to_dict()["devices_needed"] == found.devices_needed
    alone = serve("llama-3-8b", device="m3-max", context=512, rate=1)  # nothing joins it with another
    assert alone.full.devices == 1


def test_limits_and_a_rate_are_said(capsys):
    args = "serve llama-3-8b --device h100 --context 2k --output-tokens 128 --tpot 20ms"
    assert main(args.split()) == 0
    assert "users keep within the limits" in capsys.readouterr().out
    assert main([*args.split(), "--rate", "6000/min"]) == 0
    out = " ".join(capsys.readouterr().out.split())
    needed = serve("llama-3-8b", **LIMITED, tpot=0.02, rate=100).needed
    assert f"100 requests/s need {needed} x H100 SXM" in out
    assert main([*args.split(), "--tpot", "1us", "--rate", "1"]) == 0
    assert "no number of users keeps within the limits" in " ".join(capsys.readouterr().out.split())


def test_a_price_of_one_s_own_is_what_tokens_cost(capsys):
    asked = ["serve", "llama-3-8b", "--device", "h100", "--context", "2k", "--users", "8", "--format", "json"]
    points = []
    for price in ("2", "4"):
        assert main([*asked, "--price", price]) == 0
        points.append(json.loads(capsys.readouterr().out)["points"][0])
    two, four = points
    assert two["usd_per_million_output_tokens"] == pytest.approx(2 / 3600 / two["output_tokens_per_s"] * 1e6)
    assert four == {**two, "usd_per_million_output_tokens": 2 * two["usd_per_million_output_tokens"]}
    assert main([*asked, "--price", "none"]) == 2
    assert capsys.readouterr().err.startswith("budget: price: got 'none'; allowed: a number above 0")


@pytest.mark.parametrize(("share", "told"), [("0", "0"), ("1.5", "1.5"), ("nan", "nan"), ("most", "'most'")])
def test_a_share_that_is_none_is_refused(capsys, share, told):
    assert main(["serve", "gpt2", "--share", share]) == 2
    assert capsys.readouterr().err == f"budget: --share: got {told}; allowed: numbers above 0, up to 1\n"
