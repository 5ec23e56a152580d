// What the reader has chosen; every view redraws itself when it changes.

/// suite: name of the suite shown; hidden: names of candidates that are switched off; marked: name of the one drawn in front, or null.
export function make_state(report) {
  const views = new Set();
  const state = {
    suite: report.suites[0]?.name,
    hidden: new Set(),
    marked: null,
    /// Calls `view` now and after every change.
    watch(view) {
      views.add(view);
      view();
    },
    change(values) {
      Object.assign(state, values);
      for (const view of views) view();
    },
    toggle(name) {
      const hidden = new Set(state.hidden);
      if (!hidden.delete(name)) hidden.add(name);
      state.change({hidden});
    },
    shown: () => report.candidates.filter((c) => !state.hidden.has(c.name)),
    suite_facts: () => report.suites.find((s) => s.name === state.suite),
  };
  return state;
}
