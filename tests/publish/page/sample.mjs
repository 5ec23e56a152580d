// Results and spectra with everything a report can show, in the layout of docs/evaluation.md and docs/spectra.md. Made up, but of the usual size.

let seed = 7;
const random = () => (seed = (seed * 1664525 + 1013904223) % 4294967296) / 4294967296;
const normal = () => Math.sqrt(-2 * Math.log(random() + 1e-12)) * Math.cos(2 * Math.PI * random());
const around = (mean, share = 0.05) => ({mean, low: mean * (1 - share), high: mean * (1 + share)});

const files = [
  ["original-bf16", 16.01, 9.05, 0],
  ["plain", 4.57, 2.61, 0.0588],
  ["imatrix", 4.57, 2.61, 0.0528],
  ["ours", 4.57, 2.61, 0.0206],
  ["q4_k_m-mix", 5.31, 3.03, 0.0311],
  ["q5_k_s-mix", 5.81, 3.31, 0.013],
];
export const suites = ["heldout", "wiki"];
const words = "the river had risen in the night and the lower fields stood under water when she opened the door , she said .".split(" ");
const word = () => ` ${words[Math.floor(random() * words.length)]}`;
const top = () => [" the", " a", " his", "\n", " <b>"].map((text, i) => [text, 0.4 / (i + 1 + random())]);
const both = () => ({reference: {p: random(), top: top()}, candidate: {p: random(), top: top()}});

const score = (kld, reference) => ({
  tokens: 18000,
  loss: around(3.4 + kld, 0.02),
  loss_change: around(kld),
  kld: around(kld),
  kld_p90: 2.4 * kld,
  kld_p99: 8 * kld,
  kld_max: 60 * kld,
  same_top: around(1 - Math.sqrt(kld) / 2, 0.01),
  rms_delta_p: Math.sqrt(kld) / 4,
  ...(reference ? {} : {gap_recovery: around(1 - kld / 0.0588)}),
});

function histogram(kld) {
  const edges = [0, ...Array.from({length: 41}, (_, i) => 10 ** (-6 + i / 5)), null];
  const counts = edges.slice(1).map((_, i) => Math.round(5000 * Math.exp(-(((-6 + (i - 0.5) / 5 - Math.log10(kld / 2)) / 0.6) ** 2) / 2)));
  return {edges, counts};
}

const details = (model, suite, kld) => {
  const edges = [1, 2, 4, 8, 16, 32, 64, 128, 256, 512];
  const documents = Array.from({length: 2}, (_, d) => {
    const text = Array.from({length: 90}, word),
      klds = text.map(() => 10 ** (-2.2 + normal() * 0.8));
    const largest = klds
      .map((k, i) => [k, i])
      .sort((a, b) => b[0] - a[0])
      .slice(0, 9)
      .map(([, i]) => i)
      .sort((a, b) => a - b);
    return {
      place: `suites/${suite}.jsonl:${d + 1}`,
      first_position: 1,
      before: "Once",
      text,
      kld: klds,
      p_reference: klds.map(random),
      p_candidate: klds.map(random),
      alternatives: largest.map((index) => ({index, ...both()})),
    };
  });
  const worst = Array.from({length: 12}, (_, i) => ({
    place: `suites/${suite}.jsonl:${i}`,
    position: i,
    kld: 3 * 0.9 ** i,
    before: Array.from({length: 20}, word).join(""),
    token: word(),
    after: Array.from({length: 10}, word).join(""),
    ...both(),
  }));
  return {
    model,
    suite,
    histogram: histogram(kld),
    by_position: {edges, tokens: edges.slice(1).map(() => 100), kld: edges.slice(1).map((e) => kld * (1.5 - Math.log10(e) / 5))},
    worst,
    documents,
  };
};

