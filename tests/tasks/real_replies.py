"""Replies in the forms in which models of several families write them, each with what it says. Read by people.

Written before the reader that they test; `half` splits them at random: `dev` was looked at while it was written, `held`
once, at the end.
"""

# ruff: noqa: E501, RUF001

import hashlib
from string import ascii_uppercase
from typing import Literal, NamedTuple

from videmo_jax.tasks.answers import Option


def _options(*texts: str) -> tuple[Option, ...]:
    return tuple(Option(letter, text) for letter, text in zip(ascii_uppercase, texts, strict=False))


OPTIONS = {
    "seven": _options("Happy", "Sad", "Neutral", "Angry", "Surprise", "Disgust", "Fear"),
    "four": _options("Anger", "Sadness", "Happiness", "Surprise"),
    "degree": _options("positive", "weakly positive", "neutral", "weakly negative", "negative"),
    "pose": _options(
        "Front", "Right 60 degrees", "Left 60 degrees", "Left 30 degrees", "Right 30 degrees", "Down", "Up"
    ),
    "yes": _options("Yes", "No"),
    "who": _options("They are the same person", "They are different people"),
    "strength": _options("weak anger", "medium anger", "strong anger"),
    "why": _options(
        "He is happy because he won the game",
        "He is sad because his friend left",
        "He is angry at the referee",
        "He is afraid of the dog",
    ),
    "hair": _options("brown", "black", "blonde", "gray"),
}


class Reply(NamedTuple):
    """An answer to a question with options, and the letter that it chooses: `?` where it leaves several, `-` where none."""

    form: str
    options: str
    text: str
    letter: str


