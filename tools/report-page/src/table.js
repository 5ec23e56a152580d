// The table: one row a file, sortable by every column, filtered by text.
import {h, fill, section, segmented, fresh_id} from "./dom.js";
import {number, percent, kld, range, plural} from "./format.js";

const mean = (i) => i?.mean ?? NaN;

/// Columns of one suite. `better`: which end of the scale is the good one, for the mark of the best; `bar`: drawn with its interval.
const suite_columns = (suite, has_gap) =>
  [
    {
      key: "kld",
      text: "KLD",
      title: "mean KL(original ‖ file), nats a token; bar: 95 % interval",
      value: (m) => mean(m.scores[suite]?.kld),
      interval: (m) => m.scores[suite]?.kld,
      show: kld,
      better: "low",
      bar: true,
      blank: (m) => m.reference,
    },
    {
      key: "p90",
      text: "90 %",
      title: "nine tokens of ten have a KLD below this",
      value: (m) => m.scores[suite]?.kld_p90,
      show: kld,
      better: "low",
      blank: (m) => m.reference,
      minor: true,
    },
    {
      key: "p99",
      text: "99 %",
      title: "99 tokens of 100 have a KLD below this",
      value: (m) => m.scores[suite]?.kld_p99,
      show: (x) => number(x, 3),
      better: "low",
      blank: (m) => m.reference,
    },
    {
      key: "max",
      text: "max",
      title: "KLD of the worst token",
      value: (m) => m.scores[suite]?.kld_max,
      show: (x) => number(x, 2),
      better: "low",
      blank: (m) => m.reference,
    },
    {
      key: "top",
      text: "same top",
      title: "share of positions where file and original put the same token first",
      value: (m) => mean(m.scores[suite]?.same_top),
      interval: (m) => m.scores[suite]?.same_top,
      show: (x) => percent(x),
      better: "high",
      blank: (m) => m.reference,
    },
    {
      key: "dp",
      text: "RMS Δp",
      title: "root mean square change of the true token's probability",
      value: (m) => m.scores[suite]?.rms_delta_p,
      show: (x) => percent(x, 2),
      better: "low",
      blank: (m) => m.reference,
    },
    {
      key: "loss",
      text: "loss",
      title: "mean nats a token on the text itself",
      value: (m) => mean(m.scores[suite]?.loss),
      interval: (m) => m.scores[suite]?.loss,
      show: (x) => number(x, 4),
      better: "low",
    },
    has_gap && {
      key: "gap",
      text: "gap recovery",
      title: "share of the baseline's loss of quality that is won back",
      value: (m) => mean(m.scores[suite]?.gap_recovery),
      interval: (m) => m.scores[suite]?.gap_recovery,
      show: (x) => percent(x),
      better: "high",
      blank: (m) => m.reference,
    },
  ].filter(Boolean);

const overview_columns = (suites) =>
  suites.flatMap(({name}) => [
    {
      key: `${name}/kld`,
      group: name,
      text: "KLD",
      title: `mean KLD on ${name}`,
      value: (m) => mean(m.scores[name]?.kld),
      interval: (m) => m.scores[name]?.kld,
      show: kld,
      better: "low",
      blank: (m) => m.reference,
    },
    {
      key: `${name}/loss`,
      group: name,
      text: "loss",
      title: `loss on ${name}`,
      value: (m) => mean(m.scores[name]?.loss),
      interval: (m) => m.scores[name]?.loss,
      show: (x) => number(x, 4),
      better: "low",
    },
  ]);

const size_columns = [
  {key: "name", text: "file", value: (m) => m.name, text_column: true},
  {key: "bpw", text: "BPW", title: "bits per weight of the whole file", value: (m) => m.file_bpw, show: (x) => number(x, 2)},
  {key: "mib", text: "MiB", title: "size of the file", value: (m) => m.mebibytes, show: (x) => number(x, x < 100 ? 2 : 0)},
];

function compare(column, down) {
  const sign = down ? -1 : 1;
  return (a, b) => {
    const x = column.blank?.(a) ? NaN : column.value(a),
      y = column.blank?.(b) ? NaN : column.value(b);
    if (column.text_column) return sign * String(x).localeCompare(String(y), "en", {numeric: true});
    if (!Number.isFinite(x) || !Number.isFinite(y)) return Number.isFinite(y) - Number.isFinite(x); // what has no figure stands last, either way
    return sign * (x - y);
  };
}

/// Row with the best figure of a column among the candidates shown, or null where it says nothing.
function best_of(column, rows) {
  if (!column.better) return null;
  const values = rows.filter((m) => !m.reference && Number.isFinite(column.value(m)));
  if (values.length < 2) return null;
  return values.reduce((a, b) =>
    (column.better === "low" ? column.value(b) < column.value(a) : column.value(b) > column.value(a)) ? b : a,
  );
}

function cell(column, model, best, scale) {
  if (column.blank?.(model)) return h("td", {class: "number blank"}, "–");
  const value = column.value(model);
  const interval = column.interval?.(model);
  const title = range(interval, column.show) ? `95 %: ${range(interval, column.show)}` : null;
  const classes = ["number", model === best && "best", column.minor && "minor"].filter(Boolean).join(" ");
  const text = column.show(value);
  if (!column.bar || !interval) return h("td", {class: classes, title}, text);
  const place = (x) => `${(100 * Math.max(0, x)) / scale}%`;
  return h(
    "td",
    {class: classes, title},
    h(
      "span",
      {
        class: "bar",
        "aria-hidden": "true",
        style: {"--low": place(interval.low), "--high": place(interval.high), "--mean": place(value), "--color": model.color},
      },
      h("i", {}),
      h("b", {}),
    ),
    h("span", {class: "fixed"}, text),
  );
}

