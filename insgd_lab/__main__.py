"""`python -m insgd_lab` is the command `insgd-lab`, also for `torchrun -m insgd_lab`."""

from insgd_lab.cli import main

if __name__ == "__main__":
    main()
