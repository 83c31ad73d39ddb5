"""Programs as people write them, timed on the GPU at hand: `python -m budget.bench.programs --out DIR`.

programs.toml says which; how.py writes each with transformers' Trainer and `generate`, and with loops
over timm's and torchvision's networks. Each runs in a process of its own.
"""
