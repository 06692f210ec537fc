// pg-boss: two workers with batches of 1,000, the next at once while they are full; notifications for single jobs.

import { PgBoss } from "pg-boss";
import { phase, pieces, ran, serve, url } from "./serve.mjs";

const QUEUE = "bench";
const single = phase === "pick-up";
const boss = new PgBoss({
  connectionString: url,
  max: 10,
  schedule: false,
  supervise: false,
  useListenNotify: single,
});
boss.on("error", (error) => {
  throw error;
});
await boss.start();
await boss.createQueue(QUEUE, { notify: single });

await serve({
  async insert(ids) {
    for (const piece of pieces(ids, 10_000))
      await boss.insert(
        QUEUE,
        piece.map((id) => ({ data: { id } })),
      );
  },
  work() {
    const options = single
      ? { batchSize: 1 }
      : { batchSize: 1_000, burstWhenBatchFull: true, localConcurrency: 2 };
    return boss.work(QUEUE, { ...options, pollingIntervalSeconds: 0.5 }, async (jobs) => {
      for (const job of jobs) ran(job.data.id);
    });
  },
  send: (id) => boss.send(QUEUE, { id }),
});
