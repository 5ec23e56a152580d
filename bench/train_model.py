#!/usr/bin/env python3
"""Trains a small language model on a GPU and writes it as a BF16 GGUF, for measuring on real weights.

    bench/train_model.py ARCHITECTURE TEXT VOCAB.gguf OUT.gguf [--steps 3000] [--seed 0]

ARCHITECTURE  llama, qwen3 or qwen3moe; shapes are in SHAPES, 12 to 18 M weights
TEXT          JSON lines with a field "text", plain or packed with xz; one document in 200 is held out
VOCAB.gguf    a model whose tokenizer is used, such as models/nano-qwen35-bf16.gguf (pre-tokenizer qwen35)

Needs torch, numpy and tokenizers. Its own check: the loss on the held-out documents, printed at the end.
"""
import argparse
import json
import lzma
import math
import struct
import time

import numpy as np
import tokenizers
import torch
import torch.nn.functional as F

from random_model import F32, GGML_BF16, GGML_F32, STRING, U32, write_gguf

SHAPES = {
    "llama": dict(hidden=512, blocks=4, ffn=1024, heads=8, kv_heads=4),
    "qwen3": dict(hidden=512, blocks=4, ffn=1024, heads=8, kv_heads=4),
    "qwen3moe": dict(hidden=512, blocks=4, ffn=256, heads=8, kv_heads=4, experts=8, used=2),
}
HEAD, ROPE_BASE, EPS, LENGTH, BATCH = 64, 1e4, 1e-6, 512, 64
QWEN35 = (r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}"
          r"| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+")


class Vocabulary:
    """The tokenizer.* keys of a GGUF: their bytes, to be copied, and the tokenizer they describe."""

    def __init__(self, path):
        with open(path, "rb") as file:
            self.file = file
            magic, version, _, n_keys = self.unpack("<4sIQQ")
            assert magic == b"GGUF" and version == 3, f"{path} is no GGUF of version 3"
            keys, self.copied = {}, []
            for _ in range(n_keys):
                start = file.tell()
                key = self.text()
                keys[key] = self.value(*self.unpack("<I"))
                end = file.tell()
                if key.startswith("tokenizer."):
                    file.seek(start)
                    self.copied.append(file.read(end - start))
        t = "tokenizer.ggml."
        assert keys[t + "pre"] == "qwen35", "the vocabulary's pre-tokenizer is not qwen35"
        self.size, self.end = len(keys[t + "tokens"]), keys[t + "eos_token_id"]
        merges = [tuple(m.split(" ")) for m in keys[t + "merges"]]
        vocab = {token: i for i, token in enumerate(keys[t + "tokens"])}
        self.tokenizer = tokenizers.Tokenizer(tokenizers.models.BPE(vocab, merges))
        split = tokenizers.pre_tokenizers.Split(tokenizers.Regex(QWEN35), "isolated")
        bytes_ = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)
        self.tokenizer.pre_tokenizer = tokenizers.pre_tokenizers.Sequence([split, bytes_])

    def unpack(self, layout):
        return struct.unpack(layout, self.file.read(struct.calcsize(layout)))

    def text(self):
        return self.file.read(*self.unpack("<Q")).decode()

    def value(self, kind):
        if kind == 8:
            return self.text()
        if kind == 9:
            item, count = self.unpack("<IQ")
            return [self.value(item) for _ in range(count)]
        return self.unpack("<" + "BbHhIif?__Qqd"[kind])[0]


def read_tokens(path, vocabulary):
    """Tokens of the training documents and of those held out, each ended by the end-of-text token."""
    with (lzma.open(path, "rt") if path.endswith(".xz") else open(path)) as lines:
        texts = [json.loads(line)["text"] for line in lines]
    parts = [], []
    for i, encoded in enumerate(vocabulary.tokenizer.encode_batch(texts, add_special_tokens=False)):
        parts[i % 200 == 0].append(np.array([*encoded.ids, vocabulary.end], dtype=np.int32))
    return [torch.from_numpy(np.concatenate(p)).cuda() for p in parts]


class Norm(torch.nn.Module):
    def __init__(self, size):
        super().__init__()
        self.weight = torch.nn.Parameter(torch.ones(size))

    def forward(self, x):
        return F.rms_norm(x.float(), self.weight.shape, self.weight, EPS).to(x.dtype)


def linear(cols, rows, scale=1.0):
    """A product without a bias; weight: [rows, cols]."""
    layer = torch.nn.Linear(cols, rows, bias=False)
    torch.nn.init.normal_(layer.weight, std=0.02 * scale)
    return layer


