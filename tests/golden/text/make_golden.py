#!/usr/bin/env python3
"""Writes tokens_*.json: what stock llama-tokenize (on PATH) makes of a list of nasty texts.

    make_golden.py ../../../models/nano-qwen35-bf16.gguf

The model's vocabulary is used with other pre-tokenizers by changing tokenizer.ggml.pre (and, for "edited", the keys listed in the file)
in a copy without tensors. A text is `hex` repeated `repeat` times; `ids` are with special tokens parsed, `ids_plain` without
(left out when they are the same). tokens_qwen35.json and tokens_probe-qwen35.json hold every text, the others only those they tokenize
differently.

"probe-…" has a vocabulary that shows where words end, which real merges hardly do: every byte, and every byte joined with each of PROBES.
"""
import json
import os
import struct
import subprocess
import sys
import tempfile

SIZES = {0: 1, 1: 1, 2: 2, 3: 2, 4: 4, 5: 4, 6: 4, 7: 1, 10: 8, 11: 8, 12: 8}
PROBES = "a.1 \n'A~"
STRING, ARRAY, INT32, BOOL, UINT32 = 8, 9, 5, 7, 4


def text_value(text):
    data = text.encode()
    return struct.pack("<Q", len(data)) + data


class Metadata:
    def __init__(self, path):
        self.data = open(path, "rb").read(64 << 20)
        n_keys, at = struct.unpack_from("<Q", self.data, 16)[0], 24
        self.items = {}
        for _ in range(n_keys):
            key, at = self.string(at)
            kind = struct.unpack_from("<I", self.data, at)[0]
            end = self.skip(kind, at + 4)
            self.items[key] = (kind, self.data[at + 4:end])
            at = end

    def string(self, at):
        size = struct.unpack_from("<Q", self.data, at)[0]
        return self.data[at + 8:at + 8 + size].decode(), at + 8 + size

    def skip(self, kind, at):
        if kind == STRING:
            return self.string(at)[1]
        if kind != ARRAY:
            return at + SIZES[kind]
        inner, n = struct.unpack_from("<IQ", self.data, at)
        at += 12
        if inner != STRING:
            return at + n * SIZES[inner]
        for _ in range(n):
            at = self.string(at)[1]
        return at

    def tokens(self):
        value, at, out = self.items["tokenizer.ggml.tokens"][1], 12, []
        while at < len(value):
            size = struct.unpack_from("<Q", value, at)[0]
            out.append(value[at + 8:at + 8 + size].decode())
            at += 8 + size
        return out

    def edit(self, edits):
        tokens = self.tokens()
        kinds = list(struct.unpack_from("<%di" % len(tokens), self.items["tokenizer.ggml.token_type"][1], 12))
        for index, text, kind in edits:
            tokens[index], kinds[index] = text, kind
        self.items["tokenizer.ggml.tokens"] = (ARRAY, struct.pack("<IQ", STRING, len(tokens)) + b"".join(map(text_value, tokens)))
        self.items["tokenizer.ggml.token_type"] = (ARRAY, struct.pack("<IQ%di" % len(kinds), INT32, len(kinds), *kinds))

    def make_probe(self):
        letters, next_letter = [], 0x100
        for byte in range(256):
            printable = 0x21 <= byte <= 0x7E or 0xA1 <= byte <= 0xAC or byte >= 0xAE
            letters.append(chr(byte if printable else next_letter))
            next_letter += not printable
        pairs = [(left, letters[ord(right)]) for right in PROBES for left in letters]
        tokens = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"] + letters + [left + right for left, right in pairs]
        kinds = [3] * 3 + [1] * (len(tokens) - 3)
        for key, values in (("tokens", tokens), ("merges", [" ".join(pair) for pair in pairs])):
            self.items["tokenizer.ggml." + key] = (ARRAY, struct.pack("<IQ", STRING, len(values)) + b"".join(map(text_value, values)))
        self.items["tokenizer.ggml.token_type"] = (ARRAY, struct.pack("<IQ%di" % len(kinds), INT32, len(kinds), *kinds))

    def write(self, path):
        with open(path, "wb") as out:
            out.write(b"GGUF" + struct.pack("<IQQ", 3, 0, len(self.items)))
            for key, (kind, value) in self.items.items():
                out.write(text_value(key) + struct.pack("<I", kind) + value)
            out.write(b"\0" * (-out.tell() % 32))


