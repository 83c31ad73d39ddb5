"""Files that people have, good ones and bad ones: one line says what is wrong."""

import gzip
import io
import json
import struct
from math import prod

import pytest

from budget import estimate
from budget.__main__ import main
from budget.errors import InputError
from budget.read import hf_files, preset
from budget.read.source import resolve

GPT2 = {"model_type": "gpt2", "n_layer": 2, "n_embd": 48, "n_head": 4}


def total(source):
    return estimate(source, mode="forward", seq=16).params.total


def header(**tensors):
    text = json.dumps(
        {name: {"dtype": "F32", "shape": [1], "data_offsets": at} for name, at in tensors.items()}
    )
    return struct.pack("<Q", len(text)) + text.encode()


def test_a_folder_and_what_lies_in_it(tmp_path):
    folder = tmp_path / "my-gpt2"
    folder.mkdir()
    (folder / "config.json").write_text(json.dumps(GPT2))
    (folder / "model.safetensors").write_bytes(header(a=[0, 4], b=[4, 8]) + bytes(8))
    (folder / "config.json.gz").write_bytes(gzip.compress(json.dumps(GPT2).encode()))
    expected = total(GPT2)
    for name in ("", "config.json", "config.json.gz", "model.safetensors"):
        assert total(folder / name) == expected
    assert resolve(str(folder), {})[0] == "my-gpt2"
    assert resolve(folder / "config.json.gz", {})[0] == "my-gpt2"


def test_standard_input(monkeypatch, capsys):
    class Input:
        buffer = io.BytesIO(json.dumps(GPT2).encode())

    hf_files._standard_input.cache_clear()
    monkeypatch.setattr("sys.stdin", Input)
    assert main(["estimate", "--config", "-", "--mode", "forward", "--seq", "16", "--format", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert (answer["params"]["total"], answer["model"]["name"]) == (total(GPT2), "gpt2")
    hf_files._standard_input.cache_clear()


def test_an_index_names_its_files(tmp_path):
    (tmp_path / "config.json").write_text(json.dumps(GPT2))
    index = tmp_path / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}))
    (tmp_path / "model-1.safetensors").write_bytes(header(a=[0, 4]) + bytes(4))
    with pytest.raises(InputError, match=r"names 1 files that are not there: model-2"):
        total(tmp_path)
    (tmp_path / "model-2.safetensors").write_bytes(header(b=[0, 4]) + bytes(4))
    assert total(tmp_path) == total(index) == total(GPT2)


META = {
    "llama-2-7b": dict(dim=4096, multiple_of=256, n_heads=32, n_layers=32, norm_eps=1e-05, vocab_size=-1),
    "llama-2-70b": dict(dim=8192, multiple_of=4096, ffn_dim_multiplier=1.3, n_heads=64, n_kv_heads=8,
                        n_layers=80, norm_eps=1e-05, vocab_size=-1),
    "llama-3-8b": dict(dim=4096, n_layers=32, n_heads=32, n_kv_heads=8, vocab_size=128256, multiple_of=1024,
                       ffn_dim_multiplier=1.3, norm_eps=1e-05, rope_theta=500000.0),
    "mixtral-8x22b": dict(dim=6144, n_layers=56, head_dim=128, hidden_dim=16384, n_heads=48, n_kv_heads=8,
                          norm_eps=1e-05, vocab_size=32768,
                          moe={"num_experts_per_tok": 2, "num_experts": 8}),
}  # fmt: skip


@pytest.mark.parametrize("name", META)
def test_params_json_has_the_weights_of_its_config(tmp_path, name):
    # dim, multiple_of and the factor as Meta's and Mistral's files have them; the preset has the hub's widths
    (tmp_path / "params.json").write_text(json.dumps(META[name]))
    assert total(tmp_path) == total(tmp_path / "params.json") == total(name)


