-- Failed jobs of the lanes (or the one job) wait again as new epochs, and every counter follows, in one statement.
with retried as (
    update job j
       set state = 'pending', epoch = j.epoch + 1, epoch_claims = j.claims, failures = 0, losses = 0, losses_alone = 0,
           throttles = 0, throttled_ms = 0, is_suspect = false, cancel_requested = false,
           run_at = clock_timestamp(), finished_at = null,
           error_code = null, error_message = null, error_retryable = null
      from job old
     where j.lane_id = any ($1) and j.state = 'failed' and ($2::bigint is null or j.id = $2) and old.id = j.id
    returning j.lane_id, old.error_code
), counted as materialized (
    select r.lane_id, r.error_code, count(*)::int as n from retried r group by r.lane_id, r.error_code
), forgiven as (
    update lane_error e set failed = e.failed - c.n
      from counted c
     where e.lane_id = c.lane_id and e.error_code = c.error_code
)
update lane l
   set pending = l.pending + c.n, failed = l.failed - c.n, is_live = true, is_open = true, closed_at = null,
       is_paused = (select r.status = 'PAUSED' from run r where r.id = l.run_id),
       version = l.version + 1, updated_at = clock_timestamp()
  from (select c.lane_id, sum(c.n)::int as n from counted c group by c.lane_id) as c
 where l.id = c.lane_id
