-- $1: the ids of runs that somebody was told have started.
select format('run %s', e.id) as "subject!", 'its id was given out, but there is no such run' as "detail!"
  from unnest($1::uuid[]) as e (id)
 where not exists (select from run r where r.id = e.id)
