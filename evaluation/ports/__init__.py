"""Dimensions of VBench (arXiv:2311.17982) on the modern stack, family "vbench-port": never mixed with the original's."""
