// The report in a real Chromium: it renders without an error and without the network, sorts, filters, is reachable by keyboard, fits a phone.
//   page_test.mjs SPECTRALQUANT [FOLDER]      FOLDER: keep screenshots there
import assert from "node:assert/strict";
import {execFileSync} from "node:child_process";
import {existsSync, mkdtempSync, rmSync, writeFileSync} from "node:fs";
import {createRequire} from "node:module";
import {tmpdir} from "node:os";
import {dirname, join} from "node:path";
import {fileURLToPath} from "node:url";
import {plain_results, results, spectra} from "./sample.mjs";

const root = join(dirname(fileURLToPath(import.meta.url)), "../../..");
const [binary, screenshots] = process.argv.slice(2);
const executablePath = [process.env.CHROMIUM, "/usr/bin/chromium", "/usr/bin/chromium-browser", "/usr/bin/google-chrome"].find(
  (path) => path && existsSync(path),
);
if (!executablePath) {
  console.log("skipped: no Chromium here (apt-get install chromium, or name it in CHROMIUM)");
  process.exit(77);
}
const {chromium} = createRequire(join(root, "tools/report-page/"))("playwright-core");

const folder = mkdtempSync(join(tmpdir(), "report-test-"));
const file = (name) => join(folder, name);

function make(name, result, spectrum) {
  writeFileSync(file("results.json"), JSON.stringify(result));
  const more = spectrum ? ["--spectra", file("spectra.json")] : [];
  if (spectrum) writeFileSync(file("spectra.json"), JSON.stringify(spectrum));
  execFileSync(binary, ["report", file("results.json"), ...more, "-o", file(name), "--force", "--quiet"]);
  return `file://${file(name)}`;
}

/// What the real program prints of a real model: the layout that the page reads is the one that eval writes.
function make_real() {
  const model = join(root, "models/nano-qwen35-bf16.gguf"),
    suite = join(root, "suites/convergence60.jsonl");
  execFileSync(binary, ["quantize", model, "-o", file("plain.gguf"), "--method", "plain", "--quiet"]);
  const printed = execFileSync(binary, [
    "eval",
    "--reference",
    model,
    file("plain.gguf"),
    "--suite",
    `conv=${suite}:4x128`,
    "--details",
    "--json",
    "--quiet",
  ]);
  return make("real.html", JSON.parse(printed));
}

const browser = await chromium.launch({executablePath, args: ["--no-sandbox"]});

/// A page that fails the test by any error on its console and any request but the file itself.
async function open(url, options = {}) {
  const context = await browser.newContext({viewport: {width: 1280, height: 900}, colorScheme: "light", ...options});
  const page = await context.newPage();
  const problems = [];
  page.on("console", (message) => ["error", "warning"].includes(message.type()) && problems.push(message.text()));
  page.on("pageerror", (error) => problems.push(error.stack));
  page.on(
    "request",
    (request) => request.url() !== url && !request.url().startsWith("data:") && problems.push(`asks for ${request.url()}`),
  );
  await page.goto(url);
  await page.waitForSelector("section#provenance");
  page.problems = problems;
  return page;
}
const names = (page) => page.locator("#table tbody .file").allTextContents();
const section_ids = (page) => page.locator("main section").evaluateAll((all) => all.map((s) => s.id));

