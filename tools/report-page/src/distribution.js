// How KLD is spread over tokens: a mean can hide a few tokens that went far astray. And where in the text they stand.
import {count_ticks, log_ticks} from "./chart.js";
import {of} from "./data.js";
import {controls_below, section, segmented} from "./dom.js";
import {count, kld, percent, short} from "./format.js";
import {line_chart} from "./lines.js";

/// Points of a histogram: the share of tokens a decade of KLD, or the share of tokens above. The first bin begins at 0 and has
/// no place on a logarithmic axis; the last has no end and is drawn as wide as its neighbour.
export function histogram_points({edges, counts}, kind) {
  const total = counts.reduce((a, b) => a + b, 0) || 1;
  const finite = (i) => (i >= counts.length ? edges[i - 1] ** 2 / edges[i - 2] : edges[i]);
  const last = counts.findLastIndex((n) => n > 0);
  if (kind === "density") {
    return counts
      .map((n, i) => {
        const [low, high] = [finite(i), finite(i + 1)];
        return {x: Math.sqrt(low * high), y: n / total / Math.log10(high / low), n, low, high};
      })
      .slice(1, last + 2);
  }
  let above = total;
  return counts
    .map((n, i) => {
      const p = {x: finite(i), y: above / total, n: above};
      above -= n;
      return p;
    })
    .slice(1, last + 1);
}

/// The decades where something is to be seen: bins with at least one token in a thousand of some candidate.
function visible_range(series) {
  const seen = series.flatMap((s) => s.points.filter((p) => p.y > 0.01));
  return [Math.min(...seen.map((p) => p.x)), Math.max(...series.flatMap((s) => s.points.filter((p) => p.n > 0).map((p) => p.x)))];
}

export function distribution_section(report, state) {
  if (!report.histograms.length) return null;
  let kind = "density";
  const series = () =>
    state
      .shown()
      .map((candidate) => ({candidate, entry: of(report.histograms, state.suite, candidate.name)}))
      .filter((s) => s.entry)
      .map(({candidate, entry}) => ({candidate, points: histogram_points(entry.histogram, kind)}));
  const y_range = () => {
    const ys = series().flatMap((s) => s.points.map((p) => p.y));
    return [Math.min(...ys), Math.max(...ys)];
  };
  const place = line_chart({
    label: () => `Distribution of per-token KLD on suite ${state.suite}`,
    state,
    height: 320,
    area: kind === "density",
    names: false,
    curve: "monotone-x",
    series,
    options: () => ({
      x: {
        type: "log",
        label: "KLD of a token, nats →",
        tickFormat: short,
        ticks: log_ticks(...visible_range(series())),
        domain: visible_range(series()),
        clamp: true,
      },
      y:
        kind === "density"
          ? {label: "↑ share of tokens a decade", tickFormat: (y) => percent(y, 0), grid: true, ticks: 5}
          : {
              label: "↑ share of tokens above",
              type: "log",
              tickFormat: (y) => `${short(100 * y)} %`,
              grid: true,
              ticks: log_ticks(...y_range()),
            },
    }),
    title: (p, c) =>
      kind === "density"
        ? `${c.name}\n${count(p.n)} tokens from ${short(p.low)} to ${short(p.high)}`
        : `${c.name}\n${short(100 * p.y)} % of tokens above ${short(p.x)}`,
  });
  state.watch(place.redraw);
  return section(
    "tokens-distribution",
    "KLD token by token",
    "Most tokens hardly move; the right tail is where a file answers differently. “Share above” shows that tail.",
    place,
    controls_below(
      segmented(
        "Show",
        [
          {value: "density", text: "density"},
          {value: "above", text: "share above"},
        ],
        kind,
        (v) => {
          kind = v;
          place.redraw();
        },
      ),
    ),
  );
}

export function position_section(report, state) {
  if (!report.by_position.length) return null;
  const points = ({edges, tokens, kld: means}) =>
    tokens
      .map((n, i) => ({
        x: Math.sqrt(Math.max(1, edges[i]) * Math.max(1, edges[i + 1] - 1)),
        y: means[i],
        first: edges[i],
        last: edges[i + 1] - 1,
        n,
      }))
      .filter((p) => p.n > 0);
  const series = () =>
    state
      .shown()
      .map((candidate) => ({candidate, entry: of(report.by_position, state.suite, candidate.name)}))
      .filter((s) => s.entry)
      .map(({candidate, entry}) => ({candidate, points: points(entry.by_position)}));
  const place = line_chart({
    label: () => `Mean KLD by position on suite ${state.suite}`,
    state,
    series,
    options: () => ({
      x: {
        type: "log",
        label: "position in the sequence, tokens →",
        ticks: count_ticks(1, Math.max(...series().flatMap((s) => s.points.map((p) => p.x)))),
        tickFormat: (x) => count(Math.round(x)),
      },
      y: {label: "↑ mean KLD, nats a token", grid: true, zero: true, ticks: 5, tickFormat: short},
    }),
    title: (p, c) => `${c.name}\npositions ${count(p.first)} to ${count(p.last)}\nmean KLD ${kld(p.y)}\n${count(p.n)} tokens`,
  });
  state.watch(place.redraw);
  return section(
    "position",
    "KLD by position",
    "Does the difference grow with the text before it? A line that rises to the right accumulates error in the model's state.",
    place,
  );
}
