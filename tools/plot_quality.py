#!/usr/bin/env python3
"""Draws KL divergence over bits per weight from the JSON of `spectralquant eval --json`.

    tools/plot_quality.py TABLE.json SUITE > docs/images/quality.svg
"""
import json
import sys

WIDTH, HEIGHT, LEFT, RIGHT, TOP, BOTTOM = 720, 400, 70, 120, 50, 55
OURS, OTHERS, INK = "#d9480f", "#5c7cfa", "#495057"


def main():
    table = json.load(open(sys.argv[1]))
    suite = next(i for i, s in enumerate(table["suites"]) if s["name"] == sys.argv[2])
    points = [(r["file_bpw"], r["scores"][suite]["kld"], r["name"]) for r in table["models"] if not r["reference"]]
    x0, x1 = min(p[0] for p in points) - 0.15, max(p[0] for p in points) + 0.1
    y1 = max(p[1]["high"] for p in points) * 1.08

    def x(v):
        return LEFT + (v - x0) / (x1 - x0) * (WIDTH - LEFT - RIGHT)

    def y(v):
        return HEIGHT - BOTTOM - v / y1 * (HEIGHT - TOP - BOTTOM)

    def text(px, py, what, anchor="start", size=13, fill=INK, weight="normal"):
        print(f'<text x="{px:.1f}" y="{py:.1f}" text-anchor="{anchor}" font-size="{size}" fill="{fill}" font-weight="{weight}">{what}</text>')

    def line(ax, ay, bx, by, colour, width=1.0):
        print(f'<line x1="{ax:.1f}" y1="{ay:.1f}" x2="{bx:.1f}" y2="{by:.1f}" stroke="{colour}" stroke-width="{width}"/>')

    print(f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" font-family="system-ui, sans-serif">')
    print(f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>')
    text(LEFT, 26, f"KL divergence to the original, suite {sys.argv[2]} (lower is better; bars: 95 %)", size=15, weight="600")
    for i in range(7):
        v = 0.01 * i
        if v > y1:
            break
        line(LEFT, y(v), WIDTH - RIGHT, y(v), "#e9ecef")
        text(LEFT - 8, y(v) + 4, f"{v:.2f}", "end")
    step = 0.25
    v = -(-x0 // step) * step
    while v < x1:
        text(x(v), HEIGHT - BOTTOM + 20, f"{v:.2f}", "middle")
        v += step
    text((LEFT + WIDTH - RIGHT) / 2, HEIGHT - 12, "bits per weight, whole file", "middle")
    for bpw, kld, name in points:
        colour = OURS if "spectralquant" in name else OTHERS
        line(x(bpw), y(kld["low"]), x(bpw), y(kld["high"]), colour, 2)
        print(f'<circle cx="{x(bpw):.1f}" cy="{y(kld["mean"]):.1f}" r="{7 if colour == OURS else 5}" fill="{colour}"/>')
        text(x(bpw) + 10, y(kld["mean"]) + 4, name, fill=colour if colour == OURS else INK, weight="600" if colour == OURS else "normal")
    print("</svg>")


if __name__ == "__main__":
    main()
