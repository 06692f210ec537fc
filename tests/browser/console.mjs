// GraphiQL in a real browser: it loads from this server alone, takes a token, and runs a query.
// Usage: RUNLANE_TOKEN=<token> node console.mjs <url of /graphql> [folder for screenshots]
//
// The browser is $CHROMIUM, else a Chromium or Chrome on PATH, else the one inside the npm package @sparticuz/chromium
// (Linux x86-64), which brings the libraries that a small system lacks.
import assert from "node:assert/strict";
import { spawnSync } from "node:child_process";
import { accessSync, constants, mkdirSync, mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { delimiter, dirname, join } from "node:path";
import { fileURLToPath } from "node:url";

const [url, screenshots] = process.argv.slice(2);
const token = process.env.RUNLANE_TOKEN;
if (!url || !token) {
  console.error("usage: RUNLANE_TOKEN=TOKEN node console.mjs URL [FOLDER]");
  process.exit(2);
}

const NAMES = ["chromium", "chromium-browser", "google-chrome", "google-chrome-stable"];
const FLAGS = [
  "--headless",
  "--no-sandbox",
  "--disable-gpu",
  "--disable-quic",
  "--no-first-run",
  "--disable-background-networking",
  "--disable-component-update",
  "--disable-sync",
];

const runs = (path) => {
  try {
    accessSync(path, constants.X_OK);
    return true;
  } catch {
    return false;
  }
};

/** The program to start, and where its libraries are unless the system has them. */
async function findBrowser(scratch) {
  if (process.env.CHROMIUM) return { path: process.env.CHROMIUM, libraries: null };
  for (const folder of (process.env.PATH ?? "").split(delimiter)) {
    const path = NAMES.map((name) => join(folder, name)).find(runs);
    if (path) return { path, libraries: null };
  }
  // The package unpacks its browser into the temporary folder, which is ours and goes away again.
  process.env.TMPDIR = scratch;
  const { default: bundled, inflate } = await import("@sparticuz/chromium");
  const path = await bundled.executablePath();
  const lacksLibraries = spawnSync("ldd", [path], { encoding: "utf8" }).stdout?.includes("not found") ?? true;
  if (!lacksLibraries) return { path, libraries: null };
  const bin = join(dirname(fileURLToPath(import.meta.resolve("@sparticuz/chromium"))), "..", "bin");
  return { path, libraries: join(await inflate(join(bin, "al2023.tar.br")), "lib") };
}

async function launch(scratch) {
  const { chromium } = await import("playwright-core");
  const { path, libraries } = await findBrowser(scratch);
  console.log(`browser: ${path}`);
  const env = libraries === null ? process.env : { ...process.env, LD_LIBRARY_PATH: libraries };
  return chromium.launch({ executablePath: path, args: FLAGS, env });
}

const origin = new URL(url).origin;

/** A page that notes what it must not do: talk to other hosts, break its policy, throw. */
async function open(browser, address) {
  const context = await browser.newContext({ viewport: { width: 1280, height: 800 } });
  const page = await context.newPage();
  const notes = { foreign: [], problems: [] };
  context.on("request", (request) => {
    const target = new URL(request.url());
    if (!["data:", "blob:"].includes(target.protocol) && target.origin !== origin) notes.foreign.push(request.url());
  });
  page.on("pageerror", (error) => notes.problems.push(String(error)));
  page.on("console", (message) => {
    // A refused request is logged by the browser itself; the tests below look at it.
    if (message.type() === "error" && !message.text().includes("status of 401")) notes.problems.push(message.text());
  });
  await page.goto(address);
  await page.locator(".graphiql-query-editor .view-lines").waitFor();
  return { context, page, notes };
}

const shoot = async (page, name) => {
  if (screenshots) await page.screenshot({ path: join(screenshots, `${name}.png`) });
};

/** Replaces what the focused editor holds; it closes brackets by itself, so what follows the text is deleted. */
async function replaceText(page, text) {
  await page.keyboard.press("Control+A");
  await page.keyboard.insertText(text);
  await page.keyboard.press("Control+Shift+End");
  await page.keyboard.press("Delete");
}

/** Replaces the query by one called `Test`, runs it, and waits until the result contains `expected`. */
async function runQuery(page, selection, expected) {
  await page.locator(".graphiql-query-editor .view-lines").click();
  await replaceText(page, `query Test ${selection}`);
  // GraphiQL reads the operation's name a little later, and would send the old one; then the tab has the new name.
  await page.locator(".graphiql-tab").getByText("Test", { exact: true }).waitFor();
  await page.locator(".graphiql-execute-button").click();
  // The editor renders blanks as no-break spaces.
  await page.waitForFunction(
    (text) =>
      document.querySelector(".result-window")?.textContent?.replaceAll("\u00a0", " ").includes(text) ?? false,
    expected,
  );
}

const tests = {
  async "a token in the address is taken and removed, and a query shows its result"(browser) {
    const { context, page, notes } = await open(browser, `${url}#token=${token}`);
    assert.equal(page.url(), url, "the token is gone from the address bar");
    assert.equal(await page.inputValue("#token"), token);
    assert.equal(await page.getAttribute("#token", "type"), "password");
    await shoot(page, "start");
    await runQuery(page, "{ hello whoami }", '"whoami": "ada user"');
    await shoot(page, "result");
    await page.reload();
    assert.equal(await page.inputValue("#token"), token, "kept for the tab");
    assert.ok(!(await page.evaluate(() => JSON.stringify(localStorage))).includes(token), "kept nowhere else");
    return { context, notes };
  },

  async "the schema is shown once a token is typed in"(browser) {
    const { context, page, notes } = await open(browser, url);
    await page.fill("#token", `Bearer ${token} `);
    assert.equal(await page.inputValue("#token"), token);
    await page.getByRole("button", { name: "Show Documentation Explorer" }).click();
    await page.locator(".graphiql-doc-explorer").getByText("Query", { exact: true }).click();
    await page.locator(".graphiql-doc-explorer").getByText("whoami").waitFor();
    await shoot(page, "schema");
    return { context, notes };
  },

  async "without a token it is said what to do"(browser) {
    const { context, page, notes } = await open(browser, url);
    await page.getByText("runlane token", { exact: false }).first().waitFor();
    await runQuery(page, "{ hello }", "a token is missing");
    await shoot(page, "no-token");
    return { context, notes };
  },

  async "the headers editor may bring a token of its own"(browser) {
    const { context, page, notes } = await open(browser, url);
    await page.getByRole("button", { name: "Headers", exact: true }).click();
    await page.locator(".graphiql-editor-tool .view-lines:visible").click();
    await replaceText(page, JSON.stringify({ Authorization: `Bearer ${token}` }));
    await runQuery(page, "{ whoami }", '"whoami": "ada user"');
    return { context, notes };
  },
};

const scratch = mkdtempSync(join(tmpdir(), "runlane-browser-"));
if (screenshots) mkdirSync(screenshots, { recursive: true });
let failed = 0;
try {
  let browser;
  try {
    browser = await launch(scratch);
  } catch (error) {
    console.error(`no browser could be started: install Chromium or set CHROMIUM (${String(error).split("\n")[0]})`);
    process.exit(3);
  }
  for (const [name, test] of Object.entries(tests)) {
    try {
      const { context, notes } = await test(browser);
      assert.deepEqual(notes.foreign, [], "no request to another host");
      assert.deepEqual(notes.problems, [], "no error in the page");
      await context.close();
      console.log(`ok     ${name}`);
    } catch (error) {
      failed += 1;
      console.log(`FAILED ${name}\n${error.stack ?? error}`);
      const page = browser.contexts().at(-1)?.pages().at(-1);
      if (page) await shoot(page, `failed-${failed}`);
    }
  }
  await browser.close();
} finally {
  rmSync(scratch, { recursive: true, force: true });
}
console.log(`${failed} of ${Object.keys(tests).length} browser tests failed`);
process.exit(failed === 0 ? 0 : 1);
