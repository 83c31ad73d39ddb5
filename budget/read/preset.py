"""Presets: named configurations, data with sources in data/presets/.

A table has either `arch` and that architecture's settings, or `model_type` and a Hugging Face
family's own fields; `workload` where a preset is also a worked example; `published`, the preset of the
form in few bits that its maker publishes. A table with `same_as` is another name. One with `_class_name`, or
with a `model_type` that has no family's file, is a class that is captured.

A name without a size is Ollama's, which has a usual size for it (data/ollama.json). There `usual` is the
format of most of its files, and `in_16_bits` lists the names whose files have two bytes a parameter.

A name of the Hugging Face hub means the preset of that name, whoever owns it, without the words about its
training (`unsloth/Meta-Llama-3.1-8B-Instruct`); presets/hub.json has all others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from functools import lru_cache

from .. import table
from ..errors import InputError, nearest, unknown
from ..named import Any

FOLDER = "presets"
ABOUT = ("source", "note", "published")  # for people: no settings
# Words of a name about a network's training, its storage or its owner, which do not say what network it is.
TRAINED = (
    "instruct", "chat", "it", "pt", "sft", "dpo", "rlvr", "thinking", "reasoning", "deduped", "preview", "hf",
    "bf16", "meta", "nvidia", "abliterated", "uncensored", "qat", "mlx",
)  # fmt: skip
# Words about training only beside a size in numbers: Qwen3-8B-Base is Qwen3-8B, but in bert-base it is the
# size.
TRAINED_OF_A_SIZE = r"base|\d{4}"  # 2507: year and month
SIZE = r"(\d+x)?\d+(\.\d+)?[bm]"
MARKS = str.maketrans(dict.fromkeys(" _.:", "-"))  # what divides a name's parts, as people write it
WEIGHTS = r"\.\w*in\d+k\w*$|-(int4|q4_0)-unquantized$"  # resnet50.a1_in1k; trained for few bits, not in them
# A page of the hub: a network's, or that of one of its files.
PAGE = (
    r"https?://(huggingface\.co|hf\.co)/(?P<name>[\w.-]+(/(?!(tree|blob|resolve|raw)\b)[\w.-]+)?)([/?#].*)?"
)
LATEST = ":latest"  # Ollama's default tag: the size in data/ollama.json
WORDS = re.compile(r"\d+(?:[._]\d+)*[bm]?(?![a-z])|[a-z]+")  # of a name: llama, 3.1, 8b
# Words of a name for a network that has more parts than the network in its name, or is derived from it.
MORE = {
    "vl", "vision", "audio", "omni", "asr", "tts", "ocr", "speech", "minitron", "moe", "hybrid", "embed",
    "embedding",
}  # fmt: skip
ACTIVE = r"-a\d+(\.\d+)?b$"  # the parameters of a mixture that a token uses
# Words of a name for the format of its weights in few bits, by --quantize.
FEW_BITS = {
    "awq": "awq", "gptq": "gptq", "fp8": "fp8", "mxfp4": "mxfp4", "nvfp4": "nvfp4", "fp4": "nvfp4",
    "w4a16": "w4a16", "int4": "w4a16", "w8a8": "w8a8", "bnb": "nf4", "gguf": "q4_k_m",
    **{f"{bits}bit": f"mlx-{bits}bit" for bits in (3, 4, 5, 6, 8)},
}  # fmt: skip


def find(name: str) -> Mapping[str, Any]:
    """One preset's table. Raises InputError."""
    return look_up(name)[1]


def look_up(name: str) -> tuple[str, Mapping[str, Any]]:
    """A preset's own name and its table, for a name as people write it (`GPT-2 XL`, `resnet-50`).

    Raises InputError that says the nearest known name.
    """
    named = known(name)
    if named is None:
        raise unknown("preset", name, names())
    return named


