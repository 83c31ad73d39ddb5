"""Whole runs: days, dollars, energy and carbon, and how much of them failing devices waste."""
