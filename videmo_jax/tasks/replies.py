"""What a reply says: the text of a model without what stands around its answer.

`final_answer` takes off what nobody should be judged by: thoughts, template tokens, what was generated after the
turn's end, `<answer>` tags, a fence or a JSON object around the whole. Captions and trees are read from it.
`short_answer` goes on to the one thing that is said in a field, in a box or between marks: choices, labels and judges'
replies. Both take time that is linear in the reply.
"""

import json
import re
from collections.abc import Iterator
from typing import Any

MAX_CHARACTERS = 20_000  # of an answer that is read; 2,048 tokens have fewer

# The tags of thoughts: of DeepSeek-R1 and Qwen, of prompts that ask for other names, of Kimi, Magistral, Command A,
# gpt-oss and MedGemma.
_TAGS = "think|thinking|thoughts?|reasoning|reflection|analysis|scratchpad"
_THOUGHT = re.compile(
    rf"""(?P<opens><(?:{_TAGS})\s?>|\[THINK\]|\u25c1think\u25b7|<\|START_THINKING\|>|<\|channel\|>analysis<\|message\|>|<unused94>)
    |</(?:{_TAGS})\s?>|\[/THINK\]|\u25c1/think\u25b7|<\|END_THINKING\|>|<\|channel\|>final<\|message\|>|<unused95>""",
    re.IGNORECASE | re.VERBOSE,
)
_TURN_ENDS = re.compile(
    r"<\|(?:im_end|im_start|endoftext|eot_id|eom_id|end_of_text|end|return|end_of_turn_token|end_response|user)\|>"
    r"|<\uff5cend\u2581of\u2581sentence\uff5c>|</s>|<eos>|<end_of_turn>|\n\s{0,20}\n(?:human|user) ?:(?=\s)",
    re.IGNORECASE,
)
_TOKEN = re.compile(
    r"<\|[\w/-]{1,40}\|>|<\uff5c[^\uff5c<>\n]{1,40}\uff5c>|<(?:s|bos|pad|start_of_turn)>", re.IGNORECASE
)
_ROLE = re.compile(
    r"\A\s*(?:assistant|model)[ :]*(?:\n|\Z)", re.IGNORECASE
)  # left when the tokens around it were skipped
_ANSWER = re.compile(r"<(?P<closes>/?)(?:final_?answer|answer|conclusion)\s?>", re.IGNORECASE)
_INVISIBLE = re.compile("[\u00ad\u200b-\u200f\u202a-\u202e\u2060-\u2064\ufeff]")
_SPACE = re.compile("[\u00a0\u2000-\u200a\u202f\u205f\u3000]")

_LANGUAGE = r"(?:json|text|txt|plain|plaintext|markdown|md|python|yaml|xml|html|latex|tex|bash|tree)?"
_FENCE = re.compile(rf"```{_LANGUAGE}[ \t]*(?:\n|$)|```", re.IGNORECASE)
_FENCED = re.compile(r"```[^\n`]*\n(.*?)(?:```|\Z)", re.DOTALL)

# Fields of a JSON reply: those that answer, best first, and those that only explain.
_FIELDS = (
    "finalanswer", "answer", "correctanswer", "finalchoice", "choice", "correctoption", "selectedoption", "option",
    "selection", "prediction", "letters", "letter", "labels", "label", "finalscore", "score", "rating", "verdict",
    "judgment", "judgement", "decision", "result", "response", "output", "emotion", "caption", "description", "text",
    "value",
)  # fmt: skip
_OPEN_FIELD = re.compile(
    r"""["'](?:final[_ ]?answer|correct[_ ]?answer|answer|choice|score)["']\s?:\s?["']?([^"'{}\[\]\n]{1,400})""",
    re.IGNORECASE,
)
_EXPLAINS = re.compile("reason|explanation|analysis|thought|rationale|confidence|justification|evidence|comment|step")
MAX_OBJECTS = 8  # of a reply that are tried; their nesting is what json allows

_BOX = re.compile(r"\\f?boxed\s?\{((?:[^{}]|\{(?:[^{}]|\{[^{}]{0,200}\}){0,200}\}){0,400})\}")
_LATEX = re.compile(r"\\(?:text\w{0,6}|math\w{1,6}|operatorname)\s?\{([^{}]{0,400})\}")
_MARKS = re.compile(
    r"~~[^~\n]{1,200}~~|\\[\[\]()]|[*`$]+|__|</?[a-z_]{1,20}\s?/?>|(?<=\n)#{1,6}[ \t]|\A#{1,6}[ \t]", re.I
)
_ESCAPED = re.compile(r"\\([_&%#*\-])")


