-- What a lane has cost is the sum over its transcripts.
select format('lane %s', l.id) as "subject!",
       format('the lane cost %s US dollars, its transcripts %s', coalesce(l.cost_usd, 0), coalesce(t.cost_usd, 0)) as "detail!"
  from lane l
  left join (select t.lane_id, sum(t.cost_usd) as cost_usd from transcript t group by t.lane_id) as t on t.lane_id = l.id
 where coalesce(l.cost_usd, 0) <> coalesce(t.cost_usd, 0)
