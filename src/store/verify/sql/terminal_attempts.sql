-- An epoch ends once. What completed or failed did so in exactly one attempt of its epoch; what was given up while it waited
-- did so in its dead letter; what was cancelled did so in one attempt or, while it waited, in none; what waits or runs has
-- not ended. A probe begins an epoch only after a failure; an analysis may be computed anew whatever became of it.
with ended as materialized (
    select j.id,
           count(*) filter (where e.is_now and e.outcome = 'completed') as completed,
           count(*) filter (where e.is_now and e.outcome = 'failed') as failed,
           count(*) filter (where e.is_now and e.outcome = 'cancelled') as cancelled,
           count(*) filter (where not e.is_now and e.outcome = 'failed') as failed_before,
           count(*) filter (where not e.is_now and e.outcome in ('completed', 'cancelled')) as ended_before
      from any_job j
      left join (
        select a.job_id, a.number > o.epoch_claims as is_now, a.outcome
          from any_attempt a join any_job o on o.id = a.job_id
         where a.outcome in ('completed', 'failed', 'cancelled')
        union all
        select d.job_id, d.epoch = o.epoch, 'failed'
          from dead_letter d join any_job o on o.id = d.job_id
         where d.original_state = 'pending'
      ) as e on e.job_id = j.id
     group by j.id
)
select format('job %s', j.id) as "subject!",
       format('is %s in epoch %s; ends of this epoch: %s completed, %s failed, %s cancelled; of earlier ones: '
              '%s failed, %s completed or cancelled',
              j.state, j.epoch, e.completed, e.failed, e.cancelled, e.failed_before, e.ended_before) as "detail!"
  from any_job j
  join ended e on e.id = j.id
  join lane l on l.id = j.lane_id
 where (e.completed <> (j.state = 'completed')::int)
    or (e.failed <> (j.state = 'failed')::int)
    or (e.cancelled > (j.state = 'cancelled')::int)
    or (l.kind = 'probe:scenario' and (e.failed_before <> j.epoch or e.ended_before <> 0))
    or (l.kind <> 'probe:scenario' and e.failed_before + e.ended_before > j.epoch)
