"""Tables: one object, printed as Markdown, LaTeX (booktabs), CSV and HTML.

    table = results_table(study, choices, "best")
    print(table.markdown())
    table.save(Path("report"))          # results-best.md, .tex, .csv

The CSV has the numbers in full precision under machine-readable names; the others print them rounded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
from tabulate import tabulate

from insgd_lab.analysis.effects import level_notes
from insgd_lab.analysis.labels import MISSING, describe, interval, name_label, percent, value_label
from insgd_lab.analysis.measures import Measure, chosen_by, reported
from insgd_lab.analysis.runs import Cell, Study, key_of
from insgd_lab.analysis.selection import At, Choices, tune_at, tune_label, tuned_name
from insgd_lab.analysis.statistics import binomial_interval, summarize
from insgd_lab.store import reason_of

__all__ = [
    "Column",
    "Table",
    "divergence_table",
    "effects_table",
    "failures_table",
    "results_table",
]


@dataclass(frozen=True)
class Column:
    """One printed column: its title, the frame's columns that it shows, and how they become text."""

    title: str
    keys: tuple[str, ...]
    text: Callable[..., str] = str
    numeric: bool = False


@dataclass(frozen=True)
class Table:
    """A frame of numbers and how to print it. `name` is the file name without its ending."""

    name: str
    caption: str
    frame: pd.DataFrame
    columns: tuple[Column, ...]

    def cells(self) -> list[list[str]]:
        """The printed texts, row by row."""
        parts = [[self.frame[key].tolist() for key in column.keys] for column in self.columns]
        texts = [
            [column.text(*values) for values in zip(*part, strict=True)]
            for column, part in zip(self.columns, parts, strict=True)
        ]
        return [list(row) for row in zip(*texts, strict=True)]

    @property
    def titles(self) -> list[str]:
        """The printed column titles."""
        return [column.title for column in self.columns]

    def markdown(self) -> str:
        """A pipe table under its caption."""
        rows = [[cell.replace("|", r"\|") for cell in row] for row in self.cells()]
        align = ["right" if column.numeric else "left" for column in self.columns]
        body = tabulate(rows, self.titles, tablefmt="pipe", colalign=align if rows else None, disable_numparse=True)
        return f"{self.caption}\n\n{body}\n"

    def latex(self) -> str:
        """A LaTeX table with booktabs rules; it needs no package besides booktabs."""
        align = "".join("r" if column.numeric else "l" for column in self.columns)
        lines = [r"\begin{table}", r"\centering", rf"\caption{{{latex_text(self.caption)}}}"]
        lines += [rf"\begin{{tabular}}{{{align}}}", r"\toprule", _latex_row(self.titles), r"\midrule"]
        lines += [_latex_row(row) for row in self.cells()]
        return "\n".join([*lines, r"\bottomrule", r"\end{tabular}", r"\end{table}", ""])

    def csv(self) -> str:
        """The numbers themselves."""
        return self.frame.to_csv(index=False, lineterminator="\n")

    def html(self) -> str:
        """A table element with column scopes, described by the page's element `about-NAME`, which has its caption."""
        kinds = [' class="n"' if column.numeric else "" for column in self.columns]
        head = "".join(f'<th scope="col"{k}>{escape(t)}</th>' for t, k in zip(self.titles, kinds, strict=True))
        rows = [
            "<tr>"
            + "".join(f"<td{k}{v}>{escape(t)}</td>" for t, k, v in zip(row, kinds, values, strict=True))
            + "</tr>"
            for row, values in zip(self.cells(), self._sort_values(), strict=True)
        ]
        start = f'<table aria-describedby="about-{escape(self.name)}">'
        return "\n".join([start, f"<thead><tr>{head}</tr></thead>", "<tbody>", *rows, "</tbody></table>"])

    def _sort_values(self) -> list[list[str]]:
        """Attributes with the numbers by which a page sorts its numeric columns, row by row."""
        numbers = [self.frame[column.keys[0]].tolist() if column.numeric else None for column in self.columns]
        return [
            ["" if values is None else _sort_value(values[row]) for values in numbers] for row in range(len(self.frame))
        ]

    def save(self, folder: Path) -> list[Path]:
        """Write `name`.md, .tex and .csv into `folder`."""
        texts = {"md": self.markdown(), "tex": self.latex(), "csv": self.csv()}
        paths = [folder / f"{self.name}.{ending}" for ending in texts]
        for path, text in zip(paths, texts.values(), strict=True):
            path.write_text(text, encoding="utf-8")
        return paths


