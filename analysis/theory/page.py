"""The page of the theory lab: findings first, then figures and tables; and the same as Markdown.

path = write_page("runs/theory")        # theory.html, findings.md, figures and tables in that folder
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from insgd_lab.analysis.canvas import save_figure
from insgd_lab.analysis.drawings import Drawing, embedded
from insgd_lab.analysis.tables import Table
from insgd_lab.analysis.theory import drawings, filtering, games, limits, projection
from insgd_lab.store import StoreError, StudyFolder, disk_error, replacing

__all__ = ["PARTS", "write_page"]

PARTS = ("regret", "stability", "nlms", "projection")
"""The studies, each in a folder of its name."""

_TEMPLATES = Path(__file__).parents[1] / "templates"


@dataclass(frozen=True)
class Part:
    """What one study has come to."""

    title: str
    notes: list[str]
    findings: list[str]
    drawings: list[Drawing]
    table: Table
    missing: str = ""
    details: list[str] = field(default_factory=list)
    images: list[dict[str, Any]] = field(default_factory=list)


def write_page(path: str | Path) -> Path:
    """Write what the studies below a folder have come to, and return the page's path.

    Raises:
        StoreError: there is none of them; or the disk refuses (`DiskError`).
    """
    folder = Path(path)
    parts = list(_parts(folder))
    if not parts:
        raise StoreError(f"{folder} has none of the studies {', '.join(PARTS)}; make them with `insgd-lab theory`")
    page = folder / "theory.html"
    try:
        for part in parts:
            for drawing in part.drawings:
                part.images.append(embedded(drawing, save_figure(drawing.figure, folder, drawing.name)))
            part.table.save(folder)
        (folder / "findings.md").write_text(_markdown(parts), encoding="utf-8")
        with replacing(page) as temporary:
            temporary.write_text(_render(parts), encoding="utf-8")
    except OSError as error:
        raise disk_error(page, error) from error
    return page


def _parts(folder: Path) -> Iterator[Part]:
    makers = {"regret": _regret, "stability": _stability, "nlms": _nlms, "projection": _projection}
    for name in PARTS:
        if StudyFolder(folder / name).exists:
            yield makers[name](folder / name)


def _missing(path: Path) -> str:
    """What is not finished of a study, in words; empty if all is."""
    study = StudyFolder(path)
    planned = list(dict.fromkeys(row["run"] for row in study.info()["plan"]))
    finished = sum(status in ("done", "diverged") for status in study.statuses(planned).values())
    if finished == len(planned) and planned:
        return ""
    return f"Incomplete: {finished} of {len(planned)} runs are finished; the same command goes on."


def _regret(path: Path) -> Part:
    frame = games.regret(path)
    figures, table = list(drawings.of_regret(frame)), games.table(frame)
    found, details = games.findings(frame), games.details(frame)
    return Part("Average regret", NOTES["regret"], found, figures, table, _missing(path), details)


def _stability(path: Path) -> Part:
    frame = limits.stability(path)
    figures, table = list(drawings.of_limits(frame)), limits.table(frame)
    return Part("Largest stable step sizes", NOTES["stability"], limits.findings(frame), figures, table, _missing(path))


def _nlms(path: Path) -> Part:
    curve, steady = filtering.nlms_curve(path), filtering.misadjustment(path)
    figures, table, found = list(drawings.of_nlms(curve, steady)), filtering.table(steady), filtering.findings
    return Part("NLMS in the mean square", NOTES["nlms"], found(steady, curve), figures, table, _missing(path))


def _projection(path: Path) -> Part:
    frame = projection.iterates(path)
    figures, table = list(drawings.of_projection(frame)), projection.table(frame)
    found = projection.findings(frame)
    return Part("NLMS as projections", NOTES["projection"], found, figures, table, _missing(path))


NOTES: dict[str, list[str]] = {
    "regret": [
        "The losses are convex, the points stay in the box [−1, 1]^d by projection after each step, α_t = α/√t and "
        "β1,t = β1 λ^(t−1) as Theorem 1 has it. Its bound is computed as printed, with G and G∞ the largest "
        "gradients over all rounds and the box, D = 2√d and D∞ = 2.",
        "What the theorem does not have: its rule has no projection (it assumes that distances stay bounded, which "
        "the projection brings about), and it asks for bounded gradients on all of R^d, which quadratic losses have "
        "on the box alone.",
        "The printed bound mixes scales: multiplying all losses by c multiplies the regret, and the bound's first and "
        "third terms, by c, but its second term by c². The sequence 1e-6 (3x, −x, −x) is 3x, −x, −x in other units, in "
        "which the second term is small; SGD's rate is in those units too.",
        "Seeds draw the losses, where there is chance in them, and the starting points.",
    ],
    "stability": [
        "A linear layer, full batches, curvatures from L/100 to L. A rate is stable if the loss ends below its "
        "start after 300 steps and never rose to 100 000 times that on the way; limits are found to 1 % by "
        "bisection, which takes each rule to have one. For rules whose limit grows with the distance from the "
        "minimum the number depends on that allowance, and only its growth is of interest.",
    ],
    "nlms": [
        "32 taps, white Gaussian input, 20 dB of signal over noise, weights drawn as a linear layer's are. The "
        "theory is exact for independent regressors, an approximation for those of a delay line.",
    ],
    "projection": [
        "Two equations d = uᵀw in the plane, taken in turn, as INSGD's Figure 1 draws them; the iterates are those of "
        "the registry's NLMS on a linear layer without bias, with ε = 0, in float64.",
    ],
}


def _markdown(parts: list[Part]) -> str:
    lines = ["# Theory lab", ""]
    for part in parts:
        lines += [f"## {part.title}", "", *([part.missing, ""] if part.missing else [])]
        lines += [*(f"{note}\n" for note in part.notes), *(f"- {finding}" for finding in part.findings), ""]
        lines += [f"![{drawing.alt}]({drawing.name}.png)\n\n*{drawing.caption}*\n" for drawing in part.drawings]
        lines += [part.table.markdown(), *(f"- {detail}" for detail in part.details), ""]
    return "\n".join(lines)


def _render(parts: list[Part]) -> str:
    import jinja2

    environment = jinja2.Environment(autoescape=True, trim_blocks=True, lstrip_blocks=True)
    template = environment.from_string((_TEMPLATES / "theory.html.j2").read_text("utf-8"))
    return template.render(parts=parts)
