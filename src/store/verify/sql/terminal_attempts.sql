-- An epoch ends once. What completed or failed did so in exactly one attempt of its epoch; what was cancelled did so in
-- one or, while it waited, in none; what waits or runs has not ended. A probe begins an epoch only after a failure; an
-- analysis may be computed anew whatever became of it.
with ended as materialized (
    select j.id,
           count(*) filter (where a.number > j.epoch_claims and a.outcome = 'completed') as completed,
           count(*) filter (where a.number > j.epoch_claims and a.outcome = 'failed') as failed,
           count(*) filter (where a.number > j.epoch_claims and a.outcome = 'cancelled') as cancelled,
           count(*) filter (where a.number <= j.epoch_claims and a.outcome = 'failed') as failed_before,
           count(*) filter (where a.number <= j.epoch_claims and a.outcome in ('completed', 'cancelled')) as ended_before
      from job j
      left join attempt a on a.job_id = j.id and a.outcome in ('completed', 'failed', 'cancelled')
     group by j.id
)
select format('job %s', j.id) as "subject!",
       format('is %s in epoch %s; attempts of this epoch: %s completed, %s failed, %s cancelled; of earlier ones: '
              '%s failed, %s completed or cancelled',
              j.state, j.epoch, e.completed, e.failed, e.cancelled, e.failed_before, e.ended_before) as "detail!"
  from job j
  join ended e on e.id = j.id
  join lane l on l.id = j.lane_id
 where (e.completed <> (j.state = 'completed')::int)
    or (e.failed <> (j.state = 'failed')::int)
    or (e.cancelled > (j.state = 'cancelled')::int)
    or (l.kind = 'probe:scenario' and (e.failed_before <> j.epoch or e.ended_before <> 0))
    or (l.kind <> 'probe:scenario' and e.failed_before + e.ended_before > j.epoch)
