-- What gave up has its dead letter, and nothing else has: one for each epoch that failed, and an open one only for the
-- epoch that the job is in.
select format('job %s', j.id) as "subject!",
       format('failed in epoch %s, but has no dead letter of it', j.epoch) as "detail!"
  from any_job j
 where j.state = 'failed'
   and not exists (select from dead_letter d where d.job_id = j.id and d.epoch = j.epoch)
union all
select format('dead letter %s', d.id),
       format('is %s for epoch %s of job %s, which is %s in epoch %s', d.status, d.epoch, d.job_id, j.state, j.epoch)
  from dead_letter d
  join any_job j on j.id = d.job_id
 where d.epoch > j.epoch
    or d.epoch = j.epoch and j.state <> 'failed'
    or d.epoch < j.epoch and d.status = 'pending'
