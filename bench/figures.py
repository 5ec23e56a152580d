#!/usr/bin/env python3
"""Measures the figures of README.md and docs/, and writes them there.

    bench/figures.py NAME...      NAME: quality agreement ablation calibration speed verbs solver, or all
    bench/figures.py --print …    only prints the tables
    bench/figures.py --bin DIR …  takes the programs from DIR instead of build/release/bin
    bench/figures.py --best FILE quality    with (and stock) with a row for a file of `--effort best`, which needs a GPU
    bench/figures.py --text FILE stock      the files of `quality` in llama-perplexity, on the first 200,000 bytes of a plain text

A table NAME stands between <!-- figures:NAME --> and <!-- /figures:NAME -->. Files are made in out/figures. Needs the release build
(./demo makes it); `solver` needs -DSPECTRALQUANT_BENCH=ON; rows of stock llama.cpp need its tools on the PATH. Run it on an idle machine.
"""
import argparse
import json
import math
import os
import pathlib
import re
import shutil
import subprocess
import sys
import time

ROOT = pathlib.Path(__file__).resolve().parent.parent
BIN = ROOT / "build/release/bin"
OUT = ROOT / "out/figures"
MODEL = ROOT / "models/nano-qwen35-bf16.gguf"
SUITES = ["heldout120", "convergence60"]
MIXES = ["IQ4_XS", "Q4_K_S", "Q4_K_M", "Q5_K_S", "Q6_K"]
TEXT_FILE = BEST_FILE = None
# Otherwise stock tools busy-wait on shared cores. One thread also makes their results the same on
# every machine.
STOCK_ENVIRONMENT = dict(os.environ, OMP_WAIT_POLICY="passive")


def run(arguments, **options):
    print("+", " ".join(map(str, arguments)), file=sys.stderr)
    done = subprocess.run(list(map(str, arguments)), stdout=subprocess.PIPE, text=True, **options)
    if done.returncode != 0:
        sys.exit(f"{arguments[0]} failed with {done.returncode}\n{done.stdout}")
    return done.stdout


def sq(*arguments):
    return run([BIN / "spectralquant", *arguments])


def stock_tool(tool, *arguments):
    if tool == "llama-perplexity":  # its repacked kernels for Q4_K are wrong on processors with AMX
        arguments = [*arguments, "--no-repack"]
    return run([tool, *arguments], env=STOCK_ENVIRONMENT, stderr=subprocess.STDOUT)


def has_stock(tool):
    return shutil.which(tool) is not None


def quantize(name, *arguments):
    """Makes OUT/NAME.gguf; returns the run's own report."""
    return json.loads(sq("quantize", MODEL, "-o", OUT / f"{name}.gguf", "--force", "--quiet", "--json", *arguments))


def evaluate(names, baseline="pure"):
    """Scores of files by name, and the whole JSON."""
    files = [OUT / f"{name}.gguf" for name in names]
    suites = [f"{suite}={ROOT}/suites/{suite}.jsonl" for suite in SUITES]
    table = json.loads(sq("eval", "--reference", MODEL, *files, "--baseline", baseline, "--quiet", "--json", "--suite", *suites))
    return {row["name"]: row for row in table["models"]}, table


EFFORTS = {"fast": "the inputs of each matrix", "standard": "also the effect of each output on the output distribution"}


def efforts():
    offered = re.search(r"--effort\s+([a-z|]+)", sq("quantize", "--help")).group(1).split("|")
    return [effort for effort in ("standard", "fast") if effort in offered]


def markdown(head, rows):
    lines = ["| " + " | ".join(head) + " |", "|" + "---|" * len(head)]
    return "\n".join(lines + ["| " + " | ".join(map(str, row)) + " |" for row in rows])


def interval(value, digits=4):
    return f"{value['mean']:.{digits}f} ({value['low']:.{digits}f}–{value['high']:.{digits}f})"