export function table_section(report, state) {
  const id = fresh_id("filter");
  let sorted = {key: "mib", down: false},
    filter = "",
    overview = false;
  const body = h("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": "Table of files"});
  const said = h("p", {class: "note", role: "status"});
  const has_gap = report.candidates.some((m) => Object.values(m.scores).some((s) => s.gap_recovery));

  const draw = () => {
    const columns = [...size_columns, ...(overview ? overview_columns(report.suites) : suite_columns(state.suite, has_gap))];
    const column = columns.find((c) => c.key === sorted.key) ?? columns[2];
    const words = filter.toLowerCase().split(/\s+/).filter(Boolean);
    const rows = [...(report.reference ? [report.reference] : []), ...state.shown()]
      .filter((m) => words.every((w) => `${m.name} ${m.strict ? "strict" : ""}`.toLowerCase().includes(w)))
      .sort(compare(column, sorted.down));
    const scale = 1.04 * Math.max(...rows.map((m) => m.scores[state.suite]?.kld?.high ?? 0), 1e-12);
    const focused = body.contains(document.activeElement) ? document.activeElement.dataset?.key : null;
    const head = columns.map((c) => {
      const is_sorted = c === column;
      return h(
        "th",
        {
          scope: "col",
          class: `${c.text_column ? "" : "number"} ${c.minor ? "minor" : ""}`,
          "aria-sort": is_sorted ? (sorted.down ? "descending" : "ascending") : null,
          title: c.title,
        },
        h(
          "button",
          {
            type: "button",
            "data-key": c.key,
            onclick: () => {
              sorted = {key: c.key, down: is_sorted ? !sorted.down : c.better === "high"};
              draw();
            },
          },
          c.text,
          h("span", {class: "arrow", "aria-hidden": "true"}, is_sorted ? (sorted.down ? "▾" : "▴") : ""),
        ),
      );
    });
    const groups =
      overview &&
      h(
        "tr",
        {class: "groups"},
        h("td", {colspan: size_columns.length}),
        report.suites.map((s) => h("th", {scope: "colgroup", colspan: 2}, s.name)),
      );
    const best = new Map(columns.map((c) => [c, best_of(c, rows)]));
    fill(
      body,
      h(
        "table",
        {class: "figures"},
        h("caption", {class: "hidden"}, overview ? "All suites" : `Suite ${state.suite}`),
        h("thead", {}, groups, h("tr", {}, head)),
        h(
          "tbody",
          {},
          rows.map((m) =>
            h(
              "tr",
              {class: [m.reference && "reference", state.marked === m.name && "marked"].filter(Boolean).join(" ")},
              h(
                "th",
                {scope: "row"},
                h(
                  "div",
                  {class: "named"},
                  h("span", {class: "swatch", style: {"--color": m.color ?? "currentColor"}}),
                  h("span", {class: "file"}, m.name),
                  m.reference && h("span", {class: "tag"}, "original"),
                  m.strict && h("span", {class: "tag strict", title: "every matrix is Q4_K"}, "strict Q4_K"),
                  m.name === report.baseline && h("span", {class: "tag"}, "baseline"),
                ),
              ),
              columns.slice(1).map((c) => cell(c, m, best.get(c), scale)),
            ),
          ),
        ),
      ),
    );
    if (focused) [...body.querySelectorAll("button")].find((b) => b.dataset.key === focused)?.focus();
    said.textContent = words.length
      ? `${plural(rows.length, "file")} of ${report.candidates.length + (report.reference ? 1 : 0)} match.`
      : "";
  };
  state.watch(draw);
  const facts = h("p", {class: "note facts"});
  state.watch(() => {
    const s = state.suite_facts();
    fill(
      facts,
      s && h("span", {}, h("b", {}, s.name), ` ${s.file}, ${s.units ? plural(s.units, s.unit) : s.protocol}, ${plural(s.tokens, "token")}`),
      s?.label &&
        h("span", {class: `tag ${s.label === "never seen" ? "good" : "warn"}`, title: "by overlap with the calibration text"}, s.label),
    );
  });

  return section(
    "table",
    "Scores",
    "One row a file, smallest first. Click a heading to sort. Bold: the best figure of a column. " +
      "Bars: 95 % bootstrap intervals over documents or windows.",
    h(
      "div",
      {class: "controls"},
      h(
        "span",
        {class: "filter"},
        h("label", {for: id}, "Filter"),
        h("input", {
          id,
          type: "search",
          placeholder: "name or “strict”",
          autocomplete: "off",
          spellcheck: "false",
          oninput: (event) => {
            filter = event.target.value;
            draw();
          },
        }),
      ),
      report.suites.length > 1 &&
        segmented(
          "Columns",
          [
            {value: "one", text: "this suite"},
            {value: "all", text: "all suites"},
          ],
          "one",
          (v) => {
            overview = v === "all";
            draw();
          },
        ),
      facts,
    ),
    body,
    said,
  );
}
