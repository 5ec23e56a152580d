// Numbers as they stand in tables and charts.

const missing = "–";

export const number = (x, digits) => (Number.isFinite(x) ? x.toFixed(digits).replace("-", "−") : missing);
export const kld = (x) => number(x, 4);
export const percent = (x, digits = 1) => (Number.isFinite(x) ? `${number(100 * x, digits)} %` : missing);
export const count = (x) => (Number.isFinite(x) ? x.toLocaleString("en-US") : missing);
export const range = (i, f) => (i && Number.isFinite(i.low) && Number.isFinite(i.high) ? `${f(i.low)} … ${f(i.high)}` : "");

/// Three significant digits without an exponent where that stays short: 0.00123, 4.56, 1.2e-7.
export function short(x) {
  if (!Number.isFinite(x)) return missing;
  const a = Math.abs(x);
  if (a === 0) return "0";
  return (a >= 1e-5 && a < 1e6 ? String(Number(x.toPrecision(3))) : x.toExponential(1)).replace("-", "−");
}

export const plural = (n, one, many = `${one}s`) => `${count(n)} ${n === 1 ? one : many}`;
