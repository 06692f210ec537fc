// BullMQ on Redis: 100 at once.

import { Queue, Worker } from "bullmq";
import { Redis } from "ioredis";
import { phase, pieces, ran, serve } from "./serve.mjs";

const NAME = "bench";
const connect = () => new Redis({ path: process.env.REDIS_SOCKET, maxRetriesPerRequest: null });
const queue = new Queue(NAME, { connection: connect() });
const worker = new Worker(NAME, async (job) => ran(job.data.id), {
  autorun: false,
  concurrency: phase === "pick-up" ? 1 : 100,
  connection: connect(),
});
let completed = 0;
let look = () => {};
worker.on("completed", () => {
  completed++;
  look();
});
worker.on("error", (error) => {
  throw error;
});
await worker.waitUntilReady();

await serve({
  async insert(ids) {
    for (const piece of pieces(ids, 1_000))
      await queue.addBulk(piece.map((id) => ({ name: NAME, data: { id } })));
  },
  async work() {
    worker.run();
  },
  send: (id) => queue.add(NAME, { id }),
  async completed(jobs) {
    await new Promise((resolve) => {
      look = () => completed >= jobs && resolve();
      look();
    });
    return queue.getCompletedCount();
  },
});