ANSWERS = [
    # thoughts
    Reply(
        "think",
        "seven",
        "<think>\nThe corners of the mouth are down. Could be (D) Angry? No, her eyes are wet.\n</think>\n\n(B) Sad",
        "B",
    ),
    Reply(
        "think",
        "seven",
        "<think>She smiles at first, but then it fades. Happy or neutral... I go for neutral.</think>C",
        "C",
    ),
    Reply(
        "think",
        "four",
        "<think>\nOkay, let's see. The man frowns and shouts. Options are A. Anger, B. Sadness, C. Happiness, D. Surprise.\nI think anger.\n</think>\n\n**Answer: A. Anger**",
        "A",
    ),
    Reply(
        "think",
        "yes",
        "<think>Is it the same person? The nose is different. So no. But wait, yes, the mole.</think>\n\nYes",
        "A",
    ),
    Reply(
        "think",
        "why",
        "<think>Let me think. He jumps up.</think>\n\nThe correct option is **A. He is happy because he won the game**.",
        "A",
    ),
    Reply("think", "seven", "<think></think>\n\nD", "D"),
    Reply("think", "seven", "<think>\n\n</think>\n\nThe person looks disgusted.", "F"),
    Reply(
        "think",
        "degree",
        "<think>positive? weakly positive? He only half smiles.</think>\n<answer>weakly positive</answer>",
        "B",
    ),
    Reply(
        "think",
        "pose",
        "<think>The nose points to the right of the picture.</think><answer>(E) Right 30 degrees</answer>",
        "E",
    ),
    Reply(
        "think-lone",
        "seven",
        "The woman has raised eyebrows and an open mouth. That may be (G) Fear or (E) Surprise. Her smile after it says surprise.\n</think>\n\n(E) Surprise",
        "E",
    ),
    Reply(
        "think-lone",
        "four",
        "Okay, so I need to find the emotion. A. Anger seems off. Happiness? No.\n</think>\nB",
        "B",
    ),
    Reply(
        "think-lone",
        "yes",
        "Hmm, the second clip shows an older man. No, they differ.\nWait, maybe yes.\n</think>\n\nNo",
        "B",
    ),
    Reply(
        "think-lone", "why", "He might be (D) afraid.\n</think>\n\nThe answer is (C) He is angry at the referee.", "C"
    ),
    Reply("think-lone", "seven", "happy</think>sad", "B"),
    Reply(
        "think-cut",
        "seven",
        "<think>\nThe person seems to be happy because the corners of the mouth are raised and",
        "-",
    ),
    Reply(
        "think-cut",
        "four",
        "<think>The answer could be (A) Anger, since the man's brows are lowered. But let me check the other frames:",
        "-",
    ),
    Reply("think-cut", "yes", "<thinking>Yes, I think that", "-"),
    Reply("think-cut", "seven", "<think>(B)", "-"),
    Reply(
        "thinking",
        "seven",
        "<thinking>The tone is calm, so (C) Neutral is an option, but the brows suggest anger.</thinking>\n\n(D) Angry",
        "D",
    ),
    Reply(
        "thinking",
        "four",
        "<thinking>\nLooking at the frames: smile, raised cheeks.\n</thinking>\n<answer>C</answer>",
        "C",
    ),
    Reply("thinking", "hair", "<reasoning>The hair might be black in the shade.</reasoning>\nThe hair is brown.", "A"),
    Reply("thinking", "seven", "<thought>sad? angry?</thought>\n**Final answer: (G) Fear**", "G"),
    Reply("thinking", "seven", "<THINK>Happy?</THINK>\nAnswer: F", "F"),
    Reply("thinking", "four", "◁think▷Maybe sadness.◁/think▷The answer is D.", "D"),
    # announcements whose answer stands elsewhere
    Reply("announce-next", "seven", "Based on the video, the correct answer is:\n\n**B. Sad**", "B"),
    Reply("announce-next", "four", "The correct answer is:\nC. Happiness", "C"),
    Reply("announce-next", "seven", "Given these observations, the most appropriate answer is:\n\n(G) Fear", "G"),
    Reply("announce-next", "yes", "Therefore, the answer is:\n\n**(B) No**", "B"),
    Reply("announce-next", "pose", "So the correct option is:\n\nD", "D"),
    Reply("announce-next", "seven", "### Answer\n\n(A) Happy", "A"),
    Reply("announce-next", "four", "**Final Answer:**\n\nB) Sadness", "B"),
    Reply(
        "announce-next", "seven", "## Final Answer\n**D. Angry**\n\nThe lowered brows and tight lips show anger.", "D"
    ),
    Reply("announce-next", "degree", "The sentiment of the speaker is:\n\n(D) weakly negative", "D"),
    Reply("announce-next", "why", "The best choice is:\n\n> B. He is sad because his friend left", "B"),
    Reply("announce-next", "seven", "Answer:\n\n```\nE\n```", "E"),
    Reply("announce-next", "hair", "The correct choice is:\n\n- **(C) blonde**", "C"),
    Reply("announce-next", "seven", "My final answer:\n\n\\boxed{C}", "C"),
    # lists that name every option, then the choice
    Reply(
        "list",
        "four",
        "Let's analyze the options:\n\nA. Anger - The man's brows are relaxed, so this is unlikely.\nB. Sadness - There are no tears or downturned lips.\nC. Happiness - He smiles broadly and his cheeks are raised.\nD. Surprise - His mouth is not open.\n\nThe correct answer is:\n\n**C. Happiness**",
        "C",
    ),
    Reply(
        "list",
        "four",
        "To determine the emotion, let us consider each option:\n\n1. **Anger**: No frown is visible.\n2. **Sadness**: The eyes look down and the lips tremble.\n3. **Happiness**: There is no smile.\n4. **Surprise**: The brows are not raised.\n\nTherefore, the answer is **B**.",
        "B",
    ),
    Reply(
        "list",
        "seven",
        "The options are (A) Happy, (B) Sad, (C) Neutral, (D) Angry, (E) Surprise, (F) Disgust and (G) Fear. Looking at the wrinkled nose and raised upper lip, the emotion is best described as (F) Disgust.",
        "F",
    ),
    Reply(
        "list",
        "seven",
        "(A) Happy: no smile.\n(B) Sad: no.\n(C) Neutral: the face is at rest throughout the clip.\n(D) Angry: no.\n(E) Surprise: no.\n(F) Disgust: no.\n(G) Fear: no.\n\nAnswer: (C)",
        "C",
    ),
    Reply("list", "yes", "Possible answers are Yes and No. Comparing the jaw and the ears, I would say: No.", "B"),
    Reply(
        "list",
        "strength",
        "Looking at the options:\n- (A) weak anger: slight tension\n- (B) medium anger: clear frown\n- (C) strong anger: shouting, bared teeth\n\nThe man shouts and bares his teeth.\n\n**Correct option: (C) strong anger**",
        "C",
    ),
    Reply(
        "list",
        "why",
        "A. He is happy because he won the game – he does not smile.\nB. He is sad because his friend left – nobody leaves.\nC. He is angry at the referee – he points at the referee and yells.\nD. He is afraid of the dog – there is no dog.\n\nC is therefore the right choice.",
        "C",
    ),
    Reply(
        "list",
        "pose",
        "Option A: Front – the face is turned.\nOption B: Right 60 degrees – too far.\nOption C: Left 60 degrees – wrong side.\nOption D: Left 30 degrees – wrong side.\nOption E: Right 30 degrees – matches.\nOption F: Down – no.\nOption G: Up – no.\n\nHence, the head pose is:\n\n**E**",
        "E",
    ),
    Reply("list", "four", "A. Anger\nB. Sadness\nC. Happiness\nD. Surprise", "?"),
    Reply(
        "list",
        "four",
        "The options are:\nA. Anger\nB. Sadness\nC. Happiness\nD. Surprise\n\nBased on the wide eyes and the open mouth, the person expresses surprise.",
        "D",
    ),
    Reply(
        "list",
        "four",
        "Let me go through the choices.\n\n**A. Anger**: clenched jaw? No.\n**B. Sadness**: no.\n**C. Happiness**: no.\n**D. Surprise**: yes, brows up.\n\n**Answer: D**",
        "D",
    ),
    Reply("list", "four", "Options:\n(A) Anger\n(B) Sadness\n(C) Happiness\n(D) Surprise\n\nAnswer: Sadness", "B"),
    # the answer first, a discussion of others behind it
    Reply(
        "first",
        "seven",
        "(B) Sad\n\nThe person's eyes are wet and the mouth is turned down. While (D) Angry could also be considered because of the frown, the overall expression suggests sadness.",
        "B",
    ),
    Reply(
        "first",
        "seven",
        "**E. Surprise**\n\nExplanation: The brows are raised and the jaw drops. It is not (G) Fear since there is no tension in the lips, and not (A) Happy because there is no smile.",
        "E",
    ),
    Reply(
        "first",
        "four",
        "C. Happiness\n\nThe other options do not fit:\n- A. Anger: no frown\n- B. Sadness: no tears\n- D. Surprise: no raised brows",
        "C",
    ),
    Reply("first", "four", "B\n\nExplanation: Options A, C and D are not supported by the visual evidence.", "B"),
    Reply(
        "first", "yes", "No. Although some viewers might say yes because of the similar hair, the faces differ.", "B"
    ),
    Reply(
        "first", "yes", "Yes, both clips show the same person. There are no differences in the shape of the face.", "A"
    ),
    Reply(
        "first",
        "seven",
        "The answer is (D) Angry. One might think of (F) Disgust as well, given the nose, but the glare is decisive.",
        "D",
    ),
    Reply(
        "first",
        "degree",
        "(E) negative\n\nReasoning: The speaker complains the whole time. It is stronger than weakly negative.",
        "E",
    ),
    Reply(
        "first",
        "why",
        "D. He is afraid of the dog\n\nHe steps back when the dog barks. He is neither happy nor angry at the referee.",
        "D",
    ),
    Reply("first", "hair", "Black. In some frames it looks brown due to the lighting.", "B"),
    Reply("first", "seven", "Answer: C\nReason: no sign of happiness, sadness or anger is visible.", "C"),
    Reply("first", "pose", "The head is turned left by 60 degrees (C). At the end it moves towards the front.", "C"),
    # considered one, chose another
    Reply("considered", "seven", "I considered (B) Sad, but choose (A) Happy.", "A"),
    Reply("considered", "four", "I first thought of B, but I choose A.", "A"),
    Reply("considered", "seven", "While it could be fear, I would go with surprise.", "E"),
    Reply(
        "considered",
        "seven",
        "At first glance the expression seems neutral, but the narrowed eyes and pressed lips make me pick (D) Angry.",
        "D",
    ),
    Reply("considered", "four", "Although sadness is possible, the most likely answer is A. Anger.", "A"),
    Reply("considered", "seven", "It is tempting to say Happy, however, the correct answer is Disgust.", "F"),
    Reply("considered", "yes", "You might think yes, but the answer is no.", "B"),
    Reply("considered", "hair", "It could be brown, but I'd say it's black.", "B"),
    Reply("considered", "seven", "Not (A), since she does not smile. I select (C).", "C"),
    Reply("considered", "four", "I was torn between B and C, but ultimately selected C.", "C"),
    Reply("considered", "pose", "It might be (B) or (E); the ear is still visible, so I settle on (E).", "E"),
    Reply("considered", "seven", "Option D was considered, but option G fits better.", "G"),
    # bold, fences, boxes
    Reply("bold", "seven", "**(B) Sad**", "B"),
    Reply("bold", "seven", "The person is feeling **sad**.", "B"),
    Reply("bold", "four", "The dominant emotion in this video is **Anger** (option A).", "A"),
    Reply("bold", "seven", "**Answer:** (E) Surprise", "E"),
    Reply("bold", "seven", "**Answer**: **G**", "G"),
    Reply("bold", "four", "__C__", "C"),
    Reply("bold", "four", "***D. Surprise***", "D"),
    Reply("bold", "seven", "The best answer is **F. Disgust**, not D. Angry.", "F"),
    Reply("bold", "why", "*B.* He is sad because his friend left", "B"),
    Reply("bold", "seven", "`D`", "D"),
    Reply("bold", "pose", "**Head pose:** Left 30 degrees", "D"),
    Reply("fence", "seven", "```\n(B) Sad\n```", "B"),
    Reply("fence", "seven", '```json\n{"answer": "B"}\n```', "B"),
    Reply("fence", "four", "```text\nA\n```", "A"),
    Reply("fence", "degree", "```plaintext\nweakly positive\n```", "B"),
    Reply("fence", "yes", "```\nNo", "B"),
    Reply("boxed", "seven", "\\boxed{B}", "B"),
    Reply("boxed", "seven", "The final answer is $\\boxed{D}$.", "D"),
    Reply(
        "boxed",
        "four",
        "The brows are lowered (A. Anger) while the mouth is open (D. Surprise). Overall: \\boxed{\\text{A}}",
        "A",
    ),
    Reply("boxed", "seven", "Step 1: the eyes. Step 2: the mouth.\n\n\\[\n\\boxed{\\text{(G) Fear}}\n\\]", "G"),
    Reply("boxed", "yes", "$\\boxed{\\textbf{No}}$", "B"),
    Reply("boxed", "four", "$$\\boxed{\\mathrm{C}}$$", "C"),
    Reply("boxed", "strength", "\\boxed{\\text{medium anger}}", "B"),
    Reply("boxed", "seven", "Sad fits the eyes; angry fits the brows.\n\n**Final Answer**\n\n\\boxed{B}", "B"),
    # JSON
    Reply("json", "seven", '{"answer": "(B) Sad"}', "B"),
    Reply("json", "four", '{"reason": "The frown may be anger, but the eyes look sad.", "answer": "B"}', "B"),
    Reply("json", "seven", '{\n  "emotion": "Fear",\n  "confidence": 0.82\n}', "G"),
    Reply(
        "json",
        "four",
        '```json\n{\n  "reasoning": "A. Anger does not fit. D. Surprise does.",\n  "final_answer": "D. Surprise"\n}\n```',
        "D",
    ),
    Reply("json", "yes", "{'answer': 'No'}", "B"),
    Reply("json", "pose", 'Here is the result:\n\n{"choice": "F", "explanation": "The chin is lowered."}', "F"),
    Reply("json", "seven", '{"answer": {"letter": "E", "text": "Surprise"}}', "E"),
    Reply("json", "four", '["C"]', "C"),
    Reply("json", "hair", '{"option": "D", "text": "gray"}', "D"),
    Reply("json", "four", '{"answer": ["A", "B"]}', "?"),
    # characters
    Reply("spaces", "seven", "\u200bB\u200b", "B"),
    Reply("spaces", "seven", "(B)\u00a0Sad", "B"),
    Reply("spaces", "four", "\ufeffC. Happiness", "C"),
    Reply("spaces", "four", "The answer is\u00a0A.", "A"),
    Reply("spaces", "seven", "S\u00adad", "B"),
    Reply("spaces", "seven", "\u2060(G)\u202fFear", "G"),
    Reply("spaces", "four", "（B）Sadness", "B"),
    Reply("spaces", "seven", "Answer：D", "D"),
    Reply("spaces", "yes", "\u201cYes\u201d", "A"),
    Reply("tokens", "seven", "(B) Sad<|im_end|>", "B"),
    Reply("tokens", "seven", "D<|im_end|>\n<|im_start|>user\nIs it (A) Happy?", "D"),
    Reply("tokens", "four", "C</s>", "C"),
    Reply("tokens", "four", "<s> A. Anger </s>", "A"),
    Reply("tokens", "seven", "F<|endoftext|>", "F"),
    Reply("tokens", "four", "B<|eot_id|>", "B"),
    Reply("tokens", "seven", "<|begin_of_box|>E<|end_of_box|>", "E"),
    Reply("tokens", "yes", "No<end_of_turn>", "B"),
    Reply("tokens", "seven", "<think>sad or angry</think>(D) Angry<|im_end|><|endoftext|>", "D"),
    Reply("tokens", "four", "assistant\nD. Surprise", "D"),
    # plain forms
    Reply("plain", "seven", "B", "B"),
    Reply("plain", "seven", "b)", "B"),
    Reply("plain", "seven", "[B]", "B"),
    Reply("plain", "seven", "B: Sad", "B"),
    Reply("plain", "seven", "B - Sad", "B"),
    Reply("plain", "seven", "B) Sad", "B"),
    Reply("plain", "seven", "Option (B): Sad", "B"),
    Reply("plain", "four", "b. sadness", "B"),
    Reply("plain", "four", "ANGER", "A"),
    Reply("plain", "four", "Choice: C", "C"),
    Reply("plain", "four", "I choose option D.", "D"),
    Reply("plain", "four", "I'd go with A.", "A"),
    Reply("plain", "four", "My answer is A, anger.", "A"),
    Reply("plain", "four", "It is option A: Anger", "A"),
    Reply("plain", "seven", "The facial expression of the person in the video is best described as neutral.", "C"),
    Reply(
        "plain",
        "seven",
        "Based on the visual cues, such as the smile and the bright eyes, the person appears to be happy.",
        "A",
    ),
    Reply("plain", "seven", "The woman in the video displays signs of fear: widened eyes and a tense mouth.", "G"),
    Reply("plain", "degree", "The overall sentiment expressed is positive.", "A"),
    Reply("plain", "degree", "The speaker's attitude is slightly negative, i.e. (D).", "D"),
    Reply("plain", "pose", "The person's head is turned 30 degrees to the left.", "D"),
    Reply("plain", "who", "They are different people.", "B"),
    Reply("plain", "who", "B. They are different people", "B"),
    Reply("plain", "yes", "Yes.", "A"),
    Reply("plain", "yes", "(A) Yes, they are the same person.", "A"),
    Reply("plain", "yes", "No, the two clips do not show the same person.", "B"),
    Reply("plain", "why", "he is angry at the referee", "C"),
    Reply("plain", "hair", "Her hair is gray.", "D"),
    Reply("plain", "strength", "The man shows medium anger.", "B"),
    Reply("plain", "four", "Sure! The answer is B.", "B"),
    Reply(
        "plain",
        "four",
        "Certainly! Based on the provided video, the emotion shown is happiness. So, the answer is C.",
        "C",
    ),
    Reply("plain", "seven", "The correct answer is (B).\n\nLet me know if you need a more detailed analysis!", "B"),
    Reply("plain", "seven", "Final answer is G", "G"),
    Reply("plain", "four", "The correct option among A, B, C and D is D.", "D"),
    Reply("plain", "seven", "<answer>\n(D) Angry\n</answer>", "D"),
    Reply("plain", "seven", "<answer>E", "E"),
    Reply("plain", "seven", "<final_answer>A</final_answer>", "A"),
    Reply("plain", "four", "Answer = B", "B"),
    Reply("plain", "four", "Answer is option c", "C"),
    Reply("plain", "four", "A: Anger", "A"),
    Reply("plain", "four", "The answer: (d)", "D"),
    # negations and reasons
    Reply("negated", "seven", "It's not happiness, sadness, or anger; the expression is one of disgust.", "F"),
    Reply("negated", "seven", "She doesn't look sad at all. She looks happy.", "A"),
    Reply("negated", "seven", "He isn't angry.", "-"),
    Reply("negated", "yes", "The answer is not yes.", "-"),
    Reply("negated", "four", "A, B and C can be ruled out. That leaves D.", "D"),
    Reply("negated", "four", "Options A and B are incorrect. The correct one is C.", "C"),
    Reply("negated", "seven", "Rather than anger, the face shows fear.", "G"),
    Reply("negated", "four", "Not A.", "-"),
    Reply(
        "step",
        "four",
        "1. **Facial features**: The brows are drawn together and the jaw is clenched.\n2. **Body language**: He slams the table.\n3. **Conclusion**: These cues are consistent with anger.\n\nTherefore, the correct answer is:\n\nAnswer: A",
        "A",
    ),
    Reply(
        "step",
        "seven",
        "To determine the emotion, we look at the cues step by step.\n\n- Eyes: wide open, which may hint at fear or surprise.\n- Mouth: open, relaxed.\n- Brows: raised.\n\nConsidering these cues, the person is most likely surprised.\n\n**Answer: (E) Surprise**",
        "E",
    ),
    Reply(
        "step",
        "yes",
        "Let's compare the two videos.\n\n1. Hair: both have short black hair.\n2. Face shape: the first is round, the second is long.\n3. Eyes: no obvious difference.\n\nConclusion: the faces belong to different people, so the answer is (B) No.",
        "B",
    ),
    Reply(
        "step",
        "degree",
        "The text is friendly, the tone is flat. Text alone would be positive; with the tone it becomes weakly positive.\n\nSo the final choice is (B) weakly positive.",
        "B",
    ),
    # nothing, several, hedges
    Reply("none", "seven", "I'm sorry, but I can't determine the emotion of people in videos.", "-"),
    Reply("none", "seven", "I cannot see the video. Could you describe it?", "-"),
    Reply("none", "four", "As an AI, I am not able to identify this person.", "-"),
    Reply("none", "seven", "", "-"),
    Reply("none", "seven", "The video shows a man in a kitchen.", "-"),
    Reply("none", "four", "None of the above.", "-"),
    Reply("none", "four", "The correct answer is:", "-"),
    Reply("none", "four", '{"answer": null}', "-"),
    Reply("none", "yes", "It is impossible to tell from the video.", "-"),
    Reply("none", "four", "E", "-"),
    Reply("several", "seven", "It could be either (B) Sad or (D) Angry.", "?"),
    Reply("several", "seven", "The person looks happy and surprised.", "?"),
    Reply("several", "four", "A or C", "?"),
    Reply("several", "four", "Both A and B are possible.", "?"),
    Reply("several", "seven", "The correct answer is:\n\n(B) Sad or (G) Fear", "?"),
    Reply("several", "four", "**A. Anger** and **B. Sadness**", "?"),
    Reply("several", "yes", "Yes and no.", "?"),
    Reply("several", "seven", "(B) Angry", "?"),
    Reply("several", "four", "\\boxed{A, C}", "?"),
    Reply("several", "seven", "<think>Only sad is right.</think>\n\nsad/angry", "?"),
    Reply("several", "seven", "Happy at first, then sad.", "?"),
    Reply("several", "hair", "A mix of brown and blonde.", "?"),
]