def test_params_json_that_says_more_is_refused(tmp_path, capsys):
    for wrong in ({"fusion_interval": 4}, {"n_heads": None}, {"moe": 8}, {"ffn_dim_multiplier": "x"}):
        (tmp_path / "params.json").write_text(json.dumps({**META["llama-2-7b"], **wrong}))
        assert main(["estimate", "--config", str(tmp_path)]) == 2
        assert next(iter(wrong)) in capsys.readouterr().err
    (tmp_path / "params.json").write_text(json.dumps({"peft_type": "LORA", "r": 8}))
    assert main(["estimate", "--config", str(tmp_path / "params.json")]) == 2
    assert "--run FILE" in capsys.readouterr().err


BAD = {
    "a.safetensors": (struct.pack("<Q", 10**9) + b"{}", "tells a header of 1,000,000,000 bytes"),
    "b.safetensors": (header(a=[0, 8], b=[4, 12]) + bytes(12), "'b' overlaps another tensor"),
    "c.safetensors": (header(a=[0, 2**60]), "'a' overlaps another tensor, or the file's end"),
    "d.safetensors": (b"", "tells a header of 0 bytes"),
    "e.safetensors": (header(a=[0, 4]) + bytes(4), "holds weights and no architecture"),
    "f.safetensors": (header(a=["0", 4]) + bytes(4), "no data_offsets"),
    "a.gguf": (b"GGUF" + struct.pack("<IQQ", 3, 2**60, 0), "tells of 1,152,921,504,606,846,976 tensors"),
    "b.gguf": (b"GGUF" + struct.pack("<IQQ", 3, 0, 2**60), "entries of metadata"),
    "c.gguf": (b"GGUF" + struct.pack("<IQQQ", 3, 0, 1, 2**59), "letters"),
    "d.gguf": (b"GGUF" + struct.pack("<I", 9), "has version 9"),
    "e.gguf": (b"PK\3\4" + bytes(50), "begins with something else"),
    "f.gguf": (b"GGUF" + struct.pack("<IQQ", 3, 0, 5), "ends before"),
    "a.bin": (b"\x80\x04.", "is a pickle, which runs code"),
    "a.pt": (b"PK", "allowed: the config.json beside it"),
    "a.json.gz": (b"nothing zipped", "config: "),
    "b.json.gz": (gzip.compress(bytes(20_000_000)), "more than 10,000,000 bytes"),
    "c.json.gz": (gzip.compress(b"{}" * 1000)[:-9], "config: "),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_files_are_refused_in_one_line(tmp_path, capsys, name):
    content, problem = BAD[name]
    (tmp_path / name).write_bytes(content)
    assert main(["estimate", "--config", str(tmp_path / name)]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert problem in err
    assert err.count("\n") == 1
    assert len(err) <= 320


def test_names_of_the_hub_are_presets():
    for name, expected in (("meta-llama/Meta-Llama-3-8B", "llama-3-8b"),
                           ("google-bert/bert-base-uncased", "bert-base"),
                           ("Qwen/Qwen2.5-7B-Instruct", "qwen2.5-7b")):  # fmt: skip
        assert preset.look_up(name)[0] == expected
        assert total(name) == total(expected)
    with pytest.raises(InputError, match=r"no file and no preset is called 'nobody/nothing'"):
        total("nobody/nothing")
    with pytest.raises(InputError, match=r"did you mean 'llama-3\.2-3b'"):
        total("meta-llama/Llama-3.2-3.5B-Instruct")


def test_names_of_the_hub_have_the_weights_that_are_published():
    """gpt-oss: the sum in its index. DeepSeek-V3: a byte for each of 671 B parameters but for a few."""
    held = {name: estimate(name, mode="forward", seq=16).memory.parameters
            for name in ("openai/gpt-oss-20b", "deepseek-ai/DeepSeek-R1")}  # fmt: skip
    assert held["openai/gpt-oss-20b"] == 13_761_264_768
    assert held["deepseek-ai/DeepSeek-R1"] == pytest.approx(671e9, rel=0.01)
    assert total("deepseek-ai/DeepSeek-R1") == total("deepseek-v3")


@pytest.mark.parametrize(
    ("name", "millions"),  # as their cards have them
    [
        pytest.param("openai/clip-vit-large-patch14", 428, marks=pytest.mark.slow),
        ("google/siglip-base-patch16-224", 203),
        pytest.param("stabilityai/stable-diffusion-xl-base-1.0", 2570, marks=pytest.mark.slow),
        pytest.param("black-forest-labs/FLUX.1-dev", 11900, marks=pytest.mark.slow),
        pytest.param("stabilityai/stable-diffusion-3.5-large", 8060, marks=pytest.mark.slow),
        pytest.param("google/siglip-so400m-patch14-384", 878, marks=pytest.mark.slow),
    ],
)
def test_presets_without_an_architecture_here_are_captured(name, millions):
    assert total(name) / 1e6 == pytest.approx(millions, rel=0.005)


Q4_K, Q6_K, F32 = (12, 144 / 256), (14, 210 / 256), (0, 4)


def gguf(path, metadata, tensors):
    """A file's header, written after the format's own description."""

    def text(t):
        return struct.pack("<Q", len(t)) + t.encode()

    def value(v):
        if isinstance(v, str):
            return struct.pack("<I", 8) + text(v)
        if isinstance(v, list):
            return struct.pack("<IIQ", 9, 8, len(v)) + b"".join(map(text, v))
        return struct.pack("<II", 4, v)

    content = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(metadata))
    content += b"".join(text(k) + value(v) for k, v in metadata.items())
    for name, (shape, (kind, _)) in tensors.items():
        content += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, 0)
    path.write_bytes(content)


