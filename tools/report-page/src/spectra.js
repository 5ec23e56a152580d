// Which directions the model feels, where the error of each file lies in them, and what every matrix costs.
import {chart, count_ticks, log_ticks, Plot} from "./chart.js";
import {controls_below, h, fill, section, segmented, select} from "./dom.js";
import {count, kld, number, percent, short} from "./format.js";
import {small_table} from "./behaviour.js";
import {heat_legend, heat_map} from "./heatmap.js";

const figures = {
  relative_energy: {text: "weights", name: "relative error", lead: "‖W − Q‖² / ‖W‖²: what the format did to the numbers"},
  predicted_kl: {text: "predicted KL", name: "predicted KL", lead: "½ tr(G E H Eᵀ), nats a token: what the model feels of it"},
  of_white: {
    text: "of white noise",
    name: "predicted KL / white noise's",
    lead: "predicted KL as a share of what white noise of the same energy would cost: below 1 the error is shaped",
  },
  measured_kl: {text: "measured KL", name: "measured KL", lead: "KL with this one matrix quantized, nats a token"},
};

const extent = (values) => [Math.min(...values), Math.max(...values)];
const error_of = (matrix, variant) => matrix.errors?.find((e) => e.variant === variant);
const figure_of = (e, figure) => (figure === "of_white" ? e?.predicted_kl / e?.white_kl : e?.[figure]);

function error_section(spectra) {
  const variants = spectra.variants.map((v) => v.name);
  const has = (figure) => spectra.matrices.some((m) => variants.some((v) => Number.isFinite(figure_of(error_of(m, v), figure))));
  const kinds = Object.keys(figures).filter(has);
  if (!kinds.length) return null;
  let figure = kinds.includes("predicted_kl") ? "predicted_kl" : kinds[0],
    variant = variants.at(-1);
  const cells = () => spectra.matrices.map((m) => ({name: m.name, value: figure_of(error_of(m, variant), figure)}));
  const place = heat_map(() => `${figures[figure].name} of every matrix of ${variant}`, cells, figures[figure].name);
  const said = h("p", {class: "note"}),
    legend = h("span");
  const draw = () => {
    said.textContent = `${variant}: ${figures[figure].lead}.`;
    fill(legend, heat_legend());
    place.redraw();
  };
  draw();
  return section(
    "tensors",
    "Error by matrix",
    "Kind of matrix by block. What stands outside the blocks has a column of its own.",
    h(
      "div",
      {class: "controls"},
      variants.length > 1 &&
        select(
          "File",
          variants.map((v) => ({value: v, text: v})),
          variant,
          (v) => {
            variant = v;
            draw();
          },
        ),
      segmented(
        "Figure",
        kinds.map((value) => ({value, text: figures[value].text})),
        figure,
        (v) => {
          figure = v;
          draw();
        },
      ),
      legend,
    ),
    said,
    place,
  );
}

/// Variants in the colours of the candidates of the same name, where there are such.
function colors(report, variants) {
  const names = variants.map((v) => v.name);
  return new Map(names.map((name, i) => [name, report.by_name.get(name)?.color ?? `var(--c${9 - (i % 10)})`]));
}

function cost_section(report, spectra) {
  const variants = spectra.variants ?? [];
  const ranked = spectra.matrices.filter((m) => variants.some((v) => Number.isFinite(error_of(m, v.name)?.predicted_kl)));
  if (!ranked.length) return null;
  const color = colors(report, variants),
    main = variants.at(-1).name;
  ranked.sort((a, b) => (error_of(b, main)?.predicted_kl ?? 0) - (error_of(a, main)?.predicted_kl ?? 0));
  const most = 24;
  let figure = "predicted_kl";
  const has_measured = ranked.some((m) => variants.some((v) => Number.isFinite(error_of(m, v.name)?.measured_kl)));
  const place = chart(
    () => `Matrices by what their error costs, ${figure === "predicted_kl" ? "predicted" : "measured"}`,
    (width) => {
      const shown = ranked.slice(0, most);
      const points = shown
        .flatMap((m) =>
          variants.map((v) => ({name: m.name.replace(/\.weight$/, ""), variant: v.name, value: error_of(m, v.name)?.[figure]})),
        )
        .filter((p) => p.value > 0);
      if (!points.length) return null;
      const spans = shown
        .map((m) => m.name.replace(/\.weight$/, ""))
        .map((name) => ({name, values: points.filter((p) => p.name === name).map((p) => p.value)}))
        .filter((s) => s.values.length > 1);
      return {
        height: 56 + 19 * shown.length,
        marginTop: 34,
        marginBottom: 12,
        marginLeft: Math.min(width * 0.4, 160),
        x: {
          axis: "top",
          type: "log",
          grid: true,
          label: `${figure === "predicted_kl" ? "predicted" : "measured"} KL of the matrix alone, nats a token →`,
          tickFormat: short,
          ticks: log_ticks(...extent(points.map((p) => p.value))),
        },
        y: {domain: shown.map((m) => m.name.replace(/\.weight$/, "")), label: null, tickSize: 0},
        color: {type: "identity"},
        marks: [
          Plot.ruleY(spans, {
            x1: (s) => Math.min(...s.values),
            x2: (s) => Math.max(...s.values),
            y: "name",
            stroke: "var(--strong-line)",
            strokeWidth: 2,
          }),
          Plot.dot(points, {x: "value", y: "name", r: 4, fill: (p) => color.get(p.variant), stroke: "var(--paper)"}),
          Plot.tip(points, Plot.pointer({x: "value", y: "name", title: (p) => `${p.name}\n${p.variant}\n${short(p.value)}`})),
        ],
      };
    },
  );
  place.redraw();
  const legend = h(
    "p",
    {class: "note legend"},
    variants.map((v) => h("span", {}, h("span", {class: "swatch", style: {"--color": color.get(v.name)}}), v.name)),
  );
  const sums = h(
    "div",
    {class: "scroll"},
    small_table(
      "Predicted and measured KL",
      ["file", "predicted, sum of matrices", "measured, sum of matrices alone", "measured, whole file", "rank correlation"],
      variants.map((v) => [
        {name: v.name, color: color.get(v.name)},
        kld(v.predicted_kl),
        kld(v.measured_sum_kl),
        kld(v.measured_kl),
        number(v.rank_correlation, 2),
      ]),
    ),
  );
  return section(
    "cost",
    "What each matrix costs",
    `The ${Math.min(most, ranked.length)} costliest of ${count(ranked.length)} matrices: what the output distribution feels of their error.`,
    legend,
    place,
    has_measured &&
      controls_below(
        segmented(
          "KL",
          [
            {value: "predicted_kl", text: "predicted"},
            {value: "measured_kl", text: "measured, one at a time"},
          ],
          figure,
          (v) => {
            figure = v;
            place.redraw();
          },
        ),
      ),
    sums,
  );
}

