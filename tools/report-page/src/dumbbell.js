// Two suites side by side: does a file that is good on one text stay good on another?
import {chart, opacity, Plot} from "./chart.js";
import {controls_below, h, section, segmented, select} from "./dom.js";
import {number, kld, percent, short} from "./format.js";

const figures = {
  kld: {text: "mean KLD", label: "mean KLD, nats a token", value: (s) => s?.kld?.mean, show: kld},
  p99: {text: "99 % KLD", label: "KLD, 99 % of tokens are below", value: (s) => s?.kld_p99, show: (x) => number(x, 3)},
  gap: {
    text: "loss above original",
    label: "loss minus the original's, nats a token",
    value: (s, o) => s?.loss?.mean - o?.loss?.mean,
    show: kld,
  },
  top: {text: "same top", label: "same token first", value: (s) => s?.same_top?.mean, show: (x) => percent(x)},
};

export function dumbbell_section(report, state) {
  if (report.suites.length < 2) return null;
  let figure = "kld",
    other = report.suites.find((s) => s.name !== state.suite).name;
  const rows = () => {
    const {value} = figures[figure];
    return state
      .shown()
      .map((candidate) => ({
        candidate,
        a: value(candidate.scores[state.suite], report.reference?.scores[state.suite]),
        b: value(candidate.scores[other], report.reference?.scores[other]),
      }))
      .filter((r) => Number.isFinite(r.a) && Number.isFinite(r.b))
      .sort((r, s) => (figure === "top" ? s.a - r.a : r.a - s.a));
  };
  const place = chart(
    () => `${figures[figure].text} on ${state.suite} and ${other}`,
    (width) => {
      const all = rows();
      if (!all.length) return null;
      const {label, show} = figures[figure];
      const fade = opacity(state);
      const name = (r) => r.candidate.name;
      const longest = Math.max(...all.map((r) => name(r).length));
      const marginLeft = Math.min(width * 0.4, 14 + 6.6 * longest);
      const fits = Math.floor((marginLeft - 12) / 6.6);
      return {
        height: 56 + 24 * all.length,
        marginLeft,
        marginTop: 34,
        marginBottom: 16,
        x: {
          axis: "top",
          grid: true,
          label: `${label} →`,
          ticks: width / 120,
          tickFormat: figure === "top" ? (x) => percent(x, 0) : short,
          nice: true,
        },
        y: {
          domain: all.map(name),
          label: null,
          tickSize: 0,
          tickFormat: (n) => (n.length > fits ? `${n.slice(0, Math.max(3, fits - 1))}…` : n),
        },
        color: {type: "identity"},
        symbol: {type: "identity"},
        marks: [
          Plot.ruleY(all, {
            x1: "a",
            x2: "b",
            y: name,
            stroke: (r) => r.candidate.color,
            strokeWidth: 3,
            strokeOpacity: (r) => 0.35 * fade(r.candidate),
          }),
          Plot.dot(all, {
            x: "b",
            y: name,
            r: 4.5,
            fill: "var(--paper)",
            stroke: (r) => r.candidate.color,
            strokeWidth: 2,
            strokeOpacity: (r) => fade(r.candidate),
          }),
          Plot.dot(all, {x: "a", y: name, r: 5, fill: (r) => r.candidate.color, fillOpacity: (r) => fade(r.candidate)}),
          Plot.tip(all, Plot.pointerY({x: "a", y: name, title: (r) => `${name(r)}\n${state.suite} ${show(r.a)}\n${other} ${show(r.b)}`})),
        ],
      };
    },
  );
  const legend = h("p", {class: "note"});
  const picker = h("span");
  state.watch(() => {
    if (other === state.suite) other = report.suites.find((s) => s.name !== state.suite).name;
    legend.replaceChildren(h("span", {class: "dot filled"}), ` ${state.suite}   `, h("span", {class: "dot"}), ` ${other}`);
    picker.replaceChildren(
      report.suites.length > 2
        ? select(
            "against",
            report.suites.filter((s) => s.name !== state.suite).map(({name}) => ({value: name, text: name})),
            other,
            (v) => {
              other = v;
              state.change({});
            },
          )
        : "",
    );
    place.redraw();
  });
  return section(
    "suites",
    "One text against another",
    "The two ends of a bar are one file on two suites. Short bars that lie far to the good side are what to look for.",
    legend,
    place,
    controls_below(
      segmented(
        "Figure",
        Object.entries(figures).map(([value, {text}]) => ({value, text})),
        figure,
        (v) => {
          figure = v;
          place.redraw();
        },
      ),
      picker,
    ),
  );
}
