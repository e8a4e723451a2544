"""How fast and how big: `python -m tests.benchmarks` measures the product on this machine and compares in one run."""
