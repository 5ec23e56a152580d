// The text where a file differs most from the original, coloured by KLD, with what both would have said.
import {of} from "./data.js";
import {h, fill, fresh_id, section, segmented, select} from "./dom.js";
import {kld, number, percent} from "./format.js";

/// Share of full colour for a KLD: nothing below .01 nats, all of it from 1 nat on.
const heat = (x) => Math.max(0, Math.min(1, (Math.log10(Math.max(x, 1e-9)) + 2) / 2));

/// A token as it can be read: spaces and breaks at its ends are made visible.
function visible(text) {
  if (text === "") return "∅";
  return text
    .replaceAll("\n", "↵")
    .replaceAll("\r", "␍")
    .replaceAll("\t", "⇥")
    .replace(/^ +| +$/g, (s) => "·".repeat(s.length));
}

/// Tokens that are not among `others` (the other's five; null: no marks) are marked.
function alternatives(title, list, true_text, others) {
  const most = Math.max(...list.map(([, p]) => p), 1e-9);
  const elsewhere = new Set(others?.map(([text]) => text));
  return h(
    "div",
    {class: "alternatives"},
    h("h4", {}, title),
    h(
      "ol",
      {},
      list.map(([text, p]) =>
        h(
          "li",
          {class: text === true_text ? "true" : null},
          h("code", {title: text === true_text ? "the text's own token" : null}, visible(text)),
          h("span", {class: "probability", "aria-hidden": "true", style: {"--p": `${(100 * p) / most}%`}}),
          h("span", {class: "number"}, percent(p)),
          others && !elsewhere.has(text) && h("span", {class: "tag", title: "not among the original's five"}, "new"),
        ),
      ),
    ),
  );
}