def u(text, repeat=1):
    return (text.encode("utf-8", "surrogatepass"), repeat)


TEXTS = [
    u(""), u(" "), u("  "), u("\n"), u("a"), u("Hello, world!"), u(" leading and trailing  "),
    u("I'm you're HE'S WE'LL they've I'D don'T 'tis ''s 'ſ"), u("1 12 123 1234 12345678 3.14 1,000,000 0x1F ①② Ⅷ ½ x² ٣٤٥ १२३"),
    u("tabs\tand\t\ttabs \t mixed\t \tx"), u("one\ntwo\n\nthree\n\n\n four\r\nfive\r\n\r\n  six\rseven \n \n x \r\n"),
    u("a" + " " * 7 + "b" + " " * 64 + "c" + " " * 31), u(" ", 300), u("\n", 300), u("\r\n", 70), u(" \n", 70), u("\t", 100),
    u("a", 1000), u("ab", 500), u("é", 300), u("漢", 100), u("9", 100), u("!", 200), u("~", 100), u(" ~a~~b ~!~\n~~\n"),
    u("".join(map(chr, range(1, 32))) + "\x7f"), u("NUL\0in\0\0the middle\0"), u("\0"),
    u("👍 👩‍👩‍👧‍👦 🏳️‍🌈 🇩🇪🇫🇷 👋🏽 ❤️ #️⃣"), u("e\u0301 a\u0308o\u0302 n\u0303o Z\u0351\u036b\u0343 \u0301start q\u0323\u0307"),
    u("العربية: مَرْحَبًا بِالعَالَم ١٢٣"), u("नमस्ते दुनिया क्षत्रिय १२"), u("สวัสดีชาวโลก ก็ ที่นี่"), u("日本語テキスト、カタカナ・ひらがな。漢字123"),
    u("한국어 텍스트 안녕하세요! ㅋㅋㅋ"), u("中文文本，没有空格。《书名》“引号”……"), u("Ελληνικά ΚΕΦΑΛΑΊΑ русский ТЕКСТ עברית"),
    u("ÀÉÎ ßẞ ǅ ʰ ª º İ ı ﬁ"), u("\ue000\uf8ff \U000f0000 \U0010fffd"), u("\ufeffBOM at the start and\ufeff inside"),
    u("nbsp\u00a0nbsp\u00a0\u00a0two\u2003em\u2009thin\u3000wide\u2028line\u2029para\u0085nel\u180emvs\u200bzws\u00adshy"),
    u("\u0378\U0001fffe\uffff\U0002ebf0\u2ffc\u31ef\U0001f6dc\U00011f04 unassigned and new"), u("\U0001d400\U0001d7d8\U0001f130 𝒜𝓫 𐐀𐐨"),
    u("“quotes” ‘s don’t — – … • € £ ¥ © ® ™ ° ± × ÷ ∑ √ ≠ ← ⇒"),
    u("def f(x):\n    return {k: v**2 for k, v in x.items() if v != 0}  # note\n\t\tpass;;\n"),
    u("<div class=\"a-b_c\">&nbsp;</div> https://example.org/a?b=c&d=%20#e user@example.org C:\\dir\\file.txt"),
    u("camelCase PascalCase SCREAMING_CASE iPhone XMLHttpRequest aB Ab ABc aBC éÀ Àé"),
    u("<|im_start|>user\nHello<|im_end|>\n<|im_start|>assistant\n"), u("<|im_start"), u("|im_start|>"), u("<|im_start|"),
    u("<|im_start|><|im_end|><|im_start|>"), u("<|im_<|im_start|>start|>"), u("<<|im_end|>>"), u("  <|im_end|>  x <|endoftext|>\n\ny"),
    u("<|IM_START|> < |im_end| >"), u("<|endoftext|>"), u("Pneumonoultramicroscopicsilicovolcanoconiosis" * 20),
    u("가힣ㄱㆎ ㄅㄯ 一龥龦鿿 ぁヿ々〇〿︰﹏ ！…“”‘’—：；， ࠀༀ ퟿\ud7b0"), u("12345678901 1234567a 12٣4567 a123456 x_1234  1234 ١٢٣٤٥٦٧ 1２3"),
    u("IMGIMGABCZ IMGIMGZ IMGIMGJZ <sentinel:12> <sentinel:>"), u("Amy\u200ckhaham a\u200db \u200cx \u200d1 'ſ e\u0301\u0301 \u0301"),
    u("a b c  d e\u0301 f 1 g\nh i"), u("Ａｂｃ µ ª º ƻ ʔ Ω K ﬀ ﬓ 𐐀𐓘 𞤀 ꭰ Ↄↄ ա Ა"), u("က၀ ሀ ᄀ 豈\uf8ff 𠀀 㐀 ﾞｱ กข ກ ក ꩠ ꧠ ⼀ 丽"), u("   \n  x \u3000\u3000\ty   "),
    (b"bad \xff\xfe\x80 bytes \xc3", 1), (b"cut \xe2\x82 \xf0\x9f\x91 \xe2", 1), (b"overlong \xc0\xaf \xe0\x80\xaf \xc1\x81", 1),
    (b"surrogate \xed\xa0\x80\xed\xb0\x80 beyond \xf4\x90\x80\x80 \xf8\x88\x80\x80\x80", 1), (b"latin1 caf\xe9 na\xefve", 1), (b"\xf0\x9f\x91", 1),
]

