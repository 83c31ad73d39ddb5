"""Questions: one file each, Model -> numbers, every one a sum or a walk over operators."""
