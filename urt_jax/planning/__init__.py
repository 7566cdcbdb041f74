"""Performance of programs on machines: workloads, floors by formula, measurements, and plans for accelerators."""
