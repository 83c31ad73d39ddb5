"""What techniques can be asked for by name: data alone, so that what is off need not be imported."""

from __future__ import annotations

PRECISION = ("pure", "autocast", "master", "fp8")
GRADIENTS = ("", "bfloat16", "float16", "float32")  # dtypes of weights' gradients
FUSED = ("norm", "mlp", "cross_entropy", "chunked_cross_entropy")
HOLDS = ("none", "step", "next")  # until when a loop holds its logits
OFFLOADED = ("none", "activations", "optimizer")
QUANTIZED = ("none", "nf4", "nf4-dq", "int8")
KEEPS = ("none", "pass", "loss")  # until when products of few bits keep their inputs
# Formats of a GGUF file, each with the output projection's, and that of a table that is one with it.
# Falcon's q8_0 is not modelled. Source: llama-cpp.
GGUF = {"q8_0": "q8_0", "q6_k": "q6_k", "q5_1": "q6_k", "q5_0": "q6_k", "q4_1": "q6_k", "q4_0": "q6_k"}
