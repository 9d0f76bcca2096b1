"""The parser on single facts in many wordings, and on the action units of FACS."""

import pytest

from videmo_jax.affective.lexicon import LEXICON
from videmo_jax.affective.parser import parse_caption


def facts(text):
    """What the parser finds, one set a person, as `aspect: item`."""
    return [{f"{node.aspect}: {node.item}" for node in person.walk()} for person in parse_caption(text).people]


UNITS = {
    "eyebrows: inner corners raised": [
        "The inner eyebrows rise.",
        "Her inner brows are raised.",
        "He pulls up the inner corners of his eyebrows.",
        "The inner corners of the eyebrows are lifted.",
        "AU1 is active.",
        "raised inner brows",
    ],
    "eyebrows: outer corners raised": ["The outer eyebrows are raised.", "Her outer brow lifts.", "action unit 2"],
    "eyebrows: raised": [
        "The eyebrows are raised.",
        "raised brows",
        "The brows shoot up.",
        "He lifts both eyebrows.",
        "The eyebrows go up.",
        "His eyebrows are slightly raised.",
        "one eyebrow is lifted",
    ],
    "eyebrows: drawn together": [
        "drawn eyebrows",
        "The brows are knitted.",
        "furrowed brows",
        "The eyebrows are lowered and drawn together.",
        "The brow lowers.",
        "He furrows his brow.",
        "The eyebrows are pulled down.",
        "a furrowed brow",
        "AU 4",
        "The eyebrows draw together.",
        "tightly knit eyebrows",
        "Her brow is deeply furrowed.",
        "His forehead is furrowed.",
    ],
    "eyes: wide open": [
        "The eyes are wide open.",
        "The eyes open wide.",
        "widened eyes",
        "Her eyes widen.",
        "The upper eyelids are raised wide.",
        "wide eyes",
        "His eyes are opened wide.",
        "AU05",
        "eyes wide open",
        "a wide-eyed look",
    ],
    "cheeks: raised": [
        "The cheeks are raised.",
        "The cheeks rise.",
        "raised cheeks",
        "lifted cheeks",
        "Her cheeks are pushed up.",
        "AU6",
    ],
    "eyes: narrowed": [
        "The eyes are narrowed.",
        "narrowed eyes",
        "He squints.",
        "She squints her eyes.",
        "The eyelids are tightened.",
        "The lower eyelids tense.",
        "half-closed eyes",
        "Her eyes narrow.",
    ],
    "nose: wrinkled": ["The nose is wrinkled.", "a wrinkled nose", "He wrinkles his nose.", "Her nose scrunches up."],
    "mouth: upper lip raised": [
        "The upper lip is raised.",
        "a raised upper lip",
        "He curls his upper lip.",
        "The upper lip lifts.",
        "Her upper lip is pulled up.",
    ],
    "mouth: corners up": [
        "The lip corners are pulled up.",
        "The corners of the mouth turn up.",
        "The mouth corners rise.",
        "upturned mouth corners",
        "the corners of her lips are lifted",
        "The corners of his mouth curl upward.",
        "mouth corners up",
        "Her lips curve upward.",
    ],
    "mouth: dimpled": ["The corners of the mouth are tightened.", "AU14", "The lip corners are pulled in."],
    "mouth: corners down": [
        "The lip corners are pulled down.",
        "The corners of the mouth turn down.",
        "downturned mouth corners",
        "The mouth corners droop.",
        "lowered lip corners",
        "His mouth turns down.",
        "The corners of her mouth point downwards.",
        "a downturned mouth",
    ],
    "mouth: lower lip lowered": ["The lower lip is pulled down.", "The lower lip drops."],
    "chin: raised": ["The chin is raised.", "a wrinkled chin", "The chin is pushed up.", "raised chin"],
    "mouth: puckered": ["The lips are puckered.", "He puckers his lips.", "pursed lips"],
    "mouth: stretched": ["The lips are stretched.", "The mouth is stretched sideways.", "stretched lips"],
    "mouth: tightened": ["The lips are tightened.", "tight lips", "tense lips", "He is tight-lipped."],
    "mouth: pressed together": [
        "The lips are pressed together.",
        "He presses his lips together.",
        "She presses her lips.",
        "pressed lips",
        "tightly pressed lips",
    ],
    "mouth: lips parted": ["The lips part.", "parted lips", "The lips are slightly parted.", "lips apart", "AU25"],
    "mouth: jaw dropped": ["The jaw drops.", "a dropped jaw", "His jaw falls open.", "AU26", "The jaw hangs open."],
    "mouth: open": [
        "The mouth is open.",
        "an open mouth",
        "She opens her mouth.",
        "The mouth hangs open.",
        "Her mouth opens wide.",
        "a wide open mouth",
        "mouth agape",
        "His mouth is slightly open.",
    ],
    "mouth: lip bite": ["She bites her lip.", "He bites his lower lip.", "biting her lips"],
    "mouth: jaw clenched": ["He clenches his teeth.", "a clenched jaw", "gritted teeth", "The jaw is clenched."],
    "mouth: sucked in": ["The lips are sucked in.", "She rolls her lips inward."],
    "cheeks: puffed": ["He puffs his cheeks.", "puffed cheeks", "The cheeks are puffed out."],
    "nose: nostrils flared": ["The nostrils flare.", "flared nostrils", "His nostrils are dilated."],
    "eyes: closed": [
        "The eyes are closed.",
        "closed eyes",
        "She closes her eyes.",
        "with her eyes shut",
        "She keeps her eyes closed.",
        "He squeezes his eyes shut.",
        "Her eyelids are closed.",
    ],
    "eyes: tearful": [
        "There are tears in her eyes.",
        "teary eyes",
        "Her eyes fill with tears.",
        "Her eyes are watery.",
    ],
    "mouth: trembling": ["Her lips tremble.", "trembling lips", "Her lower lip quivers."],
    "gaze: down": ["She looks down.", "Her gaze is lowered.", "with downcast eyes", "He is looking down at the floor."],
    "gaze: up": ["She looks up.", "He gazes upward.", "Her eyes look up."],
    "gaze: left": ["He looks to the left.", "She glances left."],
    "gaze: away": ["He looks away.", "She averts her eyes.", "She avoids eye contact."],
    "gaze: around": ["He looks around.", "Her eyes dart around."],
    "gaze: at the camera": ["She looks at the camera.", "He looks directly into the camera.", "He makes eye contact."],
    "gaze: stare": ["He stares.", "She is staring at something."],
    "expression: smile": ["She smiles.", "a broad smile", "He is smiling happily.", "grinning", "with a gentle smile"],
    "expression: laugh": ["She bursts into laughter.", "He laughs out loud.", "giggling", "chuckles"],
    "expression: frown": ["He frowns.", "a deep frown", "with a scowl"],
    "expression: crying": [
        "She is crying.",
        "He weeps.",
        "sobbing",
        "Tears run down her cheeks.",
        "She bursts into tears.",
    ],
    "head actions: nods": ["He nods.", "She nods her head.", "nodding", "He is nodding slowly."],
    "head actions: shakes head": ["She shakes her head.", "He is shaking his head.", "shaking the head"],
    "head actions: tilts head": [
        "She tilts her head.",
        "Her head is tilted.",
        "with a tilted head",
        "He cocks his head.",
    ],
    "head actions: turns head left": ["He turns his head to the left.", "She turns left.", "Her head turns left."],
    "head actions: raises head": ["She lifts her head.", "He raises his head.", "He tilts his head back."],
    "head actions: lowers head": [
        "She lowers her head.",
        "He bows his head.",
        "with a bowed head",
        "Her head is down.",
    ],
    "facial actions: talks": ["He talks.", "She is speaking to someone.", "The man is talking to the camera."],
    "facial actions: winks": ["She winks."],
    "facial actions: yawns": ["He is yawning."],
    "facial actions: blinks": ["She blinks.", "He blinks his eyes."],
    "body actions: waves": ["She waves.", "He waves his hand."],
    "body actions: covers mouth": ["She covers her mouth with her hand.", "covering his mouth"],
    "body actions: hand at mouth": ["Her hand is over her mouth.", "He puts a hand to his lips."],
    "body actions: leans forward": ["He leans forward.", "leaning forward"],
    "body actions: crosses arms": ["with crossed arms", "She crosses her arms."],
    "body actions: shrugs": ["He shrugs.", "She shrugs her shoulders."],
    "body actions: plays instrument": ["He plays the guitar.", "She is playing a piano."],
    "hair: brown": ["brown hair", "The hair is brown.", "a brown-haired woman", "Her hair is long and brown."],
    "hair: blonde": ["blonde hair", "Her long hair is blond.", "fair hair", "a blonde-haired girl"],
    "hair: medium length": ["shoulder-length hair", "Her hair reaches her shoulders.", "medium-length black hair"],
    "hair: tied back": ["Her hair is tied back.", "hair pulled back", "Her dark hair is tied up."],
    "hair: ponytail": ["She has a ponytail.", "Her hair is in a ponytail.", "hair tied in a ponytail"],
    "hair: bald": ["He is bald.", "a bald man", "a bald head"],
    "hair: bangs": ["with bangs", "hair with a fringe"],
    "hair: wavy": ["wavy hair", "Her hair falls in waves."],
    "chin: beard": ["He has a beard.", "a bearded man", "a full gray beard"],
    "chin: moustache": ["a mustache", "a man with a thick moustache"],
    "chin: no beard": ["He is clean-shaven.", "He has no beard.", "without a beard"],
    "accessories: glasses": ["She wears glasses.", "a man with glasses", "wearing eyeglasses"],
    "accessories: no glasses": ["She wears no glasses.", "without glasses", "He does not wear glasses."],
    "accessories: no hat": ["She wears no glasses or hat.", "no hat", "neither glasses nor a hat"],
    "accessories: red bow tie": ["a red bow tie", "He wears a white shirt and a red bow tie."],
    "accessories: blue shirt": ["a blue shirt", "dressed in a light blue shirt"],
    "age: young": ["a young man", "She is young.", "He appears to be in his twenties."],
    "age: middle-aged": ["a middle-aged man", "a man in his forties"],
    "age: old": ["an elderly lady", "an old man"],
    "gender: female": ["a woman", "She nods.", "The lady sings.", "Her hair is red."],
    "gender: male": ["a man", "He nods.", "his black hair", "The person is male."],
    "skin: fair": ["fair skin", "light skin", "a fair-skinned girl", "Her skin is fair.", "a fair complexion"],
    "skin: dark": ["dark skin", "a dark-skinned man"],
    "face shape: round": ["a round face", "Her face is round."],
    "face shape: oval": ["an oval face"],
    "nose: large": ["a big nose", "The nose is large."],
    "nose: pointed": ["a pointed nose", "a pointy nose"],
    "eyebrows: thick": ["thick eyebrows", "bushy eyebrows", "The eyebrows are thick."],
    "eyebrows: arched": ["arched eyebrows"],
    "mouth: full lips": ["full lips", "big lips"],
    "eyes: blue": ["blue eyes", "Her eyes are blue.", "a blue-eyed boy"],
    "facial features: high cheekbones": ["high cheekbones"],
    "chin: double chin": ["a double chin"],
    "accessories: make-up": ["She wears heavy make-up.", "wearing makeup"],
    "accessories: lipstick": ["wearing red lipstick"],
    "feeling: happiness": ["She is happy.", "joy", "He feels delighted.", "cheerfully"],
    "feeling: sadness (strong)": ["deep sadness", "She is very sad.", "Her sadness is intense.", "overwhelming grief"],
    "feeling: anger (weak)": ["He is slightly angry.", "a hint of irritation", "mild anger", "a little annoyed"],
    "feeling: fear (medium)": ["moderate fear", "fear of medium intensity", "She feels fear at a moderate level."],
    "feeling: surprise": ["He is surprised.", "a surprised face", "She looks shocked.", "in astonishment"],
    "feeling: neutral": [
        "a neutral face",
        "He is expressionless.",
        "She shows no emotion.",
        "Her expression is neutral.",
    ],
    "feeling: contempt": ["contempt", "He looks scornful.", "a contemptuous look"],
    "feeling: no anger": ["He is not angry.", "without anger", "She shows no anger."],
    "expression: no smile": ["She does not smile.", "He doesn't smile.", "without a smile", "He stops smiling."],
    "sentiment: positive": ["The sentiment is positive.", "a positive mood"],
    "sentiment: negative (strong)": ["a highly negative sentiment", "strongly negative"],
    "course: neutral then surprise": [
        "First she is neutral, then surprised.",
        "Her face changes from neutral to surprised.",
        "He starts out neutral and becomes surprised.",
        "At first he looks neutral. Then he is surprised.",
        "He is neutral before he becomes surprised.",
        "She is surprised after being neutral.",
    ],
    "course: anger grows": [
        "His anger grows.",
        "The anger becomes stronger.",
        "He is angry. It intensifies.",
        "growing anger",
    ],
    "course: sadness fades": ["Her sadness fades.", "The sadness gradually subsides."],
    "course: happiness lasts": ["She is happy throughout.", "He remains happy.", "She is happy all the time."],
    "course: surprise briefly": ["He is briefly surprised.", "For a moment she is surprised.", "a moment of surprise"],
}


