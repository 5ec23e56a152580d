// Where in the model the error sits: kind of matrix by block.
import {interpolateInferno, interpolateYlOrBr} from "d3-scale-chromatic";
import {chart, is_dark, Plot} from "./chart.js";
import {h} from "./dom.js";
import {short} from "./format.js";

const part = (name) => {
  const m = name.match(/^blk\.(\d+)\.(.+?)(\.weight)?$/);
  return m ? {block: Number(m[1]), kind: m[2]} : {block: null, kind: name.replace(/\.weight$/, "")};
};

/// Colours that begin near the paper and end far from it, in both themes.
export const heat = () => (is_dark() ? (t) => interpolateInferno(0.12 + 0.8 * t) : (t) => interpolateYlOrBr(0.04 + 0.9 * t));
const readable = (t) => (is_dark() ? (t > 0.62 ? "#111" : "#eee") : t > 0.6 ? "#fff" : "#222");

/// A heat map of `cells` [{name, value}]; matrices outside the blocks stand in a column of their own.
export function heat_map(label, cells, value_name) {
  return chart(label, (width) => {
    const all = cells()
      .map((c) => ({...c, ...part(c.name)}))
      .filter((c) => c.value > 0);
    if (!all.length) return null;
    const kinds = [...new Set(all.map((c) => c.kind))];
    const blocks = [...new Set(all.filter((c) => c.block !== null).map((c) => c.block))].sort((a, b) => a - b);
    const column = (c) => (c.block === null ? "model" : String(c.block));
    const low = Math.min(...all.map((c) => c.value)),
      high = Math.max(...all.map((c) => c.value));
    const t = (v) => (high > low ? Math.log(v / low) / Math.log(high / low) : 0.5);
    const colors = heat();
    const domain = [...(all.some((c) => c.block === null) ? ["model"] : []), ...blocks.map(String)];
    const marginLeft = 12 + 6.6 * Math.max(...kinds.map((k) => k.length));
    const cell = (width - marginLeft - 8) / domain.length;
    const row = Math.max(18, Math.min(26, cell));
    return {
      height: 46 + 20 + row * kinds.length,
      marginLeft,
      marginTop: 40,
      marginBottom: 20,
      marginRight: 8,
      x: {
        domain,
        axis: "top",
        label: blocks.length ? "block →" : null,
        tickSize: 0,
        ticks: undefined,
        padding: 0.04,
        tickFormat: (d, i) => (cell > 20 || d === "model" || Number(d) % Math.ceil(24 / cell) === 0 ? d : ""),
      },
      y: {domain: kinds, label: null, tickSize: 0, padding: 0.04},
      marks: [
        Plot.cell(all, {x: column, y: "kind", fill: (c) => colors(t(c.value)), rx: 1.5}),
        cell > 46 && Plot.text(all, {x: column, y: "kind", text: (c) => short(c.value), fill: (c) => readable(t(c.value)), fontSize: 10.5}),
        Plot.tip(
          all,
          Plot.pointer({x: column, y: "kind", title: (c) => `${c.name}${c.type ? `  ${c.type}` : ""}\n${value_name} ${short(c.value)}`}),
        ),
      ].filter(Boolean),
      color: {type: "identity"},
    };
  });
}

/// The colour scale's two ends, in words.
export const heat_legend = () =>
  h(
    "span",
    {class: "heat-legend"},
    "low",
    h("span", {
      class: "ramp",
      "aria-hidden": "true",
      style: {background: `linear-gradient(to right, ${[0, 0.25, 0.5, 0.75, 1].map(heat()).join(",")})`},
    }),
    "high (logarithmic)",
  );
