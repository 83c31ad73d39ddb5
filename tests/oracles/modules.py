"""Small networks of all families, of transformers and our own, to capture and to measure."""

import torch
import transformers
from torch import nn
from torch.nn import functional as F

from budget.read.torch_file import constructing


def ids(batch, seq):
    return torch.zeros(batch, seq, dtype=torch.int64)


def language(kind, head, **settings):
    def build(batch, seq):
        config = getattr(transformers, f"{kind}Config")(vocab_size=1000, pad_token_id=0, **settings)
        tokens = ids(batch, seq)
        return getattr(transformers, kind + head)(config), {"input_ids": tokens, "labels": tokens}

    return build


def gpt2(**settings):
    sizes = {"n_layer": 2, "n_embd": 96, "n_head": 3, "bos_token_id": 1, "eos_token_id": 2}
    return language("GPT2", "LMHeadModel", **sizes, **settings)


def llama_like(kind, **settings):
    sizes = {"hidden_size": 96, "intermediate_size": 200, "num_hidden_layers": 2, "num_attention_heads": 6}
    return language(kind, "ForCausalLM", **{**sizes, "num_key_value_heads": 2, **settings})


def bert(batch, seq):
    config = transformers.BertConfig(
        vocab_size=1000, hidden_size=96, num_hidden_layers=2, num_attention_heads=3, intermediate_size=200
    )
    return transformers.BertModel(config), {"input_ids": ids(batch, seq)}


def images(kind, head, **settings):
    def build(batch, side):
        size = {} if kind == "ResNet" else {"image_size": side}
        config = getattr(transformers, f"{kind}Config")(**size, **settings)
        model = getattr(transformers, kind + head)(config)
        return model, {"pixel_values": torch.zeros(batch, 3, side, side), "labels": ids(batch, 1)[:, 0]}

    return build


def whisper(batch, seq):
    config = transformers.WhisperConfig(
        vocab_size=1000, d_model=96, encoder_layers=2, decoder_layers=2, encoder_attention_heads=3,
        decoder_attention_heads=3, encoder_ffn_dim=300, decoder_ffn_dim=300, max_source_positions=100,
        pad_token_id=0, bos_token_id=1, eos_token_id=2, decoder_start_token_id=1,
    )  # fmt: skip
    model = transformers.WhisperForConditionalGeneration(config)
    model.requires_grad_(True)  # MemTracker knows no frozen parameters
    return model, {"input_features": torch.zeros(batch, 80, 200), "labels": ids(batch, seq)}


class FirstOf(nn.Module):
    """A network whose output is a tuple, as the oracle expects it."""

    def __init__(self, body):
        super().__init__()
        self.body = body

    def forward(self, *args, **kwargs):
        return (self.body(*args, **kwargs),)


class UNet(nn.Module):
    def __init__(self, width=16):
        super().__init__()
        self.down1, self.down2 = self.conv(3, width), self.conv(width, 2 * width)
        self.up = nn.ConvTranspose2d(2 * width, width, 2, stride=2)
        self.out = nn.Sequential(self.conv(2 * width, width), nn.Conv2d(width, 5, 1))

    @staticmethod
    def conv(c, f):
        layers = nn.Conv2d(c, f, 3, padding=1, bias=False), nn.BatchNorm2d(f), nn.ReLU(inplace=True)
        return nn.Sequential(*layers)

    def forward(self, x):
        skip = self.down1(x)
        return self.out(torch.cat((skip, self.up(self.down2(F.max_pool2d(skip, 2)))), 1))


class Recommender(nn.Module):
    """DLRM: embeddings, dense features, dot products between all pairs."""

    def __init__(self, fields=5, rows=1000, width=16):
        super().__init__()
        self.tables = nn.ModuleList(nn.EmbeddingBag(rows, width, mode="sum") for _ in range(fields))
        self.bottom = nn.Sequential(nn.Linear(13, 64), nn.ReLU(), nn.Linear(64, width))
        self.top = nn.Sequential(nn.Linear(width + (fields + 1) ** 2, 64), nn.ReLU(), nn.Linear(64, 1))

    def forward(self, dense, sparse):
        parts = [self.bottom(dense), *(table(sparse[:, i]) for i, table in enumerate(self.tables))]
        x = torch.stack(parts, 1)
        pairs = (x @ x.transpose(1, 2)).flatten(1)
        return torch.sigmoid(self.top(torch.cat((parts[0], pairs), 1)))


