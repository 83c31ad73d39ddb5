"""Measurements: records of benchmarks, calibration of a profile to them, validation against them."""
