"""What the synthetic set asks, as labels that a probe can learn: one task a file, one a question of the QA files.

Labels come from the answers alone: the text of the right option, the letters or tags given, or the statements that a
free answer makes ("pale skin", "inner eyebrows rise", "then turns sad").
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from videmo_jax.data.synthetic import Scene, wording
from videmo_jax.data.synthetic.questions import records


@dataclass(frozen=True)
class Item:
    """One sample: its task, which people of the clip it looks at, the right labels and, of a choice, what is offered.

    A choice has one label; every other task has any number.
    """

    task: str
    question: str
    people: tuple[int, ...]
    labels: frozenset[str]
    options: tuple[str, ...] = ()

    @property
    def answer(self) -> str:
        """The text of the right option."""
        return next(iter(self.labels))

    @property
    def letter(self) -> int:
        """The place of the right option."""
        return self.options.index(self.answer)


_OPTION = re.compile(r"^\(([A-Z])\) (.+)$", flags=re.MULTILINE)
# Wordings that say the same, drawn at random, and pronouns: taken away, so that statements are facts.
_SAME = (
    (r"\b(her|his)\b", "their"),
    (r"\b(these cues show that (she|he) feels|all this expresses|so (she|he) feels) ", "feels "),
    (r"\bso the emotion of the person is ", "feels "),
    (r"\bthe (.+) show ((?:clear|intense|mild|a) .+)$", r"\1, feels \2"),
    (r"^(.+) can be read from the ", r"feels \1, "),
    (r"\b(the clip shows one person|one person is seen|two people talk)\b", "seen"),
    (r"\b(she|he) (wears|is wearing)\b", "wears"),
    (r"\b(who has|with)\b", ","),
    (r"\b(she|he)\b|\bat first\b|\b(face|it) is an? \b", ""),
)
_SPLIT = re.compile(r"[,;:.]\s*|\s+and\s+")


def statements(text: str) -> frozenset[str]:
    """The facts that a free answer states."""
    text = text.lower().rstrip(".")
    for pattern, replacement in _SAME:
        text = re.sub(pattern, replacement, text)
    found = set()
    for part in _SPLIT.split(text):
        part = re.sub(r"^(?:(?:their|then(?! turns)|wears|an?|the) )+", "", re.sub(r"\s+", " ", part).strip())
        if part.endswith(" hair") or re.fullmatch(r"(?:\w+ )?(?:woman|man|girl|boy)", part):
            found |= {f"{word} (of hair)" if part.endswith(" hair") else word for word in part.split()}
        elif part:
            found.add(part)
    return frozenset(found - {"hair (of hair)", "has (of hair)"})


def facts(scene: Scene) -> list[frozenset[str]]:
    """What is drawn of each person, as `name=value`: what a probe may be taught to see on training scenes."""
    found = []
    for person in scene.people:
        traits = {**vars(person.identity), **{k: v for k, v in vars(person).items() if k not in ("identity", "phase")}}
        traits |= {name: getattr(scene.setting, name) for name in ("backdrop", "light")}
        traits |= {"shake": scene.setting.shake > 0, "emotion": person.emotion}
        holds = {f"{name}={value}" for name, value in traits.items() if isinstance(value, str | bool)}
        holds |= {f"shows {unit}" for unit in wording.shown_units(person)}
        for number, expression in enumerate(person.expressions):
            when = "throughout" if expression.start < 0 else "later"
            holds |= {f"{number} {expression.emotion}", f"{number} {expression.emotion} {expression.strength}", when}
        found.append(frozenset(holds))
    return found


def items(seed: int, scene: Scene) -> Iterator[Item]:
    """All that is asked about the scene."""
    everyone = tuple(range(len(scene.people)))
    for record in records(seed, scene):
        name = record.file.rsplit("/", 1)[1].removesuffix(".json")
        question = record.question.replace("<video>.", "").replace("<video>", "")
        asked = question.split("\n")[0]
        people = everyone
        if "person on the left feel" in asked or "person on the right feel" in asked:
            people = (0,) if "on the left" in asked else (1,)
        options = tuple(text for _, text in _OPTION.findall(question))
        if name.startswith("QA_"):
            name = f"QA {record.source.rsplit('QA_', 1)[1]}: {asked}"
            name += "" if options else " (open)"
        elif name.startswith("caption_"):
            name = "caption"
        elif name.startswith("rationale"):
            name = "rationale"
        if re.fullmatch(r"[A-K]+", record.answer):
            letters = dict(_OPTION.findall(question))
            yield Item(name, question, people, frozenset(letters[letter] for letter in record.answer))
        elif options:
            yield Item(name, question, people, frozenset({record.answer[4:]}), options)
        elif "tags" in asked or "action units" in asked:
            yield Item(name, question, people, frozenset(record.answer.split(",")) - {"none"})
        elif len(everyone) == 2:
            sides = re.fullmatch(r"(.*)On the left: (.*) On the right: (.*?)( The camera .*)", record.answer).groups()
            for person, part in enumerate(sides[1:3]):
                yield Item(name, question, (person,), statements(part))
        else:
            yield Item(name, question, people, statements(record.answer))
