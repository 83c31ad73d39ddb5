"""Other people's words in a table of memory, put into the words of the tables here: scenario, method,
format.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from .table import Row, text_of

NOTHING = r"(-+|no|none|n/?a|(fp|bf)?16(-?bits?)?|bfloat16|float16|unquantized)$"
ADDRESS = r"(?i)\b(?!github|huggingface)\S+\.(ai|com|io|org)\b\S*"
# By column, patterns of other people's words with our word; the first pattern that is found counts.
WORDS: Mapping[str, Mapping[str, str]] = {
    "scenario": {
        r"^pre-?train(ing)?$": "pretrain",
        r"^(train(ing)?|sft|fine-?tun(e|ing)|full|q?lora|peft)$": "finetune",
        r"^(generat(e|ion|ing)|serv(e|ing)|decod(e|ing)|prefill|forward)$": "inference",
    },
    "method": {
        r"qlora|4-?bit lora": "qlora",
        r"lora|dora": "lora",
        r"^(full|fft\b|sft\b|pre-?train|fine-?tun)": "full",
    },
    "quant": {
        rf"^{NOTHING}": "None",
        r"gptq|awq|gguf": "",
        r"(nf4|fp4|4-?bit).*(dq|double)": "nf4-dq",
        r"nf4|fp4|(?<!\d)4-?bits?\b|^int4$": "nf4",
        r"(?<!\d)8-?bits?\b|^int8$": "int8",
    },
    "precision": {
        r"^(full|pure)[ -](bf16|bfloat16)": "bf16 pure",
        r"^(full|pure)[ -](fp16|float16)": "fp16 pure",
        r"^mixed[ -](bf16|bfloat16)": "bf16 mixed",
        r"^mixed": "fp16 mixed",
        r"^(bf16|bfloat16)$": "bf16",
        r"^(fp16|float16|half|16-?bits?)$": "fp16",
    },
}


def plainly(row: Row) -> Row:
    """A row with our words in its columns; in rows of inference only bitsandbytes' formats are translated."""
    scenario = _word(row, "scenario")
    if "(" in row["source"]:  # which says what ran; a page's address may have another program's name
        row = {**row, "source": re.sub(ADDRESS, "", row["source"])}
    if scenario not in ("finetune", "pretrain"):
        few = re.search("bnb|bitsandbytes", text_of(row, "quant", "source", "notes"))
        return {**row, "scenario": scenario, **({"quant": _word(row, "quant")} if few else {})}
    words = {column: _word(row, column) for column in WORDS}
    adapters = [row[c] for c in ("scenario", "method") if re.search("lora|dora", row[c].lower())]
    if adapters and not row["method"]:
        words["method"] = _word({**row, "method": row["scenario"]}, "method")
    beside = [re.sub(r"\br ?= ?(\d)", r"rank \1", w) for w in adapters if w.lower() not in ("lora", "qlora")]
    if words["method"] == "lora" and words["quant"].lower().startswith(("nf4", "int8")):
        words["method"] = "qlora"
    notes = "; ".join(filter(None, (row.get("notes", ""), *beside)))
    return {**row, **words, "notes": notes}


def _word(row: Row, column: str) -> str:
    text = row.get(column, "")
    for pattern, word in WORDS[column].items():
        if re.search(pattern, text.lower()):
            return word or text
    return text
