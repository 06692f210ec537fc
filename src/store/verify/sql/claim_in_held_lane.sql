-- Nothing is claimed in a lane that is held.
select format('job %s', c.job_id) as "subject!",
       format('claim %s at %s, though lane %s was held at %s', c.number, c.started_at, l.id, l.held_at) as "detail!"
  from lane l
  join (select j.lane_id, a.job_id, a.number, a.started_at from any_attempt a join any_job j on j.id = a.job_id
        union all
        select j.lane_id, j.id, j.claims, j.claimed_at from current_job j where j.state = 'active') as c on c.lane_id = l.id
 where c.started_at > l.held_at
