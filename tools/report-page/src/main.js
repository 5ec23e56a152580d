// Puts the page together from the data inside it. Sections without data return null and are left out, in the navigation too.
import {h, segmented} from "./dom.js";
import {kld, number, percent, plural, count, range} from "./format.js";
import {read_report} from "./data.js";
import {make_state} from "./state.js";
import {redraw_all} from "./chart.js";
import {table_section} from "./table.js";
import {scatter_section} from "./scatter.js";
import {dumbbell_section} from "./dumbbell.js";
import {distribution_section, position_section} from "./distribution.js";
import {spectra_sections} from "./spectra.js";
import {alignment_section, pairs_section} from "./verdicts.js";
import {choices_section, continuations_section} from "./behaviour.js";
import {browser_section} from "./browser.js";
import {provenance_section} from "./provenance.js";

/// One sentence with the result that matters: which file is closest to the original at the smallest size.
function finding(report, suite) {
  const scored = report.candidates.filter((c) => Number.isFinite(c.scores[suite]?.kld?.mean));
  const strict = scored.filter((c) => c.strict);
  const pool = strict.length ? strict : scored;
  if (!pool.length) return null;
  const order = [...pool].sort((a, b) => a.scores[suite].kld.mean - b.scores[suite].kld.mean);
  const [best, second] = order;
  const k = best.scores[suite].kld;
  const beaten = scored.filter((c) => !c.strict && c.file_bpw > best.file_bpw && c.scores[suite].kld.mean > k.mean);
  return h(
    "p",
    {class: "finding"},
    `Closest to the original${strict.length ? " among strict Q4_K files" : ""} on ${suite}: `,
    h("b", {}, best.name),
    ` with a mean KLD of `,
    h("b", {}, kld(k.mean)),
    ` (${range(k, kld)}) at ${number(best.file_bpw, 2)} BPW`,
    second ? `, ${percent(1 - k.mean / second.scores[suite].kld.mean, 0)} below ${second.name}` : "",
    ".",
    beaten.length > 0 && ` It is closer than ${plural(beaten.length, "larger file")}: ${beaten.map((c) => c.name).join(", ")}.`,
  );
}

function theme_switch() {
  const themes = {"": "auto", light: "light", dark: "dark"};
  return segmented(
    "Theme",
    Object.entries(themes).map(([value, text]) => ({value, text})),
    "",
    (value) => {
      if (value) document.documentElement.dataset.theme = value;
      else delete document.documentElement.dataset.theme;
      redraw_all();
    },
  );
}

function bar(report, state, sections) {
  const chips = h(
    "div",
    {class: "chips", role: "group", "aria-label": "Candidates shown"},
    report.candidates.map((c) => {
      const chip = h(
        "button",
        {
          type: "button",
          "aria-pressed": "true",
          style: {"--color": c.color},
          title: "shown in every table and chart; click to switch off",
          onclick: () => state.toggle(c.name),
          onpointerenter: (e) => {
            if (e.pointerType === "mouse") state.change({marked: c.name});
          },
          onpointerleave: () => {
            if (state.marked !== null) state.change({marked: null});
          },
        },
        h("span", {class: "swatch"}),
        c.name,
      );
      state.watch(() => chip.setAttribute("aria-pressed", String(!state.hidden.has(c.name))));
      return chip;
    }),
  );
  return h(
    "div",
    {class: "bar"},
    h(
      "nav",
      {"aria-label": "Sections"},
      sections.map((s) => h("a", {href: `#${s.id}`}, s.querySelector("h2").textContent)),
    ),
    h(
      "div",
      {class: "choices"},
      report.suites.length > 1 &&
        segmented(
          "Suite",
          report.suites.map(({name}) => ({value: name, text: name})),
          state.suite,
          (suite) => state.change({suite}),
        ),
      chips,
    ),
  );
}

function main() {
  const report = read_report();
  const state = make_state(report);
  const sections = [
    table_section(report, state),
    scatter_section(report, state),
    dumbbell_section(report, state),
    distribution_section(report, state),
    position_section(report, state),
    pairs_section(report, state),
    alignment_section(report, state),
    continuations_section(report, state),
    choices_section(report, state),
    ...spectra_sections(report),
    browser_section(report, state),
    provenance_section(report),
  ].filter(Boolean);
  const tokens = report.suites.reduce((n, s) => n + (s.tokens ?? 0), 0);
  const lead = h("div");
  state.watch(() => lead.replaceChildren(finding(report, state.suite) ?? ""));
  document
    .getElementById("page")
    .append(
      h(
        "header",
        {class: "top"},
        h("div", {class: "kicker"}, h("span", {}, "SpectralQuant report"), theme_switch()),
        h("h1", {}, report.reference?.name ?? "Quantizations"),
        h(
          "p",
          {class: "summary"},
          `${plural(report.candidates.length, "quantization")} against the original on ${plural(report.suites.length, "suite")}, ${count(tokens)} tokens scored.`,
        ),
        lead,
      ),
      bar(report, state, sections),
      h("main", {id: "content", tabindex: "-1"}, sections),
    );
  matchMedia("(prefers-color-scheme: dark)").addEventListener("change", redraw_all);
  addEventListener("beforeprint", redraw_all);
  addEventListener("afterprint", redraw_all);
  requestAnimationFrame(redraw_all); // now that everything has its width
}

main();