def _sort_value(value: Any) -> str:
    """Nothing where a value is missing, or is a text: those are sorted as text."""
    known = isinstance(value, (int, float)) and not np.isnan(value)
    return f' data-value="{value:.6g}"' if known else ""


_LATEX = {
    "\\": r"\textbackslash{}", "&": r"\&", "%": r"\%", "$": r"\$", "#": r"\#", "_": r"\_",
    "{": r"\{", "}": r"\}", "~": r"\textasciitilde{}", "^": r"\textasciicircum{}", "<": r"$<$", ">": r"$>$",
    "β": r"$\beta$", "ε": r"$\varepsilon$", "γ": r"$\gamma$", "∞": r"$\infty$", "ℓ": r"$\ell$", "±": r"$\pm$",
    "×": r"$\times$", "−": r"$-$", "–": "--", "…": r"\ldots{}", "“": "``", "”": "''", "‡": r"$\ddagger$",
}  # fmt: skip


def latex_text(text: str) -> str:
    """`text` with LaTeX's special characters escaped and symbols in mathematics."""
    return "".join(_LATEX.get(character, character) for character in text)


def _latex_row(cells: list[str]) -> str:
    return " & ".join(map(latex_text, cells)) + r" \\"


def count(value: Any) -> str:
    """A whole number; a dash where there is none."""
    return MISSING if pd.isna(value) else str(int(value))


def text(value: Any) -> str:
    """A text; a dash where there is none."""
    return MISSING if value is None or (isinstance(value, float) and np.isnan(value)) else str(value)


# ------------------------------------------------------------------------------------------------ results


def results_table(study: Study, choices: Choices, at: At) -> Table:
    """Every cell's test error, or loss where the task has that alone, at its own best tune or at the fixed one."""
    measure = reported(study)
    rows = [_result(study, choices, cell, at, measure) for arm in study.arms for cell in study.cells_of(arm)]
    frame = pd.DataFrame([row for row in rows if row])
    searched = bool(study.info.get("search")) and not study.tuned
    how = "each cell as it ran"
    if searched:
        how = "each cell at what its search found (‡: the end of its values, or the outermost twentieth of its range)"
    if study.tuned:
        tuned = tuned_name(study)
        best = f"each cell at its own best {tuned}, chosen on the validation split (‡: the end of its grid)"
        how = {"best": best, "fixed": f"each cell at the fixed {tuned} of its arm"}[at]
    columns = (
        Column("arm", ("arm_label",)),
        Column("setting", ("setting", "edge"), _tuned) if searched else Column("setting", ("setting",)),
        *([Column(tuned_name(study), ("tuned", "edge"), _tuned, True)] if study.tuned else []),
        Column("seeds", ("seeds",), count, True),
        *(_error_columns() if measure.is_error else _loss_columns(measure)),
        Column("diverged", ("diverged",), count, True),
    )
    names = [key for column in columns for key in column.keys]
    frame = frame.reindex(columns=_all_columns(frame, names))
    return Table(f"results-{at}", f"{measure.label.capitalize()}, {how}: {_SCORED[measure.is_error]}", frame, columns)


_SCORED = {
    True: "mean over seeds, 95 % t-interval of the mean, standard deviation. Final: after the last epoch. Best: at the "
    "epoch that was best on the test set. Diverged runs count with the error of guessing; intervals are not cut off at "
    "0 or 100.",
    False: "after the last epoch, median over seeds, where a diverged run counts as infinitely bad; and of the runs "
    "that did not diverge, whose number is n, mean, 95 % t-interval of the mean, which is not cut off at 0, and "
    "standard deviation.",
}