@lru_cache(maxsize=256)
def known(name: str) -> tuple[str, Mapping[str, Any]] | None:
    """`look_up`, or None: to find the nearest name takes longer than to look."""
    for short in _shorter(name):
        for spelled in (_exact, _spelled, _on_the_hub, _of_experts):
            for presets in _files(short):
                heading = spelled(short, presets)
                if heading is not None:
                    about = presets[heading]
                    return known(about["same_as"]) if "same_as" in about else (heading, about)
    bare = name.removesuffix(LATEST)
    latest = table.load("ollama.json")["latest"].get(bare)
    return known(latest or bare) if latest or bare != name else None


def of_page(model: Any) -> Any:
    """The hub's name for the address of a network's page; anything else as it is."""
    page = re.fullmatch(PAGE, model) if isinstance(model, str) and "://" in model else None
    return page["name"] if page else model


def of_ollama(name: str) -> str:
    """The format of Ollama's weights for a name of its library, with a size (`qwen3:8b`) or, where it has a
    usual size, without; "" for weights in 16 bits, and for any other name.
    """
    about, own = table.load("ollama.json"), name.partition(":")[0]
    tag = own != name or name in about["latest"]
    return about["usual"] if tag and own not in about["in_16_bits"] else ""


def published_type(name: str) -> str:
    """The type of a preset's experts in GGUF files where none is named; "" for the files' usual one."""
    from ..plan.gguf import as_published

    return as_published(find(name).get("published", ""))


def _shorter(name: str) -> Iterator[str]:
    """The name as it is, then without its owner, then without words about its training (last, since their
    patterns take long to compile).
    """
    yield name
    if "/" in name:
        yield name.rpartition("/")[2]
    yield untrained(name)


def plain(name: str) -> str:
    """The preset of a name; for one in few bits (`deepseek-v3-fp8`) the plain one. Raises InputError."""
    from .hf_fields import has_few_bits

    own, config = look_up(name)
    return own.rpartition("-")[0] if has_few_bits(config) else own


def untrained(name: str) -> str:
    """A hub's name without its owner and the words that say how the network was trained."""
    words = re.split(r"[-_ ]", re.sub(WEIGHTS, "", name.rpartition("/")[2]))
    sized = any(re.fullmatch(SIZE, word.lower()) for word in words)
    return "-".join(
        word
        for word in words
        if word.lower() not in TRAINED and not (sized and re.fullmatch(TRAINED_OF_A_SIZE, word.lower()))
    )


def names() -> tuple[str, ...]:
    """The names of all presets whose architecture is here, by file and in the files' order."""
    return tuple(
        name
        for presets in _files()
        for name, config in presets.items()
        if "same_as" not in config and not captured(config)
    )


def classes() -> tuple[tuple[str, str], ...]:
    """The other presets, which are captured, each with its class or its model_type."""
    return tuple(
        (name, config.get("_class_name") or config["model_type"])
        for name, config in table.load(FOLDER, "captured.json").items()
        if captured(config)
    )


def captured(about: Mapping[str, Any]) -> bool:
    """Whether a preset is a config of a class that no architecture here covers (presets/captured.json)."""
    return "_class_name" in about or (
        "model_type" in about and not table.has("families", about["model_type"])
    )


# A type behind a dot, as TheBloke's files have it, llama-2-7b.Q4_K_M, and mradermacher's, x.i1-Q4_K_M.
DOTTED = re.compile(r"\.(?:i1-)?(?=I?Q\d\w*$)", re.IGNORECASE)


def few_bits(name: str) -> tuple[str, str] | None:
    """The preset and the format of a name that says in which few bits its weights are, or None."""
    from ..plan.gguf import FORMATS as GGUF  # only where no preset has the name

    name = re.sub(r"(?<=/)[^/_-]+_(?=\w+-)", "", name)  # bartowski/Qwen_Qwen3-8B-GGUF: whose it was
    name = DOTTED.sub("-", name)
    begins, _, last = re.sub("-gguf(?=-|$)", "", name.lower().replace(":", "-")).rpartition("-")
    if begins.endswith("-ud"):  # Unsloth's own types of each network: the nearest
        begins, last = begins.removesuffix("-ud"), next(iter(nearest(f"ud-{last}", GGUF)), last)
    if last in GGUF:  # llama3.1:8b-instruct-q4_K_M
        few, words = {**FEW_BITS, last: last}, [*re.split(r"[-_ ]", begins), last]
    else:
        few, words = FEW_BITS, re.split(r"[-_ ]", re.sub(r"-unsloth(?=-bnb)|(?<=-)quantized\.", "", name))
    for i, word in enumerate(words):
        form = few.get(word.lower())
        if form == "gptq" and {"int8", "8bit"} & {w.lower() for w in words[i:]}:
            form = "gptq-8bit"
        if form and i:
            try:
                base = plain("-".join(words[:i]))
            except InputError:
                return None
            return base, published_type(base) or form if word.lower() == "gguf" else form
    return None


