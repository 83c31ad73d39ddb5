"""Backwards from a budget: what to train by a scaling law, its alternatives, and what it is sensitive to."""
