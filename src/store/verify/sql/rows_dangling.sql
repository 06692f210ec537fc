-- Rows that no foreign key holds together belong together all the same.
select format('job %s', j.id) as "subject!", format('its lane %s does not exist', j.lane_id) as "detail!"
  from any_job j where not exists (select from lane l where l.id = j.lane_id)
union all
select format('job %s', j.id), format('its scenario %s does not exist in the definition of its run', j.scenario_id)
  from any_job j
  join lane l on l.id = j.lane_id
  join run r on r.id = l.run_id
  left join scenario s on s.id = j.scenario_id and s.definition_id = r.definition_id
 where l.kind = 'probe:scenario' and s.id is null
union all
select format('job %s', j.id), format('is of kind %s and has scenario %s', l.kind, j.scenario_id)
  from any_job j join lane l on l.id = j.lane_id
 where l.kind <> 'probe:scenario' and j.scenario_id is not null
union all
select format('attempt %s of job %s', a.number, a.job_id), 'the job does not exist'
  from any_attempt a where not exists (select from any_job j where j.id = a.job_id)
union all
select format('transcript of job %s', t.job_id), 'the job does not exist'
  from any_transcript t where not exists (select from any_job j where j.id = t.job_id)
union all
select format('%s of run %s', a.kind, a.run_id), format('its job %s does not exist', a.job_id)
  from analysis a
  -- The jobs of a deleted run are removed before it, in steps.
  join run r on r.id = a.run_id and r.deleted_at is null
 where not exists (select from any_job j where j.id = a.job_id)
