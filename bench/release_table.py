#!/usr/bin/env python3
"""Prints scores beside the published figures of Qwen3.5-0.8B: release_table.py SCORES.json < lines of LABEL <tab> FILE

Called by release_table.sh. SCORES.json is what `spectralquant eval --json` printed.
"""
import json
import os
import sys

# Losses in nats per token on the published convergence60, heldout120 and C4 (64 windows of 256 tokens); bits per weight.
PUBLISHED = {
    "original": (16.0, 2.2682, 2.9809, None),
    "published spectral": (4.52, 2.2509, 2.9961, 3.2874),
    "UD-Q4_K_XL": (5.79, 2.2833, 2.9913, None),
    "IQ4_NL": (5.26, 2.3289, 3.0484, None),
    "Q4_K_M": (5.52, 2.3268, 3.0510, 3.2574),
    "Q4_K_S": (5.27, 2.3126, 3.0700, None),
    "IQ4_XS": (5.11, 2.3869, 3.1061, None),
    "pure Q4_K_M": (4.52, 2.7404, 3.4135, 3.3014),
}
SAME_AS = {"SpectralQuant": "published spectral"}
SUITES = ("convergence60", "heldout120", "c4")


def number(value, digits=4):
    return "–" if value is None else f"{value:.{digits}f}"


def recovery(loss, pure, original):
    """Share of pure rounding's loss that is gained back, in percent."""
    if None in (loss, pure, original) or pure == original:
        return "–"
    return f"{100 * (pure - loss) / (pure - original):.1f}"


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        models = json.load(file)["models"]
    by_path = {os.path.realpath(model["path"]): model for model in models}
    rows = [("original", next(model for model in models if model["reference"]))]
    for line in sys.stdin:
        label, path = line.rstrip("\n").split("\t")
        rows.append((label, by_path[os.path.realpath(path)]))
    rows[1:] = sorted(rows[1:], key=lambda row: row[1]["mebibytes"])
    suites = [name for name in SUITES if name in rows[0][1]["scores"]]
    of = {label: {name: model["scores"][name]["loss"]["mean"] for name in suites} for label, model in rows}

    head = ["file", "BPW", "MiB"]
    for name in suites:
        head += [f"{name} loss", "KLD", "gap %", "published loss", "gap %"]
    print("| " + " | ".join(head + ["published BPW"]) + " |")
    print("|---" * (len(head) + 1) + "|")
    for label, model in rows:
        published = PUBLISHED.get(SAME_AS.get(label, label), (None,) * 4)
        cells = [label, number(model["file_bpw"], 2), number(model["mebibytes"], 1)]
        for name in suites:
            column = 1 + SUITES.index(name)
            cells += [number(of[label][name]), number(model["scores"][name]["kld"]["mean"], 5)]
            cells.append(recovery(of[label][name], of["pure Q4_K_M"][name], of["original"][name]))
            cells += [number(published[column]), recovery(published[column], PUBLISHED["pure Q4_K_M"][column], PUBLISHED["original"][column])]
        print("| " + " | ".join(cells + [number(published[0], 2)]) + " |")
    print("\ngap %: (pure Q4_K_M − file) / (pure Q4_K_M − original) in loss. Row SpectralQuant is set beside the published spectral file.")
    print("The published suites are other texts than this project's, so losses do not compare across the two halves: only the order of")
    print("the files and the gap do. The published figures are of Qwen3.5-0.8B; on any other model they are there for the layout alone.")


main()
