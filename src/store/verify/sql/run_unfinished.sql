-- $1: whether everything should have ended.
select format('run %s', r.id) as "subject!", format('is %s', r.status) as "detail!"
  from run r
 where $1::bool and r.status in ('PENDING', 'RUNNING', 'PAUSED')