@pytest.mark.parametrize(("arch", "tied"), [("llama", False), ("llama", True), ("command-r", True)])
def test_a_mix_of_types_counts_to_the_byte(tmp_path, arch, tied):
    d, f, kv, v, layers = 512, 1024, 128, 1000, 4
    tensors = {"token_embd.weight": ((d, v), Q6_K if tied else Q4_K), "output_norm.weight": ((d,), F32)}
    if not tied:
        tensors["output.weight"] = (d, v), Q6_K
    for i in range(layers):
        mixed = Q6_K if i % 2 else Q4_K
        shapes = {"attn_q": ((d, d), Q4_K), "attn_k": ((d, kv), Q4_K), "attn_v": ((d, kv), mixed),
                  "attn_output": ((d, d), Q4_K), "ffn_gate": ((d, f), Q4_K), "ffn_up": ((d, f), Q4_K),
                  "ffn_down": ((f, d), mixed), "attn_norm": ((d,), F32), "ffn_norm": ((d,), F32)}  # fmt: skip
        if arch == "command-r":
            del shapes["ffn_norm"]  # one norm, before both
        tensors |= {f"blk.{i}.{name}.weight": of for name, of in shapes.items()}
    about = {"general.architecture": arch, f"{arch}.block_count": layers, f"{arch}.embedding_length": d,
             f"{arch}.feed_forward_length": f, f"{arch}.attention.head_count": 8,
             f"{arch}.attention.head_count_kv": 2, f"{arch}.context_length": 256,
             "tokenizer.ggml.tokens": ["a"] * v}  # fmt: skip
    gguf(tmp_path / "model.gguf", about, tensors)
    found = estimate(tmp_path / "model.gguf", mode="decode", seq=64)
    assert found.params.total == sum(prod(shape) for shape, _ in tensors.values())
    assert found.memory.parameters == sum(prod(shape) * size for shape, (_, size) in tensors.values())
    assert not found.model.uncounted
    more = {**tensors, "rope_freqs.weight": ((32,), F32), "blk.0.attn_q.bias2": ((7,), F32)}
    gguf(tmp_path / "more.gguf", about, more)
    (told,) = estimate(tmp_path / "more.gguf", mode="decode", seq=64).model.uncounted
    assert told.startswith(f"the file has {found.params.total + 7:,} weights")


