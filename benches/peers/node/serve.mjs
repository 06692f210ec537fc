// What the Node.js peers share: the protocol with the bench and the ledger of what their handlers ran. As ../rust/src/lib.rs.

import { createInterface } from "node:readline";

export const phase = process.argv[2];
export const url = process.env.DATABASE_URL;

const WARM_UP = 5;
const done = new Set();
let wanted = 0;
let reached = () => {};

/** Resolves with the time at which the last of so many jobs began. */
const begun = (jobs) =>
  new Promise((resolve) => {
    wanted = jobs;
    reached = resolve;
  });

/** Notes that a handler runs; ends the program if it has run for this job before. */
export function ran(id) {
  const now = performance.now();
  if (done.has(id)) {
    console.error(`job ${id} ran twice`);
    process.exit(1);
  }
  done.add(id);
  if (done.size === wanted) reached(now);
}

const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
const say = (value) => process.stdout.write(`${JSON.stringify(value)}\n`);

/** From just before the call that sends a job to the first line of its handler, in microseconds. */
async function pickUp(peer, from, to) {
  const times = [];
  for (let id = from; id < to; id++) {
    await sleep(15 + ((id * 7.919) % 15));
    const ran = begun(id + 1);
    const sent = performance.now();
    await peer.send(id);
    times.push(Math.round(((await ran) - sent) * 1000));
  }
  return times;
}

/**
 * Runs the phase of a peer that can `insert(ids)`, `work()` and `send(id)`, and perhaps say how many it has
 * `completed()` where the bench cannot look.
 */
export async function serve(peer) {
  const jobs = Number(process.env.JOBS);
  const lines = createInterface({ input: process.stdin })[Symbol.asyncIterator]();
  if (phase === "pick-up") {
    await peer.work();
    await pickUp(peer, 0, WARM_UP);
  }
  say({ ready: true });
  await lines.next();
  const answer = { jobs };
  if (phase === "insert") {
    await peer.insert(Array.from({ length: jobs }, (_, id) => id));
  } else if (phase === "process") {
    const all = begun(jobs);
    await peer.work();
    await all;
    if (peer.completed) answer.jobs = await peer.completed(jobs);
  } else {
    answer.microseconds = await pickUp(peer, WARM_UP, WARM_UP + jobs);
  }
  say(answer);
  const { done: ended, value } = await lines.next();
  if (!ended) throw new Error(`${value} instead of an end`);
  process.exit(0);
}

/** `ids` in pieces of `size`. */
export function* pieces(ids, size) {
  for (let i = 0; i < ids.length; i += size) yield ids.slice(i, i + size);
}
