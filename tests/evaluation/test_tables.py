"""What is printed, against the paper's own numbers; and what is written."""

import csv
import io
import json
import re
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.console import Console

from tests.evaluation.test_scores import Table as FixedJudge
from tests.evaluation.test_scores import lines_of, world
from videmo_jax.evaluation.results import write_results
from videmo_jax.evaluation.scoring import score
from videmo_jax.evaluation.tables import layout as tables
from videmo_jax.evaluation.tables.columns import COLUMNS, GROUPS, overall_of, summary_of
from videmo_jax.evaluation.tables.paper import (
    paper_ablations,
    paper_models,
    paper_results,
    paper_rows,
    print_faults,
)
from videmo_jax.evaluation.tables.scores import FileScore


@pytest.mark.parametrize(
    "value, shown",
    [
        (100.0, "100"),
        (99.8, "99.7"),  # 99.8 - 99 is 0.7999... in float64
        (99.99999, "99.9"),
        (0.0, "00.0"),
        (5.25, "05.2"),
        (62.35, "62.3"),
        (120.5, "120.5"),
        (None, "-"),
        (-3.25, "-3.2"),
    ],
)
def test_cells_are_cut_off_as_in_the_official_code(value, shown):
    assert tables.cell(value) == shown


@given(st.floats(0, 99.999999))
def test_a_cell_never_shows_more_than_there_is(value):
    shown = float(tables.cell(value))
    assert shown <= value + 1e-9 and value - shown < 0.1 + 1e-9 and len(tables.cell(value)) == 4


def test_the_paper_adds_up_but_in_one_place():
    """Independent of the package: the groups of columns are written out here."""
    models = paper_results()["models"]
    names = paper_results()["columns"]
    one, two, three = names["table1"], names["table2"], names["table3_of_the_official_code"]
    groups = {"closed_average": one[:6], "open_average": one[7:19], "emotion_average": two[:3]}
    groups |= {"sentiment_average": two[4:6], "cues_average": two[7:9], "complex_average": two[10:12]}
    groups |= {"understanding_average": three[:6]}
    assert list(groups) == list(GROUPS)
    wrong, checked = [], 0
    for model, row in models.items():
        for average, cells in groups.items():
            if average in row:
                checked += 1
                mean = sum(row[name] for name in cells) / len(cells)
                if abs(mean - row[average]) > 0.15:
                    wrong.append((model, average, row[average], round(mean, 2)))
    for model, printed in paper_results()["overall_mean_of_40_columns"].items():
        assert sum(models[model][name] for name in one + two + three) / 40 == pytest.approx(printed, abs=0.15)
    assert checked > 140 and wrong == [("VidEmo-Base 7B", "closed_average", 69.2, 69.98)]
    (fault,) = print_faults()
    assert (fault.row, fault.name, fault.printed, round(fault.recomputed, 2)) == wrong[0]
    assert "69.2" in str(fault) and "69.98" in str(fault)
    assert len(print_faults(0.05)) > 1


def test_the_summary_of_the_paper_follows_from_its_rows():
    """The ablations' last rows are those of the models: VidEmo-T1 is CEL + ATR, VidEmo-Base the three stages."""
    for model, setting in (("VidEmo-T1 7B", "components: CEL+ATR"), ("VidEmo-Base 7B", "stages: I+II+III")):
        for name, value in summary_of(paper_models()[model]).items():
            assert value == pytest.approx(paper_ablations()[setting][name], abs=0.15), (model, name)
    assert overall_of(paper_models()["VidEmo-Base 3B"]) == pytest.approx(62.4, abs=0.15)


def test_the_names_and_their_order_are_those_of_the_file():
    names = paper_results()["columns"]
    for table, key in ((1, "table1"), (2, "table2"), (3, "table3_of_the_official_code")):
        assert [column.name for column in COLUMNS if column.table == table] == names[key]
    assert len(COLUMNS) == 40 and all(column.title == "AVG" for column in COLUMNS if column.name.endswith("average"))
    assert [len(paper_rows(table)) for table in (1, 2, 3)] == [21, 21, 21] and len(paper_models()) == 20


@pytest.fixture(scope="module")
def results():
    predictions, annotations, replies, _ = world(7)
    del predictions["MEAD_ID"], annotations["MEAD_ID"]
    return score(predictions, FixedJudge(replies), annotations=annotations)


@pytest.fixture(scope="module")
def written(results, tmp_path_factory):
    out = tmp_path_factory.mktemp("tables")
    write_results(out, results, "My_model & co | 50%", recipe={"frames": 16})
    return out


def test_every_table_is_there_in_every_form(written):
    names = ["single_label", "summary", "table1", "table2", "table3"]
    found = sorted(path.name for path in (written / "tables").iterdir())
    assert found == sorted(f"{name}.{ending}" for name in names for ending in ("csv", "md", "tex"))
    assert len((written / "judged.jsonl").read_text().splitlines()) > 400
    assert json.loads((written / "scores.json").read_text())["recipe"] == {"frames": 16}


