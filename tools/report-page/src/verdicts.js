// Pairwise differences, overlap with the calibration text, and what a low loss means.
import {h, fill, section, segmented} from "./dom.js";
import {count, number, percent, plural, range} from "./format.js";

const signs = {better: "◂", worse: "▸"};

export function pairs_section(report, state) {
  if (!report.pairs.length) return null;
  let figure = "kld";
  const body = h("div", {class: "scroll", tabindex: "0", role: "region", "aria-label": "Pairwise differences"});
  const draw = () => {
    const names = state.shown().map((c) => c.name);
    const of = new Map();
    const flipped = {better: "worse", worse: "better"};
    for (const p of report.pairs.filter((p) => p.suite === state.suite && p[figure])) {
      const d = p[figure],
        verdict = d.verdict ?? p.verdict;
      of.set(`${p.a}\n${p.b}`, {...p, d, verdict});
      of.set(`${p.b}\n${p.a}`, {...p, d: {mean: -d.mean, low: -d.high, high: -d.low}, verdict: flipped[verdict] ?? verdict});
    }
    const f = (x) => number(x, 4).replace(/^(?=\d)/, "+");
    fill(
      body,
      h(
        "table",
        {class: "pairs"},
        h("caption", {class: "hidden"}, `Differences on ${state.suite}`),
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            h("td"),
            names.map((n) =>
              h("th", {scope: "col", style: {height: `${24 + 4.8 * Math.max(...names.map((m) => m.length))}px`}}, h("span", {}, n)),
            ),
          ),
        ),
        h(
          "tbody",
          {},
          names.map((a) =>
            h(
              "tr",
              {},
              h(
                "th",
                {scope: "row"},
                h("div", {class: "named"}, h("span", {class: "swatch", style: {"--color": report.by_name.get(a).color}}), a),
              ),
              names.map((b) => {
                if (a === b) return h("td", {class: "self"}, "");
                const p = of.get(`${a}\n${b}`);
                if (!p) return h("td", {class: "blank"}, "");
                const kind = p.verdict === "better" ? "better" : p.verdict === "worse" ? "worse" : "same";
                const needed =
                  Number.isFinite(p.tokens_needed) && kind === "same"
                    ? `\nabout ${count(p.tokens_needed)} tokens would be needed to tell`
                    : "";
                return h(
                  "td",
                  {class: `number ${kind}`, title: `${a} against ${b}: ${p.verdict}\n${f(p.d.mean)} (${range(p.d, f)})${needed}`},
                  h("span", {class: "hidden"}, `${p.verdict}, `),
                  f(p.d.mean),
                );
              }),
            ),
          ),
        ),
      ),
    );
  };
  state.watch(draw);
  return section(
    "pairs",
    "Pair by pair",
    "Row minus column on the same tokens, paired bootstrap. Green: the row is better. Red: worse. " +
      "Grey: the 95 % interval holds zero, the text cannot tell them apart.",
    h(
      "div",
      {class: "controls"},
      segmented(
        "Difference of",
        [
          {value: "kld", text: "KLD"},
          {value: "loss", text: "loss"},
        ],
        figure,
        (v) => {
          figure = v;
          draw();
        },
      ),
    ),
    body,
  );
}

const verdict_class = {kept: "good", leaked: "warn", aligned: "warn"};

export function alignment_section(report, state) {
  if (!report.overlap.length && !report.alignment.length) return null;
  const body = h("div", {});
  state.watch(() =>
    fill(
      body,
      report.overlap.length > 0 &&
        h(
          "dl",
          {class: "overlap"},
          report.overlap.map((o) =>
            h(
              "div",
              {},
              h("dt", {}, o.suite, h("span", {class: `tag ${o.label === "never seen" ? "good" : "warn"}`}, o.label)),
              h(
                "dd",
                {},
                `against ${o.calibration}: ${percent(o.shared_ngrams)} of its runs of words, ${plural(o.near_duplicates, "near-duplicate")}`,
                Number.isFinite(o.source_auc) ? `; a classifier tells the two texts apart with AUC ${number(o.source_auc, 2)}` : "",
                ".",
                o.matches?.length > 0 &&
                  h(
                    "details",
                    {},
                    h("summary", {}, "Passages in both"),
                    h(
                      "ul",
                      {},
                      o.matches.map((m) =>
                        h("li", {}, `${m.suite_place} in ${m.calibration_place}, ${percent(m.similarity, 0)}: `, h("q", {}, m.text)),
                      ),
                    ),
                  ),
              ),
            ),
          ),
        ),
      report.alignment
        .filter((a) => a.suite === state.suite && !state.hidden.has(a.model))
        .map((a) =>
          h(
            "p",
            {class: "verdict"},
            h("span", {class: "swatch", style: {"--color": report.by_name.get(a.model)?.color ?? "currentColor"}}),
            h("b", {}, a.model),
            ` on ${a.suite}: `,
            h("span", {class: `tag ${verdict_class[a.verdict] ?? ""}`}, a.verdict),
            " ",
            a.text,
          ),
        ),
    ),
  );
  return section(
    "alignment",
    "Behaviour or alignment?",
    "Is a low loss closeness to the original, or drift towards the text a file was calibrated on? " +
      "Overlap of calibration and suites, and a verdict with its figures.",
    body,
  );
}
