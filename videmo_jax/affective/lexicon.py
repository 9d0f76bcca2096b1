"""The closed vocabulary of the affective tree: which aspects there are, on which level, and how items are written.

Levels. The paper has three (PAPER.md section 3), and 15 open aspects of attributes, three of which are actions.
- attribute: what a person looks like and does, whatever they feel: the 12 looks and the 3 kinds of actions.
- expression: what the face shows of a feeling: the movements of its parts (action units; a shut eye, an open mouth),
  the words for a whole expression (smile, frown, laugh, crying) and the gaze. The paper counts smiling and crying
  among facial actions, too; here they stand on the level where they explain an emotion, and once only.
- emotion: what is felt (with intensity where one is stated), the sentiment, and the course over time.

Items. One node is one fact: `long brown hair` is `hair: long` and `hair: brown`; only a garment keeps its colour, which
would else belong to nothing (`accessories: red bow tie`). Items are canonical: lower case, one word for all synonyms
(`joyful`, `joy`, `happily`: happiness), `no ITEM` for what is denied or has stopped (`no glasses`, `no smile`).
A feeling reads `sadness`, or with its intensity `sadness (strong)`: weak, medium or strong, as in MEAD and RAVDESS.
Intensities of expressions are left out. A course reads `sadness then surprise`, `sadness grows`, `sadness fades`,
`happiness lasts` or `happiness briefly`. `she` and `his` tell a gender as `woman` does. Left and right stay in actions
and gaze where they are stated; which hand, and how many, does not. The setting (place, light, camera) makes no node.
"""

from videmo_jax.affective.tree import Level

# The paper's 12 looks and 3 kinds of actions; facial hair counts as chin, clothes and make-up as accessories.
LOOKS = (
    *("eyes", "eyebrows", "mouth", "nose", "hair", "chin"),
    *("face shape", "facial features", "accessories", "age", "gender", "skin"),
)
ACTIONS = ("body actions", "facial actions", "head actions")
ASPECTS: dict[Level, tuple[str, ...]] = {
    "attribute": LOOKS + ACTIONS,
    "expression": ("eyebrows", "eyes", "nose", "cheeks", "mouth", "chin", "face", "expression", "gaze"),
    "emotion": ("feeling", "sentiment", "course"),
}