@pytest.mark.parametrize("number, columns", [(1, 20), (2, 13), (3, 7)])
def test_tables_have_the_papers_rows_and_ours(results, written, number, columns):
    text = (written / "tables" / f"table{number}.csv").read_text()
    header, *rows = csv.reader(io.StringIO(text))
    names = header[5:]
    assert len(names) == columns and names == [c.name for c in COLUMNS if c.table == number]
    *papers, ours = rows
    assert ours[:5] == ["My_model & co | 50%", "this run", "official", "table", "no"]
    assert ours[5:] == [tables.cell(results.columns[name]) for name in names]
    for row in papers:
        assert row[1:5] == ["paper", "official", "official", ""]
        model = paper_results()["models"][row[0]]
        assert [float(cell) for cell in row[5:]] == [model[name] for name in names]
    markdown = (written / "tables" / f"table{number}.md").read_text().splitlines()
    bodies = [line for line in markdown if line.startswith("|")][2:]
    assert len(bodies) == len(rows)
    for line, row in zip(bodies, rows, strict=True):
        cells = line.replace("\\|", "¦").strip("|").split("|")
        assert [cell.strip().strip("*") for cell in cells[1:]] == row[5:]
    latex = (written / "tables" / f"table{number}.tex").read_text()
    lines = [line for line in latex.splitlines() if line.endswith("\\\\") and "Model &" not in line]
    assert len(lines) == len(rows)
    assert lines[-1].startswith("My\\_model \\& co \\textbar{} 50\\% & ")
    assert [cell.strip() for cell in lines[-1].removesuffix("\\\\").split(" & ")[1:]] == row[5:]
    for mark in ("begin{tabular}", "end{tabular}", "begin{table*}", "end{table*}"):
        assert latex.count("\\" + mark) == 1


def test_every_table_names_the_rules_and_says_what_may_be_compared(written):
    for path in (written / "tables").iterdir():
        text = path.read_text()
        assert "official" in text and "table" in text
        if path.suffix != ".csv":
            assert "NOT comparable with the paper's rows" in text and "authors' prompts" in text
            assert text.lower().count("not comparable") == 1


def test_comparable_tables_say_so(results):
    fair = replace(results, judge=replace(results.judge, comparable=True, model="gpt-x", prompts="ab" * 32))
    for table in tables.tables_of(fair, "m"):
        for render in (tables.to_markdown, tables.to_latex):
            text = render(table)
            assert "Comparable with the paper's rows" in text and "NOT" not in text
            assert "questions are not those of the paper" in text  # but only these few
            assert "gpt-x" in text and "prompts abababababababab" in text
        assert ",yes," in tables.to_csv(table)


def test_gaps_are_marked_and_named(results, written):
    text = (written / "tables" / "table1.md").read_text()
    ours = next(line for line in text.splitlines() if line.startswith("| **My"))
    assert ours.count("**-**") == 2  # identity, and the average that needs it
    assert "no score for MEAD_ID" in text
    assert "gap" not in (written / "tables" / "table3.md").read_text()
    _, *rows = csv.reader(io.StringIO((written / "tables" / "summary.csv").read_text()))
    assert rows[-1][5:7] == ["-", tables.cell(results.summary["expression"])]
    assert rows[-1][-1] == "-" and "MEAD_ID" in tables.summary_lines(results)


def test_the_fault_of_the_print_stands_under_its_table(written):
    assert "the paper prints 69.2, its cells average 69.98" in (written / "tables" / "table1.md").read_text()
    assert "fault" not in (written / "tables" / "table2.md").read_text()


def test_single_label_tasks_have_uar_and_war(results, written):
    header, *rows = csv.reader(io.StringIO((written / "tables" / "single_label.csv").read_text()))
    assert header[5:] == ["items", "accuracy", "uar", "war"]
    ours = {row[0]: row[5:] for row in rows if row[1] == "this run"}
    assert len(ours) == 12  # of 13, one is missing
    (dfew,) = [file.judged for file in results.files if file.name.startswith("DFEW")]
    assert ours["emotion, DFEW"] == ["23", tables.cell(dfew.war), f"{dfew.uar:.2f}", f"{dfew.war:.2f}"]
    assert ["MAFW, VidEmo, fine-tuned", "44.02", "54.86"] in [[row[0], *row[-2:]] for row in rows]


@pytest.mark.parametrize("name", ["[/x]", "[b]old[/b]", "*", 'a < b > "c" | ~d^'])
def test_a_name_is_shown_and_written_as_it_is(results, name):
    console = Console(width=200, file=io.StringIO())
    console.print(tables.columns_table(results, name))
    console.print(tables.files_table([FileScore(name, 1, 1, 0)]))
    assert console.file.getvalue().count(name) == 2
    (row,) = tables.to_latex(tables.tables_of(results, name)[0]).split("\\midrule\n")[2].split("\\bottomrule")[:1]
    label = row.partition(" & ")[0]
    assert row.count(" & ") == 20 and not re.match(r"[\[*]", label) and not re.search(r'[<>"|~^]', label)


def test_troubles_are_listed():
    options = lines_of(0)
    judged = score({"MEAD_ID": options, "own": options, "MEAD_Head-Pose": []}, FixedJudge({"MEAD_ID#0": "Yes."}))
    text = tables.summary_lines(judged)
    assert "no official test files, in no column: own" in text
    assert "MEAD_Head-Pose: empty" in text and "MEAD_ID: 1 unreadable replies" in text
    assert "MEAD_ID: 1 truths that are none of the options" in text
    assert "gaps: no predictions for" in text and "DFEW" in text
    files = (replace(judged.files[0], skipped=2, cut=1),)
    text = "\n".join(tables.troubles(replace(judged, files=files)))
    assert "2 items without an answer" in text and "1 answers that had not ended" in text
