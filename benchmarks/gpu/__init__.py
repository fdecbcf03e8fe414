"""What a CUDA card is asked for, in calls that end by themselves: ``python -m benchmarks.gpu --help``."""