export function browser_section(report, state) {
  const entries = report.browsed;
  if (!entries.length) return null;
  let file = entries[0].model,
    kind = "worst",
    chosen = 0,
    token = -1;
  const controls = h("div", {class: "controls"}),
    list = h("div", {class: "passages"}),
    text = h("div", {class: "passage"}),
    detail = h("div", {class: "detail", "aria-live": "polite"});
  const help = fresh_id("help");
  const passages = () => of(entries, state.suite, file)?.[kind] ?? [];
  const tokens = () => passages()[chosen]?.tokens ?? [];
  const hottest = (all) => all.reduce((best, t, i) => (t.kld > all[best].kld ? i : best), 0);

  const show_detail = () => {
    const t = tokens()[token];
    for (const [i, b] of [...text.querySelectorAll("button")].entries()) {
      b.setAttribute("aria-pressed", String(i === token));
      b.tabIndex = i === token ? 0 : -1;
    }
    if (!t) return fill(detail);
    fill(
      detail,
      h(
        "p",
        {class: "facts"},
        h("code", {class: "token"}, visible(t.text)),
        h("span", {}, "KLD ", h("b", {}, kld(t.kld))),
        Number.isFinite(t.reference_p) &&
          h(
            "span",
            {},
            "probability by the original ",
            h("b", {}, percent(t.reference_p, 2)),
            `, by ${file} `,
            h("b", {}, percent(t.p, 2)),
          ),
      ),
      t.reference_top
        ? h(
            "div",
            {class: "two"},
            alternatives("the original's five likeliest", t.reference_top, t.text, null),
            alternatives(`${file}’s five likeliest`, t.top, t.text, t.reference_top),
          )
        : h("p", {class: "note"}, "Not among the tokens with the largest KLD of this text: their likeliest tokens were not kept."),
    );
  };
  const choose = (i, focus = false) => {
    token = Math.max(0, Math.min(tokens().length - 1, i));
    show_detail();
    const button = text.querySelectorAll("button")[token];
    if (focus) button?.focus();
    else if (button && text.parentElement) text.parentElement.scrollTop = button.offsetTop - text.parentElement.clientHeight / 2;
  };
  const show_passage = () => {
    const all = passages(),
      p = all[chosen];
    fill(
      list,
      h(
        "ol",
        {"aria-label": kind === "worst" ? "Tokens, largest KLD first" : "Texts"},
        all.map((q, i) =>
          h(
            "li",
            {},
            h(
              "button",
              {
                type: "button",
                "aria-pressed": String(i === chosen),
                title: q.title,
                onclick: () => {
                  chosen = i;
                  token = -1;
                  show_passage();
                },
              },
              h("span", {class: "what"}, kind === "worst" ? h("code", {}, visible(q.tokens[0].text)) : q.title),
              h("span", {class: "number"}, kind === "worst" ? number(q.kld, 2) : kld(q.kld)),
            ),
          ),
        ),
      ),
    );
    if (!p) {
      fill(text, h("p", {class: "empty"}, "Nothing was kept of this file on this suite."));
      fill(detail);
      return;
    }
    const button = (t, i) => {
      const k = heat(t.kld);
      return h(
        "button",
        {
          type: "button",
          class: k > 0.75 ? "hot" : null,
          style: {"--k": `${(100 * k).toFixed(0)}%`},
          "aria-label": `${visible(t.text)}, KLD ${kld(t.kld)}`,
          onclick: () => choose(i),
        },
        t.text.replaceAll("\n", "↵") || "∅",
      );
    };
    fill(
      text,
      p.before && h("span", {class: "before"}, p.before),
      p.tokens.flatMap((t, i) => (t.text.includes("\n") ? [button(t, i), h("br")] : [button(t, i)])),
      p.after && h("span", {class: "before"}, p.after),
    );
    choose(token < 0 ? hottest(p.tokens) : token);
  };
  text.addEventListener("keydown", (event) => {
    const all = tokens();
    const next_hot = (step) => {
      for (let i = token + step; i >= 0 && i < all.length; i += step) if (heat(all[i].kld) > 0.5) return i;
      return token;
    };
    const target = {
      ArrowRight: token + 1,
      ArrowLeft: token - 1,
      Home: 0,
      End: all.length - 1,
      ArrowDown: next_hot(1),
      ArrowUp: next_hot(-1),
    }[event.key];
    if (target === undefined) return;
    event.preventDefault();
    choose(target, true);
  });
  const restart = () => {
    chosen = 0;
    token = -1;
    show_passage();
  };
  const show_controls = () => {
    const files = entries.filter((e) => e.suite === state.suite).map((e) => e.model);
    if (files.length && !files.includes(file)) file = files[0];
    if (!passages().length) kind = kind === "worst" ? "documents" : "worst";
    fill(
      controls,
      files.length > 0 &&
        select(
          "File",
          files.map((m) => ({value: m, text: m})),
          file,
          (v) => {
            file = v;
            token = -1;
            show_passage();
          },
        ),
      segmented(
        "Show",
        [
          {value: "worst", text: "worst tokens"},
          {value: "documents", text: "whole texts"},
        ],
        kind,
        (v) => {
          kind = v;
          restart();
        },
      ),
      h("span", {class: "heat-legend"}, "KLD .01", h("span", {class: "ramp hot", "aria-hidden": "true"}), "1 nat and more"),
    );
  };
  let shown_suite = null;
  state.watch(() => {
    if (state.suite === shown_suite) return;
    shown_suite = state.suite;
    show_controls();
    restart();
  });
  return section(
    "browser",
    "Where it differs most",
    "The colour of a token is the KLD of the two predictions made for its place: how differently the file would have gone on. " +
      "Underlined: the text's own token.",
    controls,
    h(
      "div",
      {class: "browser"},
      list,
      h(
        "div",
        {},
        h("div", {class: "passage-frame", role: "group", "aria-label": "Text, one button a token", "aria-describedby": help}, text),
        h("p", {class: "note", id: help}, "Keys: ← → next token, ↑ ↓ next strongly coloured one."),
        detail,
      ),
    ),
  );
}
