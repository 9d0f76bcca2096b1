"""What follows from what, and in which order feelings come, in one sentence."""

import itertools

from videmo_jax.affective.lexicon import INTENSITIES, LEXICON, Key
from videmo_jax.affective.parser_facts import Event
from videmo_jax.affective.parser_words import Unit

FROM_FEELING = frozenset({"in", "with", "of", "from", "out"})  # `widen in surprise`, `a smile of joy`
PRESENT = frozenset({"this", "these", "which", "all", "it", "together", "such", "that", "they"})


def link(units: list[Unit], said: list[Event], before: list[Event]) -> None:
    """Writes the edges that a sentence states from what shows a feeling to the feeling.

    Args:
      units: the sentence.
      said: its events, in order.
      before: the events of the sentence before, which `this suggests` points back to.
    """
    _modifiers(units, said)
    borders = [at for at, unit in enumerate(units) if unit.entry.roles & {"show", "because"} and not unit.used]
    start = 0
    for number, at in enumerate(borders):
        end = borders[number + 1] if number + 1 < len(borders) else len(units)
        left = [event for event in said if start <= event.at < at]
        right = [event for event in said if at < event.at < end]
        if "because" in units[at].entry.roles and (feelings := _feelings(left)) and (cues := _until_feeling(right)):
            _connect(cues, feelings)
        elif feelings := _leading_feelings(right):
            cues = [event for event in left if event.shows]
            if not cues and any(unit.word in PRESENT for unit in units[max(0, at - 4) : at]):
                cues = [event for event in before if event.shows]
            _connect(cues, feelings)
            start = feelings[-1].at + 1
        else:
            start = at


def _modifiers(units: list[Unit], said: list[Event]) -> None:
    """A `shy smile`, `smiles shyly` and `eyes wide with fear` name the feeling that they show."""
    for first, second in itertools.pairwise(said):
        gap = range(first.at + 1, second.at)
        if first.feeling and second.key[1] in ("expression", "gaze") and not gap:
            _connect([second], [first])
        elif first.key[1] in ("expression", "gaze") and second.feeling and not gap and _adverb(units, second):
            _connect([first], [second])
        elif first.key[0] == "expression" and second.feeling and 1 <= len(gap) <= 4:
            words = [units[at].word for at in gap]
            plain = all(units[at].entry.intensity or "det" in units[at].entry.roles for at in gap[1:])
            if words[0] in FROM_FEELING and plain:
                _connect([first], [second])


def _adverb(units: list[Unit], event: Event) -> bool:
    return units[event.at].word.endswith("ly")


def _feelings(said: list[Event]) -> list[Event]:
    return [event for event in said if event.feeling and not event.denied]


def _until_feeling(said: list[Event]) -> list[Event]:
    cues = []
    for event in said:
        if event.feeling:
            break
        if event.shows:
            cues.append(event)
    return cues


def _leading_feelings(said: list[Event]) -> list[Event]:
    feelings = []
    for event in said:
        if event.feeling:
            feelings.append(event)
        elif event.shows:
            break
    return _feelings(feelings)


def _connect(cues: list[Event], feelings: list[Event]) -> None:
    """Each cue goes to the first feeling that it is typical of, else to the first."""
    for cue in cues:
        if cue.denied:
            continue
        typical = LEXICON.cues.get(cue.key[1:], set())
        feeling = next((each for each in feelings if each.feeling in typical), feelings[0])
        for who in cue.people:
            if who in feeling.people:
                who.edges.setdefault(cue.key, str(feeling.feeling))


def courses(units: list[Unit], said: list[Event], last: Event | None) -> list[tuple[Event, Key]]:
    """The courses that a sentence tells, each with an event of those who feel so.

    Args:
      units: the sentence.
      said: its events, in order.
      last: the last feeling of the sentences before, which a `then` at the beginning goes on from.
    """
    feelings = _feelings(said)
    marks = {role: _marks(units, role) for role in ("then", "before", "after", "lasts", "grows", "fades", "briefly")}
    found: list[tuple[Event, str]] = []
    lasting = set()
    for role in ("grows", "fades"):
        for at in marks[role]:
            subject = _subject_feeling(units, said, at, last)
            if subject is not None:
                found.append((subject, f"{subject.feeling} {role}"))
    changing = {event.at for event, _ in found}
    for role in ("lasts", "briefly"):
        for at in marks[role]:
            near = _near(said, at)
            if near is not None and near.at not in lasting and near.at not in changing:
                lasting.add(near.at)
                found.append((near, f"{near.feeling} {role}"))
    # Another sentence goes on from a feeling if it opens with `then`, or if that was said to be the first.
    opens = any(at <= 1 or (last is not None and last.first) for at in marks["then"])
    previous = last if opens or (last is not None and last.first and last.then) else None
    for event in feelings:
        if previous is not None and previous.at not in lasting:
            text = _order(units, previous, event, marks, previous is last)
            if text:
                found.append((event, text))
        event.first = bool(_marks(units, "first"))
        event.then = any(at > event.at for at in marks["then"])
        previous = event
    return [(event, ("emotion", "course", text)) for event, text in found]


def _marks(units: list[Unit], role: str) -> list[int]:
    return [at for at, unit in enumerate(units) if role in unit.entry.roles and not unit.used]


def _near(said: list[Event], at: int) -> Event | None:
    """The feeling that `throughout` belongs to: the one before it, or else after it, nothing else shown between."""
    before = [event for event in said if event.at < at and (event.feeling or event.shows)]
    if before:
        return before[-1] if before[-1].feeling and not before[-1].denied else None
    after = [event for event in said if event.at > at and (event.feeling or event.shows)]
    return after[0] if after and after[0].feeling and not after[0].denied else None


def _subject_feeling(units: list[Unit], said: list[Event], at: int, last: Event | None) -> Event | None:
    """The feeling that grows or fades."""
    before = [event for event in said if event.at < at and (event.feeling or event.shows)]
    reached = next((event for event in said if event.feeling and 0 < event.at - at <= 2), None)
    if reached is not None and units[at].word.endswith("ing"):  # `growing anger`
        return reached
    if reached is not None and not (before and before[-1].feeling == reached.feeling):
        return None  # `grows sad`: that is, becomes
    if before:
        return before[-1] if before[-1].feeling and not before[-1].denied else None
    spoken_of = {"it", "intensity", "emotion", "feeling", "mood"}
    return last if any(unit.word in spoken_of for unit in units[:at]) else None


def _order(units: list[Unit], first: Event, second: Event, marks: dict[str, list[int]], over: bool) -> str | None:
    """`sadness then surprise`, in the order of time, if a word between the two tells it."""
    low = -1 if over else first.at
    then = marks["then"] + marks["before"]
    between = [unit.word for unit in units[first.at : second.at]]
    starts_from = not over and "from" in [unit.word for unit in units[max(0, first.at - 3) : first.at]]
    if any(low < at < second.at for at in then) or (over and first.then) or (starts_from and "to" in between):
        return _change(first, second)
    if not over and any(low < at < second.at for at in marks["after"]):
        return _change(second, first)
    return None


def _change(first: Event, second: Event) -> str | None:
    """From one feeling to another; from weak to strong it grows."""
    if first.feeling != second.feeling:
        return f"{first.feeling} then {second.feeling}"
    if first.intensity is None or second.intensity is None or first.intensity == second.intensity:
        return None
    grows = INTENSITIES.index(first.intensity) < INTENSITIES.index(second.intensity)
    return f"{first.feeling} {'grows' if grows else 'fades'}"
