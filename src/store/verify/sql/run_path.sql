-- $1, $2: the transitions that a run can make, from and to. The audit has each that was made: they are among these, they
-- join up, they begin at PENDING, and they lead to the status that the run is in.
with step as materialized (
    select a.run_id, a.id, a.before ->> 'status' as was, a.after ->> 'status' as became,
           lag(a.after ->> 'status', 1, 'PENDING') over w as left_at,
           lead(a.id) over w is null as is_last
      from audit a
     where a.subject_kind = 'run' and a.action = 'run.' || lower(a.after ->> 'status')
    window w as (partition by a.run_id order by a.id)
)
select format('run %s', s.run_id) as "subject!",
       format('went from %s to %s at audit entry %s, which no run does', s.was, s.became, s.id) as "detail!"
  from step s
 where not exists (select from unnest($1::text[], $2::text[]) as t (was, became)
                    where t.was = s.was and t.became = s.became)
union all
select format('run %s', s.run_id), format('left %s at audit entry %s, but was %s', s.was, s.id, s.left_at)
  from step s
 where s.was is distinct from s.left_at
union all
select format('run %s', r.id), format('is %s, but its last audited status is %s', r.status, coalesce(s.became, 'PENDING'))
  from run r
  left join step s on s.run_id = r.id and s.is_last
 where r.status::text <> coalesce(s.became, 'PENDING')
