"""Inputs: one file each, from a file or an object to an architecture's Config or a Model."""
