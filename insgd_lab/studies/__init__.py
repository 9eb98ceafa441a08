"""Studies: `planning` says which runs there are, `executor` works them off in `worker` processes."""
