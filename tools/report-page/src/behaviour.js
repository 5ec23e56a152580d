// Greedy continuations, multiple choice: what a user would notice.
import {fill, h, section} from "./dom.js";
import {count, percent, plural, range} from "./format.js";
import {line_chart} from "./lines.js";

export function continuations_section(report, state) {
  const all = report.continuations;
  if (!all.length) return null;
  const of_suite = () => {
    const suite = all.some((e) => e.suite === state.suite) ? state.suite : all[0].suite;
    return {
      suite,
      shown: state
        .shown()
        .map((candidate) => ({candidate, entry: all.find((e) => e.suite === suite && e.model === candidate.name)}))
        .filter((e) => e.entry),
    };
  };
  const place = line_chart({
    label: () => `Share of greedy continuations still identical to the original's, suite ${of_suite().suite}`,
    state,
    curve: "monotone-x",
    series: () => of_suite().shown.map(({candidate, entry}) => ({candidate, points: entry.curve.map(([x, y]) => ({x, y}))})),
    options: () => ({
      x: {label: "tokens written →"},
      y: {label: "↑ share still identical", domain: [0, 1], grid: true, ticks: 5, tickFormat: (y) => percent(y, 0)},
    }),
    title: (p, c) => `${c.name}\n${percent(p.y)} of the continuations are the original's after ${plural(p.x, "token")}`,
  });
  const table = h("div", {class: "scroll"}),
    examples = h("div", {class: "examples"});
  state.watch(() => {
    const {suite, shown} = of_suite();
    place.redraw();
    table.replaceChildren(
      small_table(
        `Greedy continuations on ${suite}`,
        ["file", "prompts", "median tokens until they part", "never part", "share of tokens alike"],
        shown.map(({candidate, entry}) => [
          candidate,
          count(entry.prompts),
          entry.median === null ? `over ${entry.tokens}` : count(entry.median),
          percent(entry.identical),
          percent(entry.agreement),
        ]),
      ),
    );
    fill(examples, ...shown.flatMap(({candidate, entry}) => (entry.examples ?? []).map((e) => example(candidate, e))));
  });
  return section(
    "continuations",
    "How long it says the same",
    "Both write on greedily from the suite's prompts. The line is the share of prompts where every token so far is the original's.",
    place,
    table,
    report.continuations.some((e) => e.examples?.length) && h("details", {}, h("summary", {}, "Examples"), examples),
  );
}

/// What both wrote after the same words: common text, then the two ways on.
const example = (candidate, e) =>
  h(
    "div",
    {class: "example"},
    h("p", {}, h("span", {class: "before"}, e.prompt), e.same),
    h(
      "dl",
      {},
      h("div", {}, h("dt", {}, "original"), h("dd", {}, e.reference || "(nothing more)")),
      h(
        "div",
        {},
        h("dt", {}, h("span", {class: "swatch", style: {"--color": candidate.color}}), candidate.name),
        h("dd", {}, e.candidate || "(nothing more)"),
      ),
    ),
  );

export function choices_section(report, state) {
  if (!report.choices.length) return null;
  const table = h("div", {class: "scroll"});
  const with_interval = (i) => `${percent(i?.mean)} (${range(i, (x) => percent(x, 0))})`;
  const rows = () =>
    report.choices.flatMap((suite) =>
      suite.models
        .filter((m) => !state.hidden.has(m.name))
        .map((m) => [
          report.by_name.get(m.name) ?? m.name,
          suite.name,
          count(suite.questions),
          with_interval(m.accuracy),
          m.reference ? "–" : percent(m.agreement?.mean),
          m.reference ? "–" : `+${count(m.gained)} −${count(m.lost)}`,
        ]),
    );
  state.watch(() =>
    table.replaceChildren(
      small_table("Multiple choice", ["file", "suite", "questions", "right (95 %)", "answers as the original", "flips"], rows()),
    ),
  );
  return section(
    "choices",
    "Multiple choice",
    "The answer of highest likelihood, against the right one and against the original's answer.",
    table,
  );
}

/// A plain table; a cell that is a candidate becomes its name with its colour.
export function small_table(caption, head, rows) {
  return h(
    "table",
    {class: "figures small"},
    h("caption", {class: "hidden"}, caption),
    h(
      "thead",
      {},
      h(
        "tr",
        {},
        head.map((text, i) => h("th", {scope: "col", class: i ? "number" : null}, text)),
      ),
    ),
    h(
      "tbody",
      {},
      rows.map((row) =>
        h(
          "tr",
          {},
          row.map((value, i) =>
            i === 0
              ? h(
                  "th",
                  {scope: "row"},
                  value?.name !== undefined
                    ? h(
                        "div",
                        {class: "named"},
                        h("span", {class: "swatch", style: {"--color": value.color ?? "currentColor"}}),
                        value.name,
                      )
                    : value,
                )
              : h("td", {class: "number"}, value),
          ),
        ),
      ),
    ),
  );
}