@pytest.mark.parametrize(("fact", "text"), [(fact, text) for fact, texts in UNITS.items() for text in texts])
def test_one_fact(fact, text):
    assert len(found := facts(text)) == 1
    # Who has a look has a gender, what is felt may have a course: these may stand beside it.
    assert fact in found[0]


def test_lists_of_action_units():
    found = {"eyebrows: inner corners raised", "eyebrows: drawn together", "mouth: corners down"}
    for text in ("AU1, AU4, AU15", "AUs 1, 4 and 15 are active.", "AU1+4+15", "Action units 01, 04, and 15: sadness"):
        assert facts(text)[0] - {"feeling: sadness"} == found


# The names of the units in FACS (Ekman, Friesen and Hager, 2002).
FACS = {
    **{1: "Inner Brow Raiser", 2: "Outer Brow Raiser", 4: "Brow Lowerer", 5: "Upper Lid Raiser", 6: "Cheek Raiser"},
    **{7: "Lid Tightener", 9: "Nose Wrinkler", 10: "Upper Lip Raiser", 11: "Nasolabial Deepener"},
    **{12: "Lip Corner Puller", 14: "Dimpler", 15: "Lip Corner Depressor", 16: "Lower Lip Depressor"},
    **{17: "Chin Raiser", 18: "Lip Pucker", 20: "Lip Stretcher", 22: "Lip Funneler", 23: "Lip Tightener"},
    **{24: "Lip Pressor", 25: "Lips Part", 26: "Jaw Drop", 27: "Mouth Stretch", 28: "Lip Suck", 43: "Eyes Closed"},
}


@pytest.mark.parametrize("unit", FACS)
def test_action_units_by_number_and_name(unit):
    _, aspect, item = LEXICON.action_units[unit]
    for text in (FACS[unit], f"AU{unit}", f"AU{unit:02d} ({FACS[unit]})", f"Action unit {unit} is active."):
        assert facts(text) == [{f"{aspect}: {item}"}]
