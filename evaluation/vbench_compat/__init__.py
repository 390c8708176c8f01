"""What VBench defines: its prompt suite, dimensions, totals, result files and the original package as metrics."""
