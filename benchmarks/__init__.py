"""Speed against the peers, printed as ratios. `python -m benchmarks --quick` for a first look."""
