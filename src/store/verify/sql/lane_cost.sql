-- What a lane has cost is the sum over its transcripts and over the attempts that did not complete, while all are there.
select format('lane %s', l.id) as "subject!",
       format('the lane cost %s US dollars, its transcripts %s, its other attempts %s',
              coalesce(l.cost_usd, 0), coalesce(t.cost_usd, 0), coalesce(a.cost_usd, 0)) as "detail!"
  from lane l
  join run r on r.id = l.run_id and r.deleted_at is null
  left join (select t.lane_id, sum(t.cost_usd) as cost_usd from any_transcript t group by t.lane_id) as t on t.lane_id = l.id
  left join (select j.lane_id, sum(a.cost_usd) as cost_usd
               from any_attempt a join any_job j on j.id = a.job_id
              where a.cost_usd is not null group by j.lane_id) as a on a.lane_id = l.id
 where l.purged_completed + l.purged_failed + l.purged_cancelled = 0
   and coalesce(l.cost_usd, 0) <> coalesce(t.cost_usd, 0) + coalesce(a.cost_usd, 0)