def quality():
    names = {f"spectralquant-{effort}": f"**SpectralQuant, {effort}**" for effort in efforts()}
    if BEST_FILE:
        names = {"spectralquant-best": "**SpectralQuant, best** (GPU)"} | names
        shutil.copyfile(BEST_FILE, OUT / "spectralquant-best.gguf")
    seconds = {}
    for effort in efforts():
        report = quantize(f"spectralquant-{effort}", "--effort", effort)
        seconds[effort] = sum(report["seconds"].values())
    quantize("pure", "--method", "plain")
    quantize("pure-imatrix", "--method", "imatrix")
    names |= {"pure": "pure Q4_K_M", "pure-imatrix": "pure Q4_K_M, imatrix, head too"}
    if has_stock("llama-quantize"):
        imatrix = OUT / "imatrix.gguf"
        sq("calibrate", MODEL, "--imatrix", imatrix, "--force", "--quiet")
        for mix in MIXES:
            stock_tool("llama-quantize", "--imatrix", imatrix, MODEL, OUT / f"{mix}.gguf", mix, "1")
            names[mix] = f"{mix} mix, imatrix" if mix.startswith("Q") and mix != "Q6_K" else f"{mix}, imatrix"
    scores, table = evaluate(names)
    (OUT / "quality.json").write_text(json.dumps(table))
    images = ROOT / "docs/images"
    images.mkdir(exist_ok=True)
    (images / "quality.svg").write_text(run([sys.executable, ROOT / "tools/plot_quality.py", OUT / "quality.json", SUITES[0]]))

    def row(name, wide):
        held, other = (scores[name]["scores"][suite] for suite in SUITES)
        gap = held["gap_recovery"] if "gap_recovery" in held else None
        cells = [names[name], f"{scores[name]['file_bpw']:.2f}", f"{scores[name]['mebibytes']:.2f}"]
        if wide:
            cells += [interval(held["kld"]), interval(other["kld"]), f"{held['kld_p99']:.3f}", f"{100 * held['rms_delta_p']:.2f} %"]
        else:
            cells += [f"{held['kld']['mean']:.4f}", f"{other['kld']['mean']:.4f}"]
        recovered = "0 %" if name == "pure" else f"{100 * gap['mean']:.0f} %" if gap else "–"
        return cells + [f"{100 * held['same_top']['mean']:.1f} %", recovered]

    short = ["file", "BPW", "MiB", *(f"KLD {suite}" for suite in SUITES), "same top", "gap recovery"]
    wide = ["file", "BPW", "MiB", *(f"KLD {suite} (95 %)" for suite in SUITES), "99 % KLD", "RMS Δp", "same top", "gap recovery"]
    effort_rows = []
    for effort in reversed(efforts()):
        scored = scores[f"spectralquant-{effort}"]["scores"]
        effort_rows.append([f"`{effort}`", EFFORTS[effort], f"{seconds[effort]:.0f}", *(f"{scored[suite]['kld']['mean']:.4f}" for suite in SUITES)])
    efforts_head = ["`--effort`", "errors are weighted by", "seconds", *(f"KLD {suite}" for suite in SUITES)]
    return {"quality": markdown(short, [row(name, False) for name in names]), "quality-wide": markdown(wide, [row(name, True) for name in names]),
            "efforts": markdown(efforts_head, effort_rows) + f"\n\nSeconds for the embedded model, all phases, on {machine()}."}


def kld_by_stock(file, text, base):
    log = stock_tool("llama-perplexity", "-m", file, "-f", text, "-c", "512", "-t", "1", "--kl-divergence-base", base, "--kl-divergence")
    number = lambda label: float(re.search(label + r"\s*:\s*([-0-9.]+)", log).group(1))
    return {"PPL": number(r"Mean PPL\(Q\)"), "KLD": number(r"Mean\s+KLD"), "same top": number("Same top p")}


def agreement():
    """eval under c512 against llama-perplexity, on the held-out texts without chat markers."""
    text = OUT / "agreement.txt"
    documents = [json.loads(line) for suite in SUITES for line in open(ROOT / f"suites/{suite}.jsonl")]
    text.write_text("\n\n".join(d["text"] for d in documents if "text" in d and "<|" not in d["text"]))
    quantize("pure", "--method", "plain")
    quantize("spectralquant-standard")
    base = OUT / "agreement.kld"
    log = stock_tool("llama-perplexity", "-m", MODEL, "-f", text, "-c", "512", "-t", "1", "--kl-divergence-base", base)
    stock_loss = math.log(float(re.search(r"Final estimate: PPL = ([0-9.]+)", log).group(1)))
    names = ["pure", "spectralquant-standard"]
    table = json.loads(sq("eval", "--reference", MODEL, *(OUT / f"{n}.gguf" for n in names), "--quiet", "--json", "--suite", f"text={text}:c512"))
    ours = {row["name"]: row["scores"]["text"] for row in table["models"]}
    loss = ours[MODEL.stem]["loss"]["mean"]
    rows = [["M, BF16", "ln PPL", f"{stock_loss:.4f}", f"{loss:.4f}", f"{100 * (loss / stock_loss - 1):+.3f} %"]]
    for name, shown in zip(names, ["pure Q4_K_M", "SpectralQuant"]):
        theirs, own = kld_by_stock(OUT / f"{name}.gguf", text, base), ours[name]
        log_ppl, top = math.log(theirs["PPL"]), 100 * own["same_top"]["mean"]
        rows.append([shown, "ln PPL", f"{log_ppl:.4f}", f"{own['loss']['mean']:.4f}", f"{100 * (own['loss']['mean'] / log_ppl - 1):+.3f} %"])
        rows.append([shown, "mean KLD", f"{theirs['KLD']:.5f}", f"{own['kld']['mean']:.5f}", f"{own['kld']['mean'] - theirs['KLD']:+.5f}"])
        rows.append([shown, "same top", f"{theirs['same top']:.2f} %", f"{top:.2f} %", f"{top - theirs['same top']:+.2f} %"])
    base.unlink()
    note = f"{table['suites'][0]['tokens']} scored tokens; {stock_version()}; {machine()}."
    return {"agreement": markdown(["file", "figure", "llama-perplexity", "eval", "difference"], rows) + "\n\n" + note}


