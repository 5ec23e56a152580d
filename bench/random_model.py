#!/usr/bin/env python3
"""Writes a GGUF of random BF16 weights with the shape of Qwen3.5-0.8B, for measuring speed and memory.

752 M parameters, tied head of 248,320 tokens.

    bench/random_model.py OUT.gguf [SEED]        needs numpy

Its text is nonsense and its tokenizer knows bytes only; figures of quality on it mean nothing.
"""
import functools
import math
import struct
import sys

import numpy as np

HIDDEN, BLOCKS, FFN, VOCAB = 1024, 24, 3584, 248320
HEADS, KV_HEADS, HEAD = 8, 2, 256                      # full attention, every fourth block
LINEAR_HEADS, LINEAR_HEAD, CONV = 16, 128, 4           # gated delta net
U32, I32, F32, BOOL, STRING, ARRAY = 4, 5, 6, 7, 8, 9
GGML_F32, GGML_BF16, ALIGNMENT = 0, 30, 32


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def value(kind, x):
    if kind == STRING:
        return string(x)
    if kind == ARRAY:
        item, items = x
        return struct.pack("<IQ", item, len(items)) + b"".join(value(item, i) for i in items)
    return struct.pack({U32: "<I", I32: "<i", F32: "<f", BOOL: "<B"}[kind], x)


def byte_tokens():
    """The 256 one-byte tokens in the printable letters that byte-level BPE gives them."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    letters = {b: chr(b) for b in plain}
    letters.update({b: chr(256 + i) for i, b in enumerate(sorted(set(range(256)) - set(plain)))})
    return [letters[b] for b in range(256)]


def metadata():
    tokens = [*byte_tokens(), "<|endoftext|>", *(f"<unused{i}>" for i in range(VOCAB - 257))]
    p, t = "qwen35.", "tokenizer.ggml."
    yield from [("general.architecture", STRING, "qwen35"), ("general.name", STRING, "random 0.8B"), ("general.file_type", U32, 32),
                (p + "block_count", U32, BLOCKS), (p + "context_length", U32, 4096), (p + "embedding_length", U32, HIDDEN),
                (p + "feed_forward_length", U32, FFN), (p + "attention.head_count", U32, HEADS), (p + "attention.head_count_kv", U32, KV_HEADS),
                (p + "attention.key_length", U32, HEAD), (p + "attention.value_length", U32, HEAD),
                (p + "attention.layer_norm_rms_epsilon", F32, 1e-6), (p + "rope.freq_base", F32, 1e7), (p + "rope.dimension_count", U32, HEAD // 4),
                (p + "rope.dimension_sections", ARRAY, (I32, [11, 11, 10, 0])), (p + "ssm.conv_kernel", U32, CONV),
                (p + "ssm.inner_size", U32, LINEAR_HEADS * LINEAR_HEAD), (p + "ssm.state_size", U32, LINEAR_HEAD),
                (p + "ssm.time_step_rank", U32, LINEAR_HEADS), (p + "ssm.group_count", U32, LINEAR_HEADS), (p + "full_attention_interval", U32, 4),
                (t + "model", STRING, "gpt2"), (t + "pre", STRING, "qwen35"), (t + "tokens", ARRAY, (STRING, tokens)),
                (t + "token_type", ARRAY, (I32, [1] * 256 + [3] + [5] * (VOCAB - 257))), (t + "merges", ARRAY, (STRING, [])),
                (t + "eos_token_id", U32, 256), (t + "add_bos_token", BOOL, 0)]


def tensors():
    """(name, shape with rows first, standard deviation or what fills it)."""
    yield "token_embd.weight", (VOCAB, HIDDEN), 0.02
    yield "output_norm.weight", (HIDDEN,), "ones"
    for i in range(BLOCKS):
        b = f"blk.{i}."
        yield b + "attn_norm.weight", (HIDDEN,), "ones"
        yield b + "post_attention_norm.weight", (HIDDEN,), "ones"
        if i % 4 == 3:
            yield b + "attn_q.weight", (2 * HEADS * HEAD, HIDDEN), 0.03
            yield b + "attn_k.weight", (KV_HEADS * HEAD, HIDDEN), 0.03
            yield b + "attn_v.weight", (KV_HEADS * HEAD, HIDDEN), 0.03
            yield b + "attn_output.weight", (HIDDEN, HEADS * HEAD), 0.02
            yield b + "attn_q_norm.weight", (HEAD,), "ones"
            yield b + "attn_k_norm.weight", (HEAD,), "ones"
        else:
            inner = LINEAR_HEADS * LINEAR_HEAD
            yield b + "attn_qkv.weight", (3 * inner, HIDDEN), 0.03
            yield b + "attn_gate.weight", (inner, HIDDEN), 0.03
            yield b + "ssm_alpha.weight", (LINEAR_HEADS, HIDDEN), 0.03
            yield b + "ssm_beta.weight", (LINEAR_HEADS, HIDDEN), 0.03
            yield b + "ssm_out.weight", (HIDDEN, inner), 0.02
            yield b + "ssm_conv1d.weight", (3 * inner, CONV), "small"
            yield b + "ssm_a", (LINEAR_HEADS,), "decay"
            yield b + "ssm_dt.bias", (LINEAR_HEADS,), "small"
            yield b + "ssm_norm.weight", (LINEAR_HEAD,), "ones"
        yield b + "ffn_gate.weight", (FFN, HIDDEN), 0.03
        yield b + "ffn_up.weight", (FFN, HIDDEN), 0.03
        yield b + "ffn_down.weight", (HIDDEN, FFN), 0.02


def data(shape, how, random):
    if isinstance(how, float):
        bits = (random.standard_normal(shape, dtype=np.float32) * np.float32(how)).view(np.uint32)
        return (bits >> 16).astype(np.uint16).tobytes()
    x = {"ones": np.ones, "decay": lambda s: np.full(s, -2.0), "small": lambda s: random.standard_normal(s) * 0.3}[how](shape)
    return x.astype(np.float32).tobytes()


def write_gguf(path, keys, all_tensors, copied=()):
    """keys: (key, kind, value); copied: keys as their bytes stand in another file; all_tensors:
    (name, shape with rows first, GGML type, bytes of a value, function that gives the payload)."""
    with open(path, "wb") as out:
        out.write(b"GGUF" + struct.pack("<IQQ", 3, len(all_tensors), len(keys) + len(copied)))
        for key, kind, x in keys:
            out.write(string(key) + struct.pack("<I", kind) + value(kind, x))
        for raw in copied:
            out.write(raw)
        offset = 0
        for name, shape, kind, value_bytes, _ in all_tensors:
            out.write(string(name) + struct.pack("<I", len(shape)) + struct.pack(f"<{len(shape)}Q", *reversed(shape)))
            out.write(struct.pack("<IQ", kind, offset))
            offset += -(-math.prod(shape) * value_bytes // ALIGNMENT) * ALIGNMENT
        out.write(bytes(-out.tell() % ALIGNMENT))
        for *_, payload_of in all_tensors:
            payload = payload_of()
            out.write(payload + bytes(-len(payload) % ALIGNMENT))


def main():
    random = np.random.default_rng(int(sys.argv[2]) if len(sys.argv) > 2 else 0)
    parts = [(name, shape, *((GGML_BF16, 2) if isinstance(how, float) else (GGML_F32, 4)), functools.partial(data, shape, how, random))
             for name, shape, how in tensors()]
    write_gguf(sys.argv[1], list(metadata()), parts)


if __name__ == "__main__":
    main()
