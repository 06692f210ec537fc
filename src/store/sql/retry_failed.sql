-- Failed jobs of the lanes (or the one job) wait again as new epochs.
select retry_jobs(array(select j.id from job j
                         where j.lane_id = any ($1) and j.state = 'failed' and ($2::bigint is null or j.id = $2)),
                  null, 'retry')
