"""Metrics of our own, one file each; `evaluation/metric_catalogue.py` names them, configs build them by name."""
