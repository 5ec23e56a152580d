// What all charts share: size, colours, a caption for screen readers, redrawing when the page's width or theme changes.
import * as Plot from "@observablehq/plot";
import {h, fill} from "./dom.js";

export {Plot};

const redraws = new Set();
let last_width = 0;
new ResizeObserver(() => {
  const width = document.documentElement.clientWidth;
  if (width === last_width) return;
  last_width = width;
  redraw_all();
}).observe(document.documentElement);

/// After a change of theme: scales made of colours have to be made anew.
export const redraw_all = () => redraws.forEach((draw) => draw());

/// A place for a chart. `make(width)` returns the options of Plot.plot, or an element, or null when there is nothing to draw.
///
/// `label` is the chart's name for those who do not see it; the numbers themselves stand in the tables.
export function chart(label, make) {
  const place = h("div", {class: "chart", role: "img", "aria-label": typeof label === "string" ? label : ""});
  const draw = () => {
    if (typeof label === "function") place.setAttribute("aria-label", label());
    const width = Math.max(280, Math.floor(place.clientWidth || place.parentElement?.clientWidth || 960));
    const made = make(width);
    if (!made) return fill(place, h("p", {class: "empty"}, "Nothing to show: all candidates are switched off."));
    const plot =
      made instanceof Element
        ? made
        : Plot.plot({width, marginTop: 24, marginRight: 20, marginBottom: 40, marginLeft: 56, ...made, style: "overflow: visible"});
    for (const svg of plot.matches("svg") ? [plot] : plot.querySelectorAll("svg")) svg.setAttribute("aria-hidden", "true");
    fill(place, plot);
  };
  redraws.add(draw);
  place.redraw = draw;
  return place;
}

export const is_dark = () => {
  const theme = document.documentElement.dataset.theme;
  if (matchMedia("print").matches) return false;
  return theme ? theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
};

/// Candidates in front are drawn last and stay full; the others step back while one is marked.
export const opacity = (state) => (c) => (state.marked === null || state.marked === c.name ? 1 : 0.22);

/// Ticks of a logarithmic axis that have room for their numbers: 1, 2 and 5 of every decade, only 1 where there are many decades, every digit where
/// there is not even one.
export function log_ticks(low, high) {
  const all = (steps) => {
    const ticks = [];
    for (let d = Math.floor(Math.log10(low)); d <= Math.log10(high); ++d)
      for (const s of steps) if (s * 10 ** d >= low && s * 10 ** d <= high) ticks.push(s * 10 ** d);
    return ticks;
  };
  const decades = Math.log10(high / low);
  if (decades > 3) return all([1]);
  return decades > 0.8 ? all([1, 2, 5]) : all([1, 1.5, 2, 3, 4, 5, 6, 7, 8, 9]);
}

/// 1, 3, 10, 30, ... between two counts.
export const count_ticks = (low, high) => [0, 1, 2, 3, 4, 5, 6].flatMap((d) => [10 ** d, 3 * 10 ** d]).filter((t) => t >= low && t <= high);

/// Moves labels of one column apart so that none covers another: keeps their order, needs `gap` pixels between two.
///
/// Returns the new places, in the order of `places`.
export function spread(places, gap, low, high) {
  const order = places.map((y, i) => ({y, i})).sort((a, b) => a.y - b.y);
  for (let round = 0; round < 60; ++round) {
    let moved = false;
    for (let k = 1; k < order.length; ++k) {
      const overlap = gap - (order[k].y - order[k - 1].y);
      if (overlap > 0.01) {
        order[k - 1].y -= overlap / 2;
        order[k].y += overlap / 2;
        moved = true;
      }
    }
    for (const o of order) o.y = Math.min(high, Math.max(low, o.y));
    if (!moved) break;
  }
  const out = [];
  for (const o of order) out[o.i] = o.y;
  return out;
}
