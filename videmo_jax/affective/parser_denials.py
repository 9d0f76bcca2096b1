"""What a sentence denies.

- What follows a denial (`no`, `not`, `without`, `fails to`) in its clause; of a list (`no glasses, beard or hat`), all.
- The subject of a predicate that tells of presence, where that is denied (`a smile is not visible`, `of tears there is
  no sign`), is a word of absence (`AU4 is inactive`) or left out (`AU12 is active; AU4 is not`).
- What stands behind such a predicate that opens its clause (`inactive: AU4 and AU9`, `not seen are tears`).
- A smile that fades.
A denial of a denial (`not without`, `does not fail to`, `not absent`) denies nothing.
"""

from videmo_jax.affective.lexicon import LEXICON
from videmo_jax.affective.parser_words import Unit

CLAUSE, LIST, SUBJECT = "clause", "list", "subject"  # how far a denial reaches: see `_ends`
BORDERS = frozenset({"and", "or", "comma"})
RELATIVES = frozenset({"which", "that", "who", "whose"})
TIMES = frozenset({"first", "then", "lasts", "briefly"})
BEHIND = frozenset({"break", "with", "because", "stop", "be"}) | BORDERS | TIMES  # may stand behind a predicate
ADVERBS = frozenset({"anymore", "any", "more", "longer", "yet", "here", "there", "either", "throughout"})
FINITE = frozenset({"be", "have", "do", "look", "appear", "seem", "feel", "become", "remain", "stay", "will", "can"})


def denials(units: list[Unit]) -> list[bool]:
    """Which units of a sentence are denied; predicates that deny their subject are marked as used."""
    denied = [False] * len(units)
    reach: str | None = None
    after = 0  # the first place behind a denial and its predicate
    for at, unit in enumerate(units):
        if at < after:
            continue
        if (stops := "stop" in unit.entry.roles) or _presence(unit) == "absent":
            after, presence = _predicate(units, at) if stops else (at + 1, "absent")
            lifted = stops and presence == "absent"
            subject = _subject(units, at) if after and not lifted and (stops or _closes(units, after)) else []
            for place in subject:
                denied[place] = True
            for place in range(at, after) if subject else ():
                units[place].used = True
            if subject or lifted:
                reach = None
            elif presence and _opens(units, at):
                reach = LIST
            elif stops:
                of_all = unit.word in ("none", "neither") and _word(units, at + 1) == "of"
                reach, after = SUBJECT if of_all else CLAUSE, 0
            continue
        if reach and _ends(units, at, reach):
            reach = None
        denied[at] = reach is not None
        if "fades" in unit.entry.roles and not reach:
            smile = at - 2 if at > 1 and "be" in units[at - 1].entry.roles else at - 1
            if smile >= 0 and any(key[0] == "expression" for key in units[smile].entry.facts):
                denied[smile] = True
    return denied


def _ends(units: list[Unit], at: int, reach: str) -> bool:
    """Whether a denial ends at a unit."""
    unit = units[at]
    roles = unit.entry.roles
    if reach == SUBJECT:  # `none of AU1, AU2 and AU4 is active`
        return _is_verb(unit) or "break" in roles
    if unit.word in "()":  # what stands in brackets is what stands before them
        return False
    if unit.word in ("she", "he"):
        return "be" not in units[at - 1].entry.roles  # `nor does he`
    if roles & {"break", "because"} or unit.word == "with":
        return True
    if reach == LIST:
        return bool(roles & BORDERS and _clause_follows(units, at)) or _presence(unit) == "present"
    return "and" in roles or ("comma" in roles and not _list_goes_on(units, at))


def _list_goes_on(units: list[Unit], at: int) -> bool:
    """Whether a comma stands inside of `no glasses, beard or hat`."""
    for unit in units[at + 1 : at + 8]:
        if "or" in unit.entry.roles:
            return True
        if unit.entry.roles & {"and", "break", "be", "with"} or unit.entry.pronoun:
            return False
    return False


def _clause_follows(units: list[Unit], at: int) -> bool:
    """Whether a verb stands between a border and the next one."""
    for unit in units[at + 1 :]:
        if unit.entry.roles & BORDERS:
            return False
        if _is_verb(unit):
            return True
    return False


