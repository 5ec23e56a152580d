#!/usr/bin/env python3
"""Writes vocabulary_*.json: small vocabularies of its own, and what stock llama-tokenize (on PATH) makes of nasty texts with them.

    make_vocabulary_golden.py

A file has `tokens` (text, score, kind), for BPE `merges`, and `variants`: metadata keys and cases as in tokens_*.json (make_golden.py, whose
texts are used). The pieces are joined from these texts, pair by pair, the most frequent first.
"""
import collections
import json
import struct
import subprocess
import tempfile

from make_golden import ARRAY, BOOL, INT32, STRING, TEXTS, UINT32, Metadata, run, text_value, u

FLOAT32, SPACE = 6, "▁"
NORMAL, UNKNOWN, CONTROL, USER_DEFINED, UNUSED, BYTE = 1, 2, 3, 4, 5, 6
N_PIECES = 300

SPECIALS = [("<unk>", 0.0, UNKNOWN), ("<s>", 0.0, CONTROL), ("</s>", 0.0, CONTROL), ("<|im_start|>", 0.0, CONTROL), ("<|im_end|>", 0.0, CONTROL), ("<|endoftext|>", 0.0, CONTROL),
            ("[TOOL]", 0.0, USER_DEFINED), ("\n\n", 0.0, USER_DEFINED), ("    ", 0.0, USER_DEFINED), ("\t\t", 0.0, USER_DEFINED),
            ("<end_of_turn>", 0.0, NORMAL), ("<|channel|>", 0.0, CONTROL), (SPACE + "unused", -1.0, UNUSED), ("", 0.0, NORMAL),
            # of one length and overlapping: the order of equals
            *((f"{a}{b}{a}!", 0.0, USER_DEFINED) for a in "QXZ" for b in "QXZ")]

SPECIAL_TEXTS = [u(text) for text in (
    "a [TOOL] b[TOOL][TOOL]\n\nc  [TOOL]  d", "[TOOL]   ", "   [TOOL]", "</s>  \n x </s>", "<s>  a <unk>  b", "\n\n\n", "x\n\n\n\n\ny",
    "def f():\n    if x:\n        y\n\t\tz\t\t\t", "<end_of_turn>\n<|channel|>", " <0x0A> <0x41>", "▁", "▁▁a ▁ b▁", "QXQ!XQX!QXQ!", "QQQ!XXX!QZQXZ!Z!ZXZ!QXZXZ!",
    "unused [EMPTY_13] unused", "aaaaaaa abababab", "the the the  the   the", "lower Lower LOWER")]


def join_most_frequent(texts, n_pieces):
    words = [list((SPACE + text).replace(" ", SPACE)) for text in texts]
    pieces = []
    while len(pieces) < n_pieces:
        pairs = collections.Counter(pair for word in words for pair in zip(word, word[1:]))
        (left, right), _ = max(pairs.items(), key=lambda item: (item[1], item[0]))
        pieces.append((left, right))
        for word in words:
            at = 0
            while at + 1 < len(word):
                if (word[at], word[at + 1]) == (left, right):
                    word[at:at + 2] = [left + right]
                at += 1
    return pieces


