-- What completed has its result.
select format('job %s', j.id) as "subject!", format('completed, but has no %s',
       case l.kind when 'probe:scenario' then 'transcript' else 'result' end) as "detail!"
  from job j
  join lane l on l.id = j.lane_id
 where j.state = 'completed'
   and case l.kind
           when 'probe:scenario' then not exists (select from transcript t where t.job_id = j.id)
           else not exists (select from analysis a where a.job_id = j.id)
       end
