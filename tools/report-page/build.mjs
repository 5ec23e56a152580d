// Builds the page that `spectralquant report` fills: scripts, styles and licences in one file without links to anything.
//   node build.mjs [OUT]      default: ../../spectralquant/publish/page.html
import {build} from "esbuild";
import {readFileSync, writeFileSync, existsSync, readdirSync} from "node:fs";
import {dirname, join} from "node:path";
import {fileURLToPath} from "node:url";

const here = dirname(fileURLToPath(import.meta.url));
const out = process.argv[2] ?? join(here, "../../spectralquant/publish/page.html");

const bundle = (entry, options) =>
  build({
    absWorkingDir: here,
    entryPoints: [entry],
    bundle: true,
    minify: true,
    write: false,
    metafile: true,
    target: ["es2022", "chrome123", "firefox121", "safari17.5"],
    legalComments: "none",
    charset: "utf8",
    ...options,
  });

/// Packages whose code is in the bundle, by the metafile's inputs "node_modules/NAME/...".
function packages(metafile) {
  const names = new Set();
  for (const output of Object.values(metafile.outputs))
    for (const [path, input] of Object.entries(output.inputs)) {
      const name = path.match(/^node_modules\/((?:@[^/]+\/)?[^/]+)\//)?.[1];
      if (name && input.bytesInOutput > 0) names.add(name);
    }
  return [...names].sort();
}

/// Name, version and the licence text of a package; packages under one text share it.
function licences(names) {
  const byText = new Map();
  for (const name of names) {
    const folder = join(here, "node_modules", name);
    const {version, license} = JSON.parse(readFileSync(join(folder, "package.json"), "utf8"));
    const file = existsSync(folder) && readdirSync(folder).find((f) => /^licen[cs]e/i.test(f));
    if (!file) throw new Error(`${name} has no licence file`);
    const text = readFileSync(join(folder, file), "utf8").replace(/\r/g, "").trim();
    byText.set(text, [...(byText.get(text) ?? []), `${name} ${version} (${license})`]);
  }
  return [...byText].map(([text, owners]) => `${owners.join(", ")}\n\n${text}`).join("\n\n----\n\n");
}

const escapeHtml = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;").replaceAll(">", "&gt;");

const script = await bundle("src/main.js", {format: "iife"});
const style = await bundle("src/style.css", {});
const code = script.outputFiles[0].text;
if (code.includes("</script")) throw new Error("the script would end its own element");

const page = readFileSync(join(here, "src/page.html"), "utf8")
  .replace("/*STYLE*/", () => style.outputFiles[0].text.trim())
  .replace("/*SCRIPT*/", () => code.trim())
  .replace("<!--LICENCES-->", () => escapeHtml(licences(packages(script.metafile))));
writeFileSync(out, page);
console.log(`${out}: ${(page.length / 1024).toFixed(0)} KiB`);
