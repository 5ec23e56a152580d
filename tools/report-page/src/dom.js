// Elements from plain calls. Text becomes text nodes only: a hostile name cannot become markup.

/// h("td", {class: "number", onclick: f}, "text", child, [more]); null and false children are left out.
export function h(tag, attributes = {}, ...children) {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value == null || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (name === "style" && typeof value === "object") for (const [k, v] of Object.entries(value)) element.style.setProperty(k, v);
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((c) => c != null && c !== false));
  return element;
}

let serial = 0;
export const fresh_id = (stem) => `${stem}-${++serial}`;

/// A row of exclusive choices, as radio buttons: arrow keys move between them.
export function segmented(label, choices, chosen, on_choose) {
  const name = fresh_id("choice");
  return h(
    "fieldset",
    {class: "segmented"},
    h("legend", {}, label),
    choices.map(({value, text, title}) =>
      h(
        "label",
        {title},
        h("input", {type: "radio", name, value, checked: value === chosen, onchange: () => on_choose(value)}),
        h("span", {}, text),
      ),
    ),
  );
}

/// A labelled drop-down.
export function select(label, choices, chosen, on_choose) {
  const id = fresh_id("select");
  return h(
    "span",
    {class: "select"},
    h("label", {for: id}, label),
    h(
      "select",
      {id, onchange: (event) => on_choose(event.target.value)},
      choices.map(({value, text}) => h("option", {value, selected: value === chosen}, text)),
    ),
  );
}

/// Choices under a chart, so that the chart keeps its place when they wrap.
export const controls_below = (...children) => h("div", {class: "controls below"}, children);

/// A section with an anchor; `lead` says in a sentence how to read it.
export function section(id, title, lead, ...children) {
  return h(
    "section",
    {id, "aria-labelledby": `${id}-title`},
    h("header", {}, h("h2", {id: `${id}-title`}, title), h("p", {class: "lead"}, lead)),
    children,
  );
}

/// Replaces the children of an element.
export function fill(element, ...children) {
  element.replaceChildren(...children.flat(Infinity).filter((c) => c != null && c !== false));
  return element;
}
