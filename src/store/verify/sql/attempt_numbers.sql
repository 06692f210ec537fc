-- Claims are numbered 1, 2, 3 …, and each that has ended is on record: the claim in progress is the only one without.
select format('job %s', j.id) as "subject!",
       format('is %s after %s claims; attempts on record: %s, numbered %s to %s',
              j.state, j.claims, count(a.number), coalesce(min(a.number), 0), coalesce(max(a.number), 0)) as "detail!"
  from job j
  left join attempt a on a.job_id = j.id
 group by j.id
having count(a.number) <> j.claims - (j.state = 'active')::int
    or coalesce(max(a.number), 0) <> j.claims - (j.state = 'active')::int
