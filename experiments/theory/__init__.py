"""Claims about convergence put to the test: small programs on training, whose runs land in the store like any other.

`regret` plays games of online convex optimization, `stability` searches for the largest step sizes that are stable on
a quadratic, and the study `nlms.toml` follows an unknown system. `insgd-lab theory` runs them; docs/theory.md says
what is measured, and `insgd_lab.analysis.theory` reads what they leave.
"""
