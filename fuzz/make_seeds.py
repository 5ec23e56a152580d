#!/usr/bin/env python3
"""Writes small seeds for the fuzzers: make_seeds.py FOLDER makes FOLDER/gguf, FOLDER/text and FOLDER/corpus."""
import gzip
import pathlib
import struct
import sys

# (type number, values in a block, bytes of a block), from ggml.h
TYPES = [(0, 1, 4), (1, 1, 2), (30, 1, 2), (2, 32, 18), (3, 32, 20), (6, 32, 22), (7, 32, 24), (8, 32, 34), (10, 256, 84), (11, 256, 110),
         (12, 256, 144), (13, 256, 176), (14, 256, 210), (20, 32, 18), (23, 256, 136), (24, 1, 1), (28, 1, 8)]


def string(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


def strings(texts):
    return struct.pack("<IQ", 8, len(texts)) + b"".join(map(string, texts))


def gguf(types, version=3):
    keys = [("general.architecture", 8, string("qwen35")), ("a.flag", 7, b"\1"), ("a.number", 4, struct.pack("<I", 7)),
            ("a.real", 6, struct.pack("<f", 0.5)), ("a.list", 9, struct.pack("<IQ3i", 5, 3, 1, 2, 3)),
            ("tokenizer.ggml.model", 8, string("gpt2")), ("tokenizer.ggml.pre", 8, string("qwen2")),
            ("tokenizer.ggml.tokens", 9, strings(["H", "e", "l", "o", "ll", "<|x|>"])), ("tokenizer.ggml.merges", 9, strings(["l l"])),
            ("tokenizer.ggml.token_type", 9, struct.pack("<IQ6i", 5, 6, 1, 1, 1, 1, 1, 3))]
    out = b"GGUF" + struct.pack("<IQQ", version, len(types), len(keys))
    for key, kind, value in keys:
        out += string(key) + struct.pack("<I", kind) + value
    data = b""
    for i, (number, values, size) in enumerate(types):
        out += string(f"t{i}") + struct.pack("<I2QIQ", 2, values, 2, number, len(data))
        data += bytes((37 * j + i) % 120 for j in range(2 * size))
        data += bytes(-len(data) % 32)
    return out + bytes(-len(out) % 32) + data


def main():
    root = pathlib.Path(sys.argv[1])
    seeds = {"gguf/all": gguf(TYPES), "gguf/v2": gguf(TYPES[:1], 2), "gguf/empty": gguf([])}
    seeds |= {f"gguf/type{t[0]}": gguf([t]) for t in TYPES}
    texts = ["Hello, world 123456!\r\n\n  x", "don't WE'LL \u00e9\u0301 \u4f60\u597d \U0001f600\u200d", "<|im_start|>user\nhi<|im_end|>\n"]
    seeds |= {f"text/{pre}-{i}": bytes([pre, 2 + pre % 2]) + t.encode() for pre in range(13) for i, t in enumerate(texts)}
    lines = ['{"text": "a b", "kind": "x"}\n', '{"messages": [{"role": "user", "content": [{"type": "text", "text": "q"}]}, {"role": "assistant", "content": null}]}\n',
             '{"text": null, "x": NaN, "y": [-Infinity, 1e999], "z": "\\ud83d \\ud83d\\ude00"}\n',
             '{"conversations": [{"from": "human", "value": "q"}, {"from": "gpt", "value": "a"}, {"from": "observation", "value": "3"}]}\n',
             '{"messages": [{"role": "assistant", "reasoning_content": "r", "tool_calls": [{"function": {"name": "f", "arguments": "{\\"a\\": [1, true]}"}}]}, {"role": "tool", "content": "3"}]}\n']
    corpus = {"text": "plain text\n", "lines": "".join(lines), "mark": "\ufeff" + lines[0], "braces": "{ not JSON\n[1]\n",
              "array": "[" + ",".join(line.strip() for line in lines[:2]) + "]", "wrapped": '{"v": 1, "data": [' + lines[0] + "]}", "texts": '["a", "b"]'}
    seeds |= {f"corpus/{name}-{how}": bytes([how]) + text.encode() for name, text in corpus.items() for how in (0, 1, 3, 5, 9, 13, 17, 21)}
    magic = {"gzip": gzip.compress(b"a text", mtime=0), "utf16": "hello".encode("utf-16"), "zstd": b"\x28\xb5\x2f\xfd", "parquet": b"PAR1", "png": b"\x89PNG\r\n\x1a\n"}
    seeds |= {f"corpus/{name}": b"\0" + data for name, data in magic.items()}
    for name, data in seeds.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)


if __name__ == "__main__":
    main()
