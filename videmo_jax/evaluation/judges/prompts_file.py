"""Reads the prompts in a user's checkout of the authors' `eval/config.py`: parsed, never executed."""

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path, PurePath

from videmo_jax.evaluation.judges.judging import Kind
from videmo_jax.evaluation.judges.prompts import KIND_OF_FILE, KINDS, JudgePrompts, PromptError

MAX_FILE_BYTES = 4 * 1024**2
MAX_CHARACTERS = 16 * 1024**2  # of all texts: a line of a file can double the one before
MAX_LISTED = 40  # names in a message

# Names of string constants, the first one found is taken. The authors' file has all of these that stand first, and
# says itself which test file uses which; the others are guesses for files of another layout.
NAMES_OF_KIND: dict[Kind, tuple[str, ...]] = {
    "match": ("YN", "YES_NO", "MATCH"),
    "score": ("SCORE", "CAPTION_SCORE"),
    "labels": ("LABELS", "MULTI_LABEL", "F1"),
    "six": ("CAPTION", "FINE_CAPTION", "SIX"),
}
NAME_OF_FILE = {
    "MAFW_Multiple-Label-Emotion-Recognition": "MAFW_MULTI",
    "AffWild2_Action_Unit_Detection": "AFF",
    "CelebV-HQ_Appearance-Recognition": "CELEBVHQ_APPEARANCE",
    "CelebV-HQ_Action-Recognition": "CELEBVHQ_ACTION",
    "QA_test_sampling_all": "QA",
}


def parse_names(pairs: Sequence[str]) -> dict[str, str]:
    """Reads `KIND=NAME` or `FILE=NAME`: which constant holds the prompt of a kind or of one test file.

    Raises:
      PromptError: a pair has another form, or names neither a kind nor a test file.
    """
    names = {}
    for pair in pairs:
        what, _, name = (part.strip() for part in pair.partition("="))
        what = what.removesuffix(".json")
        if not name or what not in (*KINDS, *KIND_OF_FILE):
            raise PromptError(
                f"--judge-prompt-names {pair!r}: expected KIND=NAME with a kind of {', '.join(KINDS)}, or FILE=NAME "
                "with a test file's name"
            )
        names[what] = name
    return names


def read_prompts(path: str | Path, names: Mapping[str, str] | None = None) -> JudgePrompts:
    """The prompts of a Python file.

    A file that says which test file uses which prompt, as the authors' does (`filename=..., prompt=...` in one call or
    dictionary), is taken by its word; else constants are found by name.

    Args:
      path: the file.
      names: constants by kind or test file (`parse_names`), which go before everything else.

    Raises:
      PromptError: the file cannot be read, or lacks prompts; the message lists the string constants that it has.
    """
    path = Path(path)
    tree = _parse(path)
    try:
        strings = _Strings(tree)
        by_file = {stem: text for stem, text in _table(tree, strings) if stem in KIND_OF_FILE}
    except (RecursionError, _TooLong):
        raise PromptError(f"{path}: its texts are too long, or put together of too many parts") from None
    by_kind: dict[Kind, str] = {}
    for kind, known in NAMES_OF_KIND.items():
        if found := [text for name in known if (text := strings.bare(name)) is not None]:
            by_kind[kind] = found[0]
    for file, name in NAME_OF_FILE.items():
        if file not in by_file and (text := strings.bare(name)) is not None:
            by_file[file] = text
    for what, name in (names or {}).items():
        text = strings.named(name)
        if text is None:
            raise PromptError(f"{path}: no string constant is called {name!r}, or several are; {strings.listed()}")
        if what in KIND_OF_FILE:
            by_file[what] = text
        else:
            by_kind[what] = text
            by_file = {
                file: held for file, held in by_file.items() if KIND_OF_FILE[file] != what or file in (names or {})
            }
    try:
        return JudgePrompts(by_file, by_kind)
    except PromptError as error:
        raise PromptError(f"{path}: {error}; {strings.listed()}") from None


