"""Techniques: one file each, Model -> Model. Found by their file names."""
