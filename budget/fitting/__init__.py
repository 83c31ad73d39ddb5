"""Does it fit, how large may it be, and what would make it fit."""
