"""The paper's tables with our row beside the paper's, as CSV, Markdown and LaTeX; and the same for a terminal.

`table1` to `table3` have the 40 columns, `summary` their means as the ablation tables give them, `single_label` UAR and
WAR beside accuracy. Every table names the rules and the judge, and says whether the rows may be compared. A gap is `-`.
"""

import csv
import io
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from etils import epath
from rich.markup import escape
from rich.table import Table as RichTable

from videmo_jax.evaluation.tables.columns import LEVELS, columns_of, overall_of, summary_of
from videmo_jax.evaluation.tables.paper import (
    paper_ablations,
    paper_models,
    paper_results,
    paper_rows,
    print_faults,
)
from videmo_jax.evaluation.tables.scores import FileScore, Results, closed_choice, percent
from videmo_jax.files.paths import open_path
from videmo_jax.files.writing import write_text
from videmo_jax.tasks.taxonomy import task_of

GAP = "-"
OURS, PAPER = "this run", "paper"
TITLES = {1: "Face attributes", 2: "Expressions", 3: "Emotion understanding"}


@dataclass(frozen=True)
class Table:
    """One table.

    Attributes:
      name: of its files.
      title: for people.
      heading: of the columns behind `row` and `source`.
      names: of the columns for programs (CSV).
      rows: label, source (`paper` or `this run`) and cells.
      notes: what a reader must know; at least the rules.
      terms: rules, judge and whether rows are comparable, of our row; they stand in every line of the CSV.
    """

    name: str
    title: str
    heading: tuple[str, ...]
    names: tuple[str, ...]
    rows: tuple[tuple[str, str, tuple[str, ...]], ...]
    notes: tuple[str, ...]
    terms: tuple[str, str, str]


def cell(value: float | None) -> str:
    """A cell as the official code prints it: cut off after one digit (99.8 prints 99.7), `100` as it is.

    Only judged numbers without a bound can be below 0; those, which the official code leaves blank, are rounded.
    """
    if value is None:
        return GAP
    if value == 100:
        return "100"
    if value < 0:
        return f"{value:.1f}"
    return f"{int(value):02d}.{int((value - int(value)) * 10)}"


def printed(value: float | None) -> str:
    """A number that the paper prints, digit by digit."""
    return GAP if value is None else "100" if value == 100 else f"{value:04.1f}"


def tables_of(results: Results, name: str) -> list[Table]:
    """All tables; `name` is that of our row."""
    return [*(_columns_table(results, name, number) for number in TITLES), _summary(results, name), _single(results)]


def _columns_table(results: Results, name: str, number: int) -> Table:
    columns = columns_of(number)
    names = tuple(column.name for column in columns)
    rows = [(model, PAPER, tuple(printed(row[name]) for name in names)) for model, row in paper_rows(number).items()]
    rows.append((name, OURS, tuple(cell(results.columns[column]) for column in names)))
    gaps = {column: lacking for column, lacking in results.gaps.items() if column in names}
    notes = common_notes(results)
    if gaps:
        lacking = sorted({part for parts in gaps.values() for part in parts})
        notes.append(f"{GAP} marks a gap: no score for {', '.join(lacking)}.")
    notes += [f"A fault of the print: {fault}." for fault in print_faults() if fault.name in names]
    return _table(
        results, f"table{number}", f"Table {number}: {TITLES[number]}", [c.title for c in columns], names, rows, notes
    )


def _summary(results: Results, name: str) -> Table:
    """The ablations' summary and, beside it, the mean of the 40 columns."""
    names = (*LEVELS.values(), "mean", "overall")
    rows = [(setting, PAPER, (*map(printed, row.values()), GAP)) for setting, row in paper_ablations().items()]
    for model, row in paper_models().items():
        values = summary_of(row) | {"overall": paper_results()["overall_mean_of_40_columns"].get(model)}
        values["overall"] = values["overall"] or overall_of(row)
        rows.append((model, PAPER, tuple(printed(values[name]) for name in names)))
    ours = results.summary | {"overall": results.overall}
    rows.append((name, OURS, tuple(cell(ours[name]) for name in names)))
    notes = [
        *common_notes(results),
        "attribute, expression and emotion are means over all 20, 13 and 7 columns, averages included; "
        "mean is theirs, overall that of the 40 columns. The paper prints the rows of the ablations and four of the "
        "overall means; the rest of its rows is computed from the cells that it prints.",
    ]
    heading = ["Attribute", "Expression", "Emotion", "Mean", "Overall"]
    return _table(results, "summary", "Summary", heading, names, rows, notes)