def final_answer(text: str, most: int = MAX_CHARACTERS) -> str:
    """The part of a response that answers: no thoughts, no tokens, inside the last `<answer>` where there is one.

    A thought that was not closed holds no answer; of a `</think>` alone, whose opening tag stands in the template, all
    before it is thought.

    Args:
      text: the response.
      most: characters of the answer that are kept; of thoughts there may be any number.
    """
    text = _without_thoughts(text)
    if not text.isascii():
        text = _SPACE.sub(" ", _INVISIBLE.sub("", text))
    turns = (_ROLE.sub("", _TOKEN.sub("", turn)) for turn in _TURN_ENDS.split(text))
    text = _tagged(next((turn for turn in turns if turn.strip()), ""))[:most].strip()
    block = _FENCED.fullmatch(text)
    if block and block[1].strip() and "```" not in block[1]:
        text = block[1].strip("\n")
    if text[:1] in ("{", "["):
        field = next(_fields(text, whole=True), None)
        text = text if field is None else field
    return text.strip()


def short_answer(text: str) -> str:
    """The answer alone, where it stands in a JSON field or a box; without bold, fences, headings, LaTeX and tags."""
    text = final_answer(text)
    if "{" in text:
        *_, text = text, *_fields(text)
        text = "\n".join(dict.fromkeys(box.strip() for box in _BOX.findall(text))) or text
    if "\\" in text:
        text = _ESCAPED.sub(r"\1", _LATEX.sub(r"\1", _LATEX.sub(r"\1", text)))
    return unmarked(text)


def unmarked(text: str) -> str:
    """The text without bold, headings, fences, tags, and what is struck out."""
    return _MARKS.sub("", _FENCE.sub("\n", text)).strip()


def blocks(text: str) -> list[str]:
    """What stands in the fenced blocks of a reply, in their order; the last may lack its end."""
    return _FENCED.findall(text)


def _without_thoughts(text: str) -> str:
    kept, begin, thinking = [], 0, False
    for tag in _THOUGHT.finditer(text):
        if tag["opens"]:
            if not thinking:
                kept.append(text[begin : tag.start()])
            thinking = True
            continue
        if not thinking:
            kept = []
        thinking, begin = False, tag.end()
    return "".join(kept if thinking else [*kept, text[begin:]])


def _tagged(text: str) -> str:
    """What the last `<answer>` with anything in it holds, else the text without such tags."""
    parts, begin, inside = [], 0, False
    for tag in _ANSWER.finditer(text):
        # Before a closing tag alone stands the answer, too: its opening tag may stand in the template.
        parts.append((inside or bool(tag["closes"]), text[begin : tag.start()]))
        begin, inside = tag.end(), not tag["closes"]
    parts.append((inside, text[begin:]))
    found = [part for answers, part in parts if answers and part.strip()]
    return found[-1] if found else "".join(part for _, part in parts)


def _fields(text: str, *, whole: bool = False) -> Iterator[str]:
    """The answers of the JSON objects in a reply, in their order; of an object that breaks off, its field.

    Args:
      text: the reply.
      whole: whether the reply must be nothing but one JSON value.
    """
    decoder = json.JSONDecoder()
    if whole:
        values = [_decoded(decoder, text, 0)]
        if values[0] is None or text[values[0][1] :].strip():
            return
    else:
        values, begin = [], text.find("{")
        while begin >= 0 and len(values) < MAX_OBJECTS:
            values.append(_decoded(decoder, text, begin))
            begin = text.find("{", values[-1][1] if values[-1] else begin + 1)
    found = [said for value in values if value and (said := _said(value[0], whole)) is not None]
    if not found and not whole:
        found = [field[1].strip() for field in _OPEN_FIELD.finditer(text)]
    yield from found


def _decoded(decoder: json.JSONDecoder, text: str, begin: int) -> tuple[Any, int] | None:
    try:
        return decoder.raw_decode(text, begin)
    except (ValueError, RecursionError):
        return None


def _said(value: Any, whole: bool) -> str | None:
    """What a JSON value says; None where no field of it stands out."""
    if isinstance(value, dict):
        fields = {re.sub("[^a-z]", "", str(name).lower()): held for name, held in value.items()}
        known = next((name for name in _FIELDS if name in fields), None)
        if known is not None:
            return _said(fields[known], whole=True)
        others = [held for name, held in fields.items() if not _EXPLAINS.search(name)]
        # «same: false» answers no question that is known here.
        return _said(others[0], whole=True) if len(others) == 1 and not isinstance(others[0], bool) else None
    if isinstance(value, list):
        parts = [_said(each, whole=True) for each in value] if whole else [None]
        return None if None in parts else ",".join(parts)
    if isinstance(value, bool):
        return "yes" if value else "no"
    return "" if value is None else str(value)
