-- A job's failures, losses and throttles are the attempts of its epoch. A loss that makes the job give up is recorded as
-- its failure.
with counted as materialized (
    select j.id,
           count(*) filter (where a.outcome in ('failed', 'retried')) as failures,
           count(*) filter (where a.outcome = 'lost') as losses,
           count(*) filter (where a.outcome = 'throttled') as throttles
      from job j
      left join attempt a on a.job_id = j.id and a.number > j.epoch_claims
     group by j.id
)
select format('job %s', j.id) as "subject!",
       format('counts %s failures, %s losses (%s alone), %s throttles; attempts of its epoch: %s, %s, %s',
              j.failures, j.losses, j.losses_alone, j.throttles, c.failures, c.losses, c.throttles) as "detail!"
  from job j
  join counted c on c.id = j.id
 where j.failures + j.losses <> c.failures + c.losses
    or j.losses - c.losses not between 0 and (j.state = 'failed')::int
    or j.losses_alone > j.losses
    or j.throttles <> c.throttles