def _error_columns() -> tuple[Column, ...]:
    return (
        Column("final", ("final_mean",), percent, True),
        Column("95 % interval", ("final_low", "final_high"), interval, True),
        Column("sd", ("final_sd",), percent, True),
        Column("best", ("best_mean",), percent, True),
        Column("95 % interval (best)", ("best_low", "best_high"), interval, True),
        Column("sd (best)", ("best_sd",), percent, True),
    )


def _loss_columns(measure: Measure) -> tuple[Column, ...]:
    return (
        Column("median", ("final_median",), measure.text, True),
        Column("n", ("final_n",), count, True),
        Column("mean", ("final_mean",), measure.text, True),
        Column("95 % interval", ("final_low", "final_high"), measure.interval, True),
        Column("sd", ("final_sd",), measure.text, True),
    )


def _tuned(value: str, edge: object) -> str:
    return f"{value} ‡" if isinstance(edge, str) else value


def _all_columns(frame: pd.DataFrame, names: list[str]) -> list[str]:
    return list(dict.fromkeys([*frame.columns, *names]))


def _result(study: Study, choices: Choices, cell: Cell, at: At, measure: Measure) -> dict[str, Any] | None:
    tune = tune_at(study, choices, cell, at)
    if tune is None:
        return None
    rows = study.finished(cell.arm, cell.key, tune)
    row = {
        "arm": cell.arm,
        "arm_label": study.arms[cell.arm].label,
        "setting": study.cell_label(cell),
        "settings": cell.key,
        "tune": tune,
        "tuned": tune_label(study, tune, name=False),
        "edge": choices[cell.arm, cell.key].edge if at == "best" else None,
        "seeds": len(rows),
        "diverged": int((rows["status"] == "diverged").sum()),
        "val_mean": chosen_by(study).unit * rows[chosen_by(study).name].mean(),
    }
    scores = {"final": measure.name, **({"best": "best_test_error"} if measure.is_error else {})}
    for name, score in scores.items():
        known = rows[score].dropna()
        summary = summarize(known[np.isfinite(known)].tolist()) * measure.unit
        row |= {f"{name}_{part}": getattr(summary, part) for part in ("mean", "sd", "low", "high")}
    if measure.is_error:
        return row
    return {**row, "final_n": summary.n, "final_median": known.median()}


def effects_table(study: Study, effects: pd.DataFrame) -> Table:
    """Main effects: each level at its own best tune and at the fixed one, side by side."""
    modes = list(dict.fromkeys(effects["at"])) or ["best"]
    names = effects.assign(key=[key_of({"level": level}) for level in effects["level"]])
    parts = {at: names[names["at"] == at].set_index(["arm", "axis", "key"], drop=False) for at in modes}
    frame = parts[modes[0]][["arm", "axis", "level", "base"]].copy()
    for at, part in parts.items():
        for name in _EFFECT_COLUMNS:
            frame[f"{at}_{name}"] = part[name].reindex(frame.index)  # an arm that tunes nothing has no fixed rows
    frame = frame.reset_index(drop=True)
    frame.insert(0, "arm_label", frame["arm"].map(lambda arm: study.arms[arm].label))
    tuned = tuned_name(study)
    how = f"each level at its own best {tuned}, then at the fixed one" if modes[1:] else "as run"
    measure = reported(study)
    caption = f"Main effects on the final {measure.label}: {how}. Differences are from the base level"
    caption += (
        f"{' in percentage points' if measure.is_error else ''}, paired by seed, with 95 % t-intervals; many are "
    )
    caption += "looked at together, so they are exploratory."
    caption = " ".join([caption, *([] if measure.is_error else [_MEDIANS]), *level_notes(study)])
    columns = [
        Column("arm", ("arm_label",)),
        Column("axis", ("axis",), name_label),
        Column("level", ("level", "base"), lambda level, base: value_label(level) + (" (base)" if base else "")),
    ]
    titles = {"best": " (own best)", "fixed": " (fixed)"} if modes[1:] else {"best": ""}
    for at, title in titles.items():
        columns += [
            *([Column(f"{tuned}{title}", (f"{at}_tune",), text, True)] if modes[1:] else []),
            *_level_columns(at, title, measure),
            Column(f"difference{title}", (f"{at}_difference",), measure.signed, True),
            Column(f"95 % interval{title}", (f"{at}_difference_low", f"{at}_difference_high"), measure.interval, True),
        ]
    return Table("main-effects", caption, frame, tuple(columns))


