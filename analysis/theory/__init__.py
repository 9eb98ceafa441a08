"""What the programs of `insgd_lab.experiments.theory` have left in the store: frames, findings, figures, a page.

frame = regret("runs/theory/regret")            # a row a run and look: R(T)/T, and Theorem 1's bound on it
frame = stability("runs/theory/stability")      # a row a rule and distance: the largest stable learning rate
frame = nlms_curve("runs/theory/nlms")          # a row a setting and sample: the mean-square deviation, and theory's
path = write_page("runs/theory")                # runs/theory/theory.html, with findings.md and figures beside it
"""

from insgd_lab.analysis.theory.filtering import misadjustment, nlms_curve
from insgd_lab.analysis.theory.games import regret, theorem1
from insgd_lab.analysis.theory.limits import stability
from insgd_lab.analysis.theory.page import write_page

__all__ = ["misadjustment", "nlms_curve", "regret", "stability", "theorem1", "write_page"]
