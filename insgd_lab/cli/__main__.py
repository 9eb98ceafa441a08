"""`python -m insgd_lab.cli` is the command `insgd-lab`."""

from insgd_lab.cli import main

if __name__ == "__main__":
    main()
