-- Attempts of a job, the claim in progress included, follow each other.
with span as (
    select a.job_id, a.number, a.started_at, a.ended_at from any_attempt a
    union all
    select j.id, j.claims, j.claimed_at, null from current_job j where j.state = 'active'
), pair as (
    select s.*, lag(s.number) over w as before, lag(s.ended_at) over w as before_ended_at
      from span s
    window w as (partition by s.job_id order by s.number)
)
select format('job %s', p.job_id) as "subject!",
       case when p.ended_at < p.started_at
                then format('attempt %s ended at %s, before it started at %s', p.number, p.ended_at, p.started_at)
            else format('attempt %s started at %s, before attempt %s ended at %s',
                        p.number, p.started_at, p.before, p.before_ended_at) end as "detail!"
  from pair p
 where p.ended_at < p.started_at or p.started_at < p.before_ended_at
