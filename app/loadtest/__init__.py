"""Simulated raters against a running arena: how fast it answers, and whether it keeps what it acknowledged."""
