"""Backwards from a budget: what to train by a scaling law, beside what else, and what moves it most."""
