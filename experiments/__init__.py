"""What to run, as TOML: studies, and in `papers` what was published. `insgd_lab.config.list_studies` lists them."""