def in_few_bits(name: str) -> str:
    """A hint at the preset and the setting of such a name."""
    form = few_bits(name)
    return f"`{form[0]} --quantize {form[1]}` has such weights; " if form else ""


def near_on_the_hub(name: str) -> str:
    """A hint at the nearest name: one within it, or, owners aside, with the same beginning or similar
    spelling.
    """
    from difflib import get_close_matches

    if within := _within(name):
        return f"has {within!r} in its name: of its cost if it is that, trained further; "
    last = {_dashed(untrained(heading)): heading for presets in _files() for heading in presets}
    typed = _dashed(untrained(name))
    begins = sorted((own for own in last if typed and own.startswith(typed)), key=len)
    near = begins or get_close_matches(typed, last, n=1, cutoff=0.85)
    return f"did you mean {last[near[0]]!r}? " if near else ""


def _within(name: str) -> str:
    """The preset whose words, the last one a size, are all in a name, in their order: Llama-3-ELYZA-JP-8B.

    The longest of several, and of equally long ones that whose words stand together.
    """

    def words(name: str) -> list[str]:
        return [word.replace("_", ".") for word in WORDS.findall(name.lower())]

    def together(own: list[str]) -> bool:
        return " ".join(own[:-1]) in " ".join(typed)

    def inside(own: list[str]) -> bool:
        rest = iter(typed)
        return len(own[0]) > 1 and all(word in rest for word in own)

    typed = words(name.rpartition("/")[2])
    sized = (name for name in names() if re.search(rf"-{SIZE}$", name))
    held = [(own, name) for name in sized if inside(own := words(name))] if not MORE & set(typed) else []
    return max(held, key=lambda one: (len(one[0]), together(one[0]), one), default=([], ""))[1]


def _files(likely: str = "") -> Iterator[Mapping[str, Mapping[str, Any]]]:
    """All files' tables; the file with which a name begins is read first, and often alone."""
    files = sorted(table.files(FOLDER), key=lambda file: not likely.startswith(file))
    return (table.load(FOLDER, f"{file}.json") for file in files)


def _exact(name: str, headings: Mapping[str, object]) -> str | None:
    return name if name in headings else None


def _spelled(name: str, headings: Mapping[str, object]) -> str | None:
    """The heading that a name means.

    Which mark divides a name's parts never matters. Whether there is a mark matters only between two digits
    (OPT-1.3B and 13B), and where two headings differ by it.
    """
    for spelling in (_dashed, squeezed):
        same = [h for h in headings if spelling(h) == spelling(name)]
        if len(same) == 1:
            return same[0]
    return None


def _on_the_hub(name: str, headings: Mapping[str, object]) -> str | None:
    """The hub's full name, `owner/name`, for a name without its owner."""
    same = [h for h in headings if "/" in h and _dashed(h.partition("/")[2]) == _dashed(name)]
    return same[0] if same else None


def _of_experts(name: str, headings: Mapping[str, object]) -> str | None:
    """The mixture for a tag with all of its parameters, without those that a token uses: `qwen3:30b`."""
    if ":" not in name:
        return None
    same = [h for h in headings if squeezed(re.sub(ACTIVE, "", h)) == squeezed(name)]
    return same[0] if len(same) == 1 else None


@lru_cache(maxsize=4096)  # of every heading again and again
def _dashed(name: str) -> str:
    return name.lower().translate(MARKS)


@lru_cache(maxsize=4096)
def squeezed(name: str) -> str:
    """A name without the marks that do not stand between two digits."""
    return re.sub(r"(?<!\d)-|-(?!\d)", "", _dashed(name))