const tests = {
  async "draws every section"(page) {
    assert.deepEqual(await section_ids(page), [
      "table",
      "size",
      "suites",
      "tokens-distribution",
      "position",
      "pairs",
      "alignment",
      "continuations",
      "choices",
      "tensors",
      "cost",
      "spectra",
      "browser",
      "provenance",
    ]);
    assert.equal(await page.locator(".bar nav a").count(), 14);
    for (const id of ["size", "suites", "tokens-distribution", "position", "continuations", "tensors", "cost", "spectra"])
      assert.ok(
        await page
          .locator(`#${id} .chart svg`)
          .first()
          .evaluate((svg) => svg.querySelectorAll("path, circle, rect").length > 3),
        id,
      );
    assert.match(await page.title(), /original-bf16: 5 quantizations scored on 2 suites/);
  },
  async "sorts by every heading"(page) {
    assert.deepEqual(await names(page), ["plain", "imatrix", "ours", "q4_k_m-mix", "q5_k_s-mix", "original-bf16"]);
    await page.locator("#table thead button", {hasText: /^KLD/}).click();
    assert.deepEqual(await names(page), ["q5_k_s-mix", "ours", "q4_k_m-mix", "imatrix", "plain", "original-bf16"]);
    assert.equal(await page.locator("#table th[aria-sort=ascending]").count(), 1);
    await page.keyboard.press("Enter"); // the heading kept the focus
    assert.deepEqual((await names(page)).slice(0, 2), ["plain", "imatrix"]);
    assert.equal(await page.locator("#table th[aria-sort=descending]").count(), 1);
    await page.locator("#table thead button", {hasText: "file"}).click();
    assert.deepEqual((await names(page)).slice(0, 2), ["imatrix", "original-bf16"]);
  },
  async filters(page) {
    await page.getByLabel("Filter").fill("strict");
    assert.equal((await names(page)).length, 3);
    assert.match(await page.locator("#table [role=status]").textContent(), /3 files of 6/);
    await page.getByLabel("Filter").fill("mix q5");
    assert.deepEqual(await names(page), ["q5_k_s-mix"]);
    await page.getByLabel("Filter").fill("");
    assert.equal((await names(page)).length, 6);
  },
  async "marks the best of a column"(page) {
    assert.equal(await page.locator("#table tbody tr", {hasText: "q5_k_s-mix"}).locator("td.best").count(), 8);
  },
  async "a candidate switched off leaves tables and charts"(page) {
    const chip = page.locator(".chips button", {hasText: "plain"});
    await chip.click();
    assert.equal(await chip.getAttribute("aria-pressed"), "false");
    assert.ok(!(await names(page)).includes("plain"));
    assert.equal(await page.locator("#size .name", {hasText: "plain"}).count(), 0);
    await chip.click();
    assert.ok((await names(page)).includes("plain"));
  },
  async "a candidate pointed at comes to the front"(page) {
    await page.locator(".chips button", {hasText: "ours"}).hover();
    assert.equal(await page.locator("#size .name", {hasText: "imatrix"}).getAttribute("opacity"), "0.22");
    await page.mouse.move(5, 5);
    assert.equal(await page.locator("#size .name", {hasText: "imatrix"}).getAttribute("opacity"), "1");
  },
  async "changes the suite everywhere"(page) {
    const cell = () => page.locator("#table tbody tr", {hasText: "imatrix"}).locator("td.number").nth(2).textContent();
    assert.equal(await cell(), "0.0528");
    await page.locator(".bar .segmented label", {hasText: "wiki"}).click();
    assert.equal(await cell(), "0.0581");
    assert.match(await page.locator("#size .chart").getAttribute("aria-label"), /suite wiki/);
    await page.locator(".bar .segmented label", {hasText: "heldout"}).click();
  },
  async "shows all suites side by side"(page) {
    await page.locator("#table label", {hasText: "all suites"}).click();
    assert.deepEqual(await page.locator("#table .groups th").allTextContents(), ["heldout", "wiki"]);
    await page.locator("#table label", {hasText: "this suite"}).click();
  },
  async "switches what charts show"(page) {
    const label = () => page.locator("#size svg").first().innerHTML();
    const before = await label();
    await page.locator("#size label", {hasText: "BPW"}).click();
    await page.locator("#size label", {hasText: "99 %"}).click();
    await page.locator("#size label", {hasText: "linear"}).click();
    assert.notEqual(await label(), before);
    await page.locator("#tokens-distribution label", {hasText: "share above"}).click();
    await page.locator("#suites label", {hasText: "same top"}).click();
    await page.locator("#tensors label", {hasText: "weights"}).click();
    await page.locator("#cost label", {hasText: "measured"}).click();
    await page.locator("#spectra label", {hasText: "outputs"}).click();
    await page.locator("#pairs label", {hasText: "loss"}).click();
    assert.equal(await page.locator("#pairs td.same").count(), 20);
  },
  async "browses tokens by mouse and keyboard"(page) {
    assert.equal(await page.locator("#browser .passages button").count(), 12);
    assert.equal(await page.locator("#browser .alternatives li").count(), 10);
    await page.locator("#browser label", {hasText: "whole texts"}).click();
    assert.equal(await page.locator("#browser .passage button").count(), 90);
    const pressed = () =>
      page.locator("#browser .passage button").evaluateAll((all) => all.findIndex((b) => b.getAttribute("aria-pressed") === "true"));
    const hottest = await pressed();
    await page.locator("#browser .passage button").nth(10).click();
    await page.keyboard.press("ArrowRight");
    assert.equal(await pressed(), 11);
    await page.keyboard.press("Home");
    assert.equal(await pressed(), 0);
    while ((await pressed()) < hottest) {
      const at = await pressed();
      await page.keyboard.press("ArrowDown");
      assert.ok((await pressed()) > at);
    }
    assert.equal(await pressed(), hottest);
    assert.equal(await page.locator("#browser .alternatives").count(), 2);
    await page.locator("#browser select").selectOption("ours");
    assert.match(await page.locator("#browser .detail").textContent(), /by ours/);
  },
  async "everything that can be used has a name"(page) {
    const nameless = await page
      .locator("button, input, select, a, [role=img], [role=group], [role=region]")
      .evaluateAll((all) =>
        all
          .filter((e) => !(e.getAttribute("aria-label") || e.textContent.trim() || e.labels?.[0]?.textContent.trim()))
          .map((e) => e.outerHTML.slice(0, 120)),
      );
    assert.deepEqual(nameless, []);
  },
  async "the first stop of the keyboard leads past the bar"(page) {
    await page.reload();
    await page.keyboard.press("Tab");
    assert.equal(await page.evaluate(() => document.activeElement.textContent), "Skip to the table");
    await page.keyboard.press("Enter");
    assert.equal(await page.evaluate(() => location.hash), "#content");
  },
  async "follows the theme and its switch"(page) {
    const paper = () => page.evaluate(() => getComputedStyle(document.body).backgroundColor);
    assert.equal(await paper(), "rgb(255, 255, 255)");
    await page.locator(".kicker label", {hasText: "dark"}).click();
    assert.equal(await paper(), "rgb(16, 18, 22)");
    await page.locator(".kicker label", {hasText: "auto"}).click();
    await page.emulateMedia({colorScheme: "dark"});
    assert.equal(await paper(), "rgb(16, 18, 22)");
  },
  async "prints on white paper without its controls"(page) {
    await page.emulateMedia({media: "print", colorScheme: "dark"});
    assert.equal(await page.evaluate(() => getComputedStyle(document.body).backgroundColor), "rgb(255, 255, 255)");
    assert.equal(await page.locator(".bar").first().isVisible(), false);
    await page.emulateMedia({media: null, colorScheme: "light"});
  },
};

