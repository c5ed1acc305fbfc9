"""What costs time and memory, measured as ratios: ``python -m benchmarks.NAME``."""
