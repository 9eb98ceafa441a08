"""Studies: `planning` says which runs there are, `ledger` what is left, `executor` and `ray_executor` have it done."""
