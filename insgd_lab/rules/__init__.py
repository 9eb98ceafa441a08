"""The maths: one rule, one class, one equation."""
