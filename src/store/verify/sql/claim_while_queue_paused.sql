-- No claim commits while the queue is paused: by the pause that stands, and by those that the audit has.
with act as (
    select a.id, a.at, a.action <> 'resumeQueue' as is_pause,
           lag(a.action <> 'resumeQueue', 1, false) over (order by a.id) as was_paused
      from audit a
     where a.subject_kind = 'queue' and a.action in ('pauseQueue', 'queue.restored', 'resumeQueue')
), turn as (
    -- Pausing a paused queue keeps the first pause.
    select t.at, t.is_pause, lead(t.at, 1, 'infinity') over (order by t.id) as until
      from act t
     where t.is_pause <> t.was_paused
), pause as materialized (
    select t.at, t.until from turn t where t.is_pause
    union
    select q.paused_at, 'infinity' from queue_state q where q.is_paused
)
select distinct format('job %s', c.job_id) as "subject!",
       format('claim %s at %s, while the queue was paused', c.number, c.started_at) as "detail!"
  from pause p
  join (select a.job_id, a.number, a.started_at from any_attempt a
        union all
        select j.id, j.claims, j.claimed_at from current_job j where j.state = 'active') as c
    on c.started_at > p.at and c.started_at < p.until