# One character of each kind before each probe: the classes of the patterns, case by case.
KINDS = [".", ",", "1", "11", "a", "A", "aA", "Aa", "é", "É", "ǅ", "ʰ", "ª", "漢", "ひ", "カ", "゙", "ー", "・", "。", "한", "ก็", "न", "ि", "\u0301", "e\u0301", "٣", "Ⅷ", "½",
         "②", "!", "$", "~", "^", "_", "-", "/", "€", "»", "👍", "\u200d", "\u00a0", "\u3000", "\u2028", "\u0085", "\t", "\r", "\r\n", "\n", " ",
         "  ", "'s", "'LL", "'re", "\u180e", "\u0378", "\ue000", "\U0002ebf0", "\U0001f6dc", "\0", "\x1f", "<|im_end|>"]
TEXTS += [u("".join(kind + probe for probe in PROBES)) for kind in KINDS]

SPECIAL_TEXTS = [
    u("<|tool|>x<|tool y<|tool|><|tool|>"), u("a [TOOL] b[TOOL][TOOL]\n\nc  [TOOL]  d"), u("</s>  \n x </s>"), u("<s>  a <unk>  b <|endoftext|>  c"),
    u("<|fim_prefix|> code <|channel|> x\n"), u("singing rings <mask> thing"), u("<0x41> [EMPTY_4087] unused tok  unused tok"), u("<|tool[TOOL]|>"),
    u("[TOOL]   "), u("   [TOOL]"), u("Ġunused tok"),
]

EDITED = {
    "general.name": "Phi-3-edited", "tokenizer.ggml.add_bos_token": True, "tokenizer.ggml.add_eos_token": True,
    "tokens": [[289, "<mask>", 4], [4085, "Ġunused tok", 5], [4086, "<0x41>", 6], [4087, "", 1], [4088, "<|channel|>", 3],
               [4089, "<|fim_prefix|>", 1], [4090, "<|tool|>", 3], [4091, "<|tool", 3], [4092, "[TOOL]", 4], [4093, "<s>", 3],
               [4094, "<unk>", 2], [4095, "</s>", 3]],
}