class Judged(NamedTuple):
    """A judge's reply and what it is worth under `strict`: numbers, labels with commas, or None where it says nothing."""

    form: str
    kind: Literal["match", "score", "letters", "units", "six"]
    text: str
    worth: str | None


JUDGED = [
    Judged("think", "match", "<think>\nThe answer says sad, the reference too. But yes or no? yes.\n</think>\n\nyes", "100"),
    Judged("think", "match", "<think>They differ.</think>no", "0"),
    Judged("think-lone", "match", "The response matches. Not no.\n</think>\n\nyes", "100"),
    Judged("think-cut", "match", "<think>\nyes, the answer", None),
    Judged("bold", "match", "**yes**", "100"),
    Judged("bold", "match", "**No**", "0"),
    Judged("fence", "match", "```\nyes\n```", "100"),
    Judged("mark", "match", "Yes.", None),  # as officially (PAPER.md section 6)
    Judged("mark", "match", "'no'", "0"),
    Judged("json", "match", "{\"answer\": \"yes\"}", "100"),
    Judged("tokens", "match", "yes<|im_end|>", "100"),
    Judged("spaces", "match", "\u200byes\u00a0", "100"),
    Judged("tag", "match", "<answer>no</answer>", "0"),
    Judged("announce", "match", "Answer: yes", "100"),
    Judged("boxed", "match", "\\boxed{no}", "0"),
    Judged("none", "match", "maybe", None),
    Judged("none", "match", "yes and no", None),
    Judged("none", "match", "I cannot judge this.", None),
    Judged("think", "score", "<think>I'd give 60 or 70 of 100.</think>\n\n65", "65"),
    Judged("think", "score", "<think>\n\n</think>\n\n100", "100"),
    Judged("think-lone", "score", "Two of 3 cues are right, so about 66.\n</think>\n\n70", "70"),
    Judged("think-cut", "score", "<think>Let me see, 80 points for", None),
    Judged("bold", "score", "**85**", "85"),
    Judged("bold", "score", "**Score: 85**", "85"),
    Judged("bold", "score", "**Score:** 85/100", "85"),
    Judged("fence", "score", "```\n40\n```", "40"),
    Judged("json", "score", "{\"score\": 72}", "72"),
    Judged("json", "score", "```json\n{\"score\": 30, \"reason\": \"2 of 5 cues\"}\n```", "30"),
    Judged("boxed", "score", "$\\boxed{90}$", "90"),
    Judged("tokens", "score", "55<|im_end|>", "55"),
    Judged("spaces", "score", "\ufeff85\u200b", "85"),
    Judged("tag", "score", "<score>20</score>", "20"),
    Judged("plain", "score", "85.5", "85.5"),
    Judged("announce", "score", "Final score:\n\n75", "75"),
    Judged("none", "score", "between 60 and 70", None),
    Judged("none", "score", "I can't rate this.", None),
    Judged("none", "score", "120", None),
    Judged("think", "letters", "<think>\nThe answer says Anger and Fear, that is A and C. Sadness is not said.\n</think>\n\nGI", "GI"),
    Judged("think-lone", "letters", "It says Happiness.\n</think>\nD", "D"),
    Judged("think-cut", "letters", "<think>Anger, so A", None),
    Judged("bold", "letters", "**GI**", "GI"),
    Judged("plain", "letters", "G, I", "GI"),
    Judged("plain", "letters", "(G) (I)", "GI"),
    Judged("plain", "letters", "none", ""),
    Judged("plain", "letters", "None.", ""),
    Judged("fence", "letters", "```\nBDK\n```", "BDK"),
    Judged("json", "letters", "{\"letters\": \"BD\"}", "BD"),
    Judged("boxed", "letters", "\\boxed{CF}", "CF"),
    Judged("tokens", "letters", "AE<|im_end|>", "AE"),
    Judged("announce", "letters", "Answer: GI", "GI"),
    Judged("none", "letters", "The answer names Anger", None),
    Judged("none", "letters", "I cannot tell.", None),
    Judged("none", "letters", "XYZ", None),
    Judged("none", "letters", "BAD ANSWER", None),
    Judged("think", "units", "<think>brow lowerer is AU4</think>\nAU1,AU4", "AU1,AU4"),
    Judged("think-lone", "units", "The inner brow: AU1.\n</think>\n\nAU12", "AU12"),
    Judged("bold", "units", "**AU6, AU12**", "AU6,AU12"),
    Judged("fence", "units", "```\nAU25,AU26\n```", "AU25,AU26"),
    Judged("plain", "units", "none", ""),
    Judged("json", "units", "[\"AU1\", \"AU2\"]", "AU1,AU2"),
    Judged("tokens", "units", "AU15</s>", "AU15"),
    Judged("none", "units", "There are no action units that I could name.", None),
    Judged(
        "think", "six",
        "<think>score: 10? [Score]: 20?</think>\n"
        + "\n".join(f"{n}. aspect: fine, [Score]: {10 * n}" for n in range(1, 7)), "10 20 30 40 50 60",
    ),
    Judged(
        "think-lone", "six",
        "Maybe score: 5.\n</think>\n" + "\n".join(f"{n}. aspect: fine, [Score]: {10 * n}" for n in range(1, 7)), "10 20 30 40 50 60",
    ),
    Judged("bold", "six", "\n".join(f"{n}. **Aspect**: fine, **[Score]: {10 * n}**" for n in range(1, 7)), "10 20 30 40 50 60"),
    Judged("bold", "six", "\n".join(f"{n}. **Aspect**: fine, **[Score]**: {10 * n}" for n in range(1, 7)), "10 20 30 40 50 60"),
    Judged("fence", "six", "```\n" + "\n".join(f"{n}. a, [Score]: {n}" for n in range(1, 7)) + "\n```", "1 2 3 4 5 6"),
    Judged("none", "six", "\n".join(f"{n}. a, [Score]: {n}" for n in range(1, 6)), None),
    Judged("none", "six", "<think>" + "\n".join(f"{n}. a, [Score]: {n}" for n in range(1, 7)), None),
]  # fmt: skip


def half(text: str) -> Literal["dev", "held"]:
    """Which half a reply belongs to; at random, the same everywhere."""
    return "held" if hashlib.sha256(text.encode()).digest()[0] % 2 else "dev"