_EFFECT_COLUMNS = (
    "tune",
    "n",
    "mean",
    "low",
    "high",
    "difference",
    "difference_low",
    "difference_high",
    "diverged",
    "median",
)
_MEDIANS = (
    "Diverged runs count as infinitely bad in the median over seeds; means and differences are of the seeds without "
    "one, whose number is n."
)


def _level_columns(at: str, title: str, measure: Measure) -> tuple[Column, ...]:
    if measure.is_error:
        return (Column(f"error{title}", (f"{at}_mean",), percent, True),)
    return (
        Column(f"median{title}", (f"{at}_median",), measure.text, True),
        Column(f"n{title}", (f"{at}_n",), count, True),
        Column(f"mean{title}", (f"{at}_mean",), measure.text, True),
    )


# ------------------------------------------------------------------------------------------------ failures


def failures_table(study: Study) -> Table:
    """Every run that did not end well, by name: diverged, failed, unreadable, unfinished."""
    runs = study.runs[study.runs["status"] != "done"]
    first = study.plan.drop_duplicates("run").set_index("run").to_dict("index")
    rows = [
        _failure(study, str(run), info, first[str(run)]) for run, info in runs.iterrows() if info["status"] != "missing"
    ]
    names = ["run", "arm", "settings", "tuned", "seed", "status", "epoch", "step", "error"]
    columns = (
        Column("run", ("run",)),
        Column("arm", ("arm",)),
        Column("settings", ("settings",)),
        Column("tuned", ("tuned",)),
        Column("seed", ("seed",), count, True),
        Column("status", ("status",)),
        Column("epoch", ("epoch",), count, True),
        Column("step", ("step",), count, True),
        Column("error", ("error",), text),
    )
    caption = "Runs that diverged, failed, could not be read or have not ended, with the epoch and step at which "
    caption += "the loss stopped being finite."
    return Table("failures", caption, pd.DataFrame(rows, columns=names), columns)


def _failure(study: Study, run: str, info: pd.Series, row: Mapping[Any, Any]) -> dict[str, Any]:
    cell = study.cells[row["arm"], row["cell"]]
    return {
        "run": run,
        "arm": study.arms[cell.arm].label,
        "settings": describe(cell.settings) or "as given",
        "tuned": tune_label(study, row["tune"]),
        "seed": row["seed"],
        "status": info["status"],
        "epoch": info["diverged_epoch"],
        "step": info["diverged_step"],
        "error": reason_of(info["error"]) if isinstance(info["error"], str) else None,
    }


def divergence_table(study: Study) -> Table:
    """How many runs of each arm diverged at each tuned setting, with exact binomial intervals."""
    rows = []
    for key, part in study.scores.groupby(["arm", "tune"], sort=False):
        arm, tune = map(str, key)
        diverged = int((part["status"] == "diverged").sum())
        low, high = binomial_interval(diverged, len(part))
        rows.append((study.arms[arm].label, tune_label(study, tune), len(part), diverged, 100 * low, 100 * high))
    frame = pd.DataFrame(rows, columns=["arm", "tuned", "runs", "diverged", "low", "high"])
    columns = (
        Column("arm", ("arm",)),
        Column("tuned", ("tuned",)),
        Column("runs", ("runs",), count, True),
        Column("diverged", ("diverged",), count, True),
        Column(
            "share (%), exact 95 % interval",
            ("low", "high"),
            lambda low, high: f"{low:.0f} to {high:.0f}",
            True,
        ),
    )
    caption = "Diverged runs by arm and tuned setting, over all cells and seeds of the arm; the intervals take "
    caption += "the runs as independent, which runs with a common seed are only roughly."
    return Table("divergences", caption, frame[frame["diverged"] > 0], columns)