class Experts(torch.nn.Module):
    """The feed-forward part of qwen3moe: softmax over all experts, the best `used`, weights made to sum to 1."""

    def __init__(self, s, scale):
        super().__init__()
        n, self.used = s["experts"], s["used"]
        self.ffn_gate_inp = linear(s["hidden"], n)
        self.gate, self.up = (torch.nn.Parameter(torch.randn(n, s["ffn"], s["hidden"]) * 0.02) for _ in range(2))
        self.down = torch.nn.Parameter(torch.randn(n, s["hidden"], s["ffn"]) * 0.02 * scale)
        self.balance = torch.zeros(())

    def forward(self, x):
        flat = x.flatten(0, 1)
        p = F.linear(flat.float(), self.ffn_gate_inp.weight.float()).softmax(-1)
        best, index = p.topk(self.used)
        share = torch.zeros_like(p).scatter(1, index, best / best.sum(-1, keepdim=True))
        # load balance: Switch Transformer's auxiliary loss
        self.balance = p.shape[1] * ((share > 0).float().mean(0) / self.used * p.mean(0)).sum()
        rows = flat.expand(p.shape[1], *flat.shape)
        inner = F.silu(torch.bmm(rows, self.gate.mT)) * torch.bmm(rows, self.up.mT)
        out = torch.bmm(inner * share.T[..., None].to(inner.dtype), self.down.mT).sum(0)
        return out.view_as(x)


class FeedForward(torch.nn.Module):
    def __init__(self, s, scale):
        super().__init__()
        self.ffn_gate, self.ffn_up = linear(s["hidden"], s["ffn"]), linear(s["hidden"], s["ffn"])
        self.ffn_down = linear(s["ffn"], s["hidden"], scale)

    def forward(self, x):
        return self.ffn_down(F.silu(self.ffn_gate(x)) * self.ffn_up(x))


class Block(torch.nn.Module):
    def __init__(self, architecture, s):
        super().__init__()
        scale = (2 * s["blocks"]) ** -0.5
        self.s, self.adjacent = s, architecture == "llama"
        self.attn_norm, self.ffn_norm = Norm(s["hidden"]), Norm(s["hidden"])
        self.attn_q = linear(s["hidden"], s["heads"] * HEAD)
        self.attn_k, self.attn_v = (linear(s["hidden"], s["kv_heads"] * HEAD) for _ in range(2))
        self.attn_output = linear(s["heads"] * HEAD, s["hidden"], scale)
        if not self.adjacent:
            self.attn_q_norm, self.attn_k_norm = Norm(HEAD), Norm(HEAD)
        self.ffn = (Experts if "experts" in s else FeedForward)(s, scale)

    def turn(self, x, cos, sin):
        """Rotary embedding: llama turns neighbours, the others turn the halves of a head."""
        a, b = (x[..., ::2], x[..., 1::2]) if self.adjacent else x.chunk(2, -1)
        turned = a * cos - b * sin, b * cos + a * sin
        return torch.stack(turned, -1).flatten(-2) if self.adjacent else torch.cat(turned, -1)

    def forward(self, x, cos, sin):
        n, length, _ = x.shape
        y = self.attn_norm(x)
        q, k, v = (f(y).view(n, length, -1, HEAD).transpose(1, 2) for f in (self.attn_q, self.attn_k, self.attn_v))
        if not self.adjacent:
            q, k = self.attn_q_norm(q), self.attn_k_norm(k)
        q, k = self.turn(q, cos, sin), self.turn(k, cos, sin)
        y = F.scaled_dot_product_attention(q.to(v.dtype), k.to(v.dtype), v, is_causal=True, enable_gqa=True)
        x = x + self.attn_output(y.transpose(1, 2).flatten(2))
        return x + self.ffn(self.ffn_norm(x))


class Model(torch.nn.Module):
    """Tied head. forward: tokens [n, LENGTH] to logits [n, LENGTH, vocabulary]."""

    def __init__(self, architecture, s, vocabulary):
        super().__init__()
        self.embedding = torch.nn.Parameter(torch.randn(vocabulary, s["hidden"]) * 0.02)
        self.blocks = torch.nn.ModuleList(Block(architecture, s) for _ in range(s["blocks"]))
        self.output_norm = Norm(s["hidden"])
        angles = torch.outer(torch.arange(LENGTH), ROPE_BASE ** (-torch.arange(0, HEAD, 2) / HEAD))
        self.register_buffer("cos", angles.cos())
        self.register_buffer("sin", angles.sin())

    def forward(self, tokens):
        x = F.embedding(tokens, self.embedding)
        for block in self.blocks:
            x = block(x, self.cos, self.sin)
        return F.linear(self.output_norm(x), self.embedding)

    def loss(self, windows):
        logits = self(windows[:, :-1])
        return F.cross_entropy(logits.flatten(0, 1).float(), windows[:, 1:].flatten())


