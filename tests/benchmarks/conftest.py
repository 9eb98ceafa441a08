"""The benchmarks are a folder of the repository, not of the package: they are found behind everything installed."""

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parents[2]))
