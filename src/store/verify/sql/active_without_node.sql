-- $1: milliseconds after which somebody should have taken the jobs of a lease that ran out. What is active is held by a
-- node; when none is left that could rescue them, they wait and nothing is wrong. Nobody judges leases before the time in
-- lease_watch.
select format('job %s', j.id) as "subject!",
       case when n.id is null then format('is active on node %s, which is not registered', j.node_id)
            else format('is active on node %s, whose lease ran out at %s', n.id, n.lease_until) end as "detail!"
  from current_job j
  left join node n on n.id = j.node_id
 where j.state = 'active'
   and (n.id is null
        or greatest(n.lease_until, pg_postmaster_start_time(),
                    coalesce((select max(w.since) from lease_watch w), now())) < now() - $1::bigint * interval '1 millisecond'
           and exists (select from node o
                        where o.lease_until > now() and o.executes
                          and o.started_at < now() - $1::bigint * interval '1 millisecond'))
