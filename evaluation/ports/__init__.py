"""VBench's dimensions on the modern stack: same formulas, same weight files, scored in batches (family "vbench-port").

Each value is that of the original's `video_results` for the clip, in float32 on the CPU (arXiv:2311.17982, package
vbench 0.1.5; tests/parity compares them). Not copied are its ways to average: it pools subject and background
consistency over the frames of all clips on one GPU and over clips on several; here a mean is always over clips.
"""