def run(model, data, *flags):
    with tempfile.NamedTemporaryFile() as file:
        file.write(data)
        file.flush()
        out = subprocess.run(["llama-tokenize", "-m", model, "-f", file.name, "--ids", "--no-escape", "--log-disable", *flags],
                             capture_output=True, check=True).stdout
    return json.loads(out)


def run_each(model, texts):
    """Ids with special tokens parsed and without, of every text; those that hold none in one run, special tokens between."""
    bos = run(model, b"a")[:-len(run(model, b"a", "--no-bos"))]
    simple = [text for text in texts if b"<|" not in text]
    parts = [[]]
    for token in run(model, b"<|endoftext|>".join(simple), "--no-bos"):
        if token == 0:
            parts.append([])
        else:
            parts[-1].append(token)
    known = dict(zip(simple, parts, strict=True))
    for text in texts:
        if text in known:
            yield bos + known[text], bos + known[text]
        else:
            yield run(model, text), run(model, text, "--no-parse-special")


def main():
    version = subprocess.run(["llama-tokenize", "--version"], capture_output=True, text=True)
    version = (version.stdout + version.stderr).strip().splitlines()[-2].removeprefix("version: ")
    pretokenizers = ["qwen35", "qwen2", "gpt-2", "llama-bpe", "chatglm-bpe", "smollm", "default", "falcon", "deepseek-v3", "tekken", "gpt-4o",
                     "seed-coder", "bailingmoe", "glm4", "minicpm5", "deepseek-llm", "deepseek-coder", "spark2_5", "youtu", "jais-2", "bloom",
                     "viking", "exaone-moe", "chameleon", "granite-embed-multi-97m", "tiny_aya", "superbpe", "kimi-k2", "ufakzeka", "afmoe",
                     "laguna", "k2-horizon"]
    variants = ["qwen35", "gpt-2", "edited"] + ["probe-" + name for name in pretokenizers]
    base = {}
    for variant in variants:
        metadata = Metadata(sys.argv[1])
        golden = {"made": f"make_golden.py with llama-tokenize {version}, vocabulary and merges of {os.path.basename(sys.argv[1])}"}
        if variant == "edited":
            golden["pre"], golden["edits"] = "llama-bpe", EDITED
            metadata.edit(EDITED["tokens"])
            metadata.items["general.name"] = (STRING, text_value(EDITED["general.name"]))
            metadata.items["tokenizer.ggml.add_bos_token"] = metadata.items["tokenizer.ggml.add_eos_token"] = (BOOL, b"\1")
        else:
            golden["pre"] = variant.removeprefix("probe-")
        if variant.startswith("probe-"):
            metadata.make_probe()
        metadata.items["tokenizer.ggml.pre"] = (STRING, text_value(golden["pre"]))
        golden["cases"] = []
        with tempfile.NamedTemporaryFile(suffix=".gguf") as model:
            metadata.write(model.name)
            texts = [(data, repeat) for data, repeat in TEXTS + (SPECIAL_TEXTS if variant == "edited" else []) if data]
            whole = [data * repeat for data, repeat in texts]
            ids_of = run_each(model.name, whole) if variant.startswith("probe-") else (
                (run(model.name, text), run(model.name, text, "--no-parse-special")) for text in whole)
            for (data, repeat), (ids, plain) in zip(texts, ids_of):
                case = {"hex": data.hex(), "ids": ids}
                if repeat > 1:
                    case["repeat"] = repeat
                if plain != case["ids"]:
                    case["ids_plain"] = plain
                if variant.endswith("qwen35"):
                    base[data, repeat] = case
                if variant.endswith("qwen35") or case != base.get((data, repeat)):
                    golden["cases"].append(case)
        with open(f"tokens_{variant}.json", "w") as out:
            head = {key: value for key, value in golden.items() if key != "cases"}
            out.write(json.dumps(head, ensure_ascii=False)[:-1] + ', "cases": [\n')
            out.write(",\n".join(json.dumps(case, separators=(",", ":")) for case in golden["cases"]) + "\n]}\n")


if __name__ == "__main__":
    main()
