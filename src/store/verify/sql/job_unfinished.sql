-- $1: whether everything should have ended. Waiting jobs of a closed lane are cancelled.
select format('job %s', j.id) as "subject!",
       format('is %s in run %s (%s)', j.state, r.id, r.status) as "detail!"
  from current_job j
  join lane l on l.id = j.lane_id
  join run r on r.id = l.run_id
 where $1::bool and (j.state = 'active' or j.state = 'pending' and l.is_open)
