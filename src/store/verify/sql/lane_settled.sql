-- A closed lane that counts as settled has no waiting rows left to be rewritten; an open one has nothing to settle.
select format('lane %s', l.id) as "subject!",
       case when l.is_open then 'is open, but waits to be settled' else 'is settled, but has rows that wait' end as "detail!"
  from lane l
 where l.is_open and not l.is_settled
    or not l.is_open and l.is_settled and exists (select from waiting_jobs(l, 1))
