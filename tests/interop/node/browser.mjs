// Chromium with a page of another origin in it, in which matrix-js-sdk speaks with the proxy.

import { serve } from "./lines.mjs";
import { createServer } from "node:http";
import esbuild from "esbuild";
import puppeteer from "puppeteer-core";

const SECONDS = 1000;
let browser, page, origin;

/** Serves the page with all that it needs, at an origin of its own. */
async function serves() {
  const built = await esbuild.build({
    entryPoints: [new URL("page.mjs", import.meta.url).pathname],
    bundle: true,
    format: "iife",
    target: "chrome120",
    write: false,
    logLevel: "warning",
    // Encryption stays out of this page: its binary is not to be served here.
    external: ["@matrix-org/matrix-sdk-crypto-wasm"],
    define: { global: "globalThis" },
  });
  const files = {
    "/": ["text/html", "<!doctype html><meta charset=utf-8><title>chat</title><body><script src=chat.js></script>"],
    "/chat.js": ["text/javascript", built.outputFiles[0].text],
  };
  const server = createServer((request, response) => {
    const [type, text] = files[request.url] ?? ["text/plain", ""];
    response.writeHead(text ? 200 : 404, { "Content-Type": `${type}; charset=utf-8` }).end(text);
  });
  await new Promise((resolve) => server.listen(0, "127.0.0.1", resolve));
  return `http://127.0.0.1:${server.address().port}`;
}

await serve({
  async opens({ profile }) {
    origin = await serves();
    browser = await puppeteer.launch({
      executablePath: "/usr/bin/chromium",
      userDataDir: profile,
      // A container has no sandbox of its own to give, and nothing is opened here but what this test serves.
      args: ["--no-sandbox", "--disable-dev-shm-usage", "--disable-gpu"],
      protocolTimeout: 170 * SECONDS,
    });
    page = await browser.newPage();
    page.on("console", (message) => console.log(message.type(), message.text()));
    page.on("pageerror", (error) => console.log(error));
    await page.goto(origin);
    return { origin, browser: await browser.version() };
  },

  asks: ({ which, given }) => page.evaluate((which, given) => window.chat[which](given), which, given),

  async shows({ text }) {
    await page.waitForFunction((text) => document.body.innerText.includes(text), { timeout: 120 * SECONDS }, text);
  },

  /** What a person sees at an address, and a picture of it as on a telephone where one is wanted. */
  async looks({ url, picture, dark }) {
    const other = await browser.newPage();
    await other.setViewport({ width: picture ? 420 : 1000, height: 760, deviceScaleFactor: 2 });
    await other.emulateMediaFeatures([{ name: "prefers-color-scheme", value: dark ? "dark" : "light" }]);
    const requests = [];
    other.on("request", (request) => requests.push(request.url()));
    await other.goto(url);
    if (picture) await other.screenshot({ path: picture });
    const text = await other.evaluate(() => document.body.innerText);
    const wide = await other.evaluate(() => document.documentElement.scrollWidth > window.innerWidth);
    await other.close();
    return { text, requests, wide };
  },

  async closes() {
    await browser.close();
  },
});
