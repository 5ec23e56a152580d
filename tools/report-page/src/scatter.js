// Quality against size: the picture that says what a bit buys.
import {chart, log_ticks, opacity, Plot, spread} from "./chart.js";
import {controls_below, section, segmented} from "./dom.js";
import {kld, number, range, short} from "./format.js";

const sizes = {
  mib: {text: "MiB", label: "size of the file, MiB", value: (c) => c.mebibytes},
  bpw: {text: "BPW", label: "bits per weight of the whole file", value: (c) => c.file_bpw},
};
const figures = {mean: {text: "mean", label: "mean KLD"}, p99: {text: "99 %", label: "99 % of tokens are below"}};

/// Files that no smaller or equal file beats, by size.
export function frontier(points) {
  const best = [];
  for (const p of [...points].sort((a, b) => a.x - b.x || a.y - b.y)) {
    if (best.length && p.y >= best.at(-1).y) continue;
    if (best.length && p.x < 1.002 * best.at(-1).x) best.pop(); // as large, but for metadata
    best.push(p);
  }
  return best;
}

/// What the pointer shows of a file.
function words_of({name, file_bpw, mebibytes, scores}, suite) {
  const {kld: mean, kld_p99} = scores[suite];
  return `${name}\n${number(file_bpw, 2)} BPW, ${number(mebibytes, 2)} MiB\nmean ${kld(mean.mean)} (${range(mean, kld)})\n99 % ${kld(kld_p99)}`;
}

export function scatter_section(report, state) {
  let size = "mib",
    figure = "mean",
    scale = "log";
  const points = () =>
    state
      .shown()
      .map((candidate) => {
        const s = candidate.scores[state.suite];
        const y = figure === "mean" ? s?.kld?.mean : s?.kld_p99;
        return {
          candidate,
          x: sizes[size].value(candidate),
          y,
          low: figure === "mean" ? s?.kld?.low : y,
          high: figure === "mean" ? s?.kld?.high : y,
        };
      })
      .filter((p) => Number.isFinite(p.x) && p.y > 0);

  const place = chart(
    () =>
      `KLD against size on suite ${state.suite}: ${points()
        .map((p) => `${p.candidate.name} ${number(p.x, 2)}, ${short(p.y)}`)
        .join("; ")}`,
    (width) => {
      const all = points();
      if (!all.length) return null;
      const fade = opacity(state);
      const xs = all.map((p) => p.x),
        ys = all.flatMap((p) => [p.low, p.high]);
      // Files of one format differ by the bytes of their metadata: a twentieth of the size is the narrowest the axis gets.
      const middle = (Math.max(...xs) + Math.min(...xs)) / 2,
        half = Math.max(Math.max(...xs) - Math.min(...xs), 0.05 * middle) / 2,
        room = 0.12 * half;
      const base = {
        width,
        height: Math.min(440, Math.max(320, width * 0.5)),
        marginTop: 24,
        marginBottom: 44,
        marginLeft: 60,
        marginRight: 16,
        style: "overflow: visible",
        x: {
          label: `${sizes[size].label} →`,
          labelAnchor: "right",
          domain: [middle - half - room, middle + half + room * (width < 560 ? 4 : 3)],
          ticks: width / 110,
          nice: false,
        },
        y: {
          label: `↑ ${figures[figure].label}, nats a token (lower is better)`,
          type: scale === "log" ? "log" : "linear",
          grid: true,
          ticks: scale === "log" ? log_ticks(Math.min(...ys.filter((y) => y > 0)) / 1.15, Math.max(...ys) * 1.15) : 6,
          tickFormat: short,
          nice: scale !== "log",
          domain: scale === "log" ? [Math.min(...ys.filter((y) => y > 0)) / 1.15, Math.max(...ys) * 1.15] : [0, Math.max(...ys) * 1.08],
        },
        color: {type: "identity"},
      };
      const edge = frontier(all);
      const marks = [
        edge.length > 1 && Plot.line(edge, {x: "x", y: "y", curve: "step-after", stroke: "var(--faint)", strokeDasharray: "2,3"}),
        Plot.ruleX(all, {
          x: "x",
          y1: "low",
          y2: "high",
          stroke: (d) => d.candidate.color,
          strokeWidth: 2,
          strokeOpacity: (d) => 0.55 * fade(d.candidate),
        }),
        Plot.dot(all, {
          x: "x",
          y: "y",
          r: 5,
          symbol: (d) => (d.candidate.strict ? "circle" : "diamond"),
          fill: (d) => d.candidate.color,
          fillOpacity: (d) => fade(d.candidate),
          stroke: "var(--paper)",
          strokeWidth: 1.2,
        }),
        (index, scales, values, dimensions, context) => labels(all, scales, fade, dimensions),
        Plot.tip(
          all,
          Plot.pointer({
            x: "x",
            y: "y",
            title: (d) => words_of(d.candidate, state.suite),
          }),
        ),
      ].filter(Boolean);
      return Plot.plot({...base, symbol: {type: "identity"}, marks});
    },
  );
  state.watch(place.redraw);
  const pick = (set) => (v) => {
    set(v);
    place.redraw();
  };
  return section(
    "size",
    "Quality against size",
    "Down is closer to the original, left is smaller. Dotted: the best that can be had at a size. Circles are strict Q4_K files, diamonds all others.",
    place,
    controls_below(
      segmented(
        "Size",
        Object.entries(sizes).map(([value, {text}]) => ({value, text})),
        size,
        pick((v) => (size = v)),
      ),
      segmented(
        "KLD",
        Object.entries(figures).map(([value, {text}]) => ({value, text})),
        figure,
        pick((v) => (figure = v)),
      ),
      segmented(
        "Scale",
        [
          {value: "log", text: "log"},
          {value: "linear", text: "linear"},
        ],
        scale,
        pick((v) => (scale = v)),
      ),
    ),
  );
}

