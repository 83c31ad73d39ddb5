"""The best layout of so many devices: one file for each step of the search."""
