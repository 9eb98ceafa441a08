"""From runs on disk to tables, figures and a report; reads the store only, and never needs torch.

    from insgd_lab.analysis.report import write_report
    write_report("runs/digits")

`runs` reads a study back; `selection` chooses learning rates on the validation split. Every number can be had by one
call: `comparisons` says who is better and how surely, `divergence` what blew up, `convergence` how fast, `effects` and
`ablation` what each option does, `aggregation` all of that over several tasks; they compute with `statistics`, which
knows numbers only. `series` has the curves; `tables`, `figures` and `statements` show and say; `report` puts it all on
one page.
`published` holds what the papers printed, `reproduction` puts a study beside it, and `audit` recomputes it.
"""
