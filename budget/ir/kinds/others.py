"""What techniques and optimizers add, and calls of torch as they are recorded."""

from __future__ import annotations

from math import inf

from .rule import OUT, Rule, Save

# Weights of few bits as their product needs them, never kept. No FLOPs are counted for it outside of engines,
# as it is within a product's kernel.
WIDENS = Rule(stops=True, lost=True, family="dequantize")
# AWQ's GEMM makes 0.45 TFLOP/s a unit of A100 and A800, 2 x 16 FLOPs of a number widened; of other
# generations data/kernels.json has the rates ("widened"). It divides the inputs among eight, whose results a
# second kernel adds up. Until 0.2 AutoAWQ had nothing else for prompts.
# Sources: autoawq, published-inference.
AWQ = WIDENS._replace(rows=1023, tile=16, widened=1.4e10, apart=1)

RULES: dict[str, Rule] = {
    "quantize": Rule(3, linear=True),  # to float8, for a product
    "dequantize": WIDENS._replace(flops=2),  # from 4 or 8 bits
    # bitsandbytes has functions of its own around a kernel, and widens scales of few bits first.
    # Source: bitsandbytes.
    "dequantize_nf4": WIDENS._replace(calls=2),
    "dequantize_nf4_dq": WIDENS._replace(calls=3, launches=3, moves=(1, 0), apart=2),
    # Nothing is widened: rows are quantized, columns with outliers looked for and multiplied apart. Kernels
    # as counted in its code; what they are to the host is inferred from float16 on the same machines.
    # Sources: bitsandbytes, published-inference.
    "dequantize_int8": WIDENS._replace(rows=inf, calls=6, apart=19),
    "dequantize_int8_2024": WIDENS._replace(rows=inf, calls=7, apart=39),
    # Without outliers (a threshold of 0) rows are quantized and whole numbers scaled, no more: inferred
    # likewise from three machines, where it is 4, 5 and 5 operators; in a loop of its own 2.6.
    # Sources: published-inference, bitsandbytes-slowdown.
    "dequantize_int8_whole": WIDENS._replace(rows=inf, calls=4, apart=2),
    "dequantize_gptq": WIDENS._replace(rows=50, ordinary=2 / 3),  # Source: exllamav2.
    # ExLlama's first kernel widens all of a weight for each row: 2 and 4 rows of Llama-2-13B take 37.3 and
    # 54.1 ms a token on an A100, 37.0 and 55.2 half a year later. Sources: exllama, published-inference.
    "dequantize_gptq_2023": WIDENS._replace(rows=7, tile=1, widened=1.3e10),
    "dequantize_awq": AWQ,
    "dequantize_awq_2023": AWQ._replace(rows=inf),
    "dequantize_half": WIDENS._replace(  # to float16, then cast
        flops=3, temps=(Save("half", like=OUT, dtype="float16"),), launches=2
    ),
    "compress": Rule(4, linear=True),  # to 2:4 sparsity, for a product
    "offload": Rule(stops=True),
    "reload": Rule(stops=True),
    # optimizers: for each parameter (plan/optimizer.py has their temporaries)
    "sgd": Rule(2, walks="first", family="optimizer"),
    "momentum": Rule(4, walks="first", launches=3, moves=(8, 0), family="optimizer"),
    "adam": Rule(12, walks="first", launches=7, moves=(18, 0), family="optimizer"),
    "adamw": Rule(14, walks="first", launches=8, moves=(20, 0), family="optimizer"),
    "adamw_fused": Rule(14, walks="first", family="optimizer"),
    "adamw_8bit": Rule(18, walks="first", family="optimizer"),
    "ademamix_fused": Rule(19, walks="first", family="optimizer"),
    "ademamix_8bit": Rule(25, walks="first", family="optimizer"),
    # Adam's, the norms of a weight and of its step, and their ratio
    "lamb_fused": Rule(19, walks="first", family="optimizer"),
    "lamb_8bit": Rule(23, walks="first", family="optimizer"),
    "lion_fused": Rule(7, walks="first", family="optimizer"),
    "lion_8bit": Rule(9, walks="first", family="optimizer"),
    "rmsprop": Rule(8, walks="first", launches=5, moves=(13, 0), family="optimizer"),
    "rmsprop_fused": Rule(8, walks="first", family="optimizer"),
    "rmsprop_8bit": Rule(10, walks="first", family="optimizer"),
    "adagrad": Rule(8, walks="first", launches=5, moves=(13, 0), family="optimizer"),
    "adafactor": Rule(10, walks="first", launches=18, family="optimizer"),
    "lion": Rule(7, walks="first", launches=6, family="optimizer"),
    # calls of torch as they are recorded (read/torch_module.py): the same work in either phase
    "pointwise": Rule(
        1,
        1,
        torch=(
            "upsample_bilinear2d",
            "upsample_bicubic2d",
            "upsample_linear1d",
            "grid_sampler_2d",
            "_weight_norm_interface",
            "addcmul",
            "uniform",
            "normal",
            "bernoulli",
            "rand",
            "randn",
            "rand_like",
            "randn_like",
            "randint",
            "randperm",
            "floor_divide",
            "normal_functional",
            "prelu",
            "_prelu_kernel",
        ),
    ),
    "pointwise_": Rule(1, 1, inplace=True),
    "reduction": Rule(1, 1, walks="first", torch=("linalg_vector_norm", "max", "min", "median")),
    "resident": Rule(view=True),  # declares what is there before anything runs
    "unknown": Rule(),
}