def _is_verb(unit: Unit) -> bool:
    return "show" in unit.entry.roles or LEXICON.bases.get(unit.word, unit.word) in FINITE


def _presence(unit: Unit) -> str | None:
    """Whether a unit tells of presence or absence; of `seen in`, its first word does."""
    if "because" in unit.entry.roles and unit.word in LEXICON.singles:
        return LEXICON.singles[unit.word].presence
    return unit.entry.presence


def _predicate(units: list[Unit], at: int) -> tuple[int, str | None]:
    """Where the predicate ends that a denial begins, 0 where what it denies follows, and what it tells.

    It tells of presence (`is not visible`), of absence (`is not absent`, `not without`) or, left out, of nothing.
    """
    for place in range(at + 1, len(units)):
        entry = units[place].entry
        presence = _presence(units[place])
        if "stop" in entry.roles or presence == "absent":
            return place + 1, "absent"
        if presence and ("because" in entry.roles or _closes(units, place + 1)):
            return place + 1, "present"
        if entry.roles & (BORDERS | {"break"}):
            return place, None
        if "be" not in entry.roles and not entry.intensity and units[place].word not in ADVERBS:
            return 0, None
    return len(units), None


def _word(units: list[Unit], at: int) -> str:
    return units[at].word if at < len(units) else ""


def _closes(units: list[Unit], at: int) -> bool:
    """Whether nothing that a predicate could take stands at a place."""
    return at >= len(units) or bool(units[at].entry.roles & BEHIND) or units[at].word in ADVERBS


def _opens(units: list[Unit], at: int) -> bool:
    """Whether nothing but an article stands before a unit in its clause."""
    while at and "det" in units[at - 1].entry.roles:
        at -= 1
    return not at or bool(units[at - 1].entry.roles & (BORDERS | {"break"}))


def _subject(units: list[Unit], at: int) -> list[int]:
    """What the predicate at a place is said of, in its clause; nothing where that is a person."""
    end = at
    while end and ("be" in units[end - 1].entry.roles or units[end - 1].word in (":", "(", *ADVERBS)):
        end -= 1
    if end and units[end - 1].word == ",":  # `a smile, which was there before, is`
        opened = (place for place in range(end - 2, 0, -1) if units[place].word in RELATIVES)
        end = next((place - 1 for place in opened if units[place - 1].word == ","), end)
    if end > 1 and "nominative" in units[end - 1].entry.roles and not units[end - 2].entry.roles & BORDERS:
        end -= 1  # `a beard he has not`
    start, borders = 0, []
    for place in range(end - 1, -1, -1):
        unit = units[place]
        if "break" in unit.entry.roles:
            start = place + 1
            break
        if unit.entry.roles & BORDERS:
            borders.append(place)
        elif _begins_clause(units, place, bool(borders)):
            start = borders[-1] + 1 if borders else place + 1
            break
    if 0 < start < end:
        before, first = units[start - 1], units[start]
        if before.word == "who" or (before.entry.person and "with" in first.entry.roles):
            return []  # `the man with the beard is not seen`
    return [place for place in _without_places(units, start, end) if _deniable(units[place])]


def _begins_clause(units: list[Unit], at: int, bordered: bool) -> bool:
    """Whether another clause, or a person, stands at a place before a subject."""
    entry = units[at].entry
    continued = bordered and bool(entry.states) and at > 0 and bool(units[at - 1].entry.part)  # `her brows rise, and`
    verb = _is_verb(units[at]) or _presence(units[at]) or "stop" in entry.roles or units[at].word[0].isdigit()
    return bool(continued or verb or "nominative" in entry.roles or entry.person)


def _without_places(units: list[Unit], start: int, end: int) -> list[int]:
    """The places of a subject without those that tell where it is: `tears in her eyes`, `on the left, a smile`."""
    kept, inside = [], False
    for place in range(start, end):
        roles = units[place].entry.roles
        inside = (inside or "with" in roles) and not roles & BORDERS
        if not inside:
            kept.append(place)
    return kept


def _deniable(unit: Unit) -> bool:
    entry = unit.entry
    return bool(entry.facts or entry.feeling or entry.sentiment or entry.garment or entry.states)
