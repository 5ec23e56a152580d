#!/usr/bin/env python3
"""Draws KL divergence over bits per weight from the JSON of `spectralquant eval --json`.

    tools/plot_quality.py TABLE.json SUITE > docs/images/quality.svg
"""
import itertools
import json
import sys
from xml.sax.saxutils import escape

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 760, 430, 64, 30, 62, 56
OURS, OTHERS, INK, GRID = "#d9480f", "#4263eb", "#343a40", "#e9ecef"
LETTER = 7.2  # pixels a letter of the labels takes, about
LINE = 17     # and a line of them


def ticks(top):
    """About five round steps from 0 to top."""
    step = next(s for s in (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1, 2, 5) if top / s <= 8)
    return [step * i for i in range(int(top / step) + 1)]


def place_labels(points, x, y):
    """A spot for each name beside its point, where it meets neither a point nor a label placed before."""
    taken = [(x(b) - 8, y(k["mean"]) - 8, x(b) + 8, y(k["mean"]) + 8) for b, k, _ in points]
    spots = []
    for bpw, kld, name in points:
        width = LETTER * len(name)
        for dx, dy in itertools.product((12, -12 - width), (0, LINE / 2, -LINE / 2, LINE, -LINE, 1.5 * LINE, -1.5 * LINE)):
            box = (x(bpw) + dx, y(kld["mean"]) + dy - 8, x(bpw) + dx + width, y(kld["mean"]) + dy + 8)
            inside = LEFT <= box[0] and box[2] <= WIDTH and TOP - 8 <= box[1] and box[3] <= HEIGHT - BOTTOM
            if inside and not any(a < box[2] and box[0] < c and b < box[3] and box[1] < d for a, b, c, d in taken):
                break
        taken.append(box)
        spots.append((box[0], box[1] + 12))
    return spots


def main():
    table, suite = json.load(open(sys.argv[1])), sys.argv[2]
    models = sorted((row for row in table["models"] if not row["reference"]), key=lambda row: (row["file_bpw"], -row["scores"][suite]["kld"]["mean"]))
    points = [(row["file_bpw"], row["scores"][suite]["kld"], row["name"]) for row in models]
    x0, x1 = points[0][0] - 0.15, points[-1][0] + 0.25
    y1 = max(kld["high"] for _, kld, _ in points) * 1.08

    def x(bpw):
        return LEFT + (bpw - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)

    def y(kld):
        return HEIGHT - BOTTOM - kld / y1 * (HEIGHT - TOP - BOTTOM)

    def text(px, py, what, anchor="start", size=13, fill=INK, weight="normal"):
        print(f'<text x="{px:.1f}" y="{py:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{fill}" font-weight="{weight}">{escape(what)}</text>')

    def line(ax, ay, bx, by, colour, width=1.0):
        print(f'<line x1="{ax:.1f}" y1="{ay:.1f}" x2="{bx:.1f}" y2="{by:.1f}" stroke="{colour}" stroke-width="{width}"/>')

    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif">')
    print(f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>')
    text(LEFT, 22, f"KL divergence to the original, {suite}", size=15, weight="600")
    text(LEFT, 40, "mean nats a token and 95 % intervals; lower is closer")
    for value in ticks(y1):
        line(LEFT, y(value), WIDTH - RIGHT, y(value), GRID)
        text(LEFT - 8, y(value) + 4, f"{value:.3f}".rstrip("0").rstrip("."), "end")
    quarter = 0.25
    for i in range(int(x0 / quarter) + 1, int(x1 / quarter) + 1):
        text(x(i * quarter), HEIGHT - BOTTOM + 20, f"{i * quarter:.2f}", "middle")
    text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, "bits per weight, whole file", "middle")
    for (bpw, kld, name), (px, py) in zip(points, place_labels(points, x, y)):
        ours = "spectralquant" in name
        colour = OURS if ours else OTHERS
        line(x(bpw), y(kld["low"]), x(bpw), y(kld["high"]), colour, 2)
        print(f'<circle cx="{x(bpw):.1f}" cy="{y(kld["mean"]):.1f}" r="{7 if ours else 5}" fill="{colour}"/>')
        text(px, py, name, fill=colour if ours else INK, weight="600" if ours else "normal")
    print("</svg>")


if __name__ == "__main__":
    main()