def stock():
    """The files of quality() in llama.cpp's own tool."""
    if TEXT_FILE is None:
        sys.exit("stock needs --text FILE")
    text, base = OUT / "stock.txt", OUT / "stock.kld"
    text.write_bytes(TEXT_FILE.read_bytes()[:200_000])
    stock_tool("llama-perplexity", "-m", MODEL, "-f", text, "-c", "512", "-t", "1", "--kl-divergence-base", base)
    rows = []
    best = ["spectralquant-best"] if BEST_FILE else []
    for name in [*best, *(f"spectralquant-{effort}" for effort in efforts()), "pure", "pure-imatrix", *MIXES]:
        scores = kld_by_stock(OUT / f"{name}.gguf", text, base)
        rows.append([name, f"{scores['KLD']:.4f}", f"{scores['PPL']:.3f}", f"{scores['same top']:.1f} %"])
    base.unlink()
    return {"stock": markdown(["file", "KLD", "PPL", "same top"], rows) + f"\n\nText: first 200,000 bytes of {TEXT_FILE.name}; {stock_version()}."}


def stock_version():
    version = re.search(r"version: (\S+)", stock_tool("llama-perplexity", "--version"))
    return f"llama.cpp {version.group(1)}" if version else "llama.cpp of unknown version"


def machine():
    cpu = re.search(r"model name\s*: (.*)", open("/proc/cpuinfo").read())
    memory = int(re.search(r"MemTotal:\s+(\d+)", open("/proc/meminfo").read()).group(1)) / 2**20
    return f"{cpu.group(1) if cpu else 'unknown processor'}, {os.cpu_count()} threads, {memory:.0f} GiB"


ABLATIONS = [
    ("nothing", "whole", []),
    ("drift correction", "no-drift", ["--without", "drift"]),
    ("sequential moments and drift", "static", ["--moments", "static"]),
    ("G and the embedding term (`--effort fast`)", "no-output-moments", ["--effort", "fast"]),
    ("live scales at the start", "no-live-scales", ["--without", "live-scales"]),
    ("error feedback", "no-feedback", ["--without", "feedback"]),
    ("sub-scale search in the sweeps", "no-scale-search", ["--without", "scale-search"]),
    ("super-scale search", "no-super-scales", ["--without", "super-scales"]),
    ("all improvement after the start", "no-sweeps", ["--without", "sweeps"]),
    ("all but feedback (GPTQ)", "gptq", ["--effort", "fast", "--moments", "static", "--without", "live-scales", "sweeps"]),
    ("the solver: imatrix rounding", "imatrix", ["--method", "imatrix"]),
    ("everything: plain rounding", "pure", ["--method", "plain"]),
]


def ablation():
    seconds = {}
    for _, name, arguments in ABLATIONS:
        report = quantize(name, *arguments)
        seconds[name] = sum(report["seconds"].values())
    scores, _ = evaluate([name for _, name, _ in ABLATIONS])
    rows = []
    for shown, name, arguments in ABLATIONS:
        klds = [f"{scores[name]['scores'][suite]['kld']['mean']:.4f}" for suite in SUITES]
        rows.append([shown, f"`{' '.join(arguments)}`" if arguments else "", *klds, f"{seconds[name]:.0f}"])
    return {"ablation": markdown(["left out", "options", *(f"KLD {suite}" for suite in SUITES), "seconds"], rows)}


def calibration():
    texts = ["general", "self:131072", "general self:65536", "general self:65536 --max-tokens 65536"]
    tokens = {}
    for i, text in enumerate(texts):
        tokens[i] = quantize(f"text{i}", "--calibration", *text.split())["calibration_tokens"]
    scores, _ = evaluate([f"text{i}" for i in tokens], "text0")
    row = lambda i: [f"`{texts[i]}`", f"{tokens[i]:,}", *(f"{scores[f'text{i}']['scores'][suite]['kld']['mean']:.4f}" for suite in SUITES)]
    return {"calibration": markdown(["TEXT", "tokens", *(f"KLD {suite}" for suite in SUITES)], [row(i) for i in tokens])}


