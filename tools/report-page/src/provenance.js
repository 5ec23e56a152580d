// What was scored on what, by hash; and whose code draws this page.
import {h, section} from "./dom.js";
import {count, plural} from "./format.js";

const hash = (text) => h("code", {class: "hash", title: text}, text ?? "–");

export function provenance_section(report) {
  const models = [...(report.reference ? [report.reference] : []), ...report.candidates];
  return section(
    "provenance",
    "What was measured",
    "Hashes are XXH3-128: of a file's bytes, and of a suite's tokens and scored positions.",
    h(
      "div",
      {class: "scroll"},
      h(
        "table",
        {class: "figures small"},
        h("caption", {class: "hidden"}, "Suites"),
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            ["suite", "text", "protocol"].map((t) => h("th", {scope: "col"}, t)),
            h("th", {scope: "col", class: "number"}, "tokens scored"),
            h("th", {scope: "col"}, "hash"),
          ),
        ),
        h(
          "tbody",
          {},
          report.suites.map((s) =>
            h(
              "tr",
              {},
              h("th", {scope: "row"}, s.name),
              h("td", {}, s.file),
              h("td", {}, s.protocol),
              h("td", {class: "number"}, count(s.tokens)),
              h("td", {}, hash(s.hash)),
            ),
          ),
        ),
      ),
    ),
    h(
      "div",
      {class: "scroll"},
      h(
        "table",
        {class: "figures small"},
        h("caption", {class: "hidden"}, "Files"),
        h(
          "thead",
          {},
          h(
            "tr",
            {},
            ["file", "path", "hash"].map((t) => h("th", {scope: "col"}, t)),
          ),
        ),
        h(
          "tbody",
          {},
          models.map((m) => h("tr", {}, h("th", {scope: "row"}, m.name), h("td", {}, m.path), h("td", {}, hash(m.hash)))),
        ),
      ),
    ),
    h(
      "details",
      {class: "licences"},
      h("summary", {}, "Licences of the libraries in this file"),
      h("pre", {}, report.licences.replaceAll("&lt;", "<").replaceAll("&gt;", ">").replaceAll("&amp;", "&")),
    ),
  );
}
