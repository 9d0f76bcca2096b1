"""Our prompts, and files of prompts that are read but never run."""

import ast

import pytest

from videmo_jax.evaluation.judges.judging import Question
from videmo_jax.evaluation.judges.prompts import KIND_OF_FILE, KINDS, OFFICIAL_HASH, JudgePrompts, PromptError
from videmo_jax.evaluation.judges.prompts import embedded_prompts as embedded
from videmo_jax.evaluation.judges.prompts_file import parse_names, read_prompts

# The layout of the authors' file, with texts of ours: templates in a class, a table that says which file takes which.
LAYOUT = '''
"""Made by hand."""
from dataclasses import dataclass
import os
os.system("touch EXECUTED")

class Settings:
    API_KEY = "YOUR_KEY"

@dataclass
class EvalTask:
    task_name: str
    filename: str
    prompt: str
    kind: str = "strip"

class PromptTemplate:
    YN = """
    Q: {query}
    T: {labels}
    A: {answer}
    """
    SCORE = "Rate {answer} " "against {labels}" + " for {query}"
    MAFW_MULTI = f"Letters of {{answer}}"
    AFF: str = "Units of {answer}"
    CELEBVHQ_APPEARANCE = "Appearance in {answer}"
    CELEBVHQ_ACTION = "Action in {answer}"
    CAPTION = "Six for {answer}\\n\\nand {labels}"
    QA = "Open: {answer} {labels}"

class Tasks:
    def compute(): return open("/etc/passwd").read()
    A = EvalTask(task_name="a", filename="MEAD_ID.json", prompt=PromptTemplate.YN)
    B = EvalTask(task_name="b", filename="anno/AffWild2_Action_Unit_Detection.json", prompt=PromptTemplate.AFF)
    C = EvalTask(task_name="c", filename="CelebV-HQ_Appearance-Recognition.json",
                 prompt=PromptTemplate.CELEBVHQ_APPEARANCE, classes=["a"])
'''


def question(file, kind=None, **changes):
    fields = dict(query="What?", truth="(A) Sad", response="sad") | changes
    return Question(kind or KIND_OF_FILE.get(file), f"{file}#0", file, **fields)


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "config.py"
    path.write_text(LAYOUT)
    return path


def test_every_test_file_has_a_prompt_of_ours():
    assert len(KIND_OF_FILE) == 22 and set(KIND_OF_FILE.values()) == set(KINDS)
    for file, kind in KIND_OF_FILE.items():
        text = embedded().write(
            question(file, labels=("au1", "au2"), truth="TRUTH", response="RESPONSE", query="QUERY")
        )
        assert "RESPONSE" in text and "QUERY" in text and "{" not in text, file
        assert ("TRUTH" in text) == (kind != "labels"), file  # labels are read without looking at the truth
        assert ("au1, au2" in text) == (kind == "labels"), file


@pytest.mark.parametrize(
    "file, form",
    {
        "MEAD_ID": "in lower case, without a full stop: yes or no",
        "CelebV-Text_Emotion-Caption": "one whole number from 0 to 100 and nothing else",
        "QA_test_sampling_all": "one whole number from 0 to 100 and nothing else",
        "MAFW_Multiple-Label-Emotion-Recognition": "the letters alone, in capitals",
        "AffWild2_Action_Unit_Detection": "with commas between them and no spaces",
        "CelebV-HQ_Action-Recognition": "the word none",
        "caption_test_sampling_v2_all_example": "6. Clue overlap: (remark), [Score]: N",
    }.items(),
)
def test_our_prompts_ask_for_the_official_forms(file, form):
    assert form in embedded().write(question(file))


def test_our_prompt_for_six_asks_in_the_official_order():
    text = embedded().write(question("caption_test_sampling_v2_all_example"))
    lines = [line for line in text.splitlines() if line.endswith("[Score]: N")]
    order = ["relevance", "Fluency", "accuracy", "adherence", "Label", "Clue"]
    assert len(lines) == 6 and all(word in line for word, line in zip(order, lines, strict=True))


