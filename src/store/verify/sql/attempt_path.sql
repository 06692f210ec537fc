-- The outcomes lead to the state that the job is in: nothing follows an end within its epoch, the last attempt says what
-- the job is, and a probe's earlier epoch ended with a failure.
select format('job %s', j.id) as "subject!",
       format('attempt %s %s, but %s claims follow in its epoch', a.number, a.outcome, j.claims - a.number) as "detail!"
  from attempt a
  join job j on j.id = a.job_id
 where a.number > j.epoch_claims and a.number < j.claims and a.outcome in ('completed', 'failed', 'cancelled')
union all
select format('job %s', j.id), format('is %s, but its last attempt, %s, %s', j.state, a.number, a.outcome)
  from job j
  join attempt a on a.job_id = j.id and a.number = j.claims
 where j.claims > j.epoch_claims and j.state <> 'active'
   and case j.state
           when 'completed' then a.outcome <> 'completed'
           when 'failed' then a.outcome <> 'failed'
           when 'cancelled' then a.outcome in ('completed', 'failed')
           else a.outcome in ('completed', 'failed', 'cancelled')
       end
union all
select format('job %s', j.id), format('began epoch %s after attempt %s, which %s', j.epoch, a.number, a.outcome)
  from job j
  join lane l on l.id = j.lane_id
  join attempt a on a.job_id = j.id and a.number = j.epoch_claims
 where l.kind = 'probe:scenario' and j.epoch > 0 and a.outcome <> 'failed'
union all
select format('job %s', j.id), format('epoch %s began after %s claims of %s', j.epoch, j.epoch_claims, j.claims)
  from job j
 where j.epoch < 0 or j.epoch_claims < 0 or j.epoch_claims > j.claims or j.epoch = 0 and j.epoch_claims <> 0