def _single(results: Results) -> Table:
    """UAR and WAR beside accuracy for every single-label task that is there."""
    rows = []
    for dataset, models in paper_results()["finetuned_uar_war"].items():
        for model, (uar, war) in models.items():
            rows.append((f"{dataset}, {model}, fine-tuned", PAPER, (GAP, GAP, f"{uar:.2f}", f"{war:.2f}")))
    for file in results.files:
        if file.judged and file.judged.war is not None:
            judged = file.judged
            score = judged.parts[""].score
            cells = (str(judged.parts[""].items), cell(score), f"{judged.uar:.2f}", f"{judged.war:.2f}")
            rows.append((task_of(file.name).name, OURS, cells))
    notes = [*common_notes(results), "UAR is over the classes that the truth has; WAR is the accuracy over all items."]
    heading = ["Items", "Accuracy", "UAR", "WAR"]
    names = ("items", "accuracy", "uar", "war")
    return _table(results, "single_label", "Single-label tasks", heading, names, rows, notes)


def _table(
    results: Results,
    name: str,
    title: str,
    heading: Sequence[str],
    names: Sequence[str],
    rows: Sequence[tuple[str, str, tuple[str, ...]]],
    notes: Sequence[str],
) -> Table:
    terms = (results.rules, results.judge.name, "yes" if results.comparable else "no")
    return Table(name, title, tuple(heading), tuple(names), tuple(rows), tuple(notes), terms)


def common_notes(results: Results) -> list[str]:
    """What stands under every table."""
    judge = results.judge
    by = f"`{judge.name}`" + (f" ({judge.model})" if judge.model else "")
    prompts = f", prompts {judge.prompts[:16]}" if judge.prompts else ""
    notes = [f"Rules of this run: `{results.rules}`. Judge: {by}{prompts}."]
    if results.comparable:
        notes.append("Comparable with the paper's rows: official rules, prompts and judge.")
    else:
        notes.append(f"NOT comparable with the paper's rows: {'; '.join(results.obstacles)}.")
    sizes = results.other_sizes
    if sizes:
        name, (here, wanted) = next(iter(sizes.items()))
        notes.append(
            f"The questions are not those of the paper: {len(sizes)} files or aspects have another number of items, "
            f"such as {name} with {here} for the paper's {wanted}."
        )
    counts = [(file.judged.unreadable, file.judged.strict_reads) for file in results.files if file.judged]
    unreadable, strict_reads = (sum(numbers) for numbers in zip(*counts, strict=True)) if counts else (0, 0)
    if unreadable:
        notes.append(f"{unreadable} replies of the judge could not be read{_by_strict(strict_reads)}; they count 0.")
    return [*notes, *judge.remarks]


def _by_strict(count: int) -> str:
    return f" ({count} of them by the rules `strict`)" if count else ""


def to_csv(table: Table) -> str:
    """For programs: one line a row; rules, judge and whether it may be compared stand in the lines of this run."""
    output = io.StringIO()
    writer = csv.writer(output, lineterminator="\n")
    writer.writerow(["row", "source", "rules", "judge", "comparable_with_paper", *table.names])
    for label, source, cells in table.rows:
        terms = table.terms if source == OURS else ("official", "official", "")
        writer.writerow([label, source, *terms, *cells])
    return output.getvalue()


def to_markdown(table: Table) -> str:
    """For a README."""
    lines = [
        f"## {table.title}",
        "",
        "| | " + " | ".join(map(_markdown, table.heading)) + " |",
        "|---" + "|---:" * len(table.heading) + "|",
    ]
    for label, source, cells in table.rows:
        texts = [_markdown(label), *cells]
        texts = [f"**{text}**" for text in texts] if source == OURS else texts
        lines.append("| " + " | ".join(texts) + " |")
    return "\n".join([*lines, "", *(f"{note}\n" for note in table.notes)])


def _markdown(text: str) -> str:
    return text.replace("\\", "\\\\").replace("|", "\\|").replace("*", "\\*").replace("\n", " ")


def to_latex(table: Table) -> str:
    """For a paper: a `table*` in the style of booktabs, our rows below a rule."""
    lines = [
        "% needs \\usepackage{booktabs,graphicx}",
        "\\begin{table*}",
        "\\centering",
        f"\\caption{{{_latex(table.title)}. {' '.join(map(_latex, table.notes))}}}",
        "\\resizebox{\\textwidth}{!}{%",
        "\\begin{tabular}{l" + "c" * len(table.heading) + "}",
        "\\toprule",
        " & ".join(["Model", *map(_latex, table.heading)]) + " \\\\",
        "\\midrule",
    ]
    for origin in (PAPER, OURS):
        rows = [(label, cells) for label, source, cells in table.rows if source == origin]
        lines += ["\\midrule"] * (origin == OURS and bool(rows))
        lines += [" & ".join([_label(label), *cells]) + " \\\\" for label, cells in rows]
    return "\n".join([*lines, "\\bottomrule", "\\end{tabular}}", "\\end{table*}", ""])


