// What the programs have in common: they do what standard input asks for, and say on standard output what came of it, a line of JSON each.
//
//   {"does": "sends", "room": "!…", …}   ▶   {"value": …}   or   {"error": "…"}
//
// To be imported first: the libraries' own messages go to standard error, where they are in nobody's way.

import { Console } from "node:console";
import { createInterface } from "node:readline";

globalThis.console = new Console(process.stderr, process.stderr);

/** Serves until standard input ends. */
export async function serve(actions) {
  for await (const line of createInterface({ input: process.stdin })) {
    const { does, ...given } = JSON.parse(line);
    process.stdout.write(`${JSON.stringify(await answer(actions[does], given))}\n`);
  }
  process.exit();
}

async function answer(action, given) {
  try {
    return { value: (await action(given)) ?? null };
  } catch (error) {
    return { error: `${error?.stack ?? error}` };
  }
}

/** Waits until something is there; what it is. */
export async function until(what, seconds = 120) {
  for (const end = Date.now() + 1000 * seconds; Date.now() < end; ) {
    const found = await what();
    if (found) return found;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`it does not come: ${what}`);
}

/** Whether a value has all that another one has. */
export function has(value, wanted) {
  if (typeof wanted !== "object" || wanted === null) return value === wanted;
  return Object.entries(wanted).every(([name, inner]) => has(value?.[name], inner));
}