let failed = 0;
async function check(name, body) {
  try {
    await body();
    console.log(`ok      ${name}`);
  } catch (error) {
    failed++;
    console.log(`FAILED  ${name}\n${error.stack}`);
  }
}

try {
  const full = make("full.html", results(), spectra());
  const page = await open(full);
  for (const [name, test] of Object.entries(tests)) await check(name, () => test(page));
  await check("no error on the console, no request", () => assert.deepEqual(page.problems, []));

  for (const colorScheme of ["light", "dark"]) {
    await check(`fits a phone, ${colorScheme}`, async () => {
      const phone = await open(full, {
        viewport: {width: 390, height: 844},
        isMobile: true,
        hasTouch: true,
        deviceScaleFactor: 2,
        colorScheme,
      });
      assert.ok(await phone.evaluate(() => document.documentElement.scrollWidth <= innerWidth), "no sideways scrolling of the page");
      assert.deepEqual(phone.problems, []);
      if (screenshots) await phone.screenshot({path: join(screenshots, `phone-${colorScheme}.png`), fullPage: true});
    });
    if (screenshots)
      await (await open(full, {colorScheme})).screenshot({path: join(screenshots, `desktop-${colorScheme}.png`), fullPage: true});
  }

  await check("sections without data are left out", async () => {
    const plain = await open(make("plain.html", plain_results()));
    assert.deepEqual(await section_ids(plain), ["table", "size", "provenance"]);
    assert.deepEqual(plain.problems, []);
  });

  await check("hostile names stay text", async () => {
    const hostile = results(),
      name = "</script><img src=x onerror=\"document.title='taken'\">{{results}}";
    const text = JSON.stringify(hostile).replaceAll('"ours"', JSON.stringify(name));
    const shown = await open(make("hostile.html", JSON.parse(text), spectra()));
    assert.equal(await shown.locator("img").count(), 0);
    assert.ok((await names(shown)).includes(name));
    assert.doesNotMatch(await shown.title(), /taken/);
    assert.deepEqual(shown.problems, []);
  });

  await check("draws what eval prints", async () => {
    const real = await open(make_real());
    const ids = await section_ids(real);
    for (const id of ["table", "size", "tokens-distribution", "position", "browser", "provenance"]) assert.ok(ids.includes(id), id);
    assert.equal(await real.locator("#browser .alternatives li").count(), 10);
    assert.deepEqual(real.problems, []);
  });
} finally {
  await browser.close();
  rmSync(folder, {recursive: true});
}
process.exit(failed ? 1 : 0);
