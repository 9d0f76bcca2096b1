"""Tokens that a user added, from a Hugging Face directory through sampling and RL to the exported one."""

import json
from itertools import pairwise
from types import SimpleNamespace

import pytest
from transformers import AutoTokenizer, Qwen2_5_VLForConditionalGeneration

from launch import convert
from tests.data.added_tokens import QWENS_OWN, REASONING, extended
from tests.interop.hf_directories import edit_tensors, small, write_hf
from tests.pytorch import torch
from videmo_jax.data.inputs import InputSpec, Preparer
from videmo_jax.data.sample import Message, Sample
from videmo_jax.data.tokenizer import CONFIG_FILE, MAIN_FILE, Tokenizer
from videmo_jax.evaluation.answers.answerer import Answerer
from videmo_jax.interop.export_hf import export_hf
from videmo_jax.interop.hf_files import tokenizer_files
from videmo_jax.interop.hf_readme import readme
from videmo_jax.interop.import_hf import import_hf
from videmo_jax.sampling.draw import Decoding
from videmo_jax.sampling.policy import banned_ids, never_sampled, stop_ids
from videmo_jax.tasks.answers import final_answer

ANSWER = "<think>She smiles</think><answer>happy</answer>"
SAMPLE = Sample("one", "", (Message("user", "What does she feel? Use <think>."), Message("assistant", ANSWER)), ())


def directory(folder, files):
    """A random model with these files of a tokenizer."""
    write_hf(folder, tied=False)
    for name, text in files.items():
        (folder / name).write_text(text, encoding="utf-8")
    return folder


def teach(folder):
    """Sets the weights so that the model answers ANSWER: each token alone decides which one follows it."""
    tokenizer = Tokenizer.from_dir(folder)
    said = [*tokenizer.encode("\n"), *tokenizer.encode(ANSWER), tokenizer.im_end]
    assert len(set(said)) == len(said) <= 32

    def chain(tensors):
        for name, value in tensors.items():
            if name.endswith(("o_proj.weight", "down_proj.weight")):
                value.zero_()
        embedding, head = tensors["model.embed_tokens.weight"], tensors["lm_head.weight"]
        tensors["model.norm.weight"].fill_(1)
        for place, (one, following) in enumerate(pairwise(said)):
            embedding[one] = 3 * torch.eye(32)[place]
            head[following] = 3 * torch.eye(32)[place]
        # Qwen's control tokens and ids without a token come second.
        head[tokenizer.im_start] = head[-1] = 2.5 * torch.ones(32)

    edit_tensors(folder, chain)


@pytest.fixture(scope="module")
def answered(tmp_path_factory):
    """A checkpoint of such a model, its answers by the policy, and what transformers loads of its export."""
    folder = tmp_path_factory.mktemp("added")
    teach(directory(folder / "hf", extended(REASONING, [MAIN_FILE])))
    import_hf(folder / "hf", folder / "ckpt")
    export_hf(folder / "ckpt", folder / "out")
    policy = Answerer(folder / "ckpt", Decoding(32), "float32").policy
    return policy, folder / "out"


def test_greedy_answers_are_those_of_the_exported_weights_in_transformers(answered):
    policy, folder = answered
    prompt = Preparer(policy.tokenizer, policy.inputs)(SAMPLE, (), answer=False)
    ((answer,),) = policy.answers([prompt], Decoding(32), [0])
    assert answer.text == ANSWER and not answer.cut and final_answer(answer.text) == "happy"
    theirs = AutoTokenizer.from_pretrained(folder)
    text = theirs.apply_chat_template(
        [{"role": "user", "content": SAMPLE.messages[0].content}], tokenize=False, add_generation_prompt=True
    )
    inputs = theirs(text, return_tensors="pt")
    assert inputs["input_ids"][0].tolist() == prompt.encoded.tokens.tolist()
    model = Qwen2_5_VLForConditionalGeneration.from_pretrained(folder, dtype=torch.float32)
    said = model.generate(**inputs, max_new_tokens=32)[0, len(prompt.encoded.tokens) :].tolist()
    assert said == [*policy.tokenizer.encode(ANSWER), policy.tokenizer.im_end]
    assert len(answer.log_probs) == len(said) and theirs.decode(said) == f"{ANSWER}<|im_end|>"


def test_an_export_lists_every_added_token(answered):
    """transformers believes the list in tokenizer_config.json, which a user who edits tokenizer.json forgets."""
    _, folder = answered
    theirs, ours = AutoTokenizer.from_pretrained(folder), Tokenizer.from_dir(folder)
    assert all(ours.token(id) == token for token, id in theirs.get_vocab().items()) and len(theirs) == 2052
    assert (folder / MAIN_FILE).read_text() == extended(REASONING)[MAIN_FILE]
    assert theirs(ANSWER)["input_ids"] == ours.encode(ANSWER)
    before, after = (json.loads(text) for text in (extended([])[CONFIG_FILE], (folder / CONFIG_FILE).read_text()))
    assert {**after, "added_tokens_decoder": None} == {**before, "added_tokens_decoder": None}
    readme = (folder / "README.md").read_text()
    assert "calls `<think>`, `</think>` special" in readme and "`<answer>`" not in readme


def test_an_export_leaves_complete_files_word_for_word():
    for files in (Tokenizer.embedded().files, extended([*QWENS_OWN, *REASONING[2:]])):
        tokenizer = Tokenizer.from_files(files)
        assert tokenizer_files(tokenizer) == files
        assert "leaves them out" not in readme(InputSpec(), "float32", tokenizer, 32_768)


def test_import_says_what_is_never_sampled(tmp_path, capsys):
    directory(tmp_path / "hf", extended([*QWENS_OWN, *REASONING[:2]]))
    convert.convert(convert.parse(["import", "--hf", f"{tmp_path / 'hf'}", "--out", f"{tmp_path / 'ckpt'}"]))
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("never sampled")]
    assert "2 of 2,060 ids, which have no token" in line
    assert line.count("<|") == 12 and "<|im_start|>, " in line and line.endswith("<|video_pad|>")
    assert "<think>" not in line and "<|fim" not in line and "<|im_end|>" not in line


def test_only_control_tokens_and_ids_without_a_token_are_banned():
    tokenizer = Tokenizer.from_files(extended([*QWENS_OWN, *REASONING]))
    first = tokenizer.endoftext
    control = {id for id in range(first, first + 14) if id not in stop_ids(tokenizer)}
    assert set(banned_ids(tokenizer, small(True))) == control  # 2,060 tokens, and as many ids
    model = json.loads(extended([])[MAIN_FILE])
    last = max(model["model"]["vocab"], key=model["model"]["vocab"].get)
    model["model"]["vocab"][last] = 2040
    gaps = Tokenizer.from_files({MAIN_FILE: json.dumps(model)})
    banned = set(banned_ids(gaps, SimpleNamespace(text=SimpleNamespace(vocab=2100))))
    assert {id for id in range(2100) if gaps.token(id) is None} < banned
    assert "never sampled: " in never_sampled(gaps, SimpleNamespace(text=SimpleNamespace(vocab=2100)))
