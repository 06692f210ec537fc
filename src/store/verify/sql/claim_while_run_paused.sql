-- No claim commits while its run is paused: by the pause that stands, and by those that the audit has.
with status as (
    select a.run_id, a.at, a.after ->> 'status' as became,
           lead(a.at, 1, 'infinity') over (partition by a.run_id order by a.id) as until
      from audit a
     where a.subject_kind = 'run' and a.action = 'run.' || lower(a.after ->> 'status')
), pause as materialized (
    select s.run_id, s.at, s.until from status s where s.became = 'PAUSED'
    union
    select r.id, r.paused_at, 'infinity' from run r where r.status = 'PAUSED'
)
select distinct format('job %s', c.job_id) as "subject!",
       format('claim %s at %s, while run %s was paused', c.number, c.started_at, c.run_id) as "detail!"
  from pause p
  join (select l.run_id, a.job_id, a.number, a.started_at
          from any_attempt a join any_job j on j.id = a.job_id join lane l on l.id = j.lane_id
        union all
        select l.run_id, j.id, j.claims, j.claimed_at from current_job j join lane l on l.id = j.lane_id
         where j.state = 'active') as c
    on c.run_id = p.run_id and c.started_at > p.at and c.started_at < p.until
