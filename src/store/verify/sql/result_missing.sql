-- What completed has its result.
select format('job %s', j.id) as "subject!", format('completed, but has no %s',
       case l.kind when 'probe:scenario' then 'transcript' else 'result' end) as "detail!"
  from any_job j
  join lane l on l.id = j.lane_id
  left join any_transcript t on t.job_id = j.id
  left join analysis a on a.job_id = j.id
 where j.state = 'completed' and case l.kind when 'probe:scenario' then t.job_id is null else a.job_id is null end