function spectrum_section(report, spectra) {
  const with_curve = spectra.matrices.filter((m) => m.input?.curve?.length || m.output?.curve?.length);
  if (!with_curve.length) return null;
  const color = colors(report, spectra.variants);
  let chosen = with_curve[0].name,
    side = "input";
  const sides = {input: "inputs (H)", output: "outputs (G)"};
  const matrix = () => with_curve.find((m) => m.name === chosen);
  // Each eigenvalue as a share of the trace, so that matrices of any scale lie in one picture.
  const curve = (m) =>
    (m[side]?.curve ?? [])
      .filter(([, value]) => value > 0)
      .map(([rank, value]) => ({name: m.name, rank, value: value / (m[side].trace || 1)}));
  const place = chart(
    () => `Eigenvalues of the ${sides[side]} of ${chosen}`,
    (width) => {
      const others = with_curve.filter((m) => m.name !== chosen).flatMap(curve),
        own = curve(matrix());
      if (!own.length && !others.length) return null;
      return {
        height: 320,
        x: {
          type: "log",
          label: "rank of the direction →",
          ticks: count_ticks(1, Math.max(...[...own, ...others].map((p) => p.rank))),
          tickFormat: (x) => count(x),
        },
        y: {
          type: "log",
          label: "↑ share of the trace",
          grid: true,
          ticks: log_ticks(...extent([...own, ...others].map((p) => p.value))),
          tickFormat: short,
        },
        marks: [
          Plot.line(others, {x: "rank", y: "value", z: "name", stroke: "var(--faint)", strokeOpacity: 0.28, strokeWidth: 1}),
          Plot.line(own, {x: "rank", y: "value", stroke: "var(--accent)", strokeWidth: 2.2}),
          Plot.tip(
            [...own, ...others],
            Plot.pointer({
              x: "rank",
              y: "value",
              title: (p) => `${p.name}\nrank ${count(p.rank)}: ${short(p.value)} of the trace`,
              maxRadius: 20,
            }),
          ),
        ],
      };
    },
  );
  const table = h("div", {class: "scroll"}),
    shares = spectra.top_shares ?? [0.01, 0.05, 0.2];
  const draw = () => {
    place.redraw();
    const m = matrix(),
      s = m[side];
    const rows = [];
    if (s) {
      rows.push([`energy of the ${side}s`, ...(s.top ?? []).map((t) => percent(t.of_trace))]);
      for (const e of m.errors ?? []) {
        if (e[side]?.energy)
          rows.push([{name: `error of ${e.variant}`, color: color.get(e.variant)}, ...e[side].energy.map((x) => percent(x))]);
        if (e[side]?.cost)
          rows.push([{name: `its cost, ${e.variant}`, color: color.get(e.variant)}, ...e[side].cost.map((x) => percent(x))]);
      }
    }
    fill(
      table,
      s &&
        h(
          "p",
          {class: "note"},
          `${chosen}: ${count(s.size)} directions, effective rank ${s.estimated ? "at most " : ""}${number(s.effective_rank, 1)}, participation ratio ${number(s.participation_ratio, 1)}.`,
        ),
      rows.length > 0 &&
        small_table(
          `Shares in the top directions of ${chosen}`,
          ["share of", ...shares.map((x) => `top ${short(100 * x)} % of directions`)],
          rows,
        ),
    );
  };
  draw();
  return section(
    "spectra",
    "Spectra",
    "Eigenvalues of the moments, strongest direction first; grey: all other matrices. A steep curve means that few directions matter, " +
      "and that the error can be put into the rest.",
    h(
      "div",
      {class: "controls"},
      select(
        "Matrix",
        with_curve.map((m) => ({value: m.name, text: m.name.replace(/\.weight$/, "")})),
        chosen,
        (v) => {
          chosen = v;
          draw();
        },
      ),
      segmented(
        "Side",
        Object.entries(sides).map(([value, text]) => ({value, text})),
        side,
        (v) => {
          side = v;
          draw();
        },
      ),
    ),
    place,
    table,
  );
}

export function spectra_sections(report) {
  const spectra = report.spectra;
  if (!spectra?.matrices?.length) return [];
  spectra.variants ??= [];
  return [error_section(spectra), cost_section(report, spectra), spectrum_section(report, spectra)];
}