def _parse(path: Path) -> ast.Module:
    if not path.is_file():
        raise PromptError(f"{path}: no such file; give the eval/config.py of a checkout of the authors' code")
    if path.stat().st_size > MAX_FILE_BYTES:
        raise PromptError(f"{path}: over {MAX_FILE_BYTES:,} bytes; no file of prompts is that large")
    try:
        return ast.parse(path.read_bytes(), filename=path.name)
    except SyntaxError as error:
        raise PromptError(f"{path}: line {error.lineno}: no Python ({error.msg})") from None
    except (ValueError, RecursionError, MemoryError) as error:
        raise PromptError(f"{path}: no Python ({error})") from None


class _TooLong(ValueError):
    """The texts of a file are longer than any prompts."""


class _Strings:
    """The string constants of a file by dotted name: `PromptTemplate.YN`, `PROMPTS.yes_no`, `TEXTS.0`."""

    def __init__(self, tree: ast.Module) -> None:
        self._held: dict[str, str] = {}
        self._characters = 0
        self._collect(tree.body, "")

    def named(self, name: str) -> str | None:
        """A string by its dotted name, or by the end of it where only one has this end."""
        if name in self._held:
            return self._held[name]
        ends = [text for held, text in self._held.items() if held.endswith(f".{name}")]
        return ends[0] if len(ends) == 1 else None

    def bare(self, name: str) -> str | None:
        """The one string whose name ends so, in capitals or not, and that has a field to fill in."""
        ends = {text for held, text in self._held.items() if held.rpartition(".")[2].upper() == name and "{" in text}
        return ends.pop() if len(ends) == 1 else None

    def listed(self) -> str:
        """For messages."""
        if not self._held:
            return "the file holds no string constants"
        names = [*self._held][:MAX_LISTED]
        more = f" and {len(self._held) - MAX_LISTED} more" if len(self._held) > MAX_LISTED else ""
        return (
            f"its string constants: {', '.join(names)}{more}. Say which is which with --judge-prompt-names "
            f"KIND=NAME; kinds: {', '.join(KINDS)}"
        )

    def text(self, node: ast.expr | None, prefix: str = "") -> str | None:
        """The value of an expression that is a text without any computation but `+`, else None."""
        match node:
            case ast.Constant(value=str(text)):
                return text
            case ast.JoinedStr(values=values):
                parts = [self.text(value) for value in values]
                return None if None in parts else "".join(parts)
            case ast.BinOp(left=left, op=ast.Add(), right=right):
                parts = [self.text(left, prefix), self.text(right, prefix)]
                return None if None in parts else "".join(parts)
            case ast.Name(id=name):
                return self._held.get(prefix + name, self._held.get(name))
            case ast.Attribute():
                return self._held.get(ast.unparse(node))
        return None

    def _collect(self, body: Sequence[ast.stmt], prefix: str) -> None:
        for statement in body:
            match statement:
                case ast.ClassDef(name=name, body=inner):
                    self._collect(inner, f"{prefix}{name}.")
                case ast.Assign(targets=targets, value=value):
                    for target in targets:
                        if isinstance(target, ast.Name):
                            self._keep(target.id, value, prefix)
                case ast.AnnAssign(target=ast.Name(id=name), value=value) if value:
                    self._keep(name, value, prefix)

    def _keep(self, name: str, value: ast.expr, prefix: str) -> None:
        if (text := self.text(value, prefix)) is not None:
            self._characters += len(text)
            if self._characters > MAX_CHARACTERS:
                raise _TooLong
            self._held[prefix + name] = text
            return
        match value:
            case ast.Dict(keys=keys, values=values):
                parts = [(self.text(key), part) for key, part in zip(keys, values, strict=True) if key]
            case ast.List(elts=elements) | ast.Tuple(elts=elements):
                parts = [(str(place), part) for place, part in enumerate(elements)]
            case _:
                return
        for key, part in parts:
            if key is not None:
                self._keep(f"{name}.{key}", part, prefix)


def _table(tree: ast.Module, strings: _Strings) -> Iterator[tuple[str, str]]:
    """Test files' stems with their prompts, where the file says so."""
    for node in ast.walk(tree):
        match node:
            case ast.Call(keywords=keywords):
                held = {keyword.arg: keyword.value for keyword in keywords}
            case ast.Dict(keys=keys, values=values):
                held = dict(zip((strings.text(key) for key in keys), values, strict=True))
            case _:
                continue
        file, prompt = (strings.text(held.get(name)) for name in ("filename", "prompt"))
        if file and prompt:
            yield PurePath(file).name.removesuffix(".json"), prompt