def train(model, tokens, steps):
    decayed = [p for p in model.parameters() if p.ndim > 1]
    others = [p for p in model.parameters() if p.ndim == 1]
    adam = torch.optim.AdamW([dict(params=decayed, weight_decay=0.1), dict(params=others, weight_decay=0)],
                             lr=2e-3, betas=(0.9, 0.95), fused=True)
    experts = [m for m in model.modules() if isinstance(m, Experts)]

    @torch.compile
    def total(windows):
        loss = model.loss(windows)
        return loss + 0.01 * sum(m.balance for m in experts) / max(1, len(experts)), loss

    offsets, start = torch.arange(LENGTH + 1, device="cuda"), time.time()
    for step in range(steps):
        rate = min((step + 1) / 200, 0.05 + 0.95 * 0.5 * (1 + math.cos(math.pi * step / steps)))
        for group in adam.param_groups:
            group["lr"] = 2e-3 * rate
        first = torch.randint(len(tokens) - LENGTH, (BATCH, 1), device="cuda")
        with torch.autocast("cuda", torch.bfloat16):
            objective, loss = total(tokens[first + offsets].long())
        objective.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        adam.step()
        adam.zero_grad()
        if (step + 1) % 250 == 0:
            rate = (step + 1) * BATCH * LENGTH / (time.time() - start)
            print(f"step {step + 1}/{steps}: loss {loss.item():.4f}, {rate:,.0f} tokens/s", flush=True)


@torch.no_grad()
def held_out_loss(model, tokens):
    windows = tokens[: len(tokens) // (LENGTH + 1) * (LENGTH + 1)].view(-1, LENGTH + 1).long()
    with torch.autocast("cuda", torch.bfloat16):
        return float(np.mean([model.loss(w).item() for w in windows.split(32) if len(w) == 32]))


def tensors(model):
    """(name, tensor) as llama.cpp's converter names them; matrices in BF16, vectors and routers in F32."""
    yield "token_embd.weight", model.embedding
    yield "output_norm.weight", model.output_norm.weight
    for i, block in enumerate(model.blocks):
        for name, parameter in block.named_parameters():
            name = name.removeprefix("ffn.")
            name = f"ffn_{name}_exps.weight" if parameter.ndim == 3 else name
            yield f"blk.{i}.{name}", parameter


def write(path, architecture, s, vocabulary, model):
    p = architecture + "."
    keys = [("general.architecture", STRING, architecture), ("general.name", STRING, f"small {architecture}"),
            ("general.file_type", U32, 32), (p + "block_count", U32, s["blocks"]), (p + "context_length", U32, LENGTH),
            (p + "embedding_length", U32, s["hidden"]), (p + "feed_forward_length", U32, s["ffn"]),
            (p + "attention.head_count", U32, s["heads"]), (p + "attention.head_count_kv", U32, s["kv_heads"]),
            (p + "attention.key_length", U32, HEAD), (p + "attention.value_length", U32, HEAD),
            (p + "attention.layer_norm_rms_epsilon", F32, EPS), (p + "rope.freq_base", F32, ROPE_BASE),
            (p + "rope.dimension_count", U32, HEAD)]
    if "experts" in s:
        keys += [(p + "expert_count", U32, s["experts"]), (p + "expert_used_count", U32, s["used"]),
                 (p + "expert_feed_forward_length", U32, s["ffn"])]
    parts = []
    for name, tensor in tensors(model):
        is_matrix = tensor.ndim > 1 and "gate_inp" not in name
        kind = torch.bfloat16 if is_matrix else torch.float32
        payload = tensor.detach().to(kind).contiguous().cpu().view(torch.uint8).numpy().tobytes
        parts.append((name, tuple(tensor.shape), GGML_BF16 if is_matrix else GGML_F32, 2 if is_matrix else 4, payload))
    write_gguf(path, keys, parts, vocabulary.copied)


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("architecture", choices=SHAPES)
    parser.add_argument("text")
    parser.add_argument("vocabulary")
    parser.add_argument("out")
    parser.add_argument("--steps", type=int, default=3000)
    parser.add_argument("--seed", type=int, default=0)
    a = parser.parse_args()
    torch.manual_seed(a.seed)
    torch.set_float32_matmul_precision("high")
    vocabulary = Vocabulary(a.vocabulary)
    tokens, held_out = read_tokens(a.text, vocabulary)
    s = SHAPES[a.architecture]
    model = Model(a.architecture, s, vocabulary.size).cuda()
    weights = sum(p.numel() for p in model.parameters())
    print(f"{weights:,} weights, {len(tokens):,} tokens, {a.steps * BATCH * LENGTH:,} to be seen", flush=True)
    train(model, tokens, a.steps)
    for p in model.parameters():
        p.data = p.data.bfloat16().float() if p.ndim > 1 else p.data
    print(f"loss on {len(held_out):,} tokens held out: {held_out_loss(model, held_out):.4f}")
    write(a.out, a.architecture, s, vocabulary, model)


if __name__ == "__main__":
    main()
