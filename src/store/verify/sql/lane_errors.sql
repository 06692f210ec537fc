-- Failed jobs by error code.
select format('lane %s', coalesce(e.lane_id, f.lane_id)) as "subject!",
       format('failed with %s: the counter says %s, the jobs say %s',
              coalesce(e.error_code, f.error_code), coalesce(e.failed, 0), coalesce(f.failed, 0)) as "detail!"
  from lane_error e
  full join (select j.lane_id, j.error_code, count(*) as failed from job j where j.state = 'failed'
              group by j.lane_id, j.error_code) as f
    on f.lane_id = e.lane_id and f.error_code = e.error_code
 where coalesce(e.failed, 0) <> coalesce(f.failed, 0)
