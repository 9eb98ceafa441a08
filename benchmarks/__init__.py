"""Side-by-side ratios against peers: ``python -m benchmarks``, or ``nox -s bench``."""