def test_braces_in_an_answer_stay_as_they_are():
    assert "{labels} {0} {query.__class__}" in embedded().write(
        question("MEAD_ID", response="{labels} {0} {query.__class__}")
    )


def test_a_file_is_read_and_not_run(config, monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    prompts = read_prompts(config)
    assert not (tmp_path / "EXECUTED").exists()
    expected = {
        "MEAD_ID": "\n    Q: What?\n    T: (A) Sad\n    A: sad\n    ",
        "CelebV-Text_Emotion-Caption": "Rate sad against (A) Sad for What?",
        "MAFW_Multiple-Label-Emotion-Recognition": "Letters of sad",
        "AffWild2_Action_Unit_Detection": "Units of sad",
        "CelebV-HQ_Appearance-Recognition": "Appearance in sad",
        "CelebV-HQ_Action-Recognition": "Action in sad",
        "caption_test_sampling_v2_all_example": "Six for sad\n\nand (A) Sad",
        "QA_test_sampling_all": "Open: sad (A) Sad",
    }
    for file, text in expected.items():
        assert prompts.write(question(file)) == text
    assert prompts.write(question("MyFaces", "match")) == expected["MEAD_ID"]
    with pytest.raises(PromptError, match=r"MyFaces#0: no prompt for labels.*--judge-prompt-names MyFaces=NAME"):
        prompts.write(question("MyFaces", "labels"))


def test_texts_are_what_python_makes_of_them(config):
    """The oracle runs the class of templates alone, which is ours."""
    tree = ast.parse(LAYOUT)
    (templates,) = [node for node in tree.body if isinstance(node, ast.ClassDef) and node.name == "PromptTemplate"]
    scope = {}
    exec(compile(ast.Module([templates], []), "templates", "exec"), scope)
    oracle, prompts = scope["PromptTemplate"], read_prompts(config)
    assert prompts.by_file["MEAD_ID"] == prompts.by_kind["match"] == oracle.YN
    assert prompts.by_kind["score"] == oracle.SCORE and prompts.by_kind["six"] == oracle.CAPTION
    assert prompts.by_file["MAFW_Multiple-Label-Emotion-Recognition"] == oracle.MAFW_MULTI
    assert prompts.by_file["QA_test_sampling_all"] == oracle.QA


def test_another_word_is_another_hash_and_other_spaces_in_the_code_are_not(config, tmp_path):
    first = read_prompts(config)
    config.write_text(
        LAYOUT.replace('"Rate {answer} " "against', '("Rate "\n  "{answer} against').replace(
            '" + " for {query}"', '" + " for {query}")'
        )
        + "\n# the end\n"
    )
    assert read_prompts(config).hash == first.hash
    config.write_text(LAYOUT.replace("Units of", "The units of"))
    assert read_prompts(config).hash != first.hash
    assert len({first.hash, read_prompts(config).hash, embedded().hash, OFFICIAL_HASH}) == 4
    assert not first.official and not embedded().official


def test_names_can_be_given(tmp_path):
    path = tmp_path / "prompts.py"
    path.write_text(
        'A = "a {answer} {labels}"\nTEXTS = {"b": "b {answer} {labels}", "n": {"c": "c {answer}"}}\n'
        'LIST = ["x", "d {answer} {labels}"]\nUNITS = "u {answer}"\n'
    )
    pairs = ["match=A", "score=TEXTS.b", "labels=TEXTS.n.c", "six=LIST.1", "AffWild2_Action_Unit_Detection.json=UNITS"]
    prompts = read_prompts(path, parse_names(pairs))
    texts = [
        prompts.write(question(file)) for file in ("MEAD_ID", "QA_test_sampling_all", "AffWild2_Action_Unit_Detection")
    ]
    assert texts == ["a sad (A) Sad", "b sad (A) Sad", "u sad"]
    assert prompts.write(question("CelebV-HQ_Action-Recognition")) == "c sad"
    assert prompts.write(question("caption_test_sampling_v2_all_example")) == "d sad (A) Sad"


def test_names_that_are_given_go_before_the_files_own_table(config):
    prompts = read_prompts(config, {"match": "PromptTemplate.QA", "QA_test_sampling_all": "SCORE"})
    assert prompts.write(question("MEAD_ID")) == "Open: sad (A) Sad"
    assert prompts.write(question("QA_test_sampling_all")) == "Rate sad against (A) Sad for What?"
    assert prompts.write(question("AffWild2_Action_Unit_Detection")) == "Units of sad"


@pytest.mark.parametrize(
    "text, message",
    [
        ("A = 1\n", "no prompt for match.*holds no string constants"),
        ('A = "x"\nB = {"c": "y"}\n', r"no prompt for match.*its string constants: A, B\.c\. Say which is which with"),
        ("A = (\n", "line 1: no Python"),
        ("\x00", "no Python"),
        ("A = " + "(" * 5000 + "1" + ")" * 5000, "no Python"),
        ("A = " + "+".join(['"x"'] * 20_000), "too many parts|no Python"),
        ('A0 = "' + "x" * 4096 + '"\n' + "".join(f"A{n + 1} = A{n} + A{n}\n" for n in range(60)), "too long"),
    ],
)
def test_files_that_are_none_of_prompts(text, message, tmp_path):
    path = tmp_path / "config.py"
    path.write_text(text)
    with pytest.raises(PromptError, match=f"(?s)config.py: .*({message})"):
        read_prompts(path)


def test_files_that_are_not_there_or_too_large(tmp_path):
    with pytest.raises(PromptError, match="no such file"):
        read_prompts(tmp_path / "config.py")
    with pytest.raises(PromptError, match="no such file"):
        read_prompts(tmp_path)
    (tmp_path / "large.py").write_bytes(b"#" * (5 * 1024**2))
    with pytest.raises(PromptError, match="over 4,194,304 bytes"):
        read_prompts(tmp_path / "large.py")


@pytest.mark.parametrize(
    "prompt, message",
    [
        ("{answer} {labels} {query.__class__.__init__.__globals__}", "field 'query.__class__"),
        ("{answer} {labels} {0}", "field '0'"),
        ("{answer} {labels} {}", "field ''"),
        ("{answer} {labels!r}", "field 'labels'"),
        ("{answer} {labels:>{query}}", "field 'labels'"),
        ("{answer:100000000} {labels}", "field 'answer'"),
        ("{answer} {labels} {gold}", "there are: {query}"),
        ("{answer} {labels} }", "a brace in the text is written twice"),
        ("{answer}", r"the prompt for match lacks {labels} \(the truth\)"),
        ("{labels}", "lacks {answer}"),
    ],
)
def test_prompts_that_cannot_be_filled_in(prompt, message):
    with pytest.raises(PromptError, match=message):
        JudgePrompts({}, dict(embedded().by_kind) | {"match": prompt})


def test_constants_that_are_computed_are_not_prompts(config):
    config.write_text(LAYOUT.replace('"Units of {answer}"', 'open("units").read()'))
    with pytest.raises(PromptError, match=r"no prompt for labels .AffWild2_Action_Unit_Detection"):
        read_prompts(config)
    config.write_text(LAYOUT.replace('f"Letters of {{answer}}"', 'f"Letters {1 + 1} of {{answer}}"'))
    with pytest.raises(PromptError, match=r"no prompt for labels .MAFW_Multiple"):
        read_prompts(config)


@pytest.mark.parametrize("pair", ["match", "=A", "match=", "quality=A", "MEAD_IQ=A"])
def test_pairs_of_another_form(pair):
    with pytest.raises(PromptError, match="expected KIND=NAME"):
        parse_names([pair])


def test_a_name_that_is_not_there_or_twice(config):
    for name in ("NOPE", "task_name"):
        with pytest.raises(PromptError, match=rf"'{name}', or several are; its string constants: Settings.API_KEY"):
            read_prompts(config, {"match": name})
