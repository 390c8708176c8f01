"""The human-preference arena."""
