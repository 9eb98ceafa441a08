"""From runs on disk to tables, figures and a report; reads the store only, and never needs torch.

    from insgd_lab.analysis.report import write_report
    write_report("runs/digits")

`runs` reads a study back; `selection` chooses learning rates on the validation split; `statistics`, `effects`
and `series` compute; `tables`, `figures` and `statements` show and say; `report` puts it all on one page.
`published` holds what the papers printed, `reproduction` puts a study beside it, and `audit` recomputes it.
"""