class Depthwise(nn.Module):
    """Grouped and strided convolutions, group norm, a squeeze and excitation."""

    def __init__(self, width=24):
        super().__init__()
        self.stem = nn.Conv2d(3, width, 3, stride=2)
        self.depth = nn.Conv2d(width, width, 5, padding=2, groups=width)
        self.norm = nn.GroupNorm(4, width)
        self.gate = nn.Linear(width, width)
        self.wave = nn.Conv1d(width, 8, 4, groups=4, dilation=2)

    def forward(self, x):
        x = F.hardswish(self.norm(self.depth(self.stem(x))))
        x = x * torch.sigmoid(self.gate(x.mean((2, 3))))[:, :, None, None]
        return self.wave(x.flatten(2))


def own(make, inputs):
    return lambda batch, size: (FirstOf(make()), inputs(batch, size))


def picture(batch, side):
    return {"x": torch.zeros(batch, 3, side, side)}


def recurrent(cell):
    class Tagger(nn.Module):
        def __init__(self):
            super().__init__()
            self.rnn = cell(32, 48, 2, batch_first=True)

        def forward(self, x):
            return self.rnn(x)

    def build(batch, seq):
        return Tagger(), {"x": torch.zeros(batch, seq, 32)}

    return build


def clicks(batch, size):
    return {"dense": torch.zeros(batch, 13), "sparse": ids(batch, 5 * size).view(batch, 5, size)}


LAYERS = {"hidden_size": 96, "num_hidden_layers": 2, "num_attention_heads": 3, "intermediate_size": 200}
T5 = {"d_model": 96, "d_kv": 16, "d_ff": 200, "num_layers": 1, "num_heads": 6, "decoder_start_token_id": 0}
BART = {
    "d_model": 96, "encoder_layers": 1, "decoder_layers": 1, "encoder_attention_heads": 3,
    "decoder_attention_heads": 3, "encoder_ffn_dim": 200, "decoder_ffn_dim": 200,
    "max_position_embeddings": 256,
}  # fmt: skip
RESNET = {"embedding_size": 16, "hidden_sizes": [32, 64], "depths": [1, 1]}
CLASSES = "ForImageClassification"
# name -> what builds (module, inputs), and two shapes of input
CASES = {
    "gpt2": (gpt2(), (2, 16), (8, 256)),
    "gpt2-eager": (gpt2(attn_implementation="eager"), (2, 16), (8, 256)),
    "llama": (llama_like("Llama"), (2, 16), (8, 256)),
    "qwen3": (llama_like("Qwen3", head_dim=16, tie_word_embeddings=True), (2, 16), (4, 300)),
    "gemma2": (llama_like("Gemma2", head_dim=16), (2, 16), (4, 300)),
    "mixtral": (llama_like("Mixtral", num_local_experts=4), (2, 16), (8, 256)),
    "gpt-neox": (llama_like("GPTNeoX"), (3, 10), (8, 256)),
    "mamba": (language("Mamba", "ForCausalLM", hidden_size=64, num_hidden_layers=1), (4, 6), (256, 8)),
    "t5": (language("T5", "ForConditionalGeneration", **T5), (2, 16), (8, 200)),
    "bart": (language("Bart", "ForConditionalGeneration", **BART), (2, 16), (8, 200)),
    "bert": (bert, (2, 16), (8, 256)),
    "whisper": (whisper, (2, 16), (8, 100)),
    "vit": (images("ViT", CLASSES, patch_size=8, **LAYERS), (2, 32), (16, 128)),
    "resnet": (images("ResNet", CLASSES, **RESNET), (2, 32), (16, 128)),
    "lstm": (recurrent(nn.LSTM), (2, 5), (64, 12)),
    "gru": (recurrent(nn.GRU), (2, 5), (64, 12)),
    "unet": (own(UNet, picture), (1, 32), (8, 64)),
    "dlrm": (own(Recommender, clicks), (8, 1), (2048, 4)),
    "depthwise": (own(Depthwise, picture), (2, 31), (8, 65)),
}
SHAPES = [(name, shape) for name, (_, *shapes) in CASES.items() for shape in shapes]


def made(name, shape, *, train=False):
    """A module in bf16 and eval mode, and its inputs, on fake tensors."""
    before = torch.get_default_dtype()
    torch.set_default_dtype(torch.bfloat16)
    try:
        with constructing():
            module, inputs = CASES[name][0](*shape)
        return module.train(train), inputs
    finally:
        torch.set_default_dtype(before)
