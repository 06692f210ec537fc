// graphile-worker, with the settings of its own performance test: a local queue of 500, 24 at once, completions in batches.

import { Logger, makeWorkerUtils, run } from "graphile-worker";
import pg from "pg";
import { ran, serve, url } from "./serve.mjs";

const CONCURRENCY = 24;
const logger = new Logger(() => () => {});
const pgPool = new pg.Pool({ connectionString: url, max: CONCURRENCY + 2 });
const fail = (error) => {
  throw error;
};
pgPool.on("error", fail);
pgPool.on("connect", (client) => client.on("error", fail));
const preset = {
  worker: {
    completeJobBatchDelay: 0,
    concurrentJobs: CONCURRENCY,
    failJobBatchDelay: 0,
    localQueue: { size: 500, refetchDelay: { durationMs: 10 } },
    logger,
    maxPoolSize: CONCURRENCY + 1,
  },
};
process.env.NO_LOG_SUCCESS = "1";
const utils = await makeWorkerUtils({ logger, pgPool, preset });
await utils.migrate();

await serve({
  // One statement, as in that test.
  async insert(ids) {
    const jobs = ids.map((id) => ({ identifier: "bench", payload: { id } }));
    const rows = "select json_populate_recordset(null::graphile_worker.job_spec, $1::json)";
    await pgPool.query(`select 1 from graphile_worker.add_jobs(array(${rows}))`, [JSON.stringify(jobs)]);
  },
  work: () =>
    run({ logger, noHandleSignals: true, pgPool, preset, taskList: { bench: ({ id }) => ran(id) } }),
  send: (id) => utils.addJob("bench", { id }),
});
