-- A run's lanes and jobs appear with it: a lane of probes for each model, in their order, all of the same size.
select format('run %s', r.id) as "subject!",
       format('models %s, lanes %s, the smallest of %s jobs, the largest of %s',
              r.models, l.models, l.smallest, l.largest) as "detail!"
  from run r
  left join (select l.run_id, array_agg(l.model order by l.position) as models, min(l.total) as smallest,
                    max(l.total) as largest
               from lane l where l.kind = 'probe:scenario' group by l.run_id) as l on l.run_id = r.id
 where l.models is distinct from r.models or l.smallest is distinct from l.largest