export function results() {
  seed = 7;
  const models = files.map(([name, file_bpw, mebibytes, kld]) => ({
    name,
    path: `/models/${name}.gguf`,
    hash: "0123456789abcdef0123456789abcdef",
    file_bpw,
    matrix_bpw: file_bpw - 0.07,
    mebibytes,
    strict: file_bpw < 4.6,
    reference: kld === 0,
    scores: Object.fromEntries(suites.map((suite, i) => [suite, score(kld * (1 + 0.1 * i), kld === 0)])),
  }));
  const candidates = files.slice(1),
    each = (f) => candidates.flatMap(([name, , , kld]) => suites.map((suite) => f(name, suite, kld)));
  const verdict = (d) => (d < -0.004 ? "better" : d > 0.004 ? "worse" : "not distinguishable");
  return {
    format: 1,
    version: "0.1.0",
    reference: "original-bf16",
    baseline: "plain",
    models,
    suites: suites.map((name) => ({
      name,
      file: `suites/${name}.jsonl`,
      protocol: "documents",
      tokens: 18000,
      units: 120,
      unit: "document",
      hash: "ab12",
      label: "never seen",
    })),
    pairs: suites.flatMap((suite) =>
      candidates.flatMap(([a, , , x], i) =>
        candidates
          .slice(i + 1)
          .map(([b, , , y]) => ({
            suite,
            a,
            b,
            kld: {
              mean: x - y,
              low: x - y - 0.004,
              high: x - y + 0.004,
              verdict: verdict(x - y),
              resolution: 0.02,
              enough: false,
              tokens_needed: 140000,
            },
            loss: {mean: x - y, low: x - y - 0.01, high: x - y + 0.01, verdict: "not distinguishable"},
          })),
      ),
    ),
    overlap: suites.map((suite, i) => ({
      calibration: "texts/calibration.jsonl",
      suite,
      label: i ? "same source as calibration" : "never seen",
      shared_ngrams: i * 0.01,
      near_duplicates: i,
      near_duplicate_share: 0,
      source_auc: 0.8,
      matches: i ? [{suite_place: "wiki:3", calibration_place: "calibration.jsonl:9", similarity: 0.6, text: "The river had risen"}] : [],
    })),
    alignment: each((model, suite, kld) => ({
      model,
      suite,
      label: "never seen",
      kld: around(kld),
      verdict: "kept",
      text: "The loss follows the KLD; no drift towards the calibration text.",
    })),
    continuations: each((model, suite, kld) => ({
      model,
      suite,
      prompts: 60,
      prompt_tokens: 64,
      tokens: 128,
      median: kld < 0.02 ? null : Math.round(1 / kld),
      identical: 0.1,
      agreement: 0.5,
      curve: [0, 1, 2, 4, 8, 16, 32, 64, 128].map((n) => [n, Math.exp(-n * kld)]),
      examples: [
        {
          prompt: "Once upon a time",
          same: " there was a river",
          reference: " that ran to the sea.",
          candidate: " without an end.",
          diverged_at: 4,
        },
      ],
    })),
    choices: [
      {
        name: "quiz",
        file: "quiz.jsonl",
        hash: "cd",
        questions: 200,
        models: models.map(({name, reference}) => ({
          name,
          reference,
          accuracy: around(0.41),
          accuracy_per_byte: around(0.4),
          agreement: around(0.93),
          gained: 4,
          lost: 7,
        })),
      },
    ],
    details: each(details),
  };
}

/// Plain scores, as eval prints them when nothing else was asked for.
export function plain_results() {
  const {format, version, baseline, suites, models} = results();
  return {
    format,
    version,
    baseline,
    suites: suites.slice(0, 1),
    models: models.map((m) => ({...m, scores: {[suites[0].name]: m.scores[suites[0].name]}})),
  };
}

export function spectra() {
  seed = 11;
  const kinds = ["attn_qkv", "ssm_out", "ffn_gate", "ffn_up", "ffn_down"];
  const names = ["token_embd.weight", ...[0, 1, 2, 3].flatMap((b) => kinds.map((k) => `blk.${b}.${k}.weight`))];
  const spectrum = (size) => ({
    size,
    trace: 4,
    effective_rank: size / 5,
    participation_ratio: size / 20,
    estimated: false,
    top: [0.01, 0.05, 0.2].map((share, i) => ({share, directions: Math.ceil(share * size), of_trace: [0.4, 0.7, 0.93][i]})),
    curve: [1, 2, 4, 8, 16, 32, 64, 128, 256].map((rank) => [rank, rank ** -1.7]),
  });
  const sides = () => ({energy: [0.01, 0.05, 0.2], cost: [0.3, 0.5, 0.8]});
  const errors = () =>
    ["plain", "ours"].map((variant, i) => ({
      variant,
      relative_energy: 0.004 * Math.exp(normal() / 3),
      predicted_kl: [1e-3, 3e-4][i] * Math.exp(normal() / 2),
      lookup_kl: null,
      white_kl: 1e-3,
      measured_kl: [1e-3, 3e-4][i] * Math.exp(normal() / 2),
      input: sides(),
      output: sides(),
      lookup: null,
    }));
  return {
    signals: {text: "calibration.jsonl", text_hash: "ab", tokens: 50000, model_hash: "cd"},
    reference: "original-bf16.gguf",
    measured: {text: "heldout.jsonl", tokens: 8192},
    top_shares: [0.01, 0.05, 0.2],
    variants: ["plain", "ours"].map((name, i) => ({
      name,
      path: null,
      predicted_kl: [0.058, 0.02][i],
      measured_sum_kl: [0.06, 0.022][i],
      measured_kl: [0.0588, 0.0206][i],
      rank_correlation: 0.9,
    })),
    blocks: [],
    matrices: names.map((name) => ({
      name,
      block: null,
      rows: 256,
      cols: 256,
      lookup_only: false,
      input: spectrum(256),
      output: spectrum(256),
      lookup: null,
      errors: errors(),
    })),
  };
}
