-- A transcript belongs to a completed probe, and the attempt that completed it wrote it: in one transaction, so at one time.
select format('job %s', t.job_id) as "subject!",
       case when j.state <> 'completed' then format('has a transcript, but is %s', j.state)
            when t.lane_id <> j.lane_id or t.scenario_id is distinct from j.scenario_id
                then 'has a transcript of another lane or scenario'
            else format('completed at %s, but its transcript is of %s and its last attempt ended at %s',
                        j.finished_at, t.created_at, a.ended_at) end as "detail!"
  from transcript t
  join job j on j.id = t.job_id
  left join attempt a on a.job_id = j.id and a.number = j.claims
 where j.state <> 'completed' or t.lane_id <> j.lane_id or t.scenario_id is distinct from j.scenario_id
    or t.created_at <> j.finished_at or a.ended_at <> j.finished_at