def timed(arguments):
    """Output, seconds and peak memory in MiB of a command."""
    print("+", " ".join(map(str, arguments)), file=sys.stderr)
    begin = time.monotonic()
    process = subprocess.Popen(list(map(str, arguments)), stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, env=STOCK_ENVIRONMENT)
    output = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status != 0:
        sys.exit(f"{arguments[0]} failed")
    return output, time.monotonic() - begin, usage.ru_maxrss / 1024


def speed():
    rows = []
    for effort, threads in [("standard", 1), ("standard", 2), ("fast", 2)]:
        output, _, memory = timed([BIN / "spectralquant", "quantize", MODEL, "-o", OUT / "speed.gguf", "--force", "--json", "--quiet", "--effort", effort,
                                   "--threads", threads])
        seconds = json.loads(output)["seconds"]
        take = lambda *phases: f"{sum(seconds.get(phase, 0) for phase in phases):.1f}"
        rows.append(["nano, 4.7 M", effort, threads, take("calibrate"), take("collect"), take("walk"), take("solve"), take("open", "write", "verify"),
                     f"{sum(seconds.values()):.1f}", f"{memory:.0f} MiB"])
    head = ["model", "effort", "threads", "calibrate", "collect", "walk", "solve", "open, write, verify", "all", "peak memory"]
    return {"speed": markdown(head, rows) + f"\n\n{machine()}."}


def verbs():
    text, pure = OUT / "words.txt", OUT / "pure.gguf"
    text.write_text("".join(json.loads(line).get("text", "") for line in open(ROOT / "suites/calibration.jsonl")) * 20)
    work = [("`quantize --method plain`", "4.7 M weights", [BIN / "spectralquant", "quantize", MODEL, "-o", pure, "--force", "--method", "plain"])]
    if has_stock("llama-quantize"):
        work.append(("`llama-quantize --pure … Q4_K_M 1`", "4.7 M weights", ["llama-quantize", "--pure", MODEL, OUT / "stock.gguf", "Q4_K_M", "1"]))
    work.append(("`eval`, heldout120", "two models", [BIN / "spectralquant", "eval", "--reference", MODEL, pure, "--suite", f"h={ROOT}/suites/heldout120.jsonl"]))
    work.append(("`tokenize`", f"{text.stat().st_size / 1e6:.1f} MB", [BIN / "spectralquant", "tokenize", MODEL, text]))
    return {"verbs": markdown(["command", "work", "seconds"], [[shown, what, f"{timed(command)[1]:.1f}"] for shown, what, command in work])}


def solver():
    if not (BIN / "bench_solver").exists():
        sys.exit("bench_solver is not built: cmake --preset release -DSPECTRALQUANT_BENCH=ON && cmake --build build/release --target bench_solver")
    return {"solver": "```\n" + run([BIN / "bench_solver", "--threads", "1"]).rstrip() + "\n```"}


def put(name, block):
    """Replaces the table in every document that has its marks."""
    pattern = re.compile(rf"(<!-- figures:{name} -->\n)(?:.*?\n)?(<!-- /figures:{name} -->)", re.S)
    found = 0
    for path in [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]:
        text, n = pattern.subn(lambda marks: marks[1] + block + "\n" + marks[2], path.read_text())
        if n:
            path.write_text(text)
        found += n
    if not found:
        sys.exit(f"no document has a table figures:{name}")


MEASURES = {f.__name__: f for f in (quality, agreement, ablation, calibration, speed, verbs, solver, stock)}


def main():
    global BIN, TEXT_FILE, BEST_FILE
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="+", choices=[*MEASURES, "all"], metavar="NAME")
    parser.add_argument("--print", action="store_true", dest="only_print")
    parser.add_argument("--bin", type=pathlib.Path, default=BIN)
    parser.add_argument("--text", type=pathlib.Path)
    parser.add_argument("--best", type=pathlib.Path)
    arguments = parser.parse_args()
    BIN, TEXT_FILE, BEST_FILE = arguments.bin.resolve(), arguments.text, arguments.best
    names = arguments.names
    OUT.mkdir(parents=True, exist_ok=True)
    for name in [m for m in MEASURES if m != "stock" or TEXT_FILE] if "all" in names else names:
        for table, block in MEASURES[name]().items():
            print(f"{table}:\n{block}\n")
            if not arguments.only_print:
                put(table, block)


if __name__ == "__main__":
    main()