_LATEX = {
    "\\": "\\textbackslash{}",
    "~": "\\textasciitilde{}",
    "^": "\\textasciicircum{}",
    "`": "",
    '"': "''",
    "<": "\\textless{}",
    ">": "\\textgreater{}",
    "|": "\\textbar{}",
    **{mark: f"\\{mark}" for mark in "&%$#_{}"},
}


def _latex(text: str) -> str:
    return "".join(_LATEX.get(mark, mark) for mark in text.replace("\n", " "))


def _label(text: str) -> str:
    """What a row begins with; a `[` or `*` would be read as an argument of the command that ends the row before."""
    return ("{}" if text[:1] in ("[", "*") else "") + _latex(text)


RENDERED = {"csv": to_csv, "md": to_markdown, "tex": to_latex}


def write_tables(out: epath.PathLike, tables: Sequence[Table]) -> None:
    """Writes every table in every form below `out`: `table1.csv`, `table1.md`, `table1.tex` and so on."""
    for table in tables:
        for ending, render in RENDERED.items():
            write_text(open_path(out) / f"{table.name}.{ending}", render(table))


def files_table(files: Sequence[FileScore]) -> RichTable:
    """For a terminal: a row for each file."""
    result = RichTable(title="by file")
    result.add_column("file", overflow="fold")
    result.add_column("form")
    for heading in ("items", "score", "unread", "exact %", "skipped", "cut"):
        result.add_column(heading, justify="right")
    for file in files:
        score = file.judged.parts.get("") if file.judged else None
        unread = str(file.judged.unreadable) if file.judged else GAP
        counts = (str(file.items), cell(score and score.score), unread, _shown(file.exact_match))
        result.add_row(escape(file.name), file.form, *counts, str(file.skipped), str(file.cut))
    return result


def columns_table(results: Results, name: str) -> RichTable:
    """For a terminal: the 40 columns of this run."""
    result = RichTable(title=f"the paper's columns, rules {results.rules}, judge {results.judge.name}")
    result.add_column("table")
    result.add_column("column")
    result.add_column(escape(name), justify="right", overflow="fold")
    for number in TITLES:
        for column in columns_of(number):
            result.add_row(str(number), column.name, cell(results.columns[column.name]))
        result.add_section()
    return result


def summary_lines(results: Results) -> str:
    """The lines below the tables of a terminal."""
    files = results.files
    choices = sum(file.items for file in files if file.form == "choice")
    items = sum(file.items for file in files)
    lines = [
        f"closed-choice: {_shown(closed_choice(files))} % of {choices} items, exact match",
        f"all files: {_shown(percent(files))} % of {items} items, exact match",
        "attribute / expression / emotion: "
        + " / ".join(cell(results.summary[level]) for level in LEVELS.values())
        + f", overall: {cell(results.overall)} (rules {results.rules}, judge {results.judge.name})",
        *common_notes(results)[1:],
        *troubles(results),
    ]
    return "\n".join(lines)


def troubles(results: Results) -> list[str]:
    """What a person should look at, one line each."""
    lines = []
    if results.missing_files:
        lines.append(f"gaps: no predictions for {', '.join(results.missing_files)}")
    if results.unknown_files:
        lines.append(f"no official test files, in no column: {', '.join(results.unknown_files)}")
    for file in results.files:
        lines += [f"{file.name}: {text}" for text in _file_troubles(file)]
    for name, matching in results.matching.items():
        counts: Mapping[str, int] = {
            "records without a line": len(matching.missing),
            "lines that come again": len(matching.again),
            "lines that no record asks": len(matching.unknown),
            "lines in another order": len(matching.moved),
            "lines with other labels than their record": len(matching.other_truth),
        }
        found = [f"{count} {what}" for what, count in counts.items() if count]
        lines += [f"{name}: {', '.join(found)}"] if found else []
    return lines


def _file_troubles(file: FileScore) -> list[str]:
    if not file.items:
        return ["empty, so there is nothing to score"]
    counts = {"items without an answer": file.skipped, "answers that had not ended": file.cut}
    judged = file.judged
    if judged:
        counts |= {
            "items without a reply of the judge": judged.failed,
            f"unreadable replies{_by_strict(judged.strict_reads)}, which {_worth(file)}": judged.unreadable,
            "truths that are none of the options": judged.odd_truths,
            "answers that name several options equally, which are wrong": judged.ambiguous,
            "lines without an aspect, which are in no column (give --data)": judged.no_aspect,
        }
    return [f"{count} {what}" for what, count in counts.items() if count]


def _worth(file: FileScore) -> str:
    scored = any(part.score is not None for part in file.judged.parts.values())
    return "count 0" if scored else "are all that there are: no score"


def _shown(share: float | None) -> str:
    return GAP if share is None else f"{share:.1f}"
