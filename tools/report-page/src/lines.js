// Line charts with one line a candidate, named at its right end unless `names` is false.
import {chart, opacity, Plot, spread} from "./chart.js";
import {h} from "./dom.js";

/// `series()` gives [{candidate, points: [{x, y, ...}]}]; `options(width)` the scales; `title(point, candidate)` the text under the pointer.
export function line_chart({label, state, series, options, title, curve = "linear", area = false, names = true, height = 300}) {
  return chart(label, (width) => {
    const lines = series();
    const points = lines.flatMap(({candidate, points}) => points.map((p) => ({...p, candidate})));
    if (!points.length) return null;
    const named = names && width >= 560;
    const scales = options(width);
    const fade = opacity(state);
    const marginRight = named ? 12 + 7.2 * Math.min(28, Math.max(...lines.map((l) => l.candidate.name.length))) : 16;
    const marks = [
      area &&
        Plot.areaY(points, {
          x: "x",
          y1: 0,
          y2: "y",
          z: (d) => d.candidate.name,
          fill: (d) => d.candidate.color,
          fillOpacity: (d) => 0.045 * fade(d.candidate),
          curve,
        }),
      Plot.lineY(points, {
        x: "x",
        y: "y",
        z: (d) => d.candidate.name,
        stroke: (d) => d.candidate.color,
        strokeWidth: (d) => (d.candidate.name === state.marked ? 2.6 : 1.7),
        strokeOpacity: (d) => fade(d.candidate),
        curve,
      }),
      Plot.tip(points, Plot.pointer({x: "x", y: "y", title: (d) => title(d, d.candidate), maxRadius: 30})),
    ].filter(Boolean);
    const plot = {height, ...scales, marginRight, color: {type: "identity"}, marks};
    return named ? with_names(Plot, plot, width, lines, fade) : plot;
  });
}

/// Draws once to learn where the lines end, then sets their names there without overlap.
function with_names(Plot, options, width, lines, fade) {
  const base = {width, marginTop: 24, marginBottom: 40, marginLeft: 56, style: "overflow: visible", ...options};
  const {apply, range} = Plot.plot(base).scale("y");
  const ends = lines
    .filter((l) => l.points.length)
    .map((l) => ({...l, end: l.points.filter((p) => Number.isFinite(p.y)).at(-1)}))
    .filter((l) => l.end);
  const places = spread(
    ends.map((l) => apply(l.end.y)),
    13,
    Math.min(...range),
    Math.max(...range),
  );
  const names = ends.map((l, i) => ({...l, place: places[i]}));
  const text = (index, scales, values, dimensions) => {
    const group = document.createElementNS("http://www.w3.org/2000/svg", "g");
    for (const {candidate, place} of names) {
      const t = document.createElementNS("http://www.w3.org/2000/svg", "text");
      t.setAttribute("x", dimensions.width - dimensions.marginRight + 6);
      t.setAttribute("y", place);
      t.setAttribute("dy", "0.32em");
      t.setAttribute("class", "name");
      t.setAttribute("text-anchor", "start");
      t.setAttribute("fill", candidate.color);
      t.setAttribute("opacity", fade(candidate));
      t.textContent = candidate.name.length > 28 ? `${candidate.name.slice(0, 27)}…` : candidate.name;
      group.append(t);
    }
    return group;
  };
  return Plot.plot({...base, marks: [...options.marks, text]});
}

/// Under charts: what the axes do not say.
export const note = (...text) => h("p", {class: "note"}, text);
