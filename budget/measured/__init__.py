"""What was measured: records of benchmarks, the profile they are fitted to, and how well it predicts them."""
