-- An analysis's result is that of its job; while the job computes it anew, the last one stands.
select format('job %s', a.job_id) as "subject!",
       case when l.run_id <> a.run_id or l.kind <> a.kind
                then format('%s of run %s is filed as %s of run %s', l.kind, l.run_id, a.kind, a.run_id)
            else format('completed at %s, but its result is of %s', j.finished_at, a.computed_at) end as "detail!"
  from analysis a
  join job j on j.id = a.job_id
  join lane l on l.id = j.lane_id
 where l.run_id <> a.run_id or l.kind <> a.kind or j.state = 'completed' and a.computed_at <> j.finished_at