/// Names right of their dots; where several share a place they are set apart, with a thread to the dot.
function labels(points, scales, fade, dimensions) {
  const ns = "http://www.w3.org/2000/svg";
  const group = document.createElementNS(ns, "g");
  const at = points.map((p) => ({p, x: scales.x(p.x), y: scales.y(p.y)}));
  // Names collide when their dots lie within a name's width; columns of such dots are spread one by one.
  const columns = [];
  for (const a of [...at].sort((m, n) => m.x - n.x)) {
    const column = columns.find((c) => Math.abs(c[0].x - a.x) < 90);
    if (column) column.push(a);
    else columns.push([a]);
  }
  for (const column of columns) {
    const places = spread(
      column.map((a) => a.y),
      14,
      8,
      dimensions.height - dimensions.marginBottom - 4,
    );
    column.forEach((a, i) => {
      const name = a.p.candidate.name;
      const room = dimensions.width - a.x - 12;
      const shown = name.length * 6.3 > room ? `${name.slice(0, Math.max(4, Math.floor(room / 6.3) - 1))}…` : name;
      const text = document.createElementNS(ns, "text");
      text.setAttribute("x", a.x + 11);
      text.setAttribute("y", places[i]);
      text.setAttribute("dy", "0.32em");
      text.setAttribute("class", "name");
      text.setAttribute("text-anchor", "start");
      text.setAttribute("fill", a.p.candidate.color);
      text.setAttribute("opacity", fade(a.p.candidate));
      text.textContent = shown;
      group.append(text);
      if (Math.abs(places[i] - a.y) > 5) {
        const thread = document.createElementNS(ns, "path");
        thread.setAttribute("d", `M${a.x + 5},${a.y}L${a.x + 10},${places[i]}`);
        thread.setAttribute("class", "thread");
        group.append(thread);
      }
    });
  }
  return group;
}