def make_tokens():
    texts = [data.decode("utf-8", "ignore") for data, repeat in TEXTS if repeat == 1 and b"\0" not in data]
    pieces = join_most_frequent(texts, N_PIECES)
    tokens = SPECIALS + [(f"<0x{byte:02X}>", 0.0, BYTE) for byte in range(256)]
    seen = {text for text, _, _ in tokens}
    # every fourth piece has the score of the one before: the leftmost of equals is joined first
    tokens += [(left + right, -float(rank - rank % 4 // 3), NORMAL) for rank, (left, right) in enumerate(pieces)
               if left + right not in seen and not seen.add(left + right)]
    letters = sorted({letter for pair in pieces for letter in "".join(pair)} - seen)
    return tokens + [(letter, -1000.0 - i, NORMAL) for i, letter in enumerate(letters) if i % 9 != 8], pieces


def value(item):
    if isinstance(item, bool):
        return BOOL, struct.pack("<?", item)
    return (STRING, text_value(item)) if isinstance(item, str) else (UINT32, struct.pack("<I", item))


def metadata_of(tokens, merges, keys):
    metadata = Metadata.__new__(Metadata)
    head = {"general.architecture": "llama", "llama.context_length": 512, "llama.embedding_length": 64, "llama.block_count": 1,
            "llama.feed_forward_length": 64, "llama.attention.head_count": 2}
    metadata.items = {key: value(item) for key, item in (head | keys).items()}
    for key, kind, items in (("tokens", STRING, [text for text, _, _ in tokens]), ("scores", FLOAT32, [score for _, score, _ in tokens]),
                             ("token_type", INT32, [kind for _, _, kind in tokens]), ("merges", STRING, merges)):
        if items:
            packed = b"".join(map(text_value, items)) if kind == STRING else struct.pack(f"<{len(items)}{'f' if kind == FLOAT32 else 'i'}", *items)
            metadata.items["tokenizer.ggml." + key] = (ARRAY, struct.pack("<IQ", kind, len(items)) + packed)
    return metadata


def cases_of(tokens, merges, keys):
    cases = []
    with tempfile.NamedTemporaryFile(suffix=".gguf") as model:
        metadata_of(tokens, merges, keys).write(model.name)
        for data, repeat in TEXTS + SPECIAL_TEXTS:
            if not data:
                continue
            case = {"hex": data.hex(), "ids": run(model.name, data * repeat)}
            if repeat > 1:
                case["repeat"] = repeat
            plain = run(model.name, data * repeat, "--no-parse-special")
            if plain != case["ids"]:
                case["ids_plain"] = plain
            cases.append(case)
    return cases


def write(name, tokens, merges, variants):
    version = subprocess.run(["llama-tokenize", "--version"], capture_output=True, text=True)
    version = (version.stdout + version.stderr).strip().splitlines()[-2].removeprefix("version: ")
    golden = {"made": f"make_vocabulary_golden.py with llama-tokenize {version}", "tokens": tokens}
    if merges:
        golden["merges"] = merges
    with open(f"vocabulary_{name}.json", "w") as out:
        out.write(json.dumps(golden, ensure_ascii=False)[:-1] + ', "variants": [\n')
        texts = []
        for keys in variants:
            cases = ",\n".join(json.dumps(case, separators=(",", ":")) for case in cases_of(tokens, merges, keys))
            texts.append(json.dumps({"keys": keys})[:-1] + ', "cases": [\n' + cases + "\n]}")
        out.write(",\n".join(texts) + "\n]}\n")


def main():
    tokens, pieces = make_tokens()
    spm = {"tokenizer.ggml.model": "llama"}
    write("sentence_piece", tokens, [], [
        spm,
        spm | {"tokenizer.ggml.add_space_prefix": False, "tokenizer.ggml.add_bos_token": False},
        spm | {"general.name": "Phi-3-mini", "tokenizer.ggml.bos_token_id": 2, "tokenizer.ggml.eos_token_id": 1}])
    # line ends that are tokens as a whole, but no special ones
    tokens = [(text, score, NORMAL if text == "\n\n" else kind) for text, score, kind in tokens] + [("\n" * 3, 0.0, NORMAL)]
    merges = [f"{left} {right}" for left, right in pieces if "\n" not in left + right]
    bos = {"tokenizer.ggml.bos_token_id": 1}
    write("plain_bpe", tokens, merges, [
        bos | {"tokenizer.ggml.model": "gemma4", "tokenizer.ggml.pre": "default"},
        bos | {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "gemma4", "tokenizer.ggml.add_bos_token": False},
        bos | {"tokenizer.ggml.model": "gpt2", "tokenizer.ggml.pre": "sarvam-moe"}])


if __name__ == "__main__":
    main()