@pytest.mark.parametrize("third", [False, True])
def test_latent_attention_and_experts_in_a_gguf(tmp_path, third):
    d, heads, q, kv, rope, nope, value, f, many = 256, 4, 96, 64, 16, 32, 32, 128, 8
    tensors = {"token_embd.weight": ((d, 999), Q4_K), "output.weight": ((d, 999), Q6_K),
               "output_norm.weight": ((d,), F32)}  # fmt: skip
    for i in range(3):
        shapes = {"attn_q_a": (d, q), "attn_q_b": (q, heads * (nope + rope)), "attn_kv_a_mqa": (d, kv + rope),
                  "attn_kv_b": (kv, heads * (nope + value)), "attn_output": (heads * value, d),
                  "attn_q_a_norm": (q,), "attn_kv_a_norm": (kv,), "attn_norm": (d,),
                  "ffn_norm": (d,)}  # fmt: skip
        if i == 0:
            shapes |= {"ffn_gate": (d, 512), "ffn_up": (d, 512), "ffn_down": (512, d)}
        else:
            shapes |= {"ffn_gate_exps": (d, f, many), "ffn_up_exps": (d, f, many),
                       "ffn_down_exps": (f, d, many), "ffn_gate_shexp": (d, f), "ffn_up_shexp": (d, f),
                       "ffn_down_shexp": (f, d), "ffn_gate_inp": (d, many)}  # fmt: skip
            if third:
                tensors[f"blk.{i}.exp_probs_b.bias"] = (many,), F32
        kinds = {
            name: F32 if len(shape) == 1 or name == "ffn_gate_inp" else Q4_K for name, shape in shapes.items()
        }
        tensors |= {f"blk.{i}.{name}.weight": (shape, kinds[name]) for name, shape in shapes.items()}
    about = {"general.architecture": "deepseek2"} | {
        f"deepseek2.{name}": n
        for name, n in {
            "block_count": 3, "embedding_length": d, "feed_forward_length": 512, "context_length": 256,
            "attention.head_count": heads, "attention.head_count_kv": 1, "attention.q_lora_rank": q,
            "attention.kv_lora_rank": kv, "attention.key_length": kv + rope, "attention.value_length": kv,
            "attention.key_length_mla": nope + rope, "attention.value_length_mla": value,
            "rope.dimension_count": rope, "leading_dense_block_count": 1, "expert_count": many,
            "expert_used_count": 2, "expert_shared_count": 1, "expert_feed_forward_length": f,
        }.items()
    }  # fmt: skip
    gguf(tmp_path / "model.gguf", about, tensors)
    found = estimate(tmp_path / "model.gguf", mode="decode", seq=64)
    assert found.memory.parameters == sum(prod(shape) * size for shape, (_, size) in tensors.values())
    assert found.params.total == sum(prod(s) for n, (s, _) in tensors.items() if "exp_probs" not in n)
    assert not found.model.uncounted


def test_a_config_without_a_model_type_is_told_by_its_class(tmp_path):
    """As of files written by hand; a class that several families have, or none, tells nothing."""
    table = {"hidden_size": 64, "num_hidden_layers": 2, "num_attention_heads": 8, "vocab_size": 99}
    path = tmp_path / "config.json"
    path.write_text(json.dumps({**table, "architectures": ["MistralForCausalLM"]}))
    named = estimate({**table, "model_type": "mistral"}, mode="forward", batch=1, seq=8)
    for config in (path, json.loads(path.read_text())):
        found = estimate(config, mode="forward", batch=1, seq=8)
        assert (found.params, found.flops) == (named.params, named.flops)
    for classes in ([], ["MyNet"], ["BailingMoeV2ForCausalLM"], "MistralForCausalLM", [["x"]], [{}]):
        with pytest.raises(InputError, match='model_type: missing; allowed: "llama"'):
            estimate({**table, "architectures": classes})
