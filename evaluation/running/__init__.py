"""One run of `vbench_run.py`: its config, commands, plan, store, and the scoring itself."""
