"""Requests to a server: how long one takes, and how many are answered."""
