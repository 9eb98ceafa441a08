"""Training: data, models, augmentation, random streams, the loop and its checkpoints.

One call trains one run, `insgd_lab.train({...})`. Importing this package does not import
torch; `file_sets` and `files` (which data files are there, and are they the right ones?) and `provenance` stay free of
it too.
"""
