// The one place that knows how the JSON of `eval` and of the spectra is laid out (docs/evaluation.md, docs/spectra.md); everything else reads what
// this returns.

const read = (id) => JSON.parse(document.getElementById(id).textContent || "null");

/// Colours that stay apart in light and dark, for most kinds of colour vision; candidates beyond the tenth begin again.
const n_colors = 10;

/// Entry of a list of {suite, model, ...}, or undefined.
export const of = (list, suite, model) => list.find((e) => e.suite === suite && e.model === model);

/// What the browser of tokens walks through: whole documents, then the single worst tokens with their surroundings.
///
/// A passage: {title, kld, before, tokens: [{text, kld, p, reference_p, top, reference_top}], after}
function passages(entry) {
  const sides = (t) => ({reference_p: t.reference?.p, p: t.candidate?.p, reference_top: t.reference?.top, top: t.candidate?.top});
  const documents = (entry.documents ?? []).map((d) => {
    const alternatives = new Map((d.alternatives ?? []).map((a) => [a.index, sides(a)]));
    const tokens = d.text.map((text, i) => ({
      text,
      kld: d.kld[i],
      reference_p: d.p_reference?.[i],
      p: d.p_candidate?.[i],
      ...alternatives.get(i),
    }));
    return {
      title: d.place,
      kld: tokens.reduce((sum, t) => sum + t.kld, 0) / Math.max(1, tokens.length),
      before: d.before ?? "",
      tokens,
      after: "",
    };
  });
  const worst = (entry.worst ?? []).map((w) => ({
    title: w.place,
    kld: w.kld,
    before: w.before ?? "",
    tokens: [{text: w.token, kld: w.kld, ...sides(w)}],
    after: w.after ?? "",
  }));
  return {suite: entry.suite, model: entry.model, documents, worst};
}

export function read_report() {
  const results = read("results") ?? {};
  const models = (results.models ?? []).map((m) => ({...m, scores: m.scores ?? {}}));
  const candidates = models.filter((m) => !m.reference);
  candidates.forEach((c, i) => (c.color = `var(--c${i % n_colors})`));
  const details = results.details ?? [];
  return {
    results,
    spectra: read("spectra"),
    licences: document.getElementById("licences").textContent,
    suites: results.suites ?? [],
    reference: models.find((m) => m.reference) ?? null,
    candidates,
    baseline: results.baseline || null,
    by_name: new Map(models.map((m) => [m.name, m])),
    histograms: details.filter((d) => d.histogram?.counts?.length),
    by_position: details.filter((d) => d.by_position?.tokens?.length),
    browsed: details.filter((d) => d.worst?.length || d.documents?.length).map(passages),
    pairs: results.pairs ?? [],
    overlap: results.overlap ?? [],
    alignment: results.alignment ?? [],
    continuations: results.continuations ?? [],
    choices: results.choices ?? [],
  };
}
