// The page in the repository is the one that its sources make.
import {execFileSync} from "node:child_process";
import {mkdtempSync, readFileSync, rmSync} from "node:fs";
import {tmpdir} from "node:os";
import {dirname, join} from "node:path";
import {fileURLToPath} from "node:url";

const root = join(dirname(fileURLToPath(import.meta.url)), "../../..");
const folder = mkdtempSync(join(tmpdir(), "report-page-"));
try {
  const built = join(folder, "page.html");
  execFileSync(process.execPath, [join(root, "tools/report-page/build.mjs"), built]);
  const page = readFileSync(join(root, "spectralquant/publish/page.html"), "utf8");
  if (page !== readFileSync(built, "utf8")) {
    console.error("spectralquant/publish/page.html is not what tools/report-page makes: run 'npm run build' there");
    process.exit(1);
  }
  const lock = readFileSync(join(root, "tools/report-page/package-lock.json"), "utf8");
  for (const [what, text] of [
    ["page.html", page],
    ["package-lock.json", lock],
  ])
    for (const found of text.match(/registry\.[a-z.]+|\/(?:home|root|work|tmp|Users)\/[\w-]+/g) ?? []) {
      console.error(`${what} holds a place of the machine it was made on: ${found}`);
      process.exitCode = 1;
    }
  console.log(`${(page.length / 1024).toFixed(0)} KiB, as built`);
} finally {
  rmSync(folder, {recursive: true});
}
