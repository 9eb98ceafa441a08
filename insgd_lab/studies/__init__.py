"""Studies: `planning` says which runs there are, `ledger` what is left of them, `executor` has workers do it."""
